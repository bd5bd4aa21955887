"""One piece of a voice: taken apart, moved, and put together as loud as it was.

Promises a piece of the same shape. Leaves to WORLD what a voice is made of, to `seams` where pieces meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.engines.voice import world
from app.engines.voice.world import FRAMES_PER_S, FRAMES_PER_STEP, MADE_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LOUDNESS_S = 0.06
_MOST_GAIN = 4.0
_KNEE = 0.8
"""From here on peaks are bent: the made ones are sharper than those of a throat in a room."""
_FLOOR = 1e-16


@dataclass(frozen=True, slots=True)
class Moved:
    """What becomes of the whole recording."""

    pitch: NDArray[np.float64]
    """In Hz each 5 ms, as it is to be; 0 where there is none."""
    old_pitch: NDArray[np.float64]
    moves: NDArray[np.float32]
    """Of the cepstrum, each 20 ms, shape (steps, ORDER)."""


def make_piece(
    samples: NDArray[np.float32], mix: NDArray[np.float32], moved: Moved, *, first_frame: int
) -> NDArray[np.float32]:
    """The piece that begins at this frame of 5 ms, shape (channels, samples)."""
    import numpy as np

    pyworld = world.load()
    voice = (mix @ samples).astype(np.float64)
    if not voice.any():
        return np.zeros_like(samples)
    frames = np.arange(int(len(voice) / MADE_RATE * FRAMES_PER_S) + 1)
    at = np.minimum(first_frame + frames, len(moved.pitch) - 1)
    pitch, moments = moved.old_pitch[at], frames / FRAMES_PER_S
    envelope = pyworld.cheaptrick(voice, pitch, moments, MADE_RATE)
    breath = pyworld.d4c(voice, pitch, moments, MADE_RATE)
    made = pyworld.synthesize(moved.pitch[at], _move(envelope, moved.moves, at), breath, MADE_RATE)
    made = np.pad(made, (0, max(0, len(voice) - len(made))))[: len(voice)]
    return _as_loud_as(samples, made)


def _move(
    envelope: NDArray[np.float64], moves: NDArray[np.float32], at: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The envelope moved, with the energy that each frame had."""
    import numpy as np

    if not moves.any():
        return envelope
    # A step's value is that of its middle.
    place = np.clip((at - FRAMES_PER_STEP // 2) / FRAMES_PER_STEP, 0, len(moves) - 1)
    below = place.astype(np.int64)
    share = (place - below)[:, None]
    cepstra = moves[below] * (1 - share) + moves[np.minimum(below + 1, len(moves) - 1)] * share
    new = envelope * np.exp(cepstra @ world.tilt(envelope.shape[1], MADE_RATE))
    new *= envelope.sum(axis=1, keepdims=True) / (new.sum(axis=1, keepdims=True) + _FLOOR)
    # The vocoder divides by it: nowhere nothing.
    return np.asarray(new + _FLOOR)


def _as_loud_as(samples: NDArray[np.float32], made: NDArray[np.float64]) -> NDArray[np.float32]:
    """The voice in each channel as loud as that was, from moment to moment."""
    import numpy as np

    now = np.sqrt(_loudness(made)) + 1e-9
    out = np.empty_like(samples)
    for channel, before in zip(out, samples, strict=True):
        gain = np.minimum(_MOST_GAIN, np.sqrt(_loudness(before.astype(np.float64))) / now)
        channel[:] = made * gain
    above = np.abs(out) > _KNEE
    bent = _KNEE + (1 - _KNEE) * np.tanh((np.abs(out[above]) - _KNEE) / (1 - _KNEE))
    out[above] = np.sign(out[above]) * bent
    return out


def _loudness(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean square around each sample."""
    import numpy as np

    width = round(_LOUDNESS_S * MADE_RATE) // 2
    sums = np.concatenate([[0.0], np.cumsum(samples**2)])
    ends = np.arange(len(samples))
    right, left = np.minimum(ends + width, len(samples)), np.maximum(ends - width, 0)
    means: NDArray[np.float64] = (sums[right] - sums[left]) / (right - left)
    return np.maximum(0.0, means)
