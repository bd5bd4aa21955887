"""The engine of many processes: PgQueuer on PostgreSQL, in tables of its own beside ours.

An item is written in the transaction of the row it is about, in one batch a transaction, because NOTIFY
holds a lock through the commit. Each station has a queue of its own, so that none stands behind another's
long steps. The engine reconnects for as long as it runs; what it does not hear
meanwhile is found by the sweep. The rules that PgQueuer needs are in `docs/decisions/0003`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast

import asyncpg
import structlog
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.errors import FailingListenerError, PgqException, RetryRequested
from pgqueuer.executors import DatabaseRetryEntrypointExecutor
from pgqueuer.models import Job as Item
from pgqueuer.queries import Queries
from pgqueuer.types import QueueEntrypoint

from app.backoff import backoff_s, jittered
from app.work import MOST_TOGETHER, Station, Step, pack, run_together, unpack
from app.work.listening import ListeningDriver
from db.ingress import Statement
from db.session import DatabaseUnavailable, Transaction, dsn_of

log = structlog.get_logger()

HEARTBEAT_S = 5.0
"""An item whose worker has not been heard of for this long is given to another."""
BATCH = 16
"""Items taken from a queue at once."""
FORGET_EVERY_S = 600.0
"""How often the engine's log of ended items is dropped, and its oldest failed items."""
HELD = timedelta(hours=1)
"""How long a failed item is kept, for a person to look at. Its row is due without it."""
MOST_FORGOTTEN = 1000
"""Failed items looked at in one turn."""
DEQUEUE_S = 2.0
"""The longest an idle worker goes without looking, should a notification be lost."""

ASYNCPG_TROUBLE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # What the driver makes of a connection that died while it was being used.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
ENGINE_TROUBLE = (*ASYNCPG_TROUBLE, PgqException)
"""PgQueuer says by an exception of its own that its listener is gone."""


class PostgresEngine:
    """PgQueuer on PostgreSQL, under the rules that it needs (`docs/decisions/0003`)."""

    def __init__(self, url: str) -> None:
        self._dsn = dsn_of(url)
        self._stopping = asyncio.Event()
        self._queues: list[PgQueuer] = []
        self._hinted: dict[Station, dict[str, None]] = {}
        self._hinting: asyncio.Task[None] | None = None
        self._pool: asyncpg.Pool | None = None
        self._trouble: str | None = None

    def enqueue(self, tx: Transaction, station: Station, *row_ids: str) -> None:
        if row_ids:
            tx.before_commit("items", [(station, item) for item in pack(station, row_ids)], self._write)

    def hint(self, station: Station, *row_ids: str) -> None:
        """For the sweep: an item for each row that has none waiting or being worked on."""
        if self._pool is None:
            return
        self._hinted.setdefault(station, {}).update(dict.fromkeys(row_ids))
        if self._hinted and (self._hinting is None or self._hinting.done()):
            self._hinting = asyncio.create_task(self._write_hints(self._pool))

    async def items_for(self, station: Station, row_ids: Sequence[str]) -> Statement:
        """PgQueuer's own statement, in one piece and not sent."""
        kept = _Kept()
        driver = AsyncpgDriver(cast("asyncpg.Connection", kept))
        await _enqueue(Queries(driver), [(station, item) for item in pack(station, row_ids)])
        return kept.statements[0]

    async def run(self, steps: Mapping[Station, Step]) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                async with _pool(self._dsn, steps) as pool:
                    self._pool = pool
                    failures = 0
                    self._trouble = None
                    await self._work(pool, steps)
            except ENGINE_TROUBLE as exc:
                # A restarted server ends LISTEN without a word: the listener's failure is our only sign.
                failures += 1
                self._trouble = f"reconnecting after {type(exc).__name__}"
                log.warning("engine.reconnecting", reason=type(exc).__name__)
            finally:
                self._pool = None
            with suppress(TimeoutError):
                async with asyncio.timeout(jittered(backoff_s(failures, first_s=0.2, most_s=5.0))):
                    await self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()
        self._end_queues()

    def trouble(self) -> str | None:
        return self._trouble

    async def _work(self, pool: asyncpg.Pool, steps: Mapping[Station, Step]) -> None:
        queues: list[tuple[PgQueuer, int]] = []
        lost = False

        def lose() -> None:
            nonlocal lost
            lost = True
            self._end_queues()

        for station, step in steps.items():
            queue = PgQueuer(ListeningDriver(pool, lose))
            # Kept on failure: the defaults would delete a failed item and never try it again.
            queue.entrypoint(
                station.value,
                concurrency_limit=0,
                on_failure="hold",
                executor_factory=partial(DatabaseRetryEntrypointExecutor, max_attempts=3),
            )(partial(self._run_item, asyncio.Semaphore(step.concurrency), step))
            queues.append((queue, max(2 * BATCH, 2 * step.concurrency)))
        self._queues = [queue for queue, _ in queues]
        if self._stopping.is_set():
            return
        forgetting = asyncio.create_task(_forget_log(pool, [station.value for station in steps]))
        try:
            await run_together(
                queues,
                dequeue_timeout=timedelta(seconds=DEQUEUE_S),
                batch_size=BATCH,
                heartbeat_timeout=timedelta(seconds=HEARTBEAT_S),
                shutdown_on_listener_failure=True,
                # Nobody reads the engine's statistics, and they only grow.
                log_aggregation_interval=timedelta(0),
            )
            if lost:
                raise FailingListenerError
        finally:
            forgetting.cancel()
            await asyncio.gather(forgetting, return_exceptions=True)

    def _end_queues(self) -> None:
        for queue in self._queues:
            queue.shutdown.set()

    async def _run_item(self, turn: asyncio.Semaphore, step: Step, item: Item) -> None:
        async with turn:
            if self._stopping.is_set():
                # Taken from the queue, but not begun: it is another's, at once.
                raise RetryRequested(timedelta(0))
            await step.run(*unpack(item.payload))

    async def _write(self, tx: Transaction, items: list[tuple[Station, bytes]]) -> None:
        connection = (await tx.raw_connection()).driver_connection
        try:
            await _enqueue(Queries(AsyncpgDriver(connection)), items)
        except ASYNCPG_TROUBLE as exc:
            raise DatabaseUnavailable(type(exc).__name__) from exc

    async def _write_hints(self, pool: asyncpg.Pool) -> None:
        queries = Queries(AsyncpgPoolDriver(pool))
        while self._hinted:
            station, row_ids = self._hinted.popitem()
            due, entrypoint = list(row_ids), QueueEntrypoint(station.value)
            try:
                if station in MOST_TOGETHER and await queries.eligible_queued_work([entrypoint]):
                    # Most of them are named in an item that waits, but it is not known in which: only the
                    # oldest then, since a row without an item comes to be one of them.
                    due = due[: MOST_TOGETHER[station]]
                await _enqueue(queries, [(station, item) for item in pack(station, due)], once=True)
            except ASYNCPG_TROUBLE as exc:
                log.warning("engine.hints_lost", reason=type(exc).__name__)


async def _forget_log(pool: asyncpg.Pool, entrypoints: list[str]) -> None:
    """The engine logs every item three times and never forgets; nobody reads that."""
    queries = Queries(AsyncpgPoolDriver(pool))
    while True:
        with suppress(*ASYNCPG_TROUBLE):
            await queries.clear_queue_log(entrypoints)
            await _forget_held(queries)
        await asyncio.sleep(FORGET_EVERY_S)


async def _forget_held(queries: Queries, *, kept: timedelta = HELD) -> int:
    """Drop failed items that nobody came for; how many. The oldest first, so none is passed over for ever."""
    before = datetime.now(UTC) - kept
    held = await queries.list_failed_jobs(MOST_FORGOTTEN, order="ASC")
    old = [item.id for item in held if item.updated < before]
    if old:
        await queries.mark_job_as_cancelled(old)
    return len(old)


class _Kept:
    """Stands where PgQueuer looks for a connection, and keeps what it would send."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []

    async def fetch(self, query: str, *values: object) -> list[dict[str, object]]:
        self.statements.append(Statement(query, values))
        return []


async def _enqueue(queries: Queries, items: Sequence[tuple[Station, bytes]], *, once: bool = False) -> None:
    """One batch. `once` skips rows that have such an item already; without it a second one is harmless."""
    keys: list[str | None] = [f"{station}:{item.decode()}" if once else None for station, item in items]
    await queries.enqueue(
        [station.value for station, _ in items],
        [item for _, item in items],
        [0] * len(items),
        dedupe_key=keys,
        on_conflict="skip",
    )


@asynccontextmanager
async def _pool(dsn: str, steps: Mapping[Station, Step]) -> AsyncIterator[asyncpg.Pool]:
    # Each queue listens on a connection of its own, and two more are for what they all ask.
    least = len(steps) + 2
    most = max(least, min(20, sum(step.concurrency for step in steps.values())))
    pool = await asyncpg.create_pool(dsn, min_size=2, max_size=most, timeout=5, command_timeout=30)
    try:
        yield pool
    finally:
        with suppress(*ASYNCPG_TROUBLE):
            async with asyncio.timeout(5):
                await pool.close()
        pool.terminate()
