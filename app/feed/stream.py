"""One reader's stream of a feed: where it stands, when it looks again, what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from app.feed.shared import Question, SharedReads
from app.feed.told import Closed, End, Moved, Opened, Reset, Told, Wanted, without_superseded
from app.notify import Subscription
from db.feed import FeedPage, read_head
from db.session import Database


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """The bounds of streams; tests take others."""

    most_streams: int = 1000
    """Open in this process, of all tenants."""
    most_read: int = 500
    """Events in one read."""
    pause_s: float = 0.05
    """While much happens, the time from one read to the next; after a quiet time there is none."""
    held_s: float = 0.05
    """How soon to look again for what could not be shown yet; then twice as long, up to a second."""
    keepalive_s: float = 15.0
    """When to look without a hint, and to say how far a stream has come that has nothing to tell."""
    slow_s: float = 1.0
    """A reader that takes longer over a page gets progress only as it stands, until it has caught up."""
    stall_s: float = 30.0
    """A reader that lets one event wait for longer is told good-bye."""


class Stream:
    """Made by the feed for each reader."""

    def __init__(
        self, *, database: Database, reads: SharedReads, limits: FeedLimits, tenant: str, wanted: Wanted
    ) -> None:
        self._database = database
        self._reads = reads
        self._limits = limits
        self._tenant = tenant
        self._wanted = wanted
        self._clock = asyncio.get_running_loop().time
        self._position = 0
        self._told_at = self._clock()
        self._looked_at = 0.0
        self._held_s = 0.0
        self._is_slow = False
        self._has_stalled = False

    async def tell(
        self, hints: Subscription, after: int | None, is_closing: Callable[[], bool]
    ) -> AsyncIterator[Told]:
        """All there is to tell, the last word included. `hints` were subscribed to before this."""
        yield await self._open(after)
        while not is_closing():
            await self._pause()
            self._looked_at = self._clock()
            found = await self._reads.read(
                Question(self._tenant, self._position, self._limits.most_read, self._wanted.job_id)
            )
            if self._position < found.floor:
                yield await self._reset()
                continue
            async for row in self._tell_page(found):
                yield row
            if self._has_stalled:
                yield Closed(self._position, End.TOO_SLOW)
                return
            if len(found.rows) == self._limits.most_read:
                continue
            if self._clock() - self._told_at > self._limits.keepalive_s:
                self._told_at = self._clock()
                yield Moved(self._position)
            await self._await_more(hints, found)
        yield Closed(self._position, End.STOPPING)

    async def _open(self, after: int | None) -> Told:
        async with self._database.reading() as tx:
            head = await read_head(tx, self._tenant)
        self._position = head if after is None else min(after, head)
        # One from beyond the head is of another database, or of this one before it was set back.
        return Reset(head) if after is not None and after > head else Opened(self._position)

    async def _reset(self) -> Reset:
        async with self._database.reading() as tx:
            self._position = await read_head(tx, self._tenant)
        return Reset(self._position)

    async def _tell_page(self, found: FeedPage) -> AsyncIterator[Told]:
        rows = without_superseded(found.rows) if self._is_slow else found.rows
        for row in rows:
            if self._wanted.takes(row):
                offered_at = self._clock()
                yield row
                self._told_at = self._clock()
                if self._told_at - offered_at > self._limits.stall_s:
                    self._position, self._has_stalled = row.position, True
                    return
        if found.rows:
            self._position = found.rows[-1].position
        is_behind = len(found.rows) == self._limits.most_read
        self._is_slow = is_behind and self._clock() - self._looked_at > self._limits.slow_s

    async def _pause(self) -> None:
        """Not to read at every hint: all streams wait for the same moment, and share what they read in it."""
        now = self._clock()
        if now - self._looked_at < self._limits.pause_s:
            await asyncio.sleep(self._limits.pause_s - now % self._limits.pause_s)

    async def _await_more(self, hints: Subscription, found: FeedPage) -> None:
        """Wait for a hint; where something was held back, for as long as that usually takes."""
        if not found.is_held:
            self._held_s = 0.0
            await hints.wait(self._limits.keepalive_s)
            return
        # Whoever holds it back may end without a hint: it need not have had anything to do with a job.
        self._held_s = min(1.0, max(self._limits.held_s, 2 * self._held_s))
        await hints.wait(self._held_s)
