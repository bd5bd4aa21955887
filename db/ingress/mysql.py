"""Ingress on MySQL and MariaDB: one connection, one transaction a group, statements that fit its packets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC
from itertools import chain
from typing import Any

from db.engines import PoolLimits
from db.ingress.rows import COLUMNS, NAMES, NewDelivery, values
from db.mysql.connections import connect_mysql
from db.session import Database, DatabaseUnavailable

WRITE_LIMIT_S = 15.0
"""How long a group may take. A server that hangs must not hold whoever waits here."""
_LIMITS = PoolLimits(timeout_s=5.0, statement_timeout_s=10.0)
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

    async def write(self, deliveries: Sequence[NewDelivery]) -> list[bool]:
        import asyncmy.errors as driver

        rows = [_mysql_row(delivery) for delivery in deliveries]
        trouble = (driver.MySQLError, OSError, TimeoutError, asyncio.IncompleteReadError)
        # The fault of a row, not of the database: its neighbours can still be stored without it.
        row_faults = (driver.DataError, driver.IntegrityError, ValueError)
        try:
            async with asyncio.timeout(WRITE_LIMIT_S):
                if self._connection is None:
                    await self._connect()
                return await self._insert(rows)
        except row_faults:
            await self._roll_back()
            raise
        except trouble as exc:
            self._drop()
            raise DatabaseUnavailable(type(exc).__name__) from exc
        except BaseException:
            # Canceled within a transaction: what was sent of it must not become a part of the next one.
            self._drop()
            raise

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
        self._connection = await connect_mysql(self._database.url, _LIMITS)
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
    *plain, headers, body, _ = values(delivery)
    return (*plain, json.dumps(headers), body, at, at)
