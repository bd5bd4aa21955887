"""What a voice does at each sound: learnt from a recording of it, looked up for another's.

A step is 20 ms: what is said there (whisper's vector), how (the envelope's cepstrum) and whether it has a
pitch. For each step of the source the nearest ones of the voice are looked up, and the difference of their
envelopes is what the source is to be moved by. Promises that the two last voices learnt are kept, since one
is seldom asked for once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.engines.base import EngineError
from app.engines.sources.decoding import decode_blocks
from app.engines.voice import world
from app.engines.voice.alike import hear_speaker
from app.engines.voice.content import SAMPLES_PER_STEP, hear
from app.engines.voice.world import FRAMES_PER_STEP, HEARD_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_LEARNT_S = 60
LEAST_STEPS = 100
"""Of a voice with a pitch: two seconds."""
_NEAREST = 8
_SAME_VOICING = 0.15
"""What it counts, beside a cosine, that both have a pitch or neither."""
_SMOOTHED_STEPS = 6
_QUIET = 1e-4
"""Of the loudest step's energy: 40 dB below it nothing is learnt."""
_KEPT = 2


@dataclass(frozen=True, slots=True)
class Steps:
    """A sound in steps of 20 ms."""

    said: NDArray[np.float16]
    """Shape (steps, 512)."""
    cepstra: NDArray[np.float32]
    """Shape (steps, ORDER)."""
    has_pitch: NDArray[np.bool_]
    is_loud: NDArray[np.bool_]
    pitch_hz: float
    """The median where there is one; 0 where there is none."""
    who: NDArray[np.float32] | None
    """What says who it is, where that can be heard."""


_learnt: OrderedDict[str, Steps] = OrderedDict()


def learn(recording: Path) -> Steps:
    """What a voice does, by at most the first minute of its recording. Raises EngineError."""
    key = _digest(recording)
    if key not in _learnt:
        samples = _decoded(recording)
        steps = in_steps(samples, world.guess_pitch(samples))
        if (steps.has_pitch & steps.is_loud).sum() < LEAST_STEPS:
            raise EngineError("voice: there is hardly a voice in its recording")
        _learnt[key] = steps
        while len(_learnt) > _KEPT:
            _learnt.popitem(last=False)
    _learnt.move_to_end(key)
    return _learnt[key]


def in_steps(samples: NDArray[np.float32], pitch: NDArray[np.float64]) -> Steps:
    """A mono sound at HEARD_RATE, and its pitch each 5 ms."""
    import numpy as np

    steps = len(samples) // SAMPLES_PER_STEP
    middles = pitch[np.arange(steps) * FRAMES_PER_STEP + FRAMES_PER_STEP // 2]
    energy = (samples[: steps * SAMPLES_PER_STEP].reshape(steps, -1) ** 2).mean(axis=1)
    said = np.concatenate([np.zeros((0, 512), np.float16), *hear(samples)])
    is_loud = energy > _QUIET * energy.max(initial=0.0)
    return Steps(
        said=said,
        cepstra=world.steps_of(samples, pitch),
        has_pitch=middles > 0,
        is_loud=is_loud,
        pitch_hz=float(np.median(pitch[pitch > 0])) if (pitch > 0).any() else 0.0,
        who=hear_speaker(samples, is_loud),
    )


def differences(source: Steps, voice: Steps) -> Iterator[NDArray[np.float32]]:
    """What each step of the source's cepstrum is to be moved by to be the voice's, in pieces."""
    import numpy as np

    kept = voice.is_loud
    asked, known = _directions(source.said, source.is_loud), _directions(voice.said, kept)[kept]
    cepstra, has_pitch = voice.cepstra[kept], voice.has_pitch[kept]
    for first in range(0, len(asked), 1000):
        piece = slice(first, first + 1000)
        near = asked[piece] @ known.T
        near += np.float32(_SAME_VOICING) * (source.has_pitch[piece, None] == has_pitch[None])
        nearest = np.argpartition(-near, min(_NEAREST, near.shape[1] - 1), axis=1)[:, :_NEAREST]
        yield cepstra[nearest].mean(axis=1) - source.cepstra[piece]


def smooth(moves: NDArray[np.float32]) -> NDArray[np.float32]:
    """The moves over a quarter of a second, so that a wrong neighbour is not heard."""
    import numpy as np

    window = np.hanning(2 * _SMOOTHED_STEPS + 1)
    window /= window.sum()
    padded = np.pad(moves, ((_SMOOTHED_STEPS, _SMOOTHED_STEPS), (0, 0)), mode="edge")
    columns = [np.convolve(column, window, "valid") for column in padded.T]
    return np.stack(columns, axis=1).astype(np.float32)


def _directions(said: NDArray[np.float16], is_loud: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The vectors without what all of a recording have in common, at length one."""
    import numpy as np

    vectors = said.astype(np.float32)
    vectors -= vectors[is_loud].mean(axis=0) if is_loud.any() else np.float32(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + np.float32(1e-9)
    return vectors


def _decoded(recording: Path) -> NDArray[np.float32]:
    import numpy as np

    most = MOST_LEARNT_S * HEARD_RATE
    blocks: list[NDArray[np.float32]] = []
    for block in decode_blocks(recording, sample_rate=HEARD_RATE, channels=1, frames=HEARD_RATE):
        blocks.append(block[0])
        if len(blocks) * HEARD_RATE >= most:
            break
    if not blocks:
        raise EngineError("voice: its recording has no samples")
    return np.concatenate(blocks)


def _digest(recording: Path) -> str:
    with recording.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
