"""Ingress on MySQL and MariaDB: one connection, one transaction a group, statements that fit its packets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC
from itertools import chain
from typing import Any

from db.connections.faults import (
    CommitUnknown,
    Conflicted,
    ConnectionLost,
    DatabaseUnavailable,
    Fault,
    fault_of,
    unavailable,
)
from db.ingress.rows import COLUMNS, NAMES, NewDelivery, as_json
from db.mysql.connections import connect_mysql
from db.session import Database

WRITE_LIMIT_S = 15.0
"""How long a group may take. A server that hangs must not hold whoever waits here."""
MOST_STATEMENT_S = 10.0
"""A provider that waits for its 2xx gives up about then: the news had better come again."""
_ESCAPED = b"\x00\n\r\x1a\"'\\"
"""Bytes of which the driver makes two."""
_ROW_BYTES = 4096
"""Room for the columns of a row beside headers and body: ids and times, with their quotes."""

Row = tuple[Any, ...]


class MysqlIngress:
    """One connection; another one after the server was away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Any = None
        self._most_bytes = 0
        database.beside["ingress"] = lambda: int(self._connection is not None)

    async def write(self, deliveries: Sequence[NewDelivery]) -> list[bool]:
        rows = [_mysql_row(delivery) for delivery in deliveries]
        try:
            async with asyncio.timeout(WRITE_LIMIT_S):
                try:
                    return await self._store(rows)
                except (Conflicted, ConnectionLost, CommitUnknown):
                    # Safe even if it was committed: what is there already is left as it is.
                    return await self._store(rows)
        except TimeoutError as exc:
            raise CommitUnknown(f"not stored within {WRITE_LIMIT_S:g} s") from exc

    async def _store(self, rows: list[Row]) -> list[bool]:
        """For each, whether it is new. Raises DatabaseUnavailable, or what is the fault of a row."""
        import asyncmy.errors as driver

        # Its neighbours can still be stored without it.
        row_faults = (driver.DataError, driver.IntegrityError, ValueError)
        is_connected = False
        try:
            if self._connection is None:
                await self._connect()
            is_connected = True
            return await self._insert(rows)
        except (*row_faults, DatabaseUnavailable):
            await self._roll_back()
            raise
        except BaseException as exc:
            # Canceled within a transaction: what was sent of it must not become a part of the next one.
            self._drop()
            fault = Fault.GONE if isinstance(exc, asyncio.IncompleteReadError) else fault_of(exc)
            if fault is None:
                raise
            if not is_connected:
                raise DatabaseUnavailable(type(exc).__name__) from exc
            # Where it broke cannot be told: as if COMMIT had been sent.
            raise unavailable(exc, fault, committing=True) from exc

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._connection.ensure_closed()
            self._connection = None

    async def _insert(self, rows: list[Row]) -> list[bool]:
        await self._connection.begin()
        async with self._connection.cursor() as cursor:
            inserted = 0
            for portion in self._portions(rows):
                # INSERT IGNORE would also store what does not fit, cut. This sets a row that is there to
                # itself, and the server counts only rows that are new: see `connect_mysql`.
                one = f"({', '.join(['%s'] * len(COLUMNS))}, %s, 0)"
                inserted += await cursor.execute(
                    f"INSERT INTO deliveries ({NAMES}) VALUES {', '.join([one] * len(portion))}"  # noqa: S608
                    " ON DUPLICATE KEY UPDATE id=id",
                    tuple(chain.from_iterable(portion)),
                )
            new = None if inserted == len(rows) else await self._find_new(cursor, rows)
        await self._connection.commit()
        return [True] * len(rows) if new is None else [row[0] in new for row in rows]

    def _portions(self, rows: list[Row]) -> Iterator[list[Row]]:
        """The rows in their order, as many at a time as the server takes in one statement."""
        portion: list[Row] = []
        size = 0
        for row in rows:
            row_bytes = _statement_bytes(row)
            if row_bytes > self._most_bytes:
                if len(rows) == 1:
                    raise DatabaseUnavailable("a body is larger than the server's max_allowed_packet")
                raise ValueError("too large for the server's max_allowed_packet")
            if size + row_bytes > self._most_bytes:
                yield portion
                portion, size = [], 0
            portion.append(row)
            size += row_bytes
        yield portion

    async def _find_new(self, cursor: Any, rows: list[Row]) -> set[str]:
        """Which ids are there now; the others met a row with their key."""
        marks = ", ".join(["%s"] * len(rows))
        await cursor.execute(
            f"SELECT id FROM deliveries WHERE id IN ({marks})",  # noqa: S608 - marks are ours
            tuple(row[0] for row in rows),
        )
        return {row[0] for row in await cursor.fetchall()}

    async def _connect(self) -> None:
        limits = self._database.limits
        least = min(MOST_STATEMENT_S, limits.statement_timeout_s)
        self._connection = await connect_mysql(self._database.url, replace(limits, statement_timeout_s=least))
        async with self._connection.cursor() as cursor:
            await cursor.execute("SELECT @@max_allowed_packet")
            self._most_bytes = int((await cursor.fetchone())[0]) - _ROW_BYTES

    async def _roll_back(self) -> None:
        """The connection is sound, unless that fails too."""
        try:
            async with asyncio.timeout(WRITE_LIMIT_S):
                await self._connection.rollback()
        except Exception:  # noqa: BLE001 - the row's own fault is what the caller hears of
            self._drop()

    def _drop(self) -> None:
        """Whatever state it was left in, the next write has a connection of its own."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _statement_bytes(row: Row) -> int:
    """At most how many bytes the row takes in a statement; only headers and body can be long."""
    *_, headers, body, _, _ = row
    escaped: int = sum(body.count(byte) for byte in _ESCAPED)
    return _ROW_BYTES + 2 * len(headers.encode()) + len(body) + escaped


def _mysql_row(delivery: NewDelivery) -> Row:
    # As `UtcDateTime` stores it: the column knows no time zone.
    at = delivery.received_at.astimezone(UTC).replace(tzinfo=None)
    *plain, headers, body, _ = delivery
    return (*plain, as_json(headers), body, at, at)
