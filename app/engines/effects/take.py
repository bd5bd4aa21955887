"""What a recipe is given and what a family is.

Owns: the sample rate, the signal type, `Take` (one performance to fill) and `Family` (a named recipe with the
words that choose it). Promises nothing about sound. Leaves prompts to `prompts`, sound to `families/`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE = 44_100
"""Frames a second, of everything in this folder."""

Signal = NDArray[np.float64]
"""Samples: shape (frames,) is mono, (2, frames) stereo, so filters run along the last axis."""


@dataclass(frozen=True, slots=True)
class Take:
    """One performance a recipe must fill: how long, with which chance, played how."""

    frames: int
    rng: np.random.Generator
    pace: float = 1.0
    """Events a second, relative to the family's habit."""
    weight: float = 1.0
    """Density and force, relative to the family's habit."""
    pitch: float = 1.0
    """Resonant frequencies, relative to the family's habit: small bodies above 1, big ones below."""
    linger: float = 1.0
    """How long tails ring, relative to the family's habit."""
    once: bool = False
    """One event only; the rest of the take is its tail."""

    @property
    def duration_s(self) -> float:
        return self.frames / RATE

    @property
    def times(self) -> Signal:
        """The instant of every frame in seconds, shape (frames,)."""
        return np.arange(self.frames, dtype=np.float64) / RATE


Recipe = Callable[[Take], Signal]
"""Fills a take; returns shape (2, frames) at any level: mastering sets it."""


@dataclass(frozen=True, slots=True)
class Family:
    """A sound that can be asked for by name."""

    name: str
    words: str
    """Words and phrases which choose it, with commas between; no two families may share one."""
    render: Recipe
    hints: str = ""
    """Weaker words: they choose it only where the prompt holds no family's `words`."""
    sustained: bool = False
    """Sounds throughout, so its loudness can be promised; the others are events with tails."""
    air_hz: float = 1200.0
    """Upper edge of the room tone heard under its pauses."""

    @property
    def phrases(self) -> tuple[str, ...]:
        """The name and every word or phrase that chooses the family by itself."""
        return (self.name, *self.words.split(", "))

    @property
    def hint_phrases(self) -> tuple[str, ...]:
        """The weaker words."""
        return tuple(self.hints.split(", ")) if self.hints else ()


def frames_in(duration_s: float) -> int:
    """Whole frames in a duration, at least one."""
    return max(1, round(duration_s * RATE))
