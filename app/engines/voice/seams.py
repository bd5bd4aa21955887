"""How a long sound is cut into pieces that overlap, and joined again where it is quietest.

Promises that what is joined is as long as what was cut, to the sample. Each piece lies on the grid of the
pitch, whose 5 ms are no whole number of samples at 44.1 kHz: pieces begin at whole 10 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from app.engines.voice.world import MADE_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GRID = MADE_RATE // 100
FRAMES_PER_GRID = 2
_PIECE_S, _OVERLAP_S = 10, 2
_CROSSING = 882
"""Samples in which one piece goes over into the next: 20 ms."""


class Seams:
    """Cuts and joins one sound. `join` takes the pieces in the order in which they came from `pieces`."""

    def __init__(self, channels: int) -> None:
        import numpy as np

        self._tail: NDArray[np.float32] = np.zeros((channels, 0), np.float32)
        """What the last piece says of where the next one has begun."""

    def pieces(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Each piece with the frame of 5 ms that it begins at."""
        import numpy as np

        held: NDArray[np.float32] = np.zeros((self._tail.shape[0], 0), np.float32)
        first, size, overlap = 0, _PIECE_S * MADE_RATE, _OVERLAP_S * MADE_RATE
        for block in blocks:
            held = np.concatenate([held, block], axis=1)
            # So much more that the last piece is never shorter than the overlap.
            while held.shape[1] >= size + overlap:
                yield first // GRID * FRAMES_PER_GRID, held[:, :size]
                first, held = first + size - overlap, held[:, size - overlap :]
        if held.shape[1]:
            yield first // GRID * FRAMES_PER_GRID, held

    def join(self, piece: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is settled by this piece: all but its own overlap with the next."""
        import numpy as np

        lapped = self._tail.shape[1]
        cut = self._quietest(piece[:, :lapped])
        ramp = np.linspace(0, 1, _CROSSING, dtype=np.float32) if lapped else np.zeros(0, np.float32)
        crossing = slice(cut, cut + len(ramp))
        before = self._tail[:, :cut]
        across = self._tail[:, crossing] * (1 - ramp) + piece[:, crossing] * ramp
        joined = np.concatenate([before, across, piece[:, crossing.stop :]], axis=1)
        kept = max(0, joined.shape[1] - _OVERLAP_S * MADE_RATE)
        self._tail = joined[:, kept:]
        return joined[:, :kept]

    def rest(self) -> NDArray[np.float32]:
        """What was held back for a piece that did not come."""
        return self._tail

    def _quietest(self, lapping: NDArray[np.float32]) -> int:
        """Where in the overlap to go over, away from both its ends."""
        import numpy as np

        lapped = lapping.shape[1]
        if lapped < 4 * _CROSSING:
            return 0
        energy = (lapping**2).sum(axis=0) + (self._tail**2).sum(axis=0)
        sums = np.concatenate([[0.0], np.cumsum(energy, dtype=np.float64)])
        windows = sums[_CROSSING:] - sums[:-_CROSSING]
        inside = windows[_CROSSING : lapped - 2 * _CROSSING]
        return _CROSSING + int(np.argmin(inside))
