"""Counting requests against their budgets, and what callers are told of it.

Each key has a budget of its own (or each tenant, by `RATE_LIMITS_BY`); in an open house each client address.
The counting is `limits`' sliding window counter: in memory for one process, in PostgreSQL for many. The
database is asked within a bound; where it does not answer, this process counts by itself for a while, so that
a slow database makes nobody wait and shuts nobody out.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, replace
from typing import TypeAlias

import structlog
from limits import RateLimitItem
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from app.access.callers import Caller, Scope
from app.rates.policy import BUDGETS, Policy, read_policy
from app.rates.postgres import PostgresStorage
from app.settings import Settings
from db.rates import RateCounters
from db.session import Database, DatabaseUnavailable

log = structlog.get_logger()

MOST_CLOSED = 10_000
AWAY_S = 5.0
"""How long this process counts by itself after the database did not answer in time."""
SWEEP_EVERY = 10_000
"""Hits of this process between two sweeps of old rows."""

Counting: TypeAlias = tuple[SlidingWindowCounterRateLimiter, "MemoryStorage | PostgresStorage"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands with a budget after a request."""

    budget: Scope
    quota: int
    window_s: int
    remaining: int
    reset_s: int
    """Until the whole of the quota is free again, if nothing more is asked."""
    is_in: bool
    """Whether the request was within it."""
    retry_s: float
    """Where it was not: until one is free."""

    @property
    def policy_header(self) -> str:
        return f'"{self.budget}";q={self.quota};w={self.window_s}'

    @property
    def limit_header(self) -> str:
        return f'"{self.budget}";r={self.remaining};t={self.reset_s}'


class Rates:
    """The budgets of all callers."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._policy: Policy = read_policy(settings.rate_limits)
        self._by_tenant = settings.rate_limits_by == "tenant"
        self._wait_s = settings.rate_limits_wait_s
        memory = MemoryStorage()
        self._here: Counting = (SlidingWindowCounterRateLimiter(memory), memory)
        self._counters = RateCounters(database) if settings.is_shared and self._policy else None
        self._shared: Counting | None = None
        if self._counters is not None:
            storage = PostgresStorage(self._counters)
            self._shared = (SlidingWindowCounterRateLimiter(storage), storage)
        self._away_until = 0.0
        self._closed: dict[tuple[Scope, str], tuple[float, Standing]] = {}
        """Who was refused, and until when that holds: a caller that hammers costs a look here."""
        self._hits = 0
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, where many processes count together. A database that is away is no failure."""
        if self._counters is not None:
            await self._counters.connect()

    async def spend(self, budget: Scope, caller: Caller, address: str) -> Standing | None:
        """Count one request; None where the budget has no limit. Never raises, never waits past the bound."""
        item = self._policy.get(budget)
        if item is None:
            return None
        who = self._who(caller, address)
        refused = self._refused(budget, who)
        if refused is not None:
            return refused
        standing = await self._count(item, budget, who)
        if not standing.is_in:
            if len(self._closed) >= MOST_CLOSED:
                self._closed.clear()
            self._closed[budget, who] = (time.monotonic() + standing.retry_s, standing)
        return standing

    def _refused(self, budget: Scope, who: str) -> Standing | None:
        """The refusal that still holds: before its time nothing is free, so nobody need be asked."""
        until, standing = self._closed.get((budget, who), (0.0, None))
        left_s = until - time.monotonic()
        if standing is None or left_s <= 0:
            self._closed.pop((budget, who), None)
            return None
        return replace(standing, retry_s=left_s)

    async def _count(self, item: RateLimitItem, budget: Scope, who: str) -> Standing:
        if self._shared is not None and time.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(self._wait_s):
                    standing = await _count(self._shared, item, budget, who)
                self._sweep_sometimes()
                return standing
            except (TimeoutError, DatabaseUnavailable) as exc:
                self._away_until = time.monotonic() + AWAY_S
                log.warning("rates.alone", reason=str(exc) or "no answer in time", for_s=AWAY_S)
        return await _count(self._here, item, budget, who)

    async def aclose(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        if self._counters is not None:
            await self._counters.aclose()

    def _who(self, caller: Caller, address: str) -> str:
        if caller.key_id is None:
            return f"address:{address}"
        return f"tenant:{caller.tenant}" if self._by_tenant else f"key:{caller.key_id}"

    def _sweep_sometimes(self) -> None:
        self._hits += 1
        if self._hits % SWEEP_EVERY == 0 and self._counters is not None:
            self._sweeping = asyncio.create_task(_sweep(self._counters))


async def _count(counting: Counting, item: RateLimitItem, budget: Scope, who: str) -> Standing:
    strategy, storage = counting
    is_in = await strategy.hit(item, budget.value, who)
    window_s = item.get_expiry()
    key = item.key_for(budget.value, who)
    previous, previous_s, current, current_s = await storage.get_sliding_window(key, window_s)
    used = previous * previous_s / window_s + current
    return Standing(
        budget=budget,
        quota=item.amount,
        window_s=window_s,
        remaining=max(0, item.amount - math.floor(used)),
        reset_s=math.ceil(current_s if current else previous_s),
        is_in=is_in,
        retry_s=0.0 if is_in else retry_s(item.amount, window_s, previous, previous_s, current, current_s),
    )


def retry_s(
    quota: int, window_s: int, previous: int, previous_s: float, current: int, current_s: float
) -> float:
    """Until `floor(used) + 1` is within the quota again, when nothing more is asked.

    The weight of the previous window falls evenly to nothing; then the current one takes its place.
    """
    if current < quota and previous:
        return max(0.0, previous_s - (quota - current) * window_s / previous)
    rolls_in_s = max(0.0, current_s - window_s)
    if current < quota:
        return 0.0
    # Once it is the previous one: current * (window - t) / window must be below the quota.
    return rolls_in_s + window_s * (1 - quota / current)


async def _sweep(counters: RateCounters) -> None:
    try:
        await counters.sweep()
    except DatabaseUnavailable as exc:
        log.info("rates.unswept", reason=str(exc))


__all__ = ["BUDGETS", "Rates", "Standing", "retry_s"]
