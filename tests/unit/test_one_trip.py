"""SQLite's driver with one trip to its thread for a statement, and nothing left behind by a cancel."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from db.connections.one_trip import OneTripConnection


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[OneTripConnection]:
    opened = OneTripConnection(partial(sqlite3.connect, tmp_path / "a.db", isolation_level=None))
    await opened
    yield opened
    await opened.close()


async def test_rows_counts_and_names_are_there_when_the_statement_has_run(
    connection: OneTripConnection,
) -> None:
    await connection.cursor().execute("CREATE TABLE t (a, b)")
    many = await connection.cursor().executemany("INSERT INTO t VALUES (?, ?)", [(1, "x"), (2, "y")])
    assert many.rowcount == 2
    one = await connection.cursor().execute("INSERT INTO t VALUES (3, 'z')")
    assert one.lastrowid == 3
    changed = await connection.cursor().execute("UPDATE t SET b = 'w' WHERE a > ? RETURNING a", (1,))
    assert await changed.fetchall() == [(2,), (3,)]
    found = await connection.cursor().execute("SELECT a, b FROM t ORDER BY a")
    assert [column[0] for column in found.description or ()] == ["a", "b"]
    assert await found.fetchall() == [(1, "x"), (2, "w"), (3, "w")]
    assert await found.fetchall() == []


async def test_a_statement_that_fails_raises_the_drivers_error_and_holds_nothing(
    connection: OneTripConnection,
) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await connection.cursor().execute("SELECT * FROM nowhere")
    await connection.cursor().execute("BEGIN IMMEDIATE")
    await connection.commit()


async def test_a_rollback_comes_after_a_canceled_statement_that_is_still_to_run(
    connection: OneTripConnection,
) -> None:
    free = threading.Event()
    holding = asyncio.create_task(connection.run(lambda _: (free.wait(30), None)[1]))
    await asyncio.sleep(0)
    beginning = asyncio.create_task(connection.cursor().execute("BEGIN IMMEDIATE"))
    await asyncio.sleep(0)
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    taking_back = asyncio.create_task(connection.rollback())
    await asyncio.sleep(0)
    free.set()
    await asyncio.gather(holding, taking_back)
    assert not connection.in_transaction
