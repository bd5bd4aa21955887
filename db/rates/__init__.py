"""Verbs on the counters of rate limits, on PostgreSQL: for many processes that count together.

A row is a key's two windows, this one and the one before, whose weight falls as it moves away: the sliding
window counter of `limits`. Time is the server's. The table is not logged and is empty after a crash of the
server: what is lost is a minute of counting. asyncpg as it is, one statement a hit and no transaction around
it: a request waits for it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from db.connections.faults import DatabaseUnavailable, fault_of
from db.session import Database, dsn_of

CONNECTIONS = 2
CLOSE_S = 2.0
"""A server that has vanished answers no goodbye."""


@dataclass(frozen=True, slots=True)
class Windows:
    """What a key has used: hits in both windows, and how long each still counts, in seconds."""

    previous: int
    previous_s: float
    current: int
    current_s: float


# The window's number by the server's clock; of another number, the row's windows have moved on.
_NOW = (
    "SELECT floor(t / $2::float8)::bigint AS n, t"
    " FROM (SELECT extract(epoch FROM clock_timestamp())::float8 AS t) AS clock"
)
_MOVED = """
    CASE WHEN r.window_no = now.n THEN r.previous WHEN r.window_no = now.n - 1 THEN r.current ELSE 0 END"""
_KEPT = "CASE WHEN r.window_no = now.n THEN r.current ELSE 0 END"
_LEFT = "($2::float8 - (now.t - now.n * $2::float8))"

_FIND = f"""
    WITH now AS ({_NOW})
    SELECT ({_MOVED})::int AS previous, ({_KEPT})::int AS current, {_LEFT} AS left_s
    FROM now LEFT JOIN rate_counters AS r ON r.key = $1"""  # noqa: S608 - the text is ours

_HIT = f"""
    WITH now AS ({_NOW}),
    hit AS (
        INSERT INTO rate_counters AS r (key, window_no, current, previous, expires_at)
        SELECT $1::text, now.n, $4::int, 0, clock_timestamp() + make_interval(secs => 2 * $2::float8) FROM now
        WHERE $4::int <= $3::int
        ON CONFLICT (key) DO UPDATE SET
            window_no = excluded.window_no,
            previous = CASE WHEN r.window_no = excluded.window_no THEN r.previous
                WHEN r.window_no = excluded.window_no - 1 THEN r.current ELSE 0 END,
            current = CASE WHEN r.window_no = excluded.window_no THEN r.current ELSE 0 END + $4::int,
            expires_at = excluded.expires_at
        WHERE floor(
            (CASE WHEN r.window_no = excluded.window_no THEN r.previous
                WHEN r.window_no = excluded.window_no - 1 THEN r.current ELSE 0 END)
            * (SELECT {_LEFT} FROM now) / $2::float8
            + CASE WHEN r.window_no = excluded.window_no THEN r.current ELSE 0 END
        ) + $4::int <= $3::int
        RETURNING r.previous, r.current
    )
    SELECT hit.current IS NOT NULL AS is_in,
        coalesce(hit.previous, ({_MOVED}))::int AS previous,
        coalesce(hit.current, ({_KEPT}))::int AS current,
        {_LEFT} AS left_s
    FROM now LEFT JOIN hit ON true LEFT JOIN rate_counters AS r ON r.key = $1"""  # noqa: S608


class RateCounters:
    """A few connections of their own: neither jobs nor webhooks wait for these, nor these for them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pool: Any = None
        self._connecting: asyncio.Task[None] | None = None
        database.beside["rates"] = self._size

    async def hit(self, key: str, *, limit: int, window_s: int, amount: int) -> tuple[bool, Windows]:
        """Count, unless it would be past the limit: whether it was counted, and how things stand then.

        Raises DatabaseUnavailable.
        """
        row = await self._fetch(_HIT, key, window_s, limit, amount)
        return bool(row["is_in"]), _windows(row, window_s)

    async def find(self, key: str, *, window_s: int) -> Windows:
        """How things stand, without counting. Raises DatabaseUnavailable."""
        return _windows(await self._fetch(_FIND, key, window_s), window_s)

    async def clear(self, key: str | None = None) -> None:
        """Forget a key, or all. Raises DatabaseUnavailable."""
        if key is None:
            await self._fetch("DELETE FROM rate_counters")
        else:
            await self._fetch("DELETE FROM rate_counters WHERE key = $1", key)

    async def sweep(self) -> None:
        """Delete some of what no longer counts. Raises DatabaseUnavailable."""
        await self._fetch(
            "DELETE FROM rate_counters WHERE key IN (SELECT key FROM rate_counters"
            " WHERE expires_at < clock_timestamp() LIMIT 1000 FOR UPDATE SKIP LOCKED)"
        )

    async def aclose(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._pool is not None:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await self._pool.close()
        self._drop()

    async def _fetch(self, statement: str, *values: Any) -> Any:
        if self._pool is None:
            # Connecting may take longer than a request may wait: it goes on while others count by themselves.
            self._begin_connecting()
            raise DatabaseUnavailable("not connected yet")
        try:
            async with self._pool.acquire() as connection:
                return await connection.fetchrow(statement, *values)
        except asyncio.CancelledError:
            # Whoever asked waits no longer; what state the connection was left in is not worth finding out.
            self._drop()
            raise
        except Exception as exc:
            self._drop()
            if fault_of(exc) is None and not isinstance(exc, TimeoutError):
                raise
            raise DatabaseUnavailable(type(exc).__name__) from exc

    def _begin_connecting(self) -> None:
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self.connect())

    async def connect(self) -> None:
        """Open the connections; where that fails, the next question tries again."""
        import asyncpg

        limits = self._database.limits
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._pool = await asyncpg.create_pool(
                dsn_of(self._database.url),
                min_size=CONNECTIONS,
                max_size=CONNECTIONS,
                timeout=limits.timeout_s,
                command_timeout=limits.timeout_s,
                server_settings={"application_name": "reprise-rates", "synchronous_commit": "off"},
            )

    def _drop(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    def _size(self) -> int:
        return 0 if self._pool is None else int(self._pool.get_size())


def _windows(row: Any, window_s: int) -> Windows:
    left_s = float(row["left_s"])
    previous = int(row["previous"])
    # As `limits` counts them: a window's own time is over when it has been the previous one, too.
    return Windows(previous, left_s if previous else 0.0, int(row["current"]), left_s + window_s)
