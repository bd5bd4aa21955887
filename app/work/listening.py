"""A PgQueuer driver that says at once when the connection that listens is lost.

PgQueuer itself finds out by a probe that goes round every ten seconds and waits ten more; until then an item
is only found by its next look. The probe stays, for a connection that is silent without having ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
from pgqueuer.db import AsyncpgPoolDriver


class ListeningDriver(AsyncpgPoolDriver):
    """The pool driver; `on_lost` is called when the connection that listens has ended, whoever ended it."""

    def __init__(self, pool: asyncpg.Pool, on_lost: Callable[[], None]) -> None:
        super().__init__(pool)
        self._on_lost = on_lost

    async def add_listener(self, channel: str, callback: Callable[[Any], None]) -> None:
        await super().add_listener(channel, callback)
        if self._listener_connection is not None:
            self._listener_connection.add_termination_listener(lambda _connection: self._on_lost())
