"""Run the stations: register them with the work engine, sweep for rows without an item, look for the silent.

Promises: what is due is worked on, also when every hint about it was lost, within `SWEEP_INTERVAL_S`; a
restart needs nothing else, because the first sweep finds every row that was left. `stop` lets steps that
have begun come to their end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from app.line import Line
from app.notify import RECOVERY
from app.recovery import Recovery
from app.work import Station, Step
from db.attempts import list_live_attempts, note_attempt
from db.jobs import release_all_leases
from db.keys import delete_idempotency_keys
from db.processes import beat, forget_processes
from db.session import DatabaseUnavailable, Transaction
from db.states import AttemptStatus

log = structlog.get_logger()

SWEEP_BATCH = 500
BEAT_S = 2.0
"""How often a process says that it is alive, where others would take over from it."""
MOST_ADOPTED = 10_000
LANDED_AFTER = timedelta(seconds=5)
"""By then what a killed process asked a provider for is there to be found, or never will be."""
DEAD_AFTER = timedelta(seconds=8)
"""Silence after which a process is taken for dead, by the database's clock."""
FORGET_EVERY = timedelta(minutes=10)
"""How often idempotency keys past their time are dropped."""


class StationRoom(Protocol):
    """What a station offers its worker: which rows are due, and one step on one of them."""

    async def due(self, tx: Transaction, now: datetime, limit: int) -> Sequence[str]: ...

    async def step(self, row_id: str) -> None: ...


class Worker:
    """Runs stations until it is stopped. One a process."""

    def __init__(
        self,
        *,
        line: Line,
        stations: Mapping[Station, StationRoom],
        recovery: Recovery,
        process_id: str,
    ) -> None:
        self._line = line
        self._process_id = process_id
        self._stations = stations
        self._recovery = recovery
        self._stopping = asyncio.Event()
        self._forget_at = datetime.now(UTC)
        self._heard_at: datetime | None = None
        self._beating_since = self._forget_at

    def keep_to(self, stations: Collection[Station]) -> None:
        """Run only these stations; the others are another process's."""
        self._stations = {station: self._stations[station] for station in stations}

    async def run(self) -> None:
        """Work until `stop`."""
        limits = {
            Station.DISPATCH: self._line.settings.dispatch_concurrency,
            Station.APPLY: self._line.settings.apply_concurrency,
            Station.FINISH: self._line.settings.finish_concurrency,
        }
        steps = {
            station: Step(self._timed(station, room.step), limits[station])
            for station, room in self._stations.items()
        }
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_working(steps))
            if self._line.settings.is_shared:
                tasks.create_task(self._repeat(self._keep_beating, BEAT_S))
            tasks.create_task(self._repeat(self.sweep, self._line.settings.sweep_interval_s))
            tasks.create_task(
                self._repeat(self._recovery.check, self._line.settings.recovery_interval_s, RECOVERY)
            )

    async def beat(self) -> datetime:
        """Tell the other processes that this one is alive; the moment of which that is true."""
        async with self._line.database.transaction() as tx:
            now = await tx.now()
            await beat(tx, self._process_id, now=now)
        return now

    async def _keep_beating(self) -> int:
        """Beat; and once this has gone well for a while, take over from those who do not.

        Not sooner: after an outage of the database everybody has been silent, the living too.
        """
        now = await self.beat()
        if self._heard_at is None or now - self._heard_at > 2 * timedelta(seconds=BEAT_S):
            self._beating_since = now
        self._heard_at = now
        if now - self._beating_since < DEAD_AFTER:
            return 0
        return await self._recovery.forget_orphans(silent_since=now - DEAD_AFTER)

    async def _keep_working(self, steps: Mapping[Station, Step]) -> None:
        """The engine may fail; the stations must not stand still because of it."""
        while not self._stopping.is_set():
            try:
                await self._line.engine.run(steps)
            except Exception as exc:
                log.critical("engine.failed", exc_info=exc)
                await self._pause(1.0, self._stopping.wait)

    def stop(self) -> None:
        """Take no more work; `run` returns when the steps begun have ended."""
        self._stopping.set()
        self._line.engine.stop()

    async def adopt(self) -> None:
        """Take over everything a dead predecessor left; only for the one owner of an embedded database."""
        async with self._line.database.transaction() as tx:
            released = await release_all_leases(tx)
            live = await list_live_attempts(tx, limit=MOST_ADOPTED)
            unasked = [attempt for attempt in live if attempt.status == AttemptStatus.PENDING]
            for attempt in unasked:
                # Nobody is creating it any more; recovery asks whether the provider has it.
                await note_attempt(tx, attempt.id, check_at=attempt.created_at + LANDED_AFTER)
        if released or unasked:
            log.info("worker.adopted", leases=released, attempts=len(unasked))

    async def catch_up(self) -> None:
        """Apply the news that is stored already, before anybody calls its attempt lost."""
        inbox = self._stations.get(Station.APPLY)
        if inbox is None:
            return
        async with self._line.database.reading() as tx:
            ids = await inbox.due(tx, datetime.now(UTC), SWEEP_BATCH)
        for delivery_id in ids:
            try:
                await inbox.step(delivery_id)
            except Exception as exc:
                log.error("step.failed", row_id=delivery_id, exc_info=exc)

    async def sweep(self) -> int:
        """Hint every row that is due; how many there were."""
        now = datetime.now(UTC)
        found = 0
        if now >= self._forget_at:
            self._forget_at = now + FORGET_EVERY
            await self._forget_old_keys(now)
        for station, room in self._stations.items():
            async with self._line.database.reading() as tx:
                ids = await room.due(tx, now, SWEEP_BATCH)
            self._line.engine.hint(station, *ids)
            found += len(ids)
        return found

    async def _forget_old_keys(self, now: datetime) -> None:
        before = now - timedelta(seconds=self._line.settings.idempotency_s)
        async with self._line.database.transaction() as tx:
            await delete_idempotency_keys(tx, before=before)
            await forget_processes(tx, before=now - timedelta(days=1))

    async def _repeat(
        self, look: Callable[[], Awaitable[int]], pause_s: float, topic: str | None = None
    ) -> None:
        """Look, pause, look again; a hint on `topic` or a stop ends the pause early."""
        with self._line.notifier.subscribe(topic or "") as hints:
            while not self._stopping.is_set():
                try:
                    await look()
                except DatabaseUnavailable as exc:
                    log.warning("look.failed", look=look.__name__, reason=str(exc))
                except Exception as exc:
                    log.error("look.failed", look=look.__name__, exc_info=exc)
                await self._pause(pause_s, hints.wait)

    async def _pause(self, pause_s: float, hint: Callable[[], Awaitable[bool]]) -> None:
        waits = [asyncio.ensure_future(self._stopping.wait()), asyncio.ensure_future(hint())]
        try:
            await asyncio.wait(waits, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    def _timed(
        self, station: Station, step: Callable[[str], Awaitable[None]]
    ) -> Callable[[str], Awaitable[None]]:
        histogram = self._line.metrics.step_seconds.labels(station.value)

        async def timed_step(row_id: str) -> None:
            with histogram.time():
                await step(row_id)

        return timed_step
