"""How much of a provider's quota is left, and who is not asked first any more.

A quota is on a stop of a route: so many characters, seconds or dollars in a period of the calendar, and what
must remain of it. From then on the provider comes last on that route: it is not barred, since a job with
nowhere else to go is better served there. Counted are the bills of the period, looked at again after
`FRESH_S`: what is begun within that time is not in the count, so leave that much in `reserve`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from app.costs.budgets import Period
from app.costs.prices import MICROS
from app.settings import RouteQuota, RouteStop
from db.costs import Sums, sum_provider
from db.session import Transaction

FRESH_S = 10.0


class Quotas:
    """What went to each provider. One a runtime."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, Period], tuple[float, Sums]] = {}

    async def find_spent(self, tx: Transaction, stops: Sequence[RouteStop]) -> dict[str, str]:
        """Those of whose quota too little is left, each with the reason."""
        spent: dict[str, str] = {}
        for stop in stops:
            quota = stop.quota
            if quota is None:
                continue
            used = _used(quota, await self._sums(tx, stop.provider, quota.per))
            if quota.most - used <= quota.reserve:
                spent[stop.provider] = f"{used:g} of {quota.most:g} {quota.unit} of this {quota.per} are used"
        return spent

    async def _sums(self, tx: Transaction, provider: str, per: Period) -> Sums:
        seen = self._seen.get((provider, per))
        if seen is not None and time.monotonic() - seen[0] < FRESH_S:
            return seen[1]
        now = await tx.now()
        sums = await sum_provider(tx, provider, since=per.begin(now))
        self._seen[provider, per] = (time.monotonic(), sums)
        return sums


def _used(quota: RouteQuota, sums: Sums) -> float:
    match quota.unit:
        case "characters":
            return sums.characters
        case "seconds":
            return sums.run_ms / 1000
        case "usd":
            return sums.cost_micros / MICROS
