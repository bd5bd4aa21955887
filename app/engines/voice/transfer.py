"""A voice given to a recording: heard once for what is said and how, then made anew, 10 s at a time.

Promises the length of the input to the sample at 44.1 kHz, as many channels (of at most two), its loudness
from moment to moment, and a tune that is moved as a whole and never bent. A cancel gets through every few
seconds. What is held for the longest recording: its samples at 16 kHz (38 MB), what is said in it (31 MB) and
one piece; then the result's samples, to measure how alike it is to the voice. Two channels are made from
their middle, and each is as loud as it was: what was on one side stays there, but a room around the voice
becomes narrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engines.base import EngineError, Findings, Progress, ignore_progress
from app.engines.sources.decoding import channels_of, decode_blocks
from app.engines.voice import likeness, world
from app.engines.voice.alike import alike, hear_speaker
from app.engines.voice.likeness import Steps
from app.engines.voice.piece import Moved, make_piece
from app.engines.voice.seams import Seams
from app.engines.voice.world import FRAME_S, FRAMES_PER_S, HEARD_RATE, MADE_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_S = 600.0
MOST_BYTES = 70_000_000
"""It travels in one message of at most 100 MB, in base64."""
ENGINE = "reprise-voice/1"
_LEARNING, _LISTENING, _MAKING = 0.05, 0.65, 0.98
"""Where these end in the progress; measuring it is the rest."""


def transfer(
    audio: Path,
    voice: Path,
    folder: Path,
    *,
    pitch_shift: int = 0,
    strength: float = 0.5,
    transpose: str = "octaves",
    progress: Progress = ignore_progress,
) -> Findings:
    """Write `audio.flac` into `folder`: the sound of `audio` in the voice of the recording `voice`.

    `strength` 0 leaves the timbre as it is, 0.5 moves it as far as most words stay understood, 1 further.
    `transpose` to the voice's register: by whole `octaves`, by `semitones`, or `none`; `pitch_shift`
    semitones come on top. Raises EngineError, EngineUnavailable.
    """
    progress(0.0, "learning the voice")
    known = likeness.learn(voice)
    heard = _listen(audio, lambda done, step: progress(_LEARNING + done * (_LISTENING - _LEARNING), step))
    semitones = pitch_shift + register(heard.steps.pitch_hz, known.pitch_hz, transpose)
    moved = Moved(
        pitch=heard.pitch * 2 ** (semitones / 12),
        old_pitch=heard.pitch,
        moves=_moves(heard.steps, known, strength),
    )
    file = folder / "audio.flac"
    frames = _write(audio, file, heard, moved, lambda done: progress(done, "converting"))
    if file.stat().st_size > MOST_BYTES:
        raise EngineError(f"audio: it takes more than {MOST_BYTES} bytes, which cannot be sent")
    progress(_MAKING, "measuring")
    figures = _figures(file, heard, known)
    progress(1.0, "measuring")
    return Findings(
        outputs={"audio": file},
        engine=ENGINE,
        recipe="world-knn",
        duration_s=frames / MADE_RATE,
        details={
            "semitones": semitones,
            "strength": strength,
            "source_pitch_hz": round(heard.steps.pitch_hz, 1),
            "voice_pitch_hz": round(known.pitch_hz, 1),
            "voiced_share": round(float(heard.steps.has_pitch.mean()), 3) if len(heard.steps.said) else 0.0,
            **figures,
        },
    )


def _figures(made: Path, heard: _Heard, known: Steps) -> dict[str, float]:
    """How alike the recording was to the voice, and how alike the result is: what can be measured of it."""
    before = alike(heard.steps.who, known.who)
    if before is None:
        return {}
    # Loud at the same moments: the result is as long, and as loud from moment to moment.
    after = alike(hear_speaker(_decode(made, heard.channels, heard.mix), heard.steps.is_loud), known.who)
    figures = {"similarity_before": before, "similarity_after": after}
    return {name: figure for name, figure in figures.items() if figure is not None}


def register(source_hz: float, voice_hz: float, transpose: str) -> int:
    """By how many semitones a source moves to where the voice is; 0 where one of them has no pitch."""
    import math

    if transpose == "none" or not source_hz or not voice_hz:
        return 0
    apart = 12 * math.log2(voice_hz / source_hz)
    return 12 * round(apart / 12) if transpose == "octaves" else round(apart)


@dataclass(frozen=True, slots=True)
class _Heard:
    """What the first time through has found."""

    channels: int
    mix: NDArray[np.float32]
    """What of each channel makes the voice that is taken apart."""
    pitch: NDArray[np.float64]
    steps: Steps


def _listen(audio: Path, progress: Progress) -> _Heard:
    import numpy as np

    channels = min(2, channels_of(audio))
    blocks: list[NDArray[np.float32]] = []
    for block in decode_blocks(audio, sample_rate=HEARD_RATE, channels=channels, frames=10 * HEARD_RATE):
        blocks.append(block)
        if len(blocks) * 10 > LONGEST_S + 10:
            raise EngineError(f"audio: it is longer than {LONGEST_S:g} s")
    if not blocks:
        raise EngineError("audio: it has no samples")
    mix = _mix_of(blocks)
    samples = np.concatenate([mix @ block for block in blocks])
    del blocks
    pieces, frames = [], 0
    for piece in world.find_pitch(samples):
        pieces.append(piece)
        frames += len(piece)
        progress(0.8 * min(1.0, frames * FRAME_S * HEARD_RATE / len(samples)), "listening")
    pitch = np.concatenate(pieces)
    return _Heard(channels, mix, pitch, likeness.in_steps(samples, pitch))


def _decode(made: Path, channels: int, mix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The result, as the recording was listened to."""
    import numpy as np

    blocks = decode_blocks(made, sample_rate=HEARD_RATE, channels=channels, frames=10 * HEARD_RATE)
    return np.concatenate([mix @ block for block in blocks])


def _mix_of(blocks: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The middle of two channels; the louder one where they would cancel each other out."""
    import numpy as np

    if blocks[0].shape[0] == 1:
        return np.ones(1, np.float32)
    energies = sum((block.astype(np.float64) ** 2).sum(axis=1) for block in blocks)
    middle = sum(float(((block.astype(np.float64).sum(axis=0) / 2) ** 2).sum()) for block in blocks)
    if middle >= 0.25 * np.mean(energies):
        return np.full(2, 0.5, np.float32)
    louder: NDArray[np.float32] = np.eye(2, dtype=np.float32)[int(np.argmax(energies))]
    return louder


def _moves(source: Steps, voice: Steps, strength: float) -> NDArray[np.float32]:
    """What the cepstrum moves by, a row each 20 ms.

    The recording's whole difference counts in full from a strength of 0.5 on; what differs from sound to
    sound counts by the strength.
    """
    import numpy as np

    if not strength or not len(source.said) or not source.is_loud.any():
        return np.zeros((max(1, len(source.said)), world.ORDER), np.float32)
    moves = likeness.smooth(np.concatenate(list(likeness.differences(source, voice))))
    whole = moves[source.is_loud].mean(axis=0)
    all_moves: NDArray[np.float32] = strength * moves + (min(1.0, 2 * strength) - strength) * whole
    return all_moves


def _write(audio: Path, file: Path, heard: _Heard, moved: Moved, tell: Any) -> int:
    """Make it anew; how many samples it has."""
    import numpy as np
    import soundfile

    shape = {"samplerate": MADE_RATE, "channels": heard.channels, "format": "FLAC", "subtype": "PCM_16"}
    noise = np.random.default_rng(0xD17E)
    frames, whole = 0, len(heard.pitch) / FRAMES_PER_S * MADE_RATE
    with soundfile.SoundFile(file, "w", **shape) as out:
        for piece in _made(audio, heard, moved):
            frames += piece.shape[1]
            tell(_LISTENING + (_MAKING - _LISTENING) * min(1.0, frames / whole))
            dither = noise.random(piece.shape, np.float32) - noise.random(piece.shape, np.float32)
            dither[:, ~piece.any(axis=0)] = 0.0  # silence stays silence
            out.write(np.clip(np.rint(piece * 32767 + dither), -32768, 32767).astype(np.int16).T)
    return frames


def _made(audio: Path, heard: _Heard, moved: Moved) -> Iterator[NDArray[np.float32]]:
    """Pieces of the result, shape (channels, samples), in order and without gaps."""
    seams = Seams(heard.channels)
    blocks = decode_blocks(audio, sample_rate=MADE_RATE, channels=heard.channels, frames=MADE_RATE)
    for first, samples in seams.pieces(blocks):
        yield seams.join(make_piece(samples, heard.mix, moved, first_frame=first))
    yield seams.rest()
