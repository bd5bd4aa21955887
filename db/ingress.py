"""The hot path of the rows: deliveries that arrive together, stored in one commit without an ORM.

SQLite: one thread with one plain `sqlite3` connection, synchronous=FULL, taking turns with the other writer
of the process. PostgreSQL: one asyncpg connection and one statement a group. Both insert-or-ignore by
`dedupe_key` and say which rows were new; both return only after the commit is durable.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Protocol

from sqlalchemy.engine import make_url

from db.session import Database, DatabaseUnavailable, dsn_of


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery to be stored; the fields are columns of `db.tables.Delivery`."""

    id: str
    source: str
    provider: str
    attempt_id: str
    job_id: str | None
    message_id: str | None
    dedupe_key: bytes
    headers: dict[str, str]
    body: bytes
    received_at: datetime


class Ingress(Protocol):
    """Stores groups of deliveries."""

    async def write(self, deliveries: Sequence[NewDelivery]) -> list[bool]:
        """Store them in one commit; for each, whether it was new. Raises DatabaseUnavailable."""
        ...

    async def aclose(self) -> None: ...


ItemsWriter = Callable[[Any, list[str]], Awaitable[None]]
"""Writes a work item for each of these deliveries, on a driver connection, in the transaction it is in."""


def open_ingress(database: Database, write_items: ItemsWriter | None = None) -> Ingress:
    """The ingress for this database; it connects at the first write."""
    if database.is_sqlite:
        return SqliteIngress(database)
    return PostgresIngress(database, write_items)


CHECKPOINT_BYTES = 16 * 1024 * 1024
"""How much the write-ahead log may grow before it is copied back beside the writing."""
_PAGES_A_ROW_BYTES = 3 * 4096
"""Pages of indexes that a row touches, each of which is logged whole."""

_COLUMNS = [field.name for field in fields(NewDelivery)]
_NAMES = ", ".join([*_COLUMNS, "run_after", "tries"])


class SqliteIngress:
    """One thread, one connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ingress")
        self._connection: sqlite3.Connection | None = None
        self._checkpointer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._checkpointing: Future[None] | None = None
        self._grown_bytes = 0

    async def write(self, deliveries: Sequence[NewDelivery]) -> list[bool]:
        rows = [_sqlite_row(delivery) for delivery in deliveries]
        # SQLite has one writer: who waits in the kernel's busy handler sleeps, who waits here is woken.
        async with self._database.write_turn:
            try:
                new = await asyncio.get_running_loop().run_in_executor(self._thread, self._insert, rows)
            except sqlite3.OperationalError as exc:
                raise DatabaseUnavailable(str(exc)) from exc
        self._grown_bytes += sum(_PAGES_A_ROW_BYTES + len(delivery.body) for delivery in deliveries)
        if self._grown_bytes > CHECKPOINT_BYTES and (
            self._checkpointing is None or self._checkpointing.done()
        ):
            self._grown_bytes = 0
            self._checkpointing = self._checkpointer.submit(self._checkpoint)
        return new

    async def aclose(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()
        self._checkpointer.shutdown()

    def _insert(self, rows: list[tuple[Any, ...]]) -> list[bool]:
        connection = self._connection or self._connect()
        # One statement for the group, not one a row: this thread gives the interpreter away at every
        # statement and may have to wait for a busy event loop to get it back.
        one = f"({', '.join('?' * len(_COLUMNS))}, ?, 0)"
        statement = (
            f"INSERT INTO deliveries ({_NAMES}) VALUES {', '.join([one] * len(rows))} ON CONFLICT DO NOTHING"  # noqa: S608
        )
        connection.execute("BEGIN IMMEDIATE")
        try:
            inserted = connection.execute(statement, list(chain.from_iterable(rows))).rowcount
            new = None if inserted == len(rows) else self._find_new(connection, rows)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return [True] * len(rows) if new is None else [row[0] in new for row in rows]

    def _find_new(self, connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> set[str]:
        """Which ids are there now; the others met a row with their key."""
        marks = ", ".join("?" * len(rows))
        found = connection.execute(
            f"SELECT id FROM deliveries WHERE id IN ({marks})",  # noqa: S608 - marks are ours
            [row[0] for row in rows],
        )
        return {str(row[0]) for row in found}

    def _connect(self) -> sqlite3.Connection:
        self._connection = self._open()
        # Copying the log back into the database file takes tens of milliseconds and would stop every
        # webhook that waits: it is done beside the writing, on a connection and thread of its own.
        self._connection.execute("PRAGMA wal_autocheckpoint=0")
        return self._connection

    def _checkpoint(self) -> None:
        with closing(self._open()) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _open(self) -> sqlite3.Connection:
        path = make_url(self._database.url).database or ""
        connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-8000"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class PostgresIngress:
    """One asyncpg connection; another one after the server was away."""

    _INSERT = (
        f"INSERT INTO deliveries ({_NAMES}) SELECT {', '.join(_COLUMNS)}, received_at, 0 FROM "  # noqa: S608
        "unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],"
        " $8::json[], $9::bytea[], $10::timestamptz[])"
        f" AS given({', '.join(_COLUMNS)}) ON CONFLICT DO NOTHING RETURNING id"
    )

    def __init__(self, database: Database, write_items: ItemsWriter | None) -> None:
        self._database = database
        self._write_items = write_items
        self._connection: Any = None

    async def write(self, deliveries: Sequence[NewDelivery]) -> list[bool]:
        import asyncpg

        columns = list(zip(*(_postgres_row(delivery) for delivery in deliveries), strict=True))
        trouble = (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
            TimeoutError,
        )
        # The fault of a row, not of the database: its neighbours can still be stored without it. What the
        # driver itself cannot send is a ValueError.
        row_faults = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError)
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            async with self._connection.transaction():
                found = await self._connection.fetch(self._INSERT, *columns)
                if found and self._write_items is not None:
                    await self._write_items(self._connection, [row["id"] for row in found])
        except row_faults:
            raise
        except trouble as exc:
            self._drop()
            raise DatabaseUnavailable(type(exc).__name__) from exc
        except BaseException:
            # Canceled within BEGIN, the driver would take the next group for a part of this one, and what it
            # says is committed would not be.
            self._drop()
            raise
        new = {row["id"] for row in found}
        return [delivery.id in new for delivery in deliveries]

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    def _drop(self) -> None:
        """Whatever state it was left in, the next write has a connection of its own."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connect(self) -> Any:
        import asyncpg

        return await asyncpg.connect(
            dsn_of(self._database.url),
            timeout=5,
            # Also for BEGIN, COMMIT and ROLLBACK: a server that hangs must not hold whoever waits here.
            command_timeout=10,
            server_settings={"application_name": "reprise-ingress", "synchronous_commit": "on"},
        )


def _sqlite_row(delivery: NewDelivery) -> tuple[Any, ...]:
    # The shape in which `UtcDateTime` stores and reads a time on SQLite.
    at = delivery.received_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    *values, headers, body, _ = _values(delivery)
    return (*values, json.dumps(headers), body, at, at)


def _postgres_row(delivery: NewDelivery) -> tuple[Any, ...]:
    *values, headers, body, at = _values(delivery)
    return (*values, json.dumps(headers), body, at)


def _values(delivery: NewDelivery) -> tuple[Any, ...]:
    return tuple(getattr(delivery, name) for name in _COLUMNS)
