"""A sound of any length as blocks of spectra, and back: the transform that Spleeter was trained on.

Frames of 4096 samples under a Hann window, 1024 apart. Promises that a block which comes back as it went out
gives the samples that went in, also across blocks and at both ends; what is held is one block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRAME, HOP = 4096, 1024
_EDGE = FRAME // 2
"""Silence before the first sample, so that the first frame has it in its middle."""


class Spectra:
    """One pass over a sound: `put` its samples, `take` whole blocks of spectra, give each to `back`."""

    def __init__(self, channels: int, frames: int) -> None:
        """`frames` is the size of a block."""
        import numpy as np

        self._frames = frames
        self._window = np.hanning(FRAME + 1)[:-1].astype(np.float32)
        self._held = np.zeros((channels, _EDGE), np.float32)
        self._size = 0
        self._sent = -_EDGE
        """Samples that have come back, counted from the first of the sound."""
        self._tail = np.zeros((channels, FRAME - HOP), np.float32)
        self._weights = np.zeros(FRAME - HOP, np.float32)

    def put(self, samples: NDArray[np.float32]) -> None:
        """Samples of shape (channels, any)."""
        import numpy as np

        self._held = np.concatenate([self._held, samples], axis=1)
        self._size += samples.shape[1]

    def end(self) -> None:
        """No sample comes any more: what is held is filled with silence to its last frame."""
        import numpy as np

        missing = _EDGE + -self._size % HOP
        self._held = np.concatenate([self._held, np.zeros((len(self._held), missing), np.float32)], axis=1)

    def take(self, *, last: bool = False) -> NDArray[np.complex64] | None:
        """The next block, (channels, frames, bins); None until it is whole, as the `last` need not be."""
        import numpy as np

        frames = min(self._frames, (self._held.shape[1] - FRAME) // HOP + 1)
        if frames < 1 or (frames < self._frames and not last):
            return None
        views = np.lib.stride_tricks.sliding_window_view(self._held, FRAME, axis=1)[:, : frames * HOP : HOP]
        spectra = np.fft.rfft(views * self._window, axis=2).astype(np.complex64)
        self._held = self._held[:, frames * HOP :]
        return spectra

    def back(self, spectra: NDArray[np.complex64]) -> NDArray[np.float32]:
        """The samples that no later block changes, from where the last call ended."""
        import numpy as np

        frames = spectra.shape[1]
        pieces = np.fft.irfft(spectra, axis=2).astype(np.float32) * self._window
        summed = np.zeros((len(spectra), frames * HOP + FRAME - HOP), np.float32)
        weights = np.zeros(summed.shape[1], np.float32)
        summed[:, : FRAME - HOP], weights[: FRAME - HOP] = self._tail, self._weights
        for number in range(frames):
            summed[:, number * HOP : number * HOP + FRAME] += pieces[:, number]
            weights[number * HOP : number * HOP + FRAME] += self._window**2
        done = frames * HOP
        self._tail, self._weights = summed[:, done:], weights[done:]
        return self._sent_on(summed[:, :done], weights[:done])

    def rest(self) -> NDArray[np.float32]:
        """The samples after the last block: more than there were, by the silence that `end` put there."""
        return self._sent_on(self._tail, self._weights)

    def _sent_on(self, summed: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        import numpy as np

        samples = summed / np.maximum(weights, np.float32(1e-8))
        before = max(0, -self._sent)
        self._sent += samples.shape[1]
        return samples[:, before:].astype(np.float32, copy=False)
