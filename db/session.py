"""How a transaction is had, on SQLite, PostgreSQL and MySQL, and how the database is doing.

Promises: a transaction commits when its block ends and rolls back when it raises; nobody calls commit.
What must follow a commit (a hint, a work item of the in-memory engine) is queued with `after_commit` and
is dropped with a rollback. On SQLite there is one writer at a time in the process and every commit is
synced to the disk (`synchronous=FULL`), because an acknowledgement may hang on it; readers never wait.

Any failure to reach or to write the database surfaces as `DatabaseUnavailable`; a statement that breaks a
constraint keeps its own exception, since that is a fault of ours. What the failure leaves behind is told by
its kind (`db.connections.faults`), and `transact` runs work again where nothing of it can have been
committed. Every wait has a limit: for a connection or the writer's turn `PoolLimits.timeout_s`, for a
statement the server's own and, should the server be silent, the client's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import structlog
from sqlalchemy import ColumnElement, Interval, func, insert, literal, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql import Executable
from sqlmodel import SQLModel

from db.connections.faults import (
    CommitUnknown,
    Conflicted,
    ConnectionLost,
    DatabaseUnavailable,
    Fault,
    fault_of,
    is_coming_up,
    unavailable,
)
from db.connections.pools import Place, PoolMonitor, place_outside
from db.connections.turns import WriteTurns
from db.engines import PoolLimits, server_engine, sqlite_engine
from db.mysql.connections import BACKENDS, DUPLICATE_KEY, mysql_engine
from db.tables import UtcDateTime

__all__ = [
    "CommitUnknown",
    "Conflicted",
    "ConnectionLost",
    "Database",
    "DatabaseHealth",
    "DatabaseUnavailable",
    "Transaction",
    "dsn_of",
]

log = structlog.get_logger()

Result = TypeVar("Result")

MOST_TRIES = 3
"""How often `transact` begins, the first time included."""
_LOOK_S = 0.2
"""Between looks at a server that is coming up."""
_PAUSE_S = 0.02
"""The longest pause before the second try; twice that before the third."""


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    """One look at the database: `ok`, how long a trivial query took, and the pool's figures."""

    ok: bool
    latency_ms: float
    pool: dict[str, int]
    detail: str = ""


BeforeCommit = Callable[["Transaction", list[Any]], Awaitable[None]]


class Transaction:
    """An open transaction: statements go in, hints come out after the commit."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._after_commit: list[Callable[[], None]] = []
        self._before_commit: dict[str, tuple[list[Any], BeforeCommit]] = {}

    async def execute(self, statement: Executable, values: Any = None) -> CursorResult[Any]:
        """Run one statement; a list of `values` runs it once for each."""
        return await self._connection.execute(statement, values)

    async def insert_new(self, table: type[SQLModel], *rows: dict[str, Any]) -> int:
        """Insert rows that are not there yet, by any unique key, and say how many were new."""
        if self._connection.dialect.name in BACKENDS:
            return sum([await self._insert_or_find(table, row) for row in rows])
        dialect = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(table).on_conflict_do_nothing()
        inserted = 0
        for row in rows:
            inserted += (await self._connection.execute(statement, row)).rowcount
        return inserted

    @property
    def dialect(self) -> str:
        """The kind of database, by SQLAlchemy's name for it."""
        return self._connection.dialect.name

    @property
    def is_shared(self) -> bool:
        """Whether many processes may be writing: see `Database.is_shared`."""
        return self.dialect == "postgresql"

    @property
    def is_mysql(self) -> bool:
        return self.dialect in BACKENDS

    @property
    def has_clock(self) -> bool:
        """Whether the database has a clock of its own: a server's, that all who share it can go by."""
        return self.is_shared

    def clock(self, now: datetime, *, later_s: float = 0.0) -> ColumnElement[datetime]:
        """The database's time within a statement; `now`, the caller's, where it has no clock of its own."""
        later = timedelta(seconds=later_s)
        if not self.has_clock:
            return literal(now + later, UtcDateTime)
        return func.now(type_=UtcDateTime) + literal(later, Interval)

    async def now(self) -> datetime:
        """The time by the clock that all who share this database have in common."""
        if self._connection.dialect.name == "sqlite":
            return datetime.now(UTC)
        if self._connection.dialect.name in BACKENDS:
            # NOW() has whole seconds, and a plain column there knows no time zone.
            there: datetime = (await self._connection.execute(text("SELECT UTC_TIMESTAMP(6)"))).scalar_one()
            return there.replace(tzinfo=UTC)
        found: datetime = (await self._connection.execute(select(func.now()))).scalar_one()
        return found

    async def _insert_or_find(self, table: type[SQLModel], row: dict[str, Any]) -> bool:
        """Whether it was new, on MySQL, where a statement that fails takes only itself back.

        INSERT IGNORE would also store what does not fit, cut; and with row counts of rows found, which
        compare-and-set needs, ON DUPLICATE KEY UPDATE counts a known row like a new one.
        """
        try:
            await self._connection.execute(insert(table), row)
        except IntegrityError as exc:
            if exc.orig is None or exc.orig.args[:1] != (DUPLICATE_KEY,):
                raise
            return False
        return True

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Run `effect` once the commit is durable; never on a rollback. It must not block or raise."""
        self._after_commit.append(effect)

    def before_commit(self, name: str, things: list[Any], write: BeforeCommit) -> None:
        """Collect things under a name; `write` is handed all of them once, last in the transaction."""
        collected, _ = self._before_commit.setdefault(name, ([], write))
        collected.extend(things)

    async def raw_connection(self) -> Any:
        """The pooled driver connection that this transaction is on, once its first statement has run."""
        return await self._connection.get_raw_connection()

    async def finish(self) -> None:
        """What `before_commit` collected. Called by the database alone."""
        while self._before_commit:
            # One may collect more, under its own name or another's.
            name = next(iter(self._before_commit))
            things, write = self._before_commit.pop(name)
            await write(self, things)

    def committed(self) -> None:
        """What `after_commit` collected. Called by the database alone."""
        for effect in self._after_commit:
            effect()


class Database:
    """One database and its connection pools. Made in `app.wiring`, closed by `aclose`."""

    def __init__(self, url: str, limits: PoolLimits | None = None) -> None:
        self.url = url
        backend = make_url(url).get_backend_name()
        self.is_sqlite = backend == "sqlite"
        self.is_mysql = backend in BACKENDS
        """MySQL or MariaDB: a server, and yet for one process."""
        self.is_shared = not self.is_sqlite and not self.is_mysql
        """Whether many processes may work on it: work items and hints are in it too."""
        self.limits = limits = limits or PoolLimits()
        self._turns = WriteTurns(limits.timeout_s) if self.is_sqlite else None
        self.write_turn: AbstractAsyncContextManager[Any] = (
            self._turns.ordinary if self._turns else nullcontext()
        )
        """Whoever writes takes its turn here: SQLite has one writer, a server sorts them out by itself."""
        self.first_write_turn: AbstractAsyncContextManager[Any] = (
            self._turns.first if self._turns else nullcontext()
        )
        """The ingress's, whom a provider waits for."""
        self.beside: dict[str, Callable[[], int]] = {}
        """Connections that others hold beside the pools: how many each has, by name."""
        self._again = 0
        if self.is_sqlite:
            self._writer = sqlite_engine(url, limits, size=1, begin="BEGIN IMMEDIATE")
            self._reader = sqlite_engine(url, limits, size=limits.size, begin="BEGIN")
            self._writers = PoolMonitor(self._writer, most=1, held_limit_s=limits.held_limit_s)
            self._readers = PoolMonitor(self._reader, most=limits.size, held_limit_s=limits.held_limit_s)
        else:
            make_engine = mysql_engine if self.is_mysql else server_engine
            self._writer = self._reader = make_engine(url, limits)
            most = limits.size + limits.max_overflow
            self._writers = self._readers = PoolMonitor(
                self._writer, most=most, held_limit_s=limits.held_limit_s
            )

    @property
    def engine(self) -> AsyncEngine:
        """The writing engine; for migrations and tests."""
        return self._writer

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A writing transaction. Raises DatabaseUnavailable, as the kind that says what was left behind."""
        place = place_outside()
        async with self.write_turn, self._begun(self._writer, self._writers, place) as tx:
            yield tx
        tx.committed()

    async def transact(
        self, work: Callable[[Transaction], Awaitable[Result]], *, is_idempotent: bool = False
    ) -> Result:
        """Run `work` in a writing transaction, and run it again where that is safe. Raises as `transaction`.

        Again means from its beginning, in a new transaction, at most `MOST_TRIES` times: after a conflict,
        and after a connection that was lost before COMMIT was sent. `work` must have no effect outside the
        transaction. A connection lost after COMMIT was sent surfaces as CommitUnknown, unless the work is
        idempotent: run again after it has been committed, it must change nothing and say the same.
        """
        for tried in range(1, MOST_TRIES + 1):
            try:
                async with self.transaction() as tx:
                    return await work(tx)
            except (Conflicted, ConnectionLost, CommitUnknown) as exc:
                if tried == MOST_TRIES or (isinstance(exc, CommitUnknown) and not is_idempotent):
                    raise
                self._again += 1
                log.info("transaction.again", why=type(exc).__name__, tried=tried, reason=str(exc))
            # Jittered: two that met in a deadlock must not meet again.
            await asyncio.sleep(random.uniform(0, _PAUSE_S * tried))
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """A transaction that only reads; on SQLite it never waits for the writer. Raises as `transaction`."""
        async with self._begun(self._reader, self._readers, place_outside()) as tx:
            yield tx

    async def wait_until_up(self, within_s: float) -> None:
        """Wait for a server that says it is coming up: after a crash that takes seconds.

        Raises DatabaseUnavailable after the time, and at once for any other trouble.
        """
        until = time.monotonic() + within_s
        while True:
            try:
                async with self.reading() as tx:
                    await tx.execute(text("SELECT 1"))
                return
            except DatabaseUnavailable as exc:
                if not is_coming_up(exc) or time.monotonic() > until:
                    raise
            await asyncio.sleep(_LOOK_S)

    async def health(self) -> DatabaseHealth:
        """Ask the database for one row, and whether it could be written. Never raises."""
        started = time.perf_counter()
        detail = ""
        question = "SELECT current_setting('transaction_read_only')" if self.is_shared else "SELECT 1"
        if self.is_mysql:
            question = "SELECT IF(@@read_only, 'on', 'off')"
        try:
            async with self.reading() as tx:
                if (await tx.execute(text(question))).scalar_one() == "on":
                    detail = "the server is read-only"
                    self._readers.condemn()
        except DatabaseUnavailable as exc:
            detail = str(exc)
        return DatabaseHealth(not detail, _elapsed_ms(started), self.pool_figures(), detail)

    def pool_figures(self) -> dict[str, int]:
        """How the connections do.

        Now: `size`, `in_use`, `idle`, `overflow` of the (reading) pool. Since the start: `waited`, how many
        had to wait for a connection, and `waited_ms` together; `timeouts`, how many of them in vain;
        `recycled`, connections replaced for their age or because they broke; `leaked`, connections held for
        longer than the limit; `again`, transactions run again. On SQLite `turn_…` tells the same of the
        single writer's turn; `ingress` is the connection of the webhooks.
        """
        figures = {**self._readers.figures(), "again": self._again}
        figures.update({name: count() for name, count in self.beside.items()})
        if self._turns is not None:
            writers = self._writers.figures()
            figures.update({name: figures[name] + writers[name] for name in ("recycled", "leaked")})
            figures.update(self._turns.figures())
        return figures

    async def aclose(self) -> None:
        """Close every connection; within a limit, since a server that vanished answers no goodbye."""
        for engine, monitor in {self._writer: self._writers, self._reader: self._readers}.items():
            try:
                async with asyncio.timeout(self.limits.timeout_s):
                    await engine.dispose()
            except (TimeoutError, DBAPIError, OSError):
                monitor.condemn()
                await engine.dispose()

    @asynccontextmanager
    async def _begun(
        self, engine: AsyncEngine, monitor: PoolMonitor, place: Place
    ) -> AsyncIterator[Transaction]:
        """A transaction that is committed at the end of the block, with its errors in our words."""
        is_committing = False
        connection = await self._connect(engine, monitor)
        try:
            with monitor.holding(place):
                begun = await connection.begin()
                tx = Transaction(connection)
                yield tx
                await tx.finish()
                is_committing = True
                await begun.commit()
        except BaseException as exc:
            fault = fault_of(exc)
            await _take_back(connection, monitor, fault)
            if fault is None or fault is Fault.OURS:
                raise
            raise unavailable(exc, fault, committing=is_committing) from exc
        finally:
            # Whatever else happens to this task, the connection goes back to its pool.
            closing = asyncio.ensure_future(connection.close())
            await asyncio.shield(closing)

    async def _connect(self, engine: AsyncEngine, monitor: PoolMonitor) -> AsyncConnection:
        """A connection that answers, within the limit however many are asked in vain."""
        began, is_full = time.monotonic(), monitor.is_full()
        limit_s = self.limits.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await engine.connect()
        except (TimeoutError, PoolTimeout) as exc:
            monitor.timed_out()
            if not is_full:
                monitor.condemn()
            what = "free connection" if is_full else "answer"
            raise DatabaseUnavailable(f"no {what} within {limit_s:g} s") from exc
        except Exception as exc:
            raise unavailable(exc, fault_of(exc) or Fault.AWAY, committing=False) from exc
        finally:
            if is_full:
                monitor.waited(time.monotonic() - began)


async def _take_back(connection: AsyncConnection, monitor: PoolMonitor, fault: Fault | None) -> None:
    """Roll back; or, where nobody would answer that, drop the connection and all that lead to that server."""
    with suppress(Exception):
        if fault in (Fault.GONE, Fault.SILENT):
            await connection.invalidate()
            monitor.condemn()
        elif connection.in_transaction():
            await connection.rollback()


def _elapsed_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def dsn_of(url: str) -> str:
    """A SQLAlchemy URL of PostgreSQL as asyncpg itself takes it; of several hosts, the one that can write."""
    parsed = make_url(url).set(drivername="postgresql")
    hosts = parsed.normalized_query.get("host", ())
    if len(hosts) < 2:
        return parsed.render_as_string(hide_password=False)
    plain = parsed._replace(host="hosts.invalid", port=None).difference_update_query(["host"])
    plain = plain.update_query_dict({"target_session_attrs": "read-write"})
    return plain.render_as_string(hide_password=False).replace("@hosts.invalid", "@" + ",".join(hosts))
