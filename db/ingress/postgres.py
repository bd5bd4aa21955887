"""Ingress on PostgreSQL: one asyncpg connection, and one statement a group, its work items included.

A transaction of four statements waits four times for the server, and each time for a turn of a busy event
loop: a fifth of the processor stood idle. A statement that writes cannot stand within another, so the items'
becomes a function of the connection, which goes with it. Where the role may not make one (TEMPORARY on the
database), rows and items are two statements in a transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from db.connections.faults import (
    CommitUnknown,
    Conflicted,
    ConnectionLost,
    DatabaseUnavailable,
    fault_of,
    unavailable,
)
from db.ingress.rows import COLUMNS, NAMES, ItemsFor, NewDelivery, Statement, as_json
from db.session import Database, dsn_of

MOST_COMMAND_S = 10.0
"""A provider that waits for its 2xx gives up about then: the news had better come again."""

_WRITE_ITEMS = "reprise_write_items"


class PostgresIngress:
    """One asyncpg connection; another one after the server was away."""

    _INSERT = (
        f"INSERT INTO deliveries ({NAMES}) SELECT {', '.join(COLUMNS)}, received_at, 0 FROM "  # noqa: S608
        "unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],"
        " $8::json[], $9::bytea[], $10::timestamptz[])"
        f" AS given({', '.join(COLUMNS)}) ON CONFLICT DO NOTHING RETURNING id"
    )

    def __init__(self, database: Database, items_for: ItemsFor | None) -> None:
        self._database = database
        self._items_for = items_for
        self._connection: Any = None
        self._defined: str | None = None
        """The query that this connection has as a function; empty where it may not have one."""
        database.beside["ingress"] = lambda: int(self._connection is not None)

    async def write(self, deliveries: Sequence[NewDelivery]) -> list[bool]:
        columns = list(zip(*(_postgres_row(delivery) for delivery in deliveries), strict=True))
        try:
            new = await self._store(columns)
        except (Conflicted, ConnectionLost, CommitUnknown):
            # Safe even if it was committed: what is there already is ignored, and has its item.
            new = await self._store(columns)
        return [delivery.id in new for delivery in deliveries]

    async def _store(self, columns: list[tuple[Any, ...]]) -> set[str]:
        """The ids of the rows that were new. Raises DatabaseUnavailable, or what is the fault of a row."""
        import asyncpg

        # Its neighbours can still be stored without it. What the driver itself cannot send is a ValueError.
        row_faults = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError)
        is_connected = False
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection, self._defined = await self._connect(), None
            is_connected = True
            if self._items_for is None:
                return {row["id"] for row in await self._connection.fetch(self._INSERT, *columns)}
            return await self._store_with_items(columns, await self._items_for(columns[0]))
        except row_faults:
            raise
        except BaseException as exc:
            # Canceled within BEGIN, the driver would take the next group for a part of this one, and what it
            # says is committed would not be.
            self._drop()
            fault = fault_of(exc)
            if fault is None:
                raise
            if not is_connected:
                raise DatabaseUnavailable(type(exc).__name__) from exc
            # Where it broke cannot be told: as if COMMIT had been sent.
            raise unavailable(exc, fault, committing=True) from exc

    async def _store_with_items(self, columns: list[tuple[Any, ...]], items: Statement) -> set[str]:
        """The same; items are written for all of the rows, if one of them is new."""
        if self._defined is None:
            await self._define(items.query)
        if items.query == self._defined:
            marks = ", ".join(f"${len(columns) + n}" for n in range(1, len(items.values) + 1))
            # The items come after the rows: not at all where there are none.
            whole = (
                f"WITH stored AS ({self._INSERT}) SELECT array_agg(id), pg_temp.{_WRITE_ITEMS}({marks})"  # noqa: S608
                " FROM stored HAVING count(*) > 0"
            )
            return set(await self._connection.fetchval(whole, *columns, *items.values) or ())
        async with self._connection.transaction():
            found = await self._connection.fetch(self._INSERT, *columns)
            if found:
                await self._connection.fetch(items.query, *items.values)
        return {row["id"] for row in found}

    async def _define(self, query: str) -> None:
        """Make the query a function of the connection's, of the values that the server says it takes."""
        import asyncpg

        takes = (await self._connection.prepare(query)).get_parameters()
        types = ", ".join(f"{each.schema}.{each.name}" for each in takes)
        # The loop is how PL/pgSQL runs a WITH that writes, and passes over what it returns.
        body = f"#variable_conflict use_column\nDECLARE _ record; BEGIN FOR _ IN {query} LOOP END LOOP; END"
        name = f"pg_temp.{_WRITE_ITEMS}({types})"
        try:
            await self._connection.execute(
                f"CREATE OR REPLACE FUNCTION {name} RETURNS void LANGUAGE plpgsql AS $items${body}$items$"
            )
            self._defined = query
        except asyncpg.InsufficientPrivilegeError:
            self._defined = ""

    async def aclose(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                await self._connection.close(timeout=self._database.limits.timeout_s)
            self._drop()

    def _drop(self) -> None:
        """Whatever state it was left in, the next write has a connection of its own."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
            self._defined = None

    async def _connect(self) -> Any:
        import asyncpg

        limits = self._database.limits
        return await asyncpg.connect(
            dsn_of(self._database.url),
            timeout=limits.timeout_s,
            # Also for BEGIN, COMMIT and ROLLBACK: a server that hangs must not hold whoever waits here.
            command_timeout=min(MOST_COMMAND_S, limits.statement_timeout_s),
            server_settings={"application_name": "reprise-ingress", "synchronous_commit": "on"},
        )


def _postgres_row(delivery: NewDelivery) -> tuple[Any, ...]:
    *plain, headers, body, at = delivery
    return (*plain, as_json(headers), body, at)
