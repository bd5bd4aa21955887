"""WORLD, the vocoder: pitch, envelope and breath of a voice, and a voice of these again.

Owns pyworld and the grids: everything is told each 5 ms, what is compared each 20 ms. Promises float64 inside
and work in pieces, so that a cancel gets through every few seconds and memory is that of one piece. Leaves
what is done to the numbers to `transfer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from app.engines.base import EngineUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEARD_RATE = 16_000
"""What pitch and sounds are found at: the rate of whisper, and all that a voice's identity is in."""
MADE_RATE = 44_100
FRAME_S = 0.005
FRAMES_PER_S = 200
FRAMES_PER_STEP = 4
"""Frames in one step of the comparison: whisper's encoder tells 50 a second."""
LOWEST_HZ, HIGHEST_HZ = 60.0, 1050.0
"""From a deep bass to a soprano's high C."""
ORDER = 40
"""Coefficients of the cepstrum that an envelope is compared and moved by."""
_PIECE_S, _AROUND_S = 10, 1
_FLOOR = 1e-16


def load() -> Any:
    """The library. Raises EngineUnavailable."""
    try:
        import pyworld
    except ImportError as error:
        raise EngineUnavailable("voice_transfer needs: pip install pyworld-prebuilt") from error
    return pyworld


def find_pitch(samples: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    """Pieces of the pitch in Hz at HEARD_RATE, a value each 5 ms from the first sample on; 0 where none is.

    By Harvest, which takes a quarter of the sound's length: in pieces, each heard with a second around it.
    """
    import numpy as np

    pyworld = load()
    per_frame = round(HEARD_RATE * FRAME_S)
    frames = len(samples) // per_frame + 1
    for first in range(0, frames, _PIECE_S * FRAMES_PER_S):
        last = min(frames, first + _PIECE_S * FRAMES_PER_S)
        before = max(0, first - _AROUND_S * FRAMES_PER_S)
        after = last + _AROUND_S * FRAMES_PER_S
        piece = samples[before * per_frame : after * per_frame].astype(np.float64)
        pitch, _ = pyworld.harvest(piece, HEARD_RATE, f0_floor=LOWEST_HZ, f0_ceil=HIGHEST_HZ)
        found = pitch[first - before : last - before]
        yield np.pad(found, (0, last - first - len(found)))


def guess_pitch(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same of a whole sound by DIO, 30 times as fast: for figures of it, too rough to make a voice of."""
    import numpy as np

    pyworld = load()
    wide = samples.astype(np.float64)
    rough, moments = pyworld.dio(wide, HEARD_RATE, f0_floor=LOWEST_HZ, f0_ceil=HIGHEST_HZ)
    return np.asarray(pyworld.stonemask(wide, rough, moments, HEARD_RATE))


def steps_of(samples: NDArray[np.float32], pitch: NDArray[np.float64]) -> NDArray[np.float32]:
    """The cepstrum of the envelope at the middle of each 20 ms, shape (steps, ORDER); both at HEARD_RATE."""
    import numpy as np

    pyworld = load()
    steps = len(samples) // round(HEARD_RATE * FRAME_S * FRAMES_PER_STEP)
    cepstra = np.zeros((steps, ORDER), np.float32)
    per_piece = _PIECE_S * FRAMES_PER_S // FRAMES_PER_STEP
    for first in range(0, steps, per_piece):
        at = np.arange(first, min(steps, first + per_piece)) * FRAMES_PER_STEP + FRAMES_PER_STEP // 2
        begin = max(0, round((at[0] * FRAME_S - _AROUND_S) * HEARD_RATE))
        end = round((at[-1] * FRAME_S + _AROUND_S) * HEARD_RATE)
        piece = samples[begin:end].astype(np.float64)
        moments = at * FRAME_S - begin / HEARD_RATE
        envelope = pyworld.cheaptrick(piece, pitch[at], moments, HEARD_RATE)
        cepstra[at // FRAMES_PER_STEP] = np.fft.irfft(np.log(envelope + _FLOOR), axis=1)[:, :ORDER]
    return cepstra


def tilt(bins: int, sample_rate: int) -> NDArray[np.float64]:
    """What a cepstrum at HEARD_RATE adds to a log envelope of this many bins: a matrix (ORDER, bins).

    Above what it was heard at, its last value goes on: a reference of a telephone says nothing of the treble.
    """
    import numpy as np

    hertz = np.linspace(0, sample_rate / 2, bins)
    angle = np.pi * np.minimum(hertz / (HEARD_RATE / 2), 0.95)
    weights = np.where(np.arange(ORDER) == 0, 1.0, 2.0)
    return np.asarray(weights[:, None] * np.cos(np.arange(ORDER)[:, None] * angle))
