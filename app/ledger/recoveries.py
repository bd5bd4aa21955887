"""Recoveries and bulk replays: foreseen, begun, followed, ended early; and worked on in the background.

`foresee` says what would happen and stores nothing. `begin` freezes the time and chooses the items; from then
on the recovery is a row, and whichever process holds its lease goes on with it (`work`), also after a death
in the middle. Promises: each item is done at least once and has one effect, because its news enters through
the inbox; an abort stops before the next few items; the providers are asked no faster than `RETRIES_PER_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import structlog

from app.access.callers import OPEN_HOUSE, Caller
from app.access.trail import Act, note_act
from app.crash_points import CrashPoint
from app.errors import Conflict, InvalidInput, NotFound
from app.ledger.effects import Effect
from app.ledger.errands import Errand, Outcome, only_first_moves
from app.line import Line
from db.ids import make_id
from db.ledger import recoveries as rows
from db.ledger.candidates import Wanted
from db.ledger.recoveries import Tally
from db.session import DatabaseUnavailable, Transaction
from db.states import RecoveryState
from db.tables import RecoveryItem, RecoveryRun

log = structlog.get_logger()

USUAL_SPAN = timedelta(days=7)
DRY_RUN_S = 45.0
"""How long a dry run may ask; what is left by then is told as not asked."""
LEASE_S = 60.0
"""A few questions at 15 s each; a process that died is found out sooner by its silence."""
BATCH = 8
MOST_TRIES = 3
"""How often an item may end the process that works on it."""
MOST_RUNNING = 5
"""Recoveries of one tenant at once."""
KEPT_FOR = timedelta(days=30)
TOPIC = "recoveries"
"""Heard by whoever works on them."""


class Task(StrEnum):
    """What is done with the items."""

    RECOVER = "recover"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Standing:
    """A recovery as it stands."""

    run: RecoveryRun
    tallies: Sequence[Tally]

    @property
    def done(self) -> int:
        return sum(tally.count for tally in self.tallies)

    @property
    def rerun_micros(self) -> int | None:
        known = [tally.rerun_micros for tally in self.tallies if tally.rerun_micros is not None]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recovery would do, item by item."""

    wanted: Wanted
    items: Sequence[RecoveryItem]
    outcomes: Sequence[Outcome]


class Recoveries:
    """The commands that callers give, and the work. One a runtime."""

    def __init__(self, *, line: Line, errands: Mapping[Task, Errand]) -> None:
        self._line = line
        self._errands = errands
        self._is_stopping = False

    def frozen(
        self,
        tenant: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        kind: str | None = None,
        outcome: str | None = None,
        source: str | None = None,
        limit: int = 1000,
    ) -> Wanted:
        """The wish with its times filled in: up to now, from a week before. Raises InvalidInput."""
        until = until or self._line.clock.now()
        since = since or max(until, _EARLIEST + USUAL_SPAN) - USUAL_SPAN
        if since > until:
            raise InvalidInput("since must not be after until", field="since")
        return Wanted(
            tenant=tenant, since=since, until=until, kind=kind, outcome=outcome, source=source, limit=limit
        )  # fmt: skip

    async def foresee(self, task: Task, wanted: Wanted) -> Plan:
        """What each item would do if nothing else happened. Asks the providers, changes nothing."""
        errand = self._errands[task]
        async with self._line.database.reading() as tx:
            items = await errand.choose(tx, wanted)
        turns, until = asyncio.Semaphore(errand.at_once), asyncio.get_running_loop().time() + DRY_RUN_S

        async def one(item: RecoveryItem) -> Outcome:
            try:
                async with turns, asyncio.timeout_at(until):
                    return await errand.do(item, None)
            except TimeoutError:
                return Outcome(Effect.UNASKED, f"there was no time for it within {DRY_RUN_S:.0f} s")

        outcomes = await asyncio.gather(*(one(item) for item in items))
        return Plan(wanted, items, only_first_moves(items, outcomes))

    async def begin(self, task: Task, wanted: Wanted, *, by: Caller = OPEN_HOUSE) -> Standing:
        """Choose the items and store the wish; the work follows by itself. Raises Conflict."""
        run = RecoveryRun(
            id=make_id("rcv"), tenant=wanted.tenant, task=task, state=RecoveryState.RUNNING,
            since=wanted.since, until=wanted.until, total=0, created_at=self._line.clock.now(),
            wanted={name: getattr(wanted, name) for name in ("kind", "outcome", "source", "limit")},
        )  # fmt: skip
        async with self._line.database.transaction() as tx:
            if await rows.count_running(tx, wanted.tenant) >= MOST_RUNNING:
                raise Conflict(f"{MOST_RUNNING} recoveries are running already; abort one, or wait for it")
            items = await self._errands[task].choose(tx, wanted)
            run.total = len(items)
            if not items:
                run.state, run.finished_at = RecoveryState.DONE, run.created_at
            await rows.insert_recovery(tx, run, items)
            await note_act(tx, by, Act.RECOVERY_BEGUN, run.id, at=run.created_at)
            self._line.notifier.announce(tx, TOPIC)
        self._line.reach(CrashPoint.RECOVERY_COMMITTED)
        log.info("recovery.begun", recovery_id=run.id, task=run.task, items=run.total)
        return Standing(run, [])

    async def get(self, recovery_id: str, *, tenant: str, wait_s: float = 0.0) -> Standing:
        """One as it stands; with `wait_s`, once it goes on or ends, or after that long. Raises NotFound."""
        with self._line.notifier.subscribe(recovery_topic(recovery_id)) as hints:
            standing = await self._read(recovery_id, tenant)
            if wait_s and standing.run.state == RecoveryState.RUNNING:
                await hints.wait(wait_s)
                standing = await self._read(recovery_id, tenant)
        return standing

    async def list_recoveries(self, *, tenant: str, before_id: str | None, limit: int) -> list[Standing]:
        """Newest first."""
        async with self._line.database.reading() as tx:
            runs = await rows.list_recoveries(tx, tenant=tenant, before_id=before_id, limit=limit)
            tallies = await rows.count_effects(tx, [run.id for run in runs])
        return [Standing(run, tallies.get(run.id, [])) for run in runs]

    async def list_items(
        self, recovery_id: str, *, tenant: str, effect: str | None, after: int, limit: int
    ) -> list[RecoveryItem]:
        """Its items in the order of work. Raises NotFound."""
        async with self._line.database.reading() as tx:
            if await rows.find_recovery(tx, recovery_id, tenant=tenant) is None:
                raise NotFound(f"there is no recovery {recovery_id[:64]}")
            return await rows.list_items(tx, recovery_id, effect=effect, after=after, limit=limit)

    async def abort(self, recovery_id: str, *, by: Caller = OPEN_HOUSE) -> Standing:
        """End it early: what is done stays done. Raises NotFound, Conflict when it had come to its end."""
        now = self._line.clock.now()
        async with self._line.database.transaction() as tx:
            aborted = await rows.abort_recovery(tx, recovery_id, tenant=by.tenant, now=now)
            if aborted:
                await note_act(tx, by, Act.RECOVERY_ABORTED, recovery_id, at=now)
                self._line.notifier.announce(tx, recovery_topic(recovery_id))
        standing = await self._read(recovery_id, by.tenant)
        if not aborted and standing.run.state == RecoveryState.DONE:
            raise Conflict("the recovery has come to its end already")
        return standing

    def stop(self) -> None:
        """Take no more items; what is begun comes to its end, and another process goes on."""
        self._is_stopping = True

    async def work(self) -> int:
        """Work on every recovery that nobody works on; how many items. Raises DatabaseUnavailable."""
        worked = 0
        while not self._is_stopping:
            async with self._line.database.transaction() as tx:
                now = self._line.clock.now()
                by = self._line.process_id
                run = await rows.claim_recovery(tx, by=by, now=now, lease_s=LEASE_S)
                if run is None:
                    await rows.forget_recoveries(tx, before=now - KEPT_FOR, limit=10)
            if run is None:
                break
            with structlog.contextvars.bound_contextvars(recovery_id=run.id):
                worked += await self._work_on(run)
        return worked

    async def _work_on(self, run: RecoveryRun) -> int:
        worked = 0
        while True:
            items = await self._take(run)
            if not items:
                return worked
            turns = asyncio.Semaphore(self._errands[Task(run.task)].at_once)
            ended = await asyncio.gather(*(self._do(item, run, turns) for item in items))
            self._line.reach(CrashPoint.RECOVERY_ITEMS_DONE)
            async with self._line.database.transaction() as tx:
                written = await rows.end_items(tx, run, ended)
                self._line.notifier.announce(tx, recovery_topic(run.id))
            if not written:
                log.info("recovery.lost_race")
                return worked
            worked += len(items)

    async def _take(self, run: RecoveryRun) -> list[RecoveryItem] | None:
        """The next items; none when it is over, aborted, another's, or to be left to another."""

        async def take(tx: Transaction) -> list[RecoveryItem] | None:
            if self._is_stopping:
                await rows.release_recovery(tx, run)
                self._line.notifier.announce(tx, TOPIC)
                return None
            now = self._line.clock.now()
            items = await rows.begin_items(tx, run, now=now, lease_s=LEASE_S, limit=BATCH)
            if items == [] and await rows.end_recovery(tx, run, now=now):
                tx.after_commit(lambda: log.info("recovery.done", task=run.task, items=run.total))
                self._line.notifier.announce(tx, recovery_topic(run.id))
            return items

        return await self._line.database.transact(take)

    async def _do(self, item: RecoveryItem, run: RecoveryRun, turns: asyncio.Semaphore) -> RecoveryItem:
        """The item with what became of it."""
        outcome = Outcome(Effect.BROKEN, f"working on it ended the process {MOST_TRIES} times")
        if item.tries < MOST_TRIES:
            try:
                async with turns:
                    outcome = await self._errands[Task(run.task)].do(item, run)
            except DatabaseUnavailable:
                raise
            except Exception as exc:
                # One item must not hold up its neighbours, nor come again and again.
                log.error("recovery.stumbled", row_id=item.row_id, exc_info=exc)
                outcome = Outcome(Effect.BROKEN, f"a fault of ours: {type(exc).__name__}")
        item.effect, item.detail = outcome.effect, outcome.detail[:300]
        item.finding, item.delivery_id = outcome.finding, outcome.delivery_id
        item.rerun_micros, item.ended_at = outcome.rerun_micros, self._line.clock.now()
        return item

    async def _read(self, recovery_id: str, tenant: str) -> Standing:
        async with self._line.database.reading() as tx:
            run = await rows.find_recovery(tx, recovery_id, tenant=tenant)
            tallies = await rows.count_effects(tx, [recovery_id])
        if run is None:
            raise NotFound(f"there is no recovery {recovery_id[:64]}")
        return Standing(run, tallies.get(recovery_id, []))


def recovery_topic(recovery_id: str) -> str:
    return f"recovery:{recovery_id}"


_EARLIEST = datetime.min.replace(tzinfo=UTC)
