"""Reading a feed page by page, and following it as it grows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from datetime import datetime

from app.errors import Overloaded
from app.feed.shared import Question, SharedReads
from app.feed.stream import FeedLimits, Stream
from app.feed.told import Page, Told, Wanted
from app.line import Line
from app.notify import feed_topic
from db.feed import read_head, read_start


class Feed:
    """The feeds of all tenants. One object a runtime."""

    def __init__(self, *, line: Line, limits: FeedLimits | None = None) -> None:
        self._line = line
        self._limits = limits or FeedLimits()
        self._reads = SharedReads(line.database)
        self._streams = 0
        self._closing = False

    @property
    def reads_made(self) -> int:
        """How often streams and pages have read the rows, since the start."""
        return self._reads.made

    async def head(self, tenant: str) -> int:
        """The position from which what follows is new to whoever reads the jobs from now on."""
        async with self._line.database.reading() as tx:
            return await read_head(tx, tenant)

    async def start(self, tenant: str, since: datetime) -> int:
        """The position after which events of that time and later begin."""
        async with self._line.database.reading() as tx:
            return await read_start(tx, tenant, since=since)

    async def page(self, tenant: str, wanted: Wanted, *, after: int | None, limit: int) -> Page:
        """At most `limit` events after a position, or of all that are kept; the oldest first.

        As many events are looked at as a stream reads at once: a page may hold fewer than `limit`, even
        none, while there is more.
        """
        if after is not None and after > await self.head(tenant):
            return await self._reset(tenant)
        most = self._limits.most_read
        found = await self._reads.read(Question(tenant, after or 0, most, wanted.job_id))
        if after is not None and after < found.floor:
            return await self._reset(tenant)
        taken = [row for row in found.rows if wanted.takes(row)]
        if len(taken) > limit:
            return Page(taken[:limit], taken[limit - 1].position, has_more=True)
        position = found.rows[-1].position if found.rows else max(after or 0, found.floor)
        return Page(taken, position, has_more=len(found.rows) == most)

    async def follow(self, tenant: str, wanted: Wanted, *, after: int | None) -> AsyncGenerator[Told, None]:
        """Every event after a position, or from now on; ends with `Closed`.

        Raises DatabaseUnavailable, and Overloaded where too many follow already.
        """
        # Subscribed before the first read: what is committed between the two is heard.
        with self._admitted(), self._line.notifier.subscribe(feed_topic(tenant)) as hints:
            stream = Stream(
                database=self._line.database,
                reads=self._reads,
                limits=self._limits,
                tenant=tenant,
                wanted=wanted,
            )
            async for told in stream.tell(hints, after, lambda: self._closing):
                yield told

    def refuse_when_full(self) -> None:
        """Raises Overloaded where too many follow already."""
        if self._streams >= self._limits.most_streams:
            raise Overloaded("too many streams are open here", retry_after_s=5)

    def release(self) -> None:
        """End every stream with its last word, from now on."""
        self._closing = True
        self._line.notifier.publish_all()

    async def _reset(self, tenant: str) -> Page:
        return Page([], await self.head(tenant), has_more=False, is_reset=True)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        self.refuse_when_full()
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1
