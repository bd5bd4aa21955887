"""One reader of a tenant's feed, and everybody in this process who subscribed to it.

A `Hub` follows the feed once, encodes each event once, and hands it to all subscribers who have room. Who has
none is left behind and goes on from the hub's last events as room comes, with the progress of each job as it
stands; who is behind those reads pages of the feed, a few readers at once. So a slow reader costs nobody else
anything, and what is kept for it is a window of packets and its place. Promises: a subscriber is told each
event after its place once, in order, whatever happened between; where events are gone it is told `reset` with
the jobs as they stand; one that takes nothing for `stall_s` is closed. Where the feed cannot be read nothing
is told until it can, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from contextlib import aclosing, suppress
from itertools import chain

import structlog

from app.backoff import backoff_s
from app.errors import AppError
from app.feed import Closed, Feed, Moved, Opened, Reset, Wanted
from app.feed.told import End
from app.web.socket.connections import Goodbye, Member
from app.web.socket.jobs.subscriptions import FanoutLimits, Outlet, Subscription
from app.web.socket.jobs.told import Word, without_superseded
from db.feed import FeedRow
from db.session import DatabaseUnavailable

log = structlog.get_logger()


MOST_UNTOLD = 2000
"""Events that the reader of the feed may be ahead of what was told."""
AT_ONCE = 100
"""Packets that are handed out before others get their turn on the event loop."""


class Hub:
    """The feed of one tenant in this process, while anybody has subscribed to it."""

    def __init__(self, tenant: str, *, feed: Feed, outlet: Outlet, limits: FanoutLimits) -> None:
        self._tenant = tenant
        self._feed = feed
        self._outlet = outlet
        self._limits = limits
        self._everything: dict[str, Subscription] = {}
        self._of_job: dict[str, dict[str, Subscription]] = {}
        self._behind: set[Subscription] = set()
        self._kept: deque[Word] = deque()
        self._untold: list[FeedRow | Moved | Reset] = []
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_stopped = False
        self._readers = asyncio.Semaphore(limits.readers)
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.position = 0
        """Everything up to there was handed out, or waits in `_kept`."""
        self._floor = 0
        """`_kept` has everything after it, up to `position`."""
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._tell())]
        for task in self._tasks:
            task.add_done_callback(self._see_end)

    @property
    def is_empty(self) -> bool:
        return not self._everything and not self._of_job

    async def opened(self) -> None:
        """Returns once the feed is being read. Raises Overloaded, DatabaseUnavailable."""
        await asyncio.shield(self._opened)

    def add(self, member: Member, job_id: str | None, after: int | None) -> Subscription:
        """Subscribe from a place on, or from now on; nothing is told before `begin`."""
        self.remove(member, job_id)
        subscription = Subscription(member, job_id, self.position if after is None else after)
        if after is not None and not self._floor <= after <= self.position:
            subscription.unsure = after
        place = self._everything if job_id is None else self._of_job.setdefault(job_id, {})
        place[member.sid] = subscription
        return subscription

    def begin(self, subscription: Subscription) -> None:
        """From now on tell it what it waits for."""
        if subscription.is_gone:
            return
        subscription.is_begun = True
        if subscription.unsure is not None:
            subscription.reading = asyncio.create_task(self._catch_up(subscription, subscription.unsure))
        self._behind.add(subscription)
        self._wake.set()

    def remove(self, member: Member, job_id: str | None) -> bool:
        """End a subscription; False when there was none."""
        place = self._everything if job_id is None else self._of_job.get(job_id, {})
        subscription = place.pop(member.sid, None)
        if job_id is not None and not place:
            self._of_job.pop(job_id, None)
        if subscription is None:
            return False
        subscription.is_gone = True
        self._behind.discard(subscription)
        if subscription.reading is not None:
            subscription.reading.cancel()
        return True

    def has_room(self) -> None:
        """Some client took what waited for it."""
        if self._behind:
            self._wake.set()

    async def stop(self) -> None:
        """End the reading; what was not told is not told."""
        self._is_stopped = True
        readers = [each.reading for each in self._subscriptions() if each.reading is not None]
        for task in (*self._tasks, *readers):
            task.cancel()
        await asyncio.gather(*self._tasks, *readers, return_exceptions=True)
        if self._opened.done() and not self._opened.cancelled():
            self._opened.exception()

    def _subscriptions(self) -> Iterable[Subscription]:
        return chain(self._everything.values(), *(each.values() for each in self._of_job.values()))

    def _see_end(self, task: asyncio.Task[None]) -> None:
        """An error of ours must not leave clients waiting: they come again with their places."""
        if task.cancelled() or (failure := task.exception()) is None:
            return
        log.critical("socket.hub_died", tenant=self._tenant, exc_info=failure)
        if not self._opened.done():
            self._opened.set_exception(failure)
        for subscription in list(self._subscriptions()):
            self._outlet.drop(subscription.member, Goodbye.UNAVAILABLE)

    async def _follow(self) -> None:
        """Read the feed for everybody, for as long as this hub is there."""
        after: int | None = None
        failures = 0
        while True:
            try:
                async with aclosing(self._feed.follow(self._tenant, Wanted(), after=after)) as stream:
                    async for told in stream:
                        failures = 0
                        match told:
                            case Closed(_, End.STOPPING):
                                return
                            case Closed():
                                break
                            case Opened() if not self._opened.done():
                                self.position = self._floor = told.position
                                self._opened.set_result(None)
                            case Opened():
                                pass
                            case _:
                                self._untold.append(told)
                                self._wake.set()
                        after = told.position
                        await self._until_told()
            except (AppError, DatabaseUnavailable) as exc:
                if not self._opened.done():
                    self._opened.set_exception(exc)
                    return
                failures += 1
                log.warning("socket.feed_away", tenant=self._tenant, reason=str(exc))
                await asyncio.sleep(backoff_s(failures))

    async def _until_told(self) -> None:
        while len(self._untold) >= MOST_UNTOLD:
            self._taken.clear()
            await self._taken.wait()

    async def _tell(self) -> None:
        """Hand out what was read, and to those behind what they missed, as they get room."""
        # The library takes a cancellation for its own where it finds a client gone.
        while not self._is_stopped:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.look_s if self._behind else None):
                    await self._wake.wait()
            self._wake.clear()
            untold, self._untold = self._untold, []
            self._taken.set()
            try:
                await self._hand_out(untold)
            except DatabaseUnavailable as exc:
                log.warning("socket.feed_away", tenant=self._tenant, reason=str(exc))
                self._untold = untold + self._untold
                await asyncio.sleep(1)
                self._wake.set()
                continue
            for number, subscription in enumerate(list(self._behind), 1):
                await self._pump(subscription)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def _hand_out(self, untold: list[FeedRow | Moved | Reset]) -> None:
        rows = [each for each in untold if isinstance(each, FeedRow)]
        words = {word.position: word for word in await self._outlet.words(self._tenant, rows)} if rows else {}
        for each in untold:
            match each:
                case FeedRow():
                    await self._hand(words[each.position])
                case Moved():
                    self.position = max(self.position, each.position)
                case Reset():
                    self._begin_anew(each.position)

    def _begin_anew(self, position: int) -> None:
        """Events were deleted before this hub read them: nobody here has had them."""
        self._kept.clear()
        self.position = self._floor = position
        for subscription in self._subscriptions():
            subscription.is_behind = True
            if subscription.is_begun:
                self._behind.add(subscription)

    async def _hand(self, word: Word) -> None:
        self._kept.append(word)
        if len(self._kept) > self._limits.kept:
            self._floor = self._kept.popleft().position
        # Before anybody is told: who subscribes meanwhile, subscribes to what follows this.
        self.position = word.position
        targets = [*self._everything.values(), *self._of_job.get(word.job_id, {}).values()]
        for number, subscription in enumerate(targets, 1):
            if subscription.is_behind or subscription.is_gone or not subscription.wants(word):
                continue
            if self._outlet.room(subscription.member) < self._limits.window:
                await self._outlet.hand(subscription.member, word)
                subscription.cursor = word.position
            else:
                subscription.cursor = word.position - 1
                subscription.is_behind = True
                subscription.full_since_s = time.monotonic()
                self._behind.add(subscription)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _pump(self, subscription: Subscription) -> None:
        """Go on with one that is behind, as far as it has room."""
        if subscription.is_gone or subscription.reading is not None:
            return
        if subscription.cursor < self._floor:
            subscription.reading = asyncio.create_task(self._catch_up(subscription, subscription.cursor))
            return
        room = self._room_of(subscription)
        if room <= 0:
            return
        waiting = [word for word in self._kept if subscription.wants(word)]
        if subscription.is_slow:
            waiting = self._thinned(waiting)
        for word in waiting[:room]:
            await self._outlet.hand(subscription.member, word)
            subscription.cursor = word.position
        if len(waiting) <= room:
            subscription.is_behind = subscription.is_slow = False
            self._behind.discard(subscription)

    def _room_of(self, subscription: Subscription) -> int:
        """How many packets more may wait for it; notes for how long there was none, and ends that."""
        room = self._limits.window - self._outlet.room(subscription.member)
        now = time.monotonic()
        since_s, subscription.full_since_s = subscription.full_since_s, None if room > 0 else now
        if since_s is None:
            return room
        if now - since_s > self._limits.slow_s:
            subscription.is_slow = True
        if room <= 0:
            subscription.full_since_s = since_s
            if now - since_s > self._limits.stall_s:
                self._outlet.drop(subscription.member, Goodbye.TOO_SLOW)
        return room

    def _thinned(self, words: list[Word]) -> list[Word]:
        kept = without_superseded(words)
        self._outlet.coalesced(len(words) - len(kept))
        return kept

    async def _catch_up(self, subscription: Subscription, after: int) -> None:
        """Read what is behind all that the hub keeps, until the hub can go on with it."""
        failures = 0
        try:
            while not subscription.is_gone:
                try:
                    after = await self._read_on(subscription, after)
                except DatabaseUnavailable:
                    failures += 1
                    await asyncio.sleep(backoff_s(failures))
                    continue
                subscription.cursor = after
                if after >= self._floor:
                    return
        finally:
            subscription.reading = None
            self._wake.set()

    async def _read_on(self, subscription: Subscription, after: int) -> int:
        """Tell one page; the place after it. Raises DatabaseUnavailable."""
        member, most = subscription.member, self._limits.most_read
        # Whatever the hub has seen by now, this page's reading sees too.
        seen_to = self.position
        async with self._readers:
            wanted = Wanted(job_id=subscription.job_id)
            page = await self._feed.page(self._tenant, wanted, after=after, limit=most)
            if page.is_reset:
                return await self._outlet.reset(member, subscription.job_id)
            words = await self._outlet.words(self._tenant, page.rows)
        for word in self._thinned(words) if subscription.is_slow else words:
            await self._wait_for_room(subscription)
            await self._outlet.hand(member, word)
        return page.position if page.has_more else max(page.position, seen_to)

    async def _wait_for_room(self, subscription: Subscription) -> None:
        """Returns when one more packet may wait for it; who takes nothing is closed, which ends this."""
        pause_s = 0.01
        while self._room_of(subscription) <= 0:
            await asyncio.sleep(pause_s)
            pause_s = min(self._limits.look_s, 2 * pause_s)
