"""How a transaction is had, on SQLite, PostgreSQL and MySQL, and how the database is doing.

Promises: a transaction commits when its block ends and rolls back when it raises; nobody calls commit.
What must follow a commit (a hint, a work item of the in-memory engine) is queued with `after_commit` and
is dropped with a rollback. On SQLite there is one writer at a time in the process and every commit is
synced to the disk (`synchronous=FULL`), because an acknowledgement may hang on it; readers never wait.

Any failure to reach or to write the database surfaces as `DatabaseUnavailable`; a statement that breaks a
constraint keeps its own exception, since that is a fault of ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import CursorResult, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql import Executable
from sqlmodel import SQLModel

from db.engines import PoolLimits, server_engine, sqlite_engine
from db.mysql.connections import BACKENDS, DUPLICATE_KEY, mysql_engine


class DatabaseUnavailable(Exception):
    """The database did not answer, is read-only, locked past its limit, full, or has no free connection."""


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
        for things, write in self._before_commit.values():
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
        self.write_turn: AbstractAsyncContextManager[Any] = (
            asyncio.Lock() if self.is_sqlite else nullcontext()
        )
        """Whoever writes takes its turn here: SQLite has one writer, a server sorts them out by itself."""
        limits = limits or PoolLimits()
        if self.is_sqlite:
            self._writer = sqlite_engine(url, limits, size=1, begin="BEGIN IMMEDIATE")
            self._reader = sqlite_engine(url, limits, size=limits.size, begin="BEGIN")
        else:
            make_engine = mysql_engine if self.is_mysql else server_engine
            self._writer = self._reader = make_engine(url, limits)

    @property
    def engine(self) -> AsyncEngine:
        """The writing engine; for migrations and tests."""
        return self._writer

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A writing transaction. Raises DatabaseUnavailable."""
        async with self.write_turn, _connected(self._writer) as connection:
            tx = Transaction(connection)
            yield tx
            await tx.finish()
        tx.committed()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """A transaction that only reads; on SQLite it never waits for the writer. Raises as `transaction`."""
        async with _connected(self._reader) as connection:
            yield Transaction(connection)

    async def health(self) -> DatabaseHealth:
        """Ask the database for one row. Never raises."""
        started = time.perf_counter()
        try:
            async with self.reading() as tx:
                await tx.execute(text("SELECT 1"))
        except DatabaseUnavailable as exc:
            return DatabaseHealth(
                ok=False, latency_ms=_elapsed_ms(started), pool=self.pool_figures(), detail=str(exc)
            )
        return DatabaseHealth(ok=True, latency_ms=_elapsed_ms(started), pool=self.pool_figures())

    def pool_figures(self) -> dict[str, int]:
        """Connections of the reading pool: `size`, `in_use`, `idle`, `overflow`."""
        pool = self._reader.sync_engine.pool
        if not isinstance(pool, QueuePool):
            return {}
        return {
            "size": pool.size(),
            "in_use": pool.checkedout(),
            "idle": pool.checkedin(),
            "overflow": max(0, pool.overflow()),
        }

    async def aclose(self) -> None:
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.begin() as connection:
            yield connection
    except (IntegrityError, ProgrammingError):
        raise
    except (DBAPIError, PoolTimeout, OSError) as exc:
        # The driver's text may hold values of ours; its first line names the cause and is enough.
        cause = str(getattr(exc, "orig", None) or exc).splitlines()[0][:200]
        raise DatabaseUnavailable(cause) from exc


def _elapsed_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def dsn_of(url: str) -> str:
    """A SQLAlchemy URL of PostgreSQL as asyncpg itself takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
