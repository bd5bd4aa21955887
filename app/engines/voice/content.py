"""What is sung or said, apart from who does: whisper-base's encoder, 50 vectors a second.

Promises vectors in time with the sound however long it is: it is heard in windows of 30 s that overlap, and
of each only the middle counts. The weights are those of the transcription, loaded once for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from app.engines.hearing import WHISPER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLES_PER_STEP = 320
_WINDOW = 1500
"""Steps that the encoder hears at once: 30 s."""
_AROUND = 50
_FRAMES = 3000


def hear(samples: NDArray[np.float32]) -> Iterator[NDArray[np.float16]]:
    """Vectors of a sound at 16 kHz, (steps, 512) in pieces of half a minute. Raises EngineUnavailable."""
    steps = len(samples) // SAMPLES_PER_STEP
    core = _WINDOW - 2 * _AROUND
    with WHISPER.use() as model:
        for first in range(0, steps, core):
            begin = max(0, first - _AROUND)
            window = samples[begin * SAMPLES_PER_STEP : (begin + _WINDOW) * SAMPLES_PER_STEP]
            yield _encode(model, window)[first - begin : min(steps, first + core) - begin]


def _encode(model: Any, window: NDArray[np.float32]) -> NDArray[np.float16]:
    import numpy as np

    padded = np.pad(window, (0, _WINDOW * SAMPLES_PER_STEP - len(window)))
    mel = model.feature_extractor(padded)[:, :_FRAMES]
    vectors: NDArray[np.float32] = np.asarray(model.encode(mel))[0]
    return vectors.astype(np.float16)
