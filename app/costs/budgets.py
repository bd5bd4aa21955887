"""Budgets: how much a tenant may spend in an hour, a day or a month; pure.

A period is the calendar's, in UTC: a monthly budget begins anew at the first midnight of the month. Who keeps
count is `app.intake.spending`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.costs.prices import read_usd, to_micros

ANYBODY = "*"
"""The key of the budget that each tenant without one of its own has."""


class Period(StrEnum):
    """How long a budget lasts."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"

    def begin(self, now: datetime) -> datetime:
        """When the period around this time began."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        match self:
            case Period.HOUR:
                return hour
            case Period.DAY:
                return hour.replace(hour=0)
            case Period.MONTH:
                return hour.replace(hour=0, day=1)

    def end(self, now: datetime) -> datetime:
        """When the next one begins."""
        begun_at = self.begin(now)
        match self:
            case Period.HOUR:
                return begun_at + timedelta(hours=1)
            case Period.DAY:
                return begun_at + timedelta(days=1)
            case Period.MONTH:
                # The 1st and 32 days are always in the next month.
                return (begun_at + timedelta(days=32)).replace(day=1)


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on spending within a period."""

    micros: int
    per: Period


@dataclass(frozen=True, slots=True)
class Budgets:
    """Every tenant's budgets; a tenant may have several, such as one for the day and one for the month."""

    by_tenant: Mapping[str, Sequence[Budget]]

    def of(self, tenant: str) -> Sequence[Budget]:
        return self.by_tenant.get(tenant, self.by_tenant.get(ANYBODY, ()))


def read_budgets(wanted: Mapping[str, Mapping[str, str | float]]) -> Budgets:
    """`{tenant or "*": {period: dollars}}`. Raises ValueError with the place and what is wrong there."""
    read: dict[str, Sequence[Budget]] = {}
    for tenant, limits in wanted.items():
        budgets = []
        for period, usd in limits.items():
            place = f"{tenant}/{period}"
            if period not in set(Period):
                raise ValueError(f"{tenant}: a budget is per {', '.join(Period)}; not per {period[:40]}")
            try:
                budgets.append(Budget(to_micros(read_usd(usd)), Period(period)))
            except ValueError as exc:
                raise ValueError(f"{place}: {exc}") from exc
        read[tenant] = budgets
    return Budgets(read)
