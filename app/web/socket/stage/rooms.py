"""The performances that somebody watches in this process: each a room with the row as it was last told.

A room is told of a change by its topic's hint, whichever process made it; it reads the row and says to its
members what is different. Promises: whoever comes in hears the state as it is before anything that comes
after it; events of one room are said in the order of the versions; many changes at once are said once, at
most 1 / `PAUSE_S` times a second. A room that is empty costs nothing: it is not there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog

from app.errors import NotFound
from app.karaoke.stage.told import events_between
from app.notify import Subscription, performance_topic
from app.web.socket.connections import Member
from app.wiring import Runtime
from db.session import DatabaseUnavailable
from db.tables import Performance

log = structlog.get_logger()

PAUSE_S = 0.02
LOOK_S = 15.0
"""How often a room looks without a hint."""
RETRY_S = 1.0
PLAYER_S = 3.0
"""A player that has not reported for so long is none any more."""
WRITE_S = 0.5
"""The shortest time between two reports of players that may write, of one room in this process."""

Say = Callable[[str, object], Awaitable[None]]


class Room:
    """One performance."""

    def __init__(self, runtime: Runtime, tenant: str, performance_id: str, say: Say) -> None:
        self.tenant = tenant
        self.performance_id = performance_id
        self.row: Performance | None = None
        """As it was last told."""
        self.members: dict[str, Member] = {}
        self.users = 0
        """Members, and those who are about to be."""
        self.lock = asyncio.Lock()
        self._runtime = runtime
        self._say = say
        self._players: dict[str, float] = {}
        self._written_s = 0.0
        self._stack = AsyncExitStack()
        self._watching: asyncio.Task[None] | None = None

    def start(self, on_gone: Callable[[Room], Awaitable[None]]) -> None:
        """Listen from now on; `on_gone` is called once the performance is deleted."""
        # Before the first read, so that no change falls between the two.
        subscription = self._runtime.line.notifier.subscribe(performance_topic(self.performance_id))
        hints = self._stack.enter_context(subscription)
        self._watching = asyncio.create_task(self._watch(hints, on_gone))

    async def stop(self) -> None:
        if self._watching is not None and self._watching is not asyncio.current_task():
            self._watching.cancel()
        await self._stack.aclose()

    async def refresh(self) -> Performance:
        """Read the row, and say what is different; under the lock. Raises NotFound, DatabaseUnavailable."""
        performances = self._runtime.karaoke.performances
        row = await performances.get(self.tenant, self.performance_id)
        before, self.row = self.row, row
        if before is not None:
            for event, payload in events_between(before, row, self._runtime.line.clock.now()):
                await self._say(event, payload)
        return row

    def hear_player(self, sid: str) -> bool:
        """A player has reported; whether it is the only one that does."""
        now = time.monotonic()
        self._players[sid] = now
        for other in [each for each, at in self._players.items() if now - at > PLAYER_S]:
            del self._players[other]
        return len(self._players) == 1

    def forget_player(self, sid: str) -> None:
        self._players.pop(sid, None)

    def may_write(self) -> bool:
        """Whether a report may be written now: not more often than every WRITE_S."""
        now = time.monotonic()
        if now - self._written_s < WRITE_S:
            return False
        self._written_s = now
        return True

    async def _watch(self, hints: Subscription, on_gone: Callable[[Room], Awaitable[None]]) -> None:
        wait_s = LOOK_S
        while True:
            await hints.wait(wait_s)
            wait_s = LOOK_S
            try:
                async with self.lock:
                    await self.refresh()
            except NotFound:
                await on_gone(self)
                return
            except DatabaseUnavailable as exc:
                log.warning("performance.not_seen", reason=str(exc))
                wait_s = RETRY_S
            except Exception:
                log.exception("performance.watch_failed")
                wait_s = RETRY_S
            await asyncio.sleep(PAUSE_S)
