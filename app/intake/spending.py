"""Whether a new job's tenant still has the money for it.

Refuses with `BudgetExceeded` before anything is stored. Counted against a budget are what attempts of the
period have cost and what live jobs hold of it by estimate: a burst cannot pass a budget only because nothing
of it has ended yet. Jobs that were accepted go on, and what is known to cost nothing is never refused.

Promises to be cheap: without budgets nothing is read at all; with them a look a second, at the last minute's
bills. What is older is added to a sum kept here; it is counted anew once an hour and in each new period.

How well it holds: one process on SQLite or MySQL passes a budget by no more than what jobs come to cost
beyond their estimates (a second attempt, a longer run). Each further process adds at most what it accepts
in a second. A late correction of a bill older than a minute counts at the next recount.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.costs.budgets import Budget, Period, read_budgets
from app.costs.estimates import Estimate, estimate
from app.costs.prices import list_prices, to_usd
from app.errors import BudgetExceeded
from app.kinds import get_kind
from app.routing.choice import ANY
from app.routing.router import Router
from app.settings import Settings
from db.costs import sum_reserved, sum_tenant
from db.session import Transaction
from db.tables import Job

LOOK_EVERY_S = 1.0
"""How old a look may be."""
SETTLED = timedelta(seconds=60)
"""No transaction that books a cost is open for longer: what is older is all there."""
RECOUNT_S = 3600.0
MOST_TENANTS = 10_000
"""Remembered; beyond, all are forgotten and counted again."""


@dataclass(slots=True)
class Account:
    """What one tenant has spent in one period."""

    begun_at: datetime
    counted_to: datetime
    settled: int
    """Micro-dollars booked before `counted_to`."""
    recent: int
    """And since."""
    recounted_s: float

    @property
    def spent(self) -> int:
        return self.settled + self.recent


class Spending:
    """The purse at the gate of the intake. One a process."""

    def __init__(self, *, settings: Settings, router: Router) -> None:
        self._router = router
        self._budgets = read_budgets(settings.budgets)
        self._prices = list_prices(settings.prices)
        self._accounts: dict[tuple[str, Period], Account] = {}
        self._looked_s: dict[str, float] = {}
        self._reserved: Counter[str] = Counter()
        self._reserved_s = -math.inf

    async def look(self, tx: Transaction, tenants: Iterable[str], now: datetime) -> None:
        """Bring the accounts of these tenants up to date, where they are older than `LOOK_EVERY_S`."""
        for tenant in set(tenants):
            budgets = self._budgets.of(tenant)
            if not budgets:
                continue
            at_s = time.monotonic()
            if at_s - self._reserved_s >= LOOK_EVERY_S:
                self._reserved, self._reserved_s = Counter(await sum_reserved(tx)), at_s
            is_fresh = at_s - self._looked_s.get(tenant, -math.inf) < LOOK_EVERY_S
            if is_fresh and all(self._is_current(tenant, each.per, now) for each in budgets):
                continue
            if len(self._looked_s) >= MOST_TENANTS:
                self._looked_s.clear()
                self._accounts.clear()
            for each in budgets:
                await self._count(tx, tenant, each.per, now)
            self._looked_s[tenant] = at_s

    def admit(self, job: Job, now: datetime) -> None:
        """Hold the job's estimate, also on its row. Raises BudgetExceeded, and then nothing is held."""
        job.reserved_micros = None
        budgets = self._budgets.of(job.tenant)
        if not budgets:
            return
        needed, is_free = self._expect(job)
        if is_free:
            return
        for budget in budgets:
            self._check(job.tenant, budget, needed, now)
        job.reserved_micros = needed
        # Held before it is committed: if it never is, the next look puts that right.
        self._reserved[job.tenant] += needed

    def _check(self, tenant: str, budget: Budget, needed: int, now: datetime) -> None:
        account = self._accounts.get((tenant, budget.per))
        spent, held = account.spent if account else 0, self._reserved[tenant]
        # A job without a known price needs at least something to be left.
        if spent + held + max(1, needed) <= budget.micros:
            return
        resets_at = budget.per.end(now)
        raise BudgetExceeded(
            f"of the {to_usd(budget.micros):g} dollars for this {budget.per} {to_usd(spent):g} are spent and "
            f"{to_usd(held):g} are held by jobs under way; it begins anew at {resets_at.isoformat()}",
            facts={
                "usd": to_usd(budget.micros),
                "per": budget.per.value,
                "spent_usd": to_usd(spent),
                "reserved_usd": to_usd(held),
                "resets_at": resets_at.isoformat(),
            },
            retry_after_s=(resets_at - now).total_seconds(),
        )

    async def _count(self, tx: Transaction, tenant: str, per: Period, now: datetime) -> None:
        account = self._accounts.get((tenant, per))
        begun_at, parted_at = per.begin(now), max(per.begin(now), now - SETTLED)
        if account is None or account.begun_at != begun_at or self._is_old(account):
            settled, recent = await sum_tenant(
                tx, tenant, since=begun_at, parted_at=parted_at, with_past=True
            )
            self._accounts[tenant, per] = Account(begun_at, parted_at, settled, recent, time.monotonic())
            return
        parted_at = max(parted_at, account.counted_to)
        more, recent = await sum_tenant(
            tx, tenant, since=account.counted_to, parted_at=parted_at, with_past=False
        )
        account.settled, account.recent, account.counted_to = account.settled + more, recent, parted_at

    def _is_current(self, tenant: str, per: Period, now: datetime) -> bool:
        account = self._accounts.get((tenant, per))
        return account is not None and account.begun_at == per.begin(now)

    def _is_old(self, account: Account) -> bool:
        return time.monotonic() - account.recounted_s >= RECOUNT_S

    def _expect(self, job: Job) -> tuple[int, bool]:
        """What is held for the job, and whether it is known to cost nothing.

        One attempt at the dearest provider that it may come to: one that begins at a free one may fall back.
        """
        family = get_kind(job.kind).family
        # The parts are paid for; they hold nothing of the budget themselves.
        kinds = [part.kind for part in family.parts] if family else [job.kind]
        expected = [self._expect_of(job, kind) for kind in kinds]
        return sum(micros for micros, _ in expected), all(is_free for _, is_free in expected)

    def _expect_of(self, job: Job, kind: str) -> tuple[int, bool]:
        if job.provider == ANY:
            names = [stop.provider for stop in self._router.stops(kind)]
        else:
            names = [job.provider]
        expected = [self._estimate(job, kind, name) for name in names]
        is_free = bool(expected) and all(each.usd == 0 for each in expected)
        return max((each.micros for each in expected), default=0), is_free

    def _estimate(self, job: Job, kind: str, provider: str) -> Estimate:
        model, payee = self._router.model(kind, provider), self._router.payee(provider)
        return estimate(kind, payee, model, job.input, prices=self._prices)
