"""How an engine of each kind of database is made: its pool, its limits, its way to begin a transaction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from db.connections.one_trip import connect_in_one_trip


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The pool and statement limits; every figure comes from the settings of the same name."""

    size: int = 10
    max_overflow: int = 10
    recycle_s: int = 1800
    timeout_s: float = 4.0
    """The longest wait for a connection that answers, and for the writer's turn on SQLite."""
    statement_timeout_s: float = 30.0
    held_limit_s: float = 60.0
    """How long a transaction may hold a connection before it is called a leak."""


def sqlite_engine(url: str, limits: PoolLimits, *, size: int, begin: str) -> AsyncEngine:
    """An engine on a SQLite file whose transactions start with `begin`."""
    path = make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=limits.timeout_s,
        connect_args={"timeout": limits.timeout_s, "isolation_level": None},
        hide_parameters=True,  # bound values are prompts and secrets: not for tracebacks
    )
    connect_in_one_trip(engine)

    @event.listens_for(engine.sync_engine, "connect")
    def _tune(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in (
            # Of a file that is made now. A webhook of 2 KB has a page of 4 KB to itself, and three share 8.
            "page_size=8192",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "cache_size=-20000",
            "wal_autocheckpoint=4000",
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
    """An engine on a PostgreSQL server, or on whichever of several (`?host=A:1&host=B:2`) can be written."""
    timeout_ms = str(int(limits.statement_timeout_s * 1000))
    several = len(make_url(url).normalized_query.get("host", ())) > 1
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
            # For a server that is silent: by then a living one would have ended the statement itself.
            "command_timeout": limits.statement_timeout_s + limits.timeout_s,
            **({"target_session_attrs": "read-write"} if several else {}),
            "server_settings": {
                "application_name": "reprise",
                "statement_timeout": timeout_ms,
                "lock_timeout": timeout_ms,
            },
        },
    )
