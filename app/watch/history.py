"""The last hour of the line, kept in memory: what a page needs to draw a curve, without another database.

One sample every `EVERY_S`, of figures that are looked at anyway. It is this process's own memory: after a
restart it begins anew, and `/metrics` is what keeps longer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.watch.figures import STATIONS, Figures

EVERY_S = 10.0
KEPT = 360


@dataclass(frozen=True, slots=True)
class Sample:
    """How it stood at a moment."""

    at: datetime
    depth: Mapping[str, int]
    """Rows that each station had yet to work on."""
    jobs: Mapping[str, int]
    """Jobs that had not ended, by state."""
    lag_worst_s: float | None
    """Of the event loop, in the minute before."""


class History:
    """Takes samples while it runs. One object a runtime."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._taking: asyncio.Task[None] | None = None

    @property
    def samples(self) -> list[Sample]:
        """Oldest first."""
        return list(self._samples)

    def start(self) -> None:
        self._taking = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.gather(self._taking, return_exceptions=True)

    async def take(self) -> None:
        """One sample now; none while the database does not say."""
        queues = await self._figures.queues()
        if queues is None:
            return
        depth = dict.fromkeys(STATIONS.values(), 0)
        for (station, _), (waiting, *_) in queues.by_station().items():
            depth[station] += waiting
        worst_s = self._figures.loop_watch.worst_s()
        self._samples.append(Sample(queues.read_at, depth, queues.live_jobs(), worst_s))

    async def _run(self) -> None:
        while True:
            await self.take()
            await asyncio.sleep(EVERY_S)
