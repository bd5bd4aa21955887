"""What a MySQL or MariaDB server must be like, beyond what a session can set for itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

_FIGURES = (
    "SELECT VERSION() AS version, @@max_allowed_packet AS packet_bytes,"
    " @@innodb_flush_log_at_trx_commit AS flushed, @@log_bin AS has_binlog, @@sync_binlog AS synced,"
    " @@binlog_format AS format"
)
_OLDEST = {True: (10, 6), False: (8, 0)}
"""Of MariaDB and of MySQL: before them there is no SKIP LOCKED."""


async def find_weaknesses(engine: AsyncEngine, *, largest_bytes: int) -> list[str]:
    """What about this server breaks a promise, in words. `largest_bytes`: the largest body to be stored."""
    async with engine.connect() as connection:
        row = (await connection.execute(text(_FIGURES))).mappings().one()
    return list(_weaknesses(dict(row), largest_bytes))


def _weaknesses(server: dict[str, Any], largest_bytes: int) -> list[str]:
    found = []
    is_mariadb = "mariadb" in server["version"].lower()
    version = tuple(int(part) for part in server["version"].split("-")[0].split(".")[:2])
    if version < _OLDEST[is_mariadb]:
        found.append(f"{server['version']} is too old: MySQL 8.0 or MariaDB 10.6")
    if server["flushed"] != 1 or (server["has_binlog"] and server["synced"] != 1):
        found.append(
            "commits are not synced to the disk: innodb_flush_log_at_trx_commit=1"
            + (" and sync_binlog=1" if server["has_binlog"] else "")
        )
    if server["packet_bytes"] < largest_bytes:
        found.append(
            f"a body over {server['packet_bytes']} bytes cannot be stored: raise max_allowed_packet, "
            "or lower MAX_CONTENT_LENGTH"
        )
    if server["has_binlog"] and server["format"] == "STATEMENT":
        found.append("nothing can be written at READ COMMITTED: binlog_format=ROW")
    return found
