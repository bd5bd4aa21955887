"""What every engine of the local worker returns and may report.

Owns the value types shared by the engines; promises nothing about sound. Heavy imports stay inside the
engine that needs them: importing this module costs only NumPy's type stubs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Progress = Callable[[float, str], None]
"""Called with the fraction done (0-1) and a word for the step; cheap, may be called often."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A finished sound and where it came from."""

    samples: NDArray[np.float32]
    """Shape (frames, channels), values within −1…1."""
    sample_rate: int
    engine: str
    """Name and version of what made it, such as `reprise-effects/1`."""
    recipe: str
    """The family, voice or style that the prompt was understood as, such as `rain`."""
    details: dict[str, str | int | float | bool] = field(default_factory=dict)
    """Whatever else a listener may want to know: tempo, key, matched word, seed, note on a fallback."""

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate


class EngineError(Exception):
    """The engine cannot do this; the text becomes the prediction's error, so it is for people."""


def ignore_progress(_fraction: float, _step: str) -> None:
    """The progress of someone who does not listen."""
