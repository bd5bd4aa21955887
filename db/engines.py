"""How an engine of each kind of database is made: its pool, its limits, its way to begin a transaction.

And who writes next where there is one writer: `WriteTurns`, for SQLite.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The pool and statement limits; every figure comes from the settings of the same name."""

    size: int = 10
    max_overflow: int = 10
    recycle_s: int = 1800
    timeout_s: float = 5.0
    statement_timeout_s: float = 30.0


def sqlite_engine(url: str, limits: PoolLimits, *, size: int, begin: str) -> AsyncEngine:
    """An engine on a SQLite file whose transactions start with `begin`."""
    path = make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=limits.statement_timeout_s,
        connect_args={"timeout": limits.timeout_s, "isolation_level": None},
        hide_parameters=True,  # bound values are prompts and secrets: not for tracebacks
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _tune(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "cache_size=-20000",
            "wal_autocheckpoint=8000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    # The driver's own transaction control opens a deferred transaction, which can fail with BUSY when
    # it turns into a write; a writer takes its lock at the start instead and waits its turn there.
    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def server_engine(url: str, limits: PoolLimits) -> AsyncEngine:
    """An engine on a PostgreSQL server."""
    timeout_ms = str(int(limits.statement_timeout_s * 1000))
    return create_async_engine(
        url,
        pool_size=limits.size,
        max_overflow=limits.max_overflow,
        pool_recycle=limits.recycle_s,
        pool_timeout=limits.timeout_s,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "timeout": limits.timeout_s,
            "server_settings": {
                "application_name": "reprise",
                "statement_timeout": timeout_ms,
                "lock_timeout": timeout_ms,
            },
        },
    )


class WriteTurns:
    """One writer at a time. The ingress goes before the stations, but never twice in a row before them.

    In one line with eight appliers and four finishers a webhook would wait for all of their commits before
    its own; like this it waits for one, and under a flood of webhooks the stations get every other turn.
    """

    def __init__(self) -> None:
        self.first = _Place(self, is_first=True)
        """For the ingress; as `ordinary`, an async context that may be entered again and again."""
        self.ordinary = _Place(self, is_first=False)
        self._is_held = False
        self._was_first = False
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {True: deque(), False: deque()}

    async def _take(self, *, is_first: bool) -> None:
        if not self._is_held:
            self._is_held, self._was_first = True, is_first
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[is_first].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # Handed over in the same moment: it is somebody else's now.
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        for is_first in (not self._was_first, self._was_first):
            waiting = self._waiting[is_first]
            while waiting:
                turn = waiting.popleft()
                if not turn.done():
                    self._was_first = is_first
                    turn.set_result(None)
                    return
        self._is_held = False


class _Place:
    """One of the two lines."""

    def __init__(self, turns: WriteTurns, *, is_first: bool) -> None:
        self._turns = turns
        self._is_first = is_first

    async def __aenter__(self) -> None:
        await self._turns._take(is_first=self._is_first)  # noqa: SLF001 - two halves of one thing

    async def __aexit__(self, *_: object) -> None:
        self._turns._pass_on()  # noqa: SLF001
