"""Whether one more job may be accepted: room for it, time for it, and money (`app.intake.spending`).

Refuses with `Overloaded` before anything is stored: when the live limit is met, and when the job would most
likely pass its own deadline before its turn came. Promises to be cheap, honest and slow to say no: the live
jobs are counted once a second, not once a job; who is refused is told when to come again, by the measured
rate; and a queue is called too long only once its oldest job has waited `QUEUE_AGE_S`, and then by the rate
most favourable to the newcomer.

The live limit is exact in one process on SQLite. Several processes pass it together by at most one part in a
hundred each and the transactions that were open during a count. News of providers does not come by here: it
is refused only when its own queue is full (`app.inbox`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.errors import Overloaded
from app.intake.spending import Spending
from app.line import Line
from db.jobs import Crowd, count_crowds, count_started
from db.session import Transaction
from db.tables import Job

COUNT_EVERY_S = 1.0
"""How old a count may be."""
COUNT_SHARE = 0.01
"""The part of the live limit that may be accepted on one count."""
RESERVED_SHARE = 0.2
"""The part of the live limit that no tenant takes from the others; nobody else there, it takes that too."""
WINDOW_S = 300.0
"""How far back the rate is measured."""
FEW = 16
"""So many queued jobs are never too many."""
LONGEST_RETRY_S = 300.0
USUAL_RETRY_S = 10.0
"""What is told where no rate has been measured."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Those who stand in the way of a job that asks for one provider."""

    crowds: list[Crowd]
    age_s: float
    """How long the oldest has waited: so long, at least, there was work for every slot."""
    began: int
    """How many began for the first time in that while, at most in the last `WINDOW_S`."""


@dataclass(slots=True)
class Count:
    """The live jobs as last counted, with those that this process has accepted since."""

    at_s: float = -math.inf
    live: Counter[str] = field(default_factory=Counter)
    """By tenant."""
    lanes: dict[str, Lane] = field(default_factory=dict)
    """By the provider asked for."""
    accepted: int = 0


class Admission:
    """The gate of the intake. One a process."""

    def __init__(self, *, line: Line) -> None:
        self._line = line
        self._count = Count()
        self._spending = Spending(settings=line.settings, router=line.router)

    async def look(self, tx: Transaction, now: datetime, tenants: Iterable[str] = ()) -> None:
        """Count again if the last count is old; before a transaction admits anybody, since what it has not
        written yet is in no count."""
        await self._spending.look(tx, tenants, now)
        stale = time.monotonic() - self._count.at_s >= COUNT_EVERY_S
        most = self._line.settings.max_queued_jobs
        if stale or self._count.accepted >= max(1, int(most * COUNT_SHARE)):
            await self._recount(tx, now)

    def admit(self, job: Job) -> None:
        """Count the job in. Raises Overloaded, with when to come again, and BudgetExceeded; and then nothing
        is counted. One that is made of an old result waits for no provider and costs nothing."""
        self._check_room(job.tenant, self._line.settings.max_queued_jobs)
        if job.result_of is None:
            self._check_time(job)
            self._spending.admit(job, job.created_at)
        # Counted before it is committed: if it never is, the next count puts that right.
        self._count.live[job.tenant] += 1
        self._count.accepted += 1

    async def _recount(self, tx: Transaction, now: datetime) -> None:
        """Count in the newcomer's own transaction: it has its connection already."""
        before, known = self._count.live.copy(), self._count
        # From now on nobody else counts; meanwhile they go by what is known, and are added afterwards.
        known.at_s, known.accepted = time.monotonic(), 0
        crowds = await count_crowds(tx)
        live = known.live - before
        for crowd in crowds:
            live[crowd.tenant] += crowd.live
        lanes = {
            provider: await _survey(tx, provider, crowds, now)
            for provider in {"auto", *(crowd.provider for crowd in crowds)}
        }
        self._count = Count(known.at_s, live, lanes, known.accepted)

    def _check_room(self, tenant: str, most: int) -> None:
        live, own = self._count.live, self._count.live[tenant]
        total = live.total()
        reserved = int(most * RESERVED_SHARE)
        if total == own:
            has_room = total < most
        elif own < reserved:
            # Whoever was alone may have taken all: a newcomer's share is then beyond the limit.
            has_room = total < most + reserved
        else:
            has_room = total < most and own < most - reserved
        if not has_room:
            lane = self._count.lanes.get("auto")
            rate = lane.began / min(lane.age_s, WINDOW_S) if lane and lane.age_s else 0.0
            wait_s = most * COUNT_SHARE / rate if rate else USUAL_RETRY_S
            raise Overloaded("too many jobs are waiting", retry_after_s=_bounded(wait_s))

    def _check_time(self, job: Job) -> None:
        """Whether its turn may come before its deadline, as far as the last minutes tell."""
        lane = self._count.lanes.get(job.provider)
        if lane is None or lane.age_s < self._line.settings.queue_age_s:
            return
        ahead = _ahead_of(job.tenant, lane.crowds)
        if ahead < FEW:
            return
        left_s = (job.deadline_at - job.created_at).total_seconds()
        if lane.began:
            # A few are little evidence: the newcomer has the benefit of the doubt.
            most_began = lane.began + 1 + 2 * math.sqrt(lane.began + 1)
            short_s = ahead * min(lane.age_s, WINDOW_S) / most_began - left_s
        else:
            # Nothing begins at all, and who came first has waited longer than this one could.
            short_s = lane.age_s - left_s
        if short_s > 0:
            message = f"{ahead} jobs are waiting before it; it would pass its deadline first"
            raise Overloaded(message, retry_after_s=_bounded(short_s))


async def _survey(tx: Transaction, provider: str, crowds: list[Crowd], now: datetime) -> Lane:
    inside = [crowd for crowd in crowds if _shares_slots(crowd.provider, provider)]
    oldest = min((crowd.oldest for crowd in inside if crowd.oldest), default=now)
    age_s = max(0.0, (now - oldest).total_seconds())
    since = now - timedelta(seconds=min(age_s, WINDOW_S))
    started = await count_started(tx, since=since) if age_s else {}
    began = sum(count for each, count in started.items() if _shares_slots(each, provider))
    return Lane(inside, age_s, began)


def _shares_slots(provider: str, wanted: str) -> bool:
    """Whether jobs that ask for these two stand in each other's way: `auto` may be sent anywhere."""
    return provider == wanted or "auto" in (provider, wanted)


def _ahead_of(tenant: str, lane: list[Crowd]) -> int:
    """How many begin before the tenant's next one: its own, and of the others in turn no more than that."""
    queued: Counter[str] = Counter()
    for crowd in lane:
        queued[crowd.tenant] += crowd.queued
    own = queued.pop(tenant, 0)
    return own + sum(min(others, own + 1) for others in queued.values())


def _bounded(wait_s: float) -> float:
    return min(LONGEST_RETRY_S, max(1.0, wait_s))
