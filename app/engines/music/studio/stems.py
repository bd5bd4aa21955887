"""Playing: one part of the score becomes sound through the tono synthesizer.

Owns the translation to tono's song document. Promises a stereo stem of exactly the asked length, the same one
every time. One part is rendered at a time so that a long piece never needs the memory of all its tracks at
once. Leaves levels, panning and reverberation to `mix`.
"""

from __future__ import annotations

import json
import math
from typing import Any, cast

import numpy as np
import tono
from numpy.typing import NDArray

from app.engines.base import EngineError
from app.engines.music.instruments import INSTRUMENTS, Instrument
from app.engines.music.score.notation import Note, Part, Score
from app.engines.music.studio import SAMPLE_RATE, bank

_STEPS_PER_BEAT = 480
"""About a millisecond: fine enough for swing and for strummed strings."""
_BEATS_PER_BAR = 4
"""Of tono's grid. Notes are placed by absolute step, so the score's own metre does not matter to it."""


def play(part: Part, score: Score, frames: int) -> NDArray[np.float32]:
    """The part as (frames, 2). Narrow instruments come with both sides equal.

    Raises EngineError when tono refuses the song.
    """
    instrument = INSTRUMENTS[part.instrument]
    left = _take(part, instrument, score, frames, mirror=False)
    right = _take(part, instrument, score, frames, mirror=True) if instrument.wide else left
    return np.stack((left, right), axis=1)


def _take(
    part: Part, instrument: Instrument, score: Score, frames: int, *, mirror: bool
) -> NDArray[np.float32]:
    if not part.notes:
        return np.zeros(frames, np.float32)
    if instrument.voice is not None and instrument.voice[0] == "piano":
        return bank.lay_down(
            part.notes, score.beat_s, frames, lambda sheet: _tape(sheet, instrument, 60.0, bank.RATE)
        )
    samples = np.zeros(frames, np.float32)
    rendered = _tape(list(part.notes), instrument, score.tempo_bpm, SAMPLE_RATE, mirror=mirror)[:frames]
    samples[: len(rendered)] = rendered
    return samples


def _tape(
    notes: list[Note], instrument: Instrument, tempo_bpm: float, rate: int, *, mirror: bool = False
) -> NDArray[np.float32]:
    """The notes as tono plays them, (frames,), as long as they and their tails last."""
    document = json.dumps(_song(notes, instrument, tempo_bpm, mirror=mirror))
    try:
        program = tono.Song.from_json(document).compile(sample_rate=rate)
        rendered: NDArray[np.float32] = program.render_mono()
    except (tono.TonoError, ValueError) as error:
        raise EngineError(f"the synthesizer refused the {instrument.name} part: {error}") from error
    return rendered


def _song(notes: list[Note], instrument: Instrument, tempo_bpm: float, *, mirror: bool) -> dict[str, Any]:
    bars = int(max(note.start + note.length for note in notes) // _BEATS_PER_BAR) + 1
    # The other side of a wide instrument is another take: detuned the other way and its chorus slower.
    effects = [
        effect | {"rate": float(effect["rate"]) * 0.77} if mirror and effect["type"] == "chorus" else effect
        for effect in instrument.effects
    ]
    return {
        "name": "part",
        "bpm": tempo_bpm,
        "steps_per_beat": _STEPS_PER_BEAT,
        "beats_per_bar": _BEATS_PER_BAR,
        "swing": 0.0,
        "humanize": 0.0,
        "seed": int(mirror),
        "engine": 5,
        "version": 2,
        "master": [],
        "buses": [{"id": "chain", "gain": 1.0, "effects": effects}],
        "tracks": [_voice(instrument) | {"name": "part", "bus": "chain"}],
        "patterns": [{"name": "all", "bars": bars, "notes": _steps(notes, instrument, mirror=mirror)}],
        "arrangement": [{"track": "part", "pattern": "all", "bar": 0}],
    }


def _voice(instrument: Instrument) -> dict[str, Any]:
    """tono's own description of the instrument: asked from its catalogue, or built from a waveform."""
    if instrument.voice is not None:
        constructor, variant = instrument.voice
        song = tono.Song("catalogue")
        song.track("part", getattr(tono.instruments, constructor)(variant))
        described = cast("dict[str, Any]", json.loads(song.to_json()))
        return cast("dict[str, Any]", described["tracks"][0]) | {"reverb": 0.0}
    attack, decay, sustain, release = instrument.envelope
    return {
        "wave": instrument.wave,
        "gain": 1.0,
        "pan": 0.0,
        "env": {"a": attack, "d": decay, "s": sustain, "r": release, "punch": 0.0},
        "voice": {} if instrument.duty is None else {"duty": instrument.duty},
    }


def _steps(notes: list[Note], instrument: Instrument, *, mirror: bool) -> list[dict[str, Any]]:
    drums = instrument.family == "drums"
    voices = instrument.detune_cents
    steps: list[dict[str, Any]] = []
    for note in notes:
        place = {
            "step": round(note.start * _STEPS_PER_BEAT),
            "len": max(1, round(note.length * _STEPS_PER_BEAT)),
            "gain": round(note.velocity / len(voices), 4),
        }
        pitch = note.pitch + 12 * instrument.octave
        if drums or (voices == (0.0,) and not mirror):
            steps.append(place | {"pitch": f"midi:{note.pitch if drums else pitch}"})
        else:
            steps += [place | {"pitch": _hertz(pitch, cents, mirror)} for cents in voices]
    return steps


def _hertz(pitch: int, cents: float, mirror: bool) -> float:
    # The mirrored take of a single oscillator stands three cents off, enough to be a second player.
    bend = (-cents if cents else 3.0) if mirror else cents
    return round(440.0 * math.exp2((pitch - 69 + bend / 100.0) / 12.0), 4)
