"""Deliveries as they arrive, for whoever looks on: what a provider said, told once each, in order.

A way to watch, not a way to receive: the inbox has stored the news before it is told here, and what this
stream misses nobody loses. It could miss one that another process on PostgreSQL needed longer than
`OVERLAP_S` to store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta

from app.feed.stream import FeedLimits
from app.feed.told import End
from app.line import Line
from app.notify import DELIVERIES
from db.feed.arrivals import find_arrivals, read_arrivals
from db.ids import first_id, made_at
from db.tables import Delivery

OVERLAP_S = 2.0
"""How far back it is looked again, where other processes store too."""
LOOK_S = 1.0
"""How often to look without a hint: of news that another process stores nobody is hinted."""
MOST_TOGETHER = 50
MOST_BODY_BYTES = 10_000_000
"""A larger body is not told; there is its size."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A delivery that has been stored. Its body is empty where it was not asked for, or is too large."""

    delivery: Delivery
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing for a while; the stream stands there."""

    last_id: str


Arrived = Arrival | Quiet | End


class Arrivals:
    """Who looks on. One object a runtime."""

    def __init__(self, *, line: Line, limits: FeedLimits | None = None) -> None:
        self._line = line
        self._limits = limits or FeedLimits()
        self._closing = False

    async def follow(
        self, tenant: str, *, after_id: str | None, body: bool, with_strays: bool = False
    ) -> AsyncGenerator[Arrived, None]:
        """Every delivery for this tenant's jobs after one, or from now on; the last word is an `End`.

        `with_strays` also what belongs to no job. Raises DatabaseUnavailable.
        """
        clock = asyncio.get_running_loop().time
        bound = last_id = after_id or first_id("dlv", self._line.clock.wall())
        seen: dict[str, None] = {}
        told_at = clock()
        with self._line.notifier.subscribe(DELIVERIES) as hints:
            yield Quiet(last_id)
            while not self._closing:
                fresh, has_more = await self._look(bound, seen)
                for arrival in await self._read(fresh, tenant, body=body, with_strays=with_strays):
                    offered_at = clock()
                    yield arrival
                    last_id, told_at = arrival.delivery.id, clock()
                    if told_at - offered_at > self._limits.stall_s:
                        yield End.TOO_SLOW
                        return
                seen.update(dict.fromkeys(fresh))
                bound = self._forget(bound, seen, has_more=has_more)
                if has_more or len(fresh) == MOST_TOGETHER:
                    continue
                if clock() - told_at > self._limits.keepalive_s:
                    told_at = clock()
                    yield Quiet(last_id)
                await hints.wait(LOOK_S if self._line.database.is_shared else self._limits.keepalive_s)
                await asyncio.sleep(self._limits.pause_s)
            yield End.STOPPING

    def release(self) -> None:
        """End every stream with its last word, from now on."""
        self._closing = True
        self._line.notifier.publish(DELIVERIES)

    async def _look(self, bound: str, seen: dict[str, None]) -> tuple[list[str], bool]:
        async with self._line.database.reading() as tx:
            fresh, has_more = await find_arrivals(tx, after_id=bound, known=seen)
        return fresh[:MOST_TOGETHER], has_more

    async def _read(self, ids: list[str], tenant: str, *, body: bool, with_strays: bool) -> list[Arrival]:
        if not ids:
            return []
        async with self._line.database.reading() as tx:
            found = await read_arrivals(
                tx,
                ids,
                tenant=tenant,
                with_strays=with_strays,
                most_bytes=MOST_BODY_BYTES if body else 0,
            )
        return [Arrival(delivery, size_bytes) for delivery, size_bytes in found]

    def _forget(self, bound: str, seen: dict[str, None], *, has_more: bool) -> str:
        """Where to look from next. Under a flood the overlap is given up: it would be all that is seen."""
        if not seen:
            return bound
        newest = max(seen)
        if not self._line.database.is_shared or has_more:
            seen.clear()
            return max(bound, newest)
        since = made_at(newest) - timedelta(seconds=OVERLAP_S)
        past = max(bound, first_id("dlv", since))
        for old in [each for each in seen if each <= past]:
            del seen[old]
        return past
