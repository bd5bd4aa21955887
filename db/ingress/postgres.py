"""Ingress on PostgreSQL: one asyncpg connection, one statement a group, the work items in its transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from db.ingress.rows import COLUMNS, NAMES, ItemsWriter, NewDelivery, values
from db.session import Database, DatabaseUnavailable, dsn_of


class PostgresIngress:
    """One asyncpg connection; another one after the server was away."""

    _INSERT = (
        f"INSERT INTO deliveries ({NAMES}) SELECT {', '.join(COLUMNS)}, received_at, 0 FROM "  # noqa: S608
        "unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],"
        " $8::json[], $9::bytea[], $10::timestamptz[])"
        f" AS given({', '.join(COLUMNS)}) ON CONFLICT DO NOTHING RETURNING id"
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


def _postgres_row(delivery: NewDelivery) -> tuple[Any, ...]:
    *plain, headers, body, at = values(delivery)
    return (*plain, json.dumps(headers), body, at)
