"""The name on the server that only one session at a time can hold: whoever has it may work on the database.

The server gives it back when the session ends, so it goes with the process however that ends: at once when
its machine closes the connection, and after `_SILENCE_S` when the machine itself is gone.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from db.engines import PoolLimits
from db.mysql.connections import connect_mysql

LOOK_EVERY_S = 5.0
"""How often the holder should look whether it still is the holder."""
_SILENCE_S = 20
"""Silence after which the server ends the session."""
_WAIT_S = 2
"""How long a taker waits for a predecessor whose end the server has not noticed yet."""
_LIMITS = PoolLimits(timeout_s=5.0, statement_timeout_s=5.0)


class OwnerLock:
    """A named lock of the server, for one database on it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._name = _name("reprise", make_url(url).database)
        self._connection: Any = None

    async def hold(self) -> bool:
        """Take it, or go on having it; False while another session has it. Raises OSError: no answer.

        A connection that was lost is made anew, and the lock with it, if nobody was faster.
        """
        import asyncmy.errors

        try:
            if self._connection is None:
                self._connection = await connect_mysql(self._url, _LIMITS)
                await self._ask(f"SET SESSION wait_timeout={_SILENCE_S}")
            # The same session may take it any number of times: asking again is how it is seen to be alive.
            is_ours = "IS_USED_LOCK(%s) = CONNECTION_ID() OR GET_LOCK(%s, %s)"
            return bool(await self._ask(f"SELECT {is_ours}", self._name, self._name, _WAIT_S))
        except (asyncmy.errors.MySQLError, OSError, asyncio.IncompleteReadError) as exc:
            self._drop()
            raise OSError(str(exc).splitlines()[0][:200] if str(exc) else type(exc).__name__) from exc
        except BaseException:
            self._drop()
            raise

    async def aclose(self) -> None:
        """Give it back."""
        if self._connection is not None:
            await self._connection.ensure_closed()
            self._connection = None

    async def _ask(self, statement: str, *values: object) -> object:
        async with self._connection.cursor() as cursor:
            await cursor.execute(statement, values or None)
            row = await cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def take_turn(connection: Connection, *, limit_s: float) -> None:
    """Be the only session that migrates this database, until the connection is closed. Raises OSError."""
    lock = {"name": _name("migrate", connection.engine.url.database), "limit_s": limit_s}
    if not connection.execute(text("SELECT GET_LOCK(:name, :limit_s)"), lock).scalar_one():
        raise OSError(f"another process has been migrating this database for {limit_s:g} s")


def _name(what: str, database: str | None) -> str:
    # Such names are the server's, not a database's, and have at most 64 characters.
    return f"{what}.{hashlib.sha256((database or '').encode()).hexdigest()[:32]}"
