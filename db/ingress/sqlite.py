"""Ingress on SQLite: one thread with one plain `sqlite3` connection and synchronous=FULL.

It takes turns with the other writer of the process, and copies the write-ahead log back beside the writing.
Under a load that never pauses that is never done, and the log would grow for as long as the load lasts: so
the next group copies what has come meanwhile, which is little, and the log begins anew.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC
from itertools import chain
from typing import Any

from sqlalchemy.engine import make_url

from db.ingress.rows import COLUMNS, NAMES, NewDelivery, as_json
from db.session import Database, DatabaseUnavailable

CHECKPOINT_BYTES = 12 * 1024 * 1024
"""How much the write-ahead log may grow before it is copied back beside the writing."""
_PAGES_A_GROUP_BYTES = 7 * 8192
"""Pages that a group touches beside those of its rows, each of which is logged whole: measured."""
_ROOM_A_ROW_BYTES = 2048
"""What a row takes of the log beside its body, in indexes and in the end of a page: measured."""


class SqliteIngress:
    """One thread, one connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._has_copied = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ingress")
        self._connection: sqlite3.Connection | None = None
        self._checkpointer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._checkpointing: Future[None] | None = None
        self._grown_bytes = 0

    async def write(self, deliveries: Sequence[NewDelivery]) -> list[bool]:
        rows = [_sqlite_row(delivery) for delivery in deliveries]
        # SQLite has one writer: who waits in the kernel's busy handler sleeps, who waits here is woken.
        async with self._database.first_write_turn:
            try:
                new = await asyncio.get_running_loop().run_in_executor(self._thread, self._insert, rows)
            except sqlite3.OperationalError as exc:
                raise DatabaseUnavailable(str(exc)) from exc
        self._grown_bytes += _PAGES_A_GROUP_BYTES
        self._grown_bytes += sum(_ROOM_A_ROW_BYTES + len(delivery.body) for delivery in deliveries)
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
        if self._has_copied:
            self._has_copied = False
            with suppress(sqlite3.OperationalError):  # a matter of its own: the rows may fit all the same
                # In the writers' turn nobody adds to it. Copied back whole, it is begun anew just below.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        # One statement for the group, and no BEGIN or COMMIT beside it: this thread gives the interpreter
        # away at every statement and may have to wait for a busy event loop to get it back. By itself the
        # statement is a transaction, durable when it returns.
        one = f"({', '.join('?' * len(COLUMNS))}, ?, 0)"
        statement = (
            f"INSERT INTO deliveries ({NAMES}) VALUES {', '.join([one] * len(rows))} ON CONFLICT DO NOTHING"  # noqa: S608
        )
        inserted = connection.execute(statement, list(chain.from_iterable(rows))).rowcount
        if inserted == len(rows):
            return [True] * len(rows)
        new = self._find_new(connection, rows)
        return [row[0] in new for row in rows]

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
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._has_copied = True

    def _open(self) -> sqlite3.Connection:
        path = make_url(self._database.url).database or ""
        connection = sqlite3.connect(path, isolation_level=None, timeout=self._database.limits.timeout_s)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-8000"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _sqlite_row(delivery: NewDelivery) -> tuple[Any, ...]:
    # The shape in which `UtcDateTime` stores and reads a time on SQLite.
    at = delivery.received_at.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    *plain, headers, body, _ = delivery
    return (*plain, as_json(headers), body, at, at)
