"""What is read when somebody looks at `/metrics` or `/readyz`: queues, disks, and how the parts outside do.

Promises: an answer in less than a second, whatever hangs; a storm of scrapers costs the database one look
every `QUEUES_FRESH_S`. A figure that cannot be had is absent, never old and never zero.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.watch.clocks import LineClock
from app.watch.dependencies import Dependency, Remembered, Standing, Unanswered
from app.watch.event_loop import LoopWatch
from app.watch.metrics import Metrics
from app.workspace import Disks
from db.figures import QueueFigure, read_queues
from db.session import Database, DatabaseUnavailable
from db.states import JobState

QUEUES_SHARE = 0.05
"""The share of a connection's time that looking at the queues may take: they can be long."""
LOOK_S = 0.7
"""How long whoever asks is kept waiting for a part that does not answer."""
QUEUES_FRESH_S = 1.5
"""How long the figures of the queues are good for: they are one query."""

STATIONS = {"queued": "dispatch", "delivery": "apply", "finishing": "finish", "announcement": "announce"}
"""The station whose work it is; a running job is the provider's."""
_NONE = (0, 0, 0.0, 0.0)
_OPENNESS = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues as one look found them, at `read_at`."""

    figures: list[QueueFigure]
    read_at: datetime

    def live_jobs(self) -> dict[str, int]:
        """Jobs that have not ended, by state."""
        counts = {state.value: 0 for state in JobState if not state.is_terminal}
        for figure in self.figures:
            if figure.queue in counts:
                counts[figure.queue] += figure.depth
        return counts

    def by_station(self) -> dict[tuple[str, str], tuple[int, int, float, float]]:
        """For each station and kind with a row: depth, due, seconds since the first was due, and was made."""
        return {
            (STATIONS[figure.queue], figure.kind): (
                figure.depth,
                figure.due,
                self._age_s(figure.oldest_due_at),
                self._age_s(figure.oldest_at),
            )
            for figure in self.figures
            if figure.queue in STATIONS
        }

    def _age_s(self, moment: datetime | None) -> float:
        return 0.0 if moment is None else max(0.0, (self.read_at - moment).total_seconds())


class Figures:
    """Looks at the ground under the stations. One a runtime."""

    def __init__(
        self,
        *,
        database: Database,
        clock: LineClock,
        metrics: Metrics,
        dependencies: Mapping[str, Dependency],
        disks: Disks,
        kinds: Collection[str],
    ) -> None:
        self.dependencies = dependencies
        self.clock = clock
        self.loop_watch = LoopWatch(metrics)
        self._database = database
        self._metrics = metrics
        self._disks = disks
        self._kinds = kinds
        self._queues = Remembered(self._read_queues, fresh_s=QUEUES_FRESH_S, most_share=QUEUES_SHARE)
        self._left = Remembered(self._read_disks, fresh_s=0)

    async def standings(self) -> dict[str, Standing]:
        """How each dependency is doing."""
        found = await asyncio.gather(*(each.stand(within_s=LOOK_S) for each in self.dependencies.values()))
        return dict(zip(self.dependencies, found, strict=True))

    async def queues(self) -> Queues | None:
        """The queues; None while the database does not say."""
        try:
            return await self._queues.get(within_s=LOOK_S)
        except (DatabaseUnavailable, Unanswered):
            return None

    async def find_shortage(self) -> str | None:
        """Which disk is short of room, in words; None when none is, or none says so in time."""
        try:
            async with asyncio.timeout(LOOK_S):
                return await self._disks.find_shortage()
        except TimeoutError:
            return None

    async def free_bytes(self) -> dict[str, int]:
        """Room left on the disks, by place; one that cannot be looked at is absent."""
        try:
            return await self._left.get(within_s=LOOK_S)
        except Unanswered:
            return {}

    def pool(self) -> dict[str, int]:
        return self._database.pool_figures()

    async def collect(self) -> None:
        """Bring every gauge up to date."""
        standings, queues, free = await asyncio.gather(self.standings(), self.queues(), self.free_bytes())
        for name, standing in standings.items():
            self._metrics.dependency_up.labels(name).set(int(standing.ok))
            if standing.last_ok_s is not None:
                self._metrics.dependency_age.labels(name).set(standing.last_ok_s)
            if circuit := standing.facts.get("circuit"):
                self._metrics.circuit.labels(name).set(_OPENNESS[circuit["state"]])
        self._metrics.disk_free.clear()
        for place, free_bytes in free.items():
            self._metrics.disk_free.labels(place).set(free_bytes)
        for figure, count in self.pool().items():
            self._metrics.pool_connections.labels(figure).set(count)
        if self.clock.skew_s is not None:
            self._metrics.clock_skew.labels("database").set(round(self.clock.skew_s, 4))
        self._metrics.loop_lag_worst.set(round(self.loop_watch.worst_s(), 4))
        self._show(queues)

    async def aclose(self) -> None:
        for dependency in self.dependencies.values():
            await dependency.aclose()
        await self._queues.aclose()
        await self._left.aclose()

    def _show(self, queues: Queues | None) -> None:
        metrics = self._metrics
        gauges = (metrics.queue_depth, metrics.queue_due, metrics.queue_oldest_due, metrics.queue_oldest)
        for gauge in (*gauges, metrics.jobs):
            gauge.clear()
        if queues is None:
            return
        for state, count in queues.live_jobs().items():
            metrics.jobs.labels(state).set(count)
        shown = {(station, kind): _NONE for station in ("dispatch", "finish") for kind in self._kinds}
        shown["apply", ""] = shown["announce", ""] = _NONE
        for (station, kind), values in queues.by_station().items():
            # A kind that only an older release had is not worth a label of its own.
            known = kind if kind in self._kinds or not kind else "other"
            shown[station, known] = values
        for labels, values in shown.items():
            for gauge, value in zip(gauges, values, strict=True):
                gauge.labels(*labels).set(value)

    async def _read_queues(self) -> Queues:
        now = self.clock.now()
        async with self._database.reading() as tx:
            return Queues(await read_queues(tx, now=now), now)

    async def _read_disks(self) -> dict[str, int]:
        return await self._disks.disk_left()


def readable(standing: Standing) -> dict[str, Any]:
    """A standing as `/readyz` shows it."""
    return {
        "ok": standing.ok,
        "detail": standing.detail,
        **standing.facts,
        "last_ok_s": standing.last_ok_s,
    }
