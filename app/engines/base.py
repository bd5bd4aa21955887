"""What every engine of the local worker returns and may report.

Owns the value types shared by the engines; promises nothing about sound. Heavy imports stay inside the
engine that needs them: importing this module costs only NumPy's type stubs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
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


@dataclass(frozen=True, slots=True)
class Findings:
    """What an engine has made that is not one sound: texts and files by output name."""

    outputs: dict[str, str | Path]
    """A text is JSON; a file is in the scratch folder of the prediction."""
    engine: str
    recipe: str
    """The model, or the chain of them, that it came from."""
    duration_s: float
    """Of the sound that was read; 0 where none was."""
    details: dict[str, str | int | float | bool] = field(default_factory=dict)


class EngineError(Exception):
    """The engine cannot do this; the text becomes the prediction's error, so it is for people."""


class EngineUnavailable(EngineError):
    """Nothing on this machine can do it; the text names what to install or to configure."""


def ignore_progress(_fraction: float, _step: str) -> None:
    """The progress of someone who does not listen."""
