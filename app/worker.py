"""Run the stations: register them with the work engine, sweep for rows without an item, look for the silent.

Promises: what is due is worked on, also when every hint about it was lost, within `SWEEP_INTERVAL_S`; a
restart needs nothing else, because the first sweep finds every row that was left. `stop` lets steps that
have begun come to their end, `hand_back` gives up those that have not, so that others take them at once.
Where others share the database, this process says every second that it is alive, and takes over from those
that have stopped saying so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog

from app.bulk.acts import BULK
from app.bulk.runner import BulkRunner
from app.errors import StorageUnavailable
from app.housekeeping import Housekeeper
from app.ledger.recoveries import TOPIC as RECOVERIES
from app.ledger.recoveries import Recoveries
from app.line import Line
from app.notify import RECOVERY
from app.recovery import Recovery
from app.work import Station, Step
from app.work.pulse import Pulse
from db.announcements.sending import bring_announcements_forward, release_announcements
from db.attempts import bring_checks_forward, list_live_attempts, note_attempt
from db.circuits import bring_circuits_forward
from db.families import bring_plans_forward
from db.inbox import bring_deliveries_forward
from db.jobs import bring_jobs_forward, release_all_leases
from db.keys import delete_idempotency_keys
from db.ledger.recoveries import release_recoveries
from db.processes import beat, forget_processes, hand_over_unasked, leave, release_orphaned_leases
from db.session import DatabaseUnavailable, Transaction
from db.states import AttemptStatus

log = structlog.get_logger()

SWEEP_BATCH = 500
BEAT_S = 1.0
"""How often a process says that it is alive, where others would take over from it."""
MOST_ADOPTED = 10_000
LANDED_AFTER = timedelta(seconds=5)
"""By then what a killed process asked a provider for is there to be found, or never will be."""
LONGEST_WAIT = timedelta(seconds=60)
"""How long a row may be told to wait across a restart. Asking too early costs a question, no more."""
LONGEST_PATIENCE = timedelta(days=2)
"""The same of an announcement, whose receiver may ask for a day."""
DEAD_AFTER = timedelta(seconds=5)
"""Silence after which a process is taken for dead, by the database's clock. Wrong about a living one, the
fences hold and its work is done twice; its second heart makes that rare."""
HAND_BACK_S = 5.0
"""How long giving up a step may take: killing an ffmpeg, writing to the row."""
FORGET_EVERY = timedelta(minutes=10)
"""How often idempotency keys past their time are dropped."""


class StationRoom(Protocol):
    """What a station offers its worker: which rows are due, and one step on the rows of an item.

    One row, but for the stations of `MOST_TOGETHER`.
    """

    async def due(self, tx: Transaction, now: datetime, limit: int) -> Sequence[str]: ...

    async def step(self, row_id: str, /) -> None: ...


class Worker:
    """Runs stations until it is stopped. One a process."""

    def __init__(
        self,
        *,
        line: Line,
        stations: Mapping[Station, StationRoom],
        recovery: Recovery,
        recoveries: Recoveries,
        housekeeper: Housekeeper,
        bulk: BulkRunner,
    ) -> None:
        self._line = line
        self._process_id = line.process_id
        self._stations = stations
        self._recovery = recovery
        self._recoveries = recoveries
        self._housekeeper = housekeeper
        self._bulk = bulk
        self._stopping = asyncio.Event()
        self._forget_at = self._line.clock.now()
        self._heard_at: datetime | None = None
        self._beating_since = self._forget_at
        self._pulse = Pulse(url=line.database.url, process_id=line.process_id, pause_s=BEAT_S)
        self._begun: set[asyncio.Task[Any]] = set()
        self._handing_back = False

    @property
    def stations(self) -> list[Station]:
        """Those that this process runs."""
        return list(self._stations)

    def keep_to(self, stations: Collection[Station]) -> None:
        """Run only these stations; the others are another process's."""
        self._stations = {station: self._stations[station] for station in stations}

    async def run(self) -> None:
        """Work until `stop`."""
        limits = {
            Station.DISPATCH: self._line.settings.dispatch_concurrency,
            Station.APPLY: self._line.settings.apply_concurrency,
            Station.FINISH: self._line.settings.finishers,
            Station.ANNOUNCE: self._line.settings.announce_concurrency,
        }
        steps = {
            station: Step(self._timed(station, room.step), limits[station])
            for station, room in self._stations.items()
        }
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_working(steps))
            tasks.create_task(self._repeat(self.sweep, self._line.settings.sweep_interval_s))
            tasks.create_task(
                self._repeat(self._recovery.check, self._line.settings.recovery_interval_s, RECOVERY)
            )
            tasks.create_task(self._repeat(self._bulk.check, self._line.settings.sweep_interval_s, BULK))
            tasks.create_task(
                self._repeat(self._recoveries.work, self._line.settings.recovery_interval_s, RECOVERIES)
            )
            tasks.create_task(
                self._repeat(self._housekeeper.keep, self._line.settings.housekeeping_interval_s)
            )

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Be known to the other processes for the length of the block, and known to have left afterwards."""
        await self.beat()
        if not self._line.settings.is_shared:
            yield
            return
        self._pulse.start()
        beating = asyncio.create_task(self._beat_on())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await asyncio.to_thread(self._pulse.close)
            # Nobody needs to wait for our silence: what we left is theirs from now on.
            with suppress(DatabaseUnavailable):
                async with self._line.database.transaction() as tx:
                    await leave(tx, self._process_id)

    async def beat(self) -> datetime:
        """Tell the other processes that this one is alive; the moment of which that is true."""
        async with self._line.database.transaction() as tx:
            now = await tx.now()
            await beat(tx, self._process_id, now=now)
        self._pulse.mark()
        return now

    async def _beat_on(self) -> None:
        while True:
            try:
                await self._keep_beating()
            except DatabaseUnavailable as exc:
                log.warning("look.failed", look="keep_beating", reason=str(exc))
            except Exception as exc:
                log.error("look.failed", look="keep_beating", exc_info=exc)
            await asyncio.sleep(BEAT_S)

    async def _keep_beating(self) -> int:
        """Beat; and once this has gone well for a while, take over from those who do not.

        Not sooner: after an outage of the database everybody has been silent, the living too.
        """
        now = await self.beat()
        if self._heard_at is None or now - self._heard_at > 3 * timedelta(seconds=BEAT_S):
            self._beating_since = now
        self._heard_at = now
        if now - self._beating_since < DEAD_AFTER or self._stopping.is_set():
            return 0
        silent_since = now - DEAD_AFTER
        await self._take_over(silent_since, now)
        return await self._recovery.forget_orphans(silent_since=silent_since)

    async def _take_over(self, silent_since: datetime, now: datetime) -> None:
        """What dead processes had in hand that outlives them: a job's files, a question to a provider."""
        async with self._line.database.transaction() as tx:
            freed = await release_orphaned_leases(tx, silent_since=silent_since, limit=SWEEP_BATCH)
            self._line.engine.enqueue(tx, Station.FINISH, *freed)
            asked = await hand_over_unasked(
                tx, silent_since=silent_since, check_at=now, made_before=now - LANDED_AFTER
            )
            if asked:
                self._line.notifier.announce(tx, RECOVERY)
            if await release_recoveries(tx, silent_since=silent_since):
                self._line.notifier.announce(tx, RECOVERIES)
        if freed or asked:
            log.info("worker.took_over", leases=len(freed), attempts=asked)

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
        self._recoveries.stop()
        self._bulk.stop()
        self._line.engine.stop()

    async def hand_back(self) -> None:
        """Give up the steps that have not ended; each leaves its row for the next worker, at once."""
        self._handing_back = True
        for task in self._begun:
            task.cancel()
        if self._begun:
            log.warning("worker.handed_back", steps=len(self._begun))
            await asyncio.wait(self._begun, timeout=HAND_BACK_S)

    async def adopt(self) -> None:
        """Take over everything a dead predecessor left; only for the one owner of an embedded database."""
        async with self._line.database.transaction() as tx:
            released = await release_all_leases(tx)
            released += await release_announcements(tx) + await release_recoveries(tx)
            live = await list_live_attempts(tx, limit=MOST_ADOPTED)
            unasked = [attempt for attempt in live if attempt.status == AttemptStatus.PENDING]
            for attempt in unasked:
                # Nobody is creating it any more; recovery asks whether the provider has it.
                await note_attempt(tx, attempt.id, check_at=attempt.created_at + LANDED_AFTER)
            # What waits for longer than anything may was written by a clock that has been set back since.
            latest = self._line.clock.now() + LONGEST_WAIT
            early = await bring_jobs_forward(tx, latest) + await bring_deliveries_forward(tx, latest)
            early += await bring_plans_forward(tx, latest)
            early += await bring_checks_forward(tx, latest) + await bring_circuits_forward(tx, latest)
            early += await bring_announcements_forward(tx, latest + LONGEST_PATIENCE)
        if released or unasked or early:
            log.info("worker.adopted", leases=released, attempts=len(unasked), brought_forward=early)

    async def catch_up(self) -> None:
        """Apply the news that is stored already, before anybody calls its attempt lost."""
        inbox = self._stations.get(Station.APPLY)
        if inbox is None:
            return
        async with self._line.database.reading() as tx:
            ids = await inbox.due(tx, self._line.clock.now(), SWEEP_BATCH)
        for delivery_id in ids:
            try:
                await inbox.step(delivery_id)
            except Exception as exc:
                log.error("step.failed", row_id=delivery_id, exc_info=exc)

    async def sweep(self) -> int:
        """Hint every row that is due; how many there were."""
        now = self._line.clock.now()
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
                except (DatabaseUnavailable, StorageUnavailable) as exc:
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
        self, station: Station, step: Callable[..., Awaitable[None]]
    ) -> Callable[..., Awaitable[None]]:
        histogram = self._line.metrics.step_seconds.labels(station.value)

        async def timed_step(*row_ids: str) -> None:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a coroutine that runs is in one
            self._begun.add(task)
            try:
                with histogram.time():
                    await step(*row_ids)
            except asyncio.CancelledError:
                # The step was ours to end; the engine's task around it goes on and sees a step that is done.
                if not self._handing_back:
                    raise
                task.uncancel()
            finally:
                self._begun.discard(task)

        return timed_step
