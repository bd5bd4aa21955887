"""A connection to MySQL or MariaDB: one by one, or as an engine with its pool."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from db.engines import PoolLimits

BACKENDS = frozenset({"mysql", "mariadb"})
"""What SQLAlchemy calls them, by the URL."""
DUPLICATE_KEY = 1062
"""The server's number for a row that meets another with its key."""

_STRICT = "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
"""A value that does not fit is an error, not another value. Whatever the server's default is, the modes
NO_BACKSLASH_ESCAPES and ANSI_QUOTES are off: the driver quotes with backslashes."""


def mysql_engine(url: str, limits: PoolLimits) -> AsyncEngine:
    """An engine on a MySQL or MariaDB server. Its `rowcount` is of rows found, changed or not."""
    return create_async_engine(
        url,
        pool_size=limits.size,
        max_overflow=limits.max_overflow,
        pool_recycle=limits.recycle_s,
        pool_timeout=limits.timeout_s,
        pool_pre_ping=True,
        hide_parameters=True,
        # As on PostgreSQL: who waited for a row sees what the other committed, and gaps are not locked.
        isolation_level="READ COMMITTED",
        connect_args=_session(limits),
    )


async def connect_mysql(url: str, limits: PoolLimits) -> Any:
    """A driver connection beside the pool; its row count is of rows changed. Raises as the driver does."""
    import asyncmy

    parsed = make_url(url)
    _, given = parsed.get_dialect()().create_connect_args(parsed)
    # SQLAlchemy asks for rows found; without that flag, a row that was there already counts nothing.
    given.pop("client_flag", None)
    connection = await asyncmy.connect(**{**given, **_session(limits)})
    async with connection.cursor() as cursor:
        await cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    return connection


def _session(limits: PoolLimits) -> dict[str, Any]:
    """What every connection is told, in the driver's words."""
    lock_s = max(1, math.ceil(limits.statement_timeout_s))
    return {
        "charset": "utf8mb4",
        "connect_timeout": limits.timeout_s,
        # For a server that is silent: by then a living one would have ended the statement itself.
        "read_timeout": limits.statement_timeout_s + limits.timeout_s,
        "binary_prefix": True,
        # The comments are conditions: the first is read by MariaDB alone, the second by MySQL alone.
        "init_command": (
            f"SET SESSION sql_mode='{_STRICT}', time_zone='+00:00', innodb_lock_wait_timeout={lock_s}"
            f"/*M!100100 , max_statement_time={limits.statement_timeout_s:g} */"
            f"/*!50708 , max_execution_time={math.ceil(limits.statement_timeout_s * 1000)} */"
        ),
    }
