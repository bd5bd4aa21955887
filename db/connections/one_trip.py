"""aiosqlite with one trip to its thread for a statement, instead of one for each part of it.

A statement through SQLAlchemy is four calls of the driver: make a cursor, execute, fetch all, close. Each is
a trip to the connection's thread and back, and on a busy machine each way waits for a processor. All rows
are held in memory either way.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import aiosqlite
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

_CHUNK = 64
"""Rows that aiosqlite's own iteration would fetch at once; nothing here iterates."""


class OneTripCursor:
    """What SQLAlchemy asks of a cursor that is not a server's: rows are there once `execute` has returned."""

    def __init__(self, connection: OneTripConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.arraysize = 1
        self.description: Sequence[Any] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> OneTripCursor:
        return self

    async def execute(self, statement: str, values: Sequence[Any] = ()) -> OneTripCursor:
        await self._connection.run(partial(self._run, "execute", statement, values))
        return self

    async def executemany(self, statement: str, values: Sequence[Sequence[Any]]) -> OneTripCursor:
        await self._connection.run(partial(self._run, "executemany", statement, values))
        return self

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Nothing is open: the driver's cursor was closed in the same trip."""

    def _run(self, how: str, statement: str, values: Any, connection: sqlite3.Connection) -> None:
        cursor = connection.cursor()
        try:
            getattr(cursor, how)(statement, values)
            self.description = cursor.description
            self._rows = cursor.fetchall() if cursor.description else []
            self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
        finally:
            cursor.close()


class OneTripConnection(aiosqlite.Connection):
    """A connection with such cursors; a rollback of nothing, as a pool makes at every return, is no trip."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, _CHUNK)
        # A thread that outlives the loop must not keep the process.
        self._thread.daemon = True
        self._was_left = False
        """Whether a call was canceled while it waited or ran: what it does comes after what we can see."""

    async def run(self, call: Callable[[sqlite3.Connection], None]) -> None:
        """Call with the driver's connection, on its thread."""
        try:
            await self._execute(call, self._conn)  # type: ignore[no-untyped-call]
        except asyncio.CancelledError:
            self._was_left = True
            raise

    def cursor(self) -> OneTripCursor:  # type: ignore[override]
        return OneTripCursor(self)

    async def rollback(self) -> None:
        if self._was_left or self.in_transaction:
            await super().rollback()
            self._was_left = False


def connect_in_one_trip(engine: AsyncEngine) -> None:
    """Let this engine make its connections so."""

    @event.listens_for(engine.sync_engine, "do_connect")
    def _connect(dialect: Any, _record: Any, args: Any, options: Any) -> Any:
        return dialect.dbapi.connect(*args, async_creator_fn=_open, **options)


def _open(database: str, **options: Any) -> OneTripConnection:
    return OneTripConnection(partial(sqlite3.connect, database, **options))
