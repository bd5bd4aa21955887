"""Who is heard in a sound, and how alike two are: the cosine of what says who speaks, measured or not said.

A sound is heard at its loud moments, ten seconds at a time. Promises a transfer no failure: where the weights
are not installed, or nobody is heard, there is no figure. Takes a second of processor for a minute of sound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.engines.base import EngineUnavailable
from app.engines.voice import speaker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

_STRIDE = round(speaker.STRIDE_S * speaker.SAMPLE_RATE)
_STEPS_PER_STRIDE = 20
_STRIDES_HEARD = 2
"""What one vector hears."""
_CHUNK = 25
"""Vectors at a time, between which a cancel gets through."""
_LOUD_SHARE = 0.5


def hear_speaker(samples: NDArray[np.float32], is_loud: NDArray[np.bool_]) -> Vector | None:
    """Who is heard in a mono sound at 16 kHz, of which each 20 ms are known to be loud or not."""
    import numpy as np

    found = [np.zeros((0, speaker.SIZE), np.float32)]
    try:
        for first in range(0, len(samples) // _STRIDE, _CHUNK):
            # As far as the last vector hears.
            chunk = samples[first * _STRIDE : (first + _CHUNK + _STRIDES_HEARD) * _STRIDE]
            vectors = speaker.embed(chunk)[:_CHUNK]
            found.append(vectors[_are_loud(is_loud, first, len(vectors))])
    except EngineUnavailable:
        return None
    kept = np.concatenate(found)
    return speaker.join(kept) if len(kept) else None


def alike(one: Vector | None, other: Vector | None) -> float | None:
    """About 0.9 for one voice, about 0.3 for two; None where in one of them nobody was heard."""
    return None if one is None or other is None else round(float(one @ other), 3)


def _are_loud(is_loud: NDArray[np.bool_], first: int, count: int) -> NDArray[np.bool_]:
    """Which of these vectors hear something for half of their time."""
    import numpy as np

    spans = (
        is_loud[at * _STEPS_PER_STRIDE : (at + _STRIDES_HEARD) * _STEPS_PER_STRIDE]
        for at in range(first, first + count)
    )
    return np.array([len(span) > 0 and span.mean() >= _LOUD_SHARE for span in spans], bool)
