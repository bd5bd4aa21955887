"""The books: what attempts cost, added up. Every sum is of whole numbers, so parts add up to the whole.

A cost counts at the time of its attempt's end, `billed_at`. What deleted jobs had cost is in `past_costs`,
by day: it counts where the day's midnight is in the time that is asked for. What ended before there were
books is in none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, String, Text, case, cast, func, literal, select, union_all, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import col

from db.session import Transaction
from db.states import LIVE_JOB_STATES
from db.tables import Attempt, Job, PastCost

METADATA = "metadata."
"""Begins a grouping by one of the callers' own words."""
GROUPS = ("provider", "kind", "model", "day", "job")
MOST_KEY_CHARACTERS = 200
"""A longer value of a caller's is one group with those that begin alike."""


class CostBasis(StrEnum):
    """How sure the cost of an attempt is."""

    METERED = "metered"
    """By the provider's own figures, or by units that the input says."""
    CLOCK = "clock"
    """The running time is what passed by our clock: an estimate, rather too much."""
    ASSUMED = "assumed"
    """Its end was never heard; the units are taken as delivered."""
    NOTHING = "nothing"
    """It never began, as far as is known."""
    UNPRICED = "unpriced"
    """It ran, and no price is known."""


ESTIMATES = (CostBasis.CLOCK, CostBasis.ASSUMED)


@dataclass(frozen=True, slots=True)
class Sums:
    """What a group of attempts comes to. Money in micro-dollars, times in milliseconds."""

    attempts: int = 0
    jobs: int = 0
    """That had such an attempt: a job with attempts in two groups is in both."""
    unpriced: int = 0
    """Attempts that ran and have no price: what they cost is not in the sum."""
    estimated: int = 0
    run_ms: int = 0
    characters: int = 0
    output_ms: int = 0
    cost_micros: int = 0


_NAMES = [field.name for field in fields(Sums)]


class _utc_day(FunctionElement[str]):  # noqa: N801 - reads as a function of SQL's
    """The day of a moment in UTC, as ISO 8601."""

    type = String()
    inherit_cache = True


@compiles(_utc_day)
def _day_of_text(element: Any, compiler: Any, **more: Any) -> str:
    """SQLite keeps a moment as text in UTC."""
    return f"substr({compiler.process(element.clauses, **more)}, 1, 10)"


@compiles(_utc_day, "postgresql")
def _day_with_zone(element: Any, compiler: Any, **more: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **more)} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


@compiles(_utc_day, "mysql")
@compiles(_utc_day, "mariadb")
def _day_without_zone(element: Any, compiler: Any, **more: Any) -> str:
    return f"substr(cast({compiler.process(element.clauses, **more)} AS char), 1, 10)"


async def list_costs(
    tx: Transaction,
    group_by: str,
    *,
    tenant: str | None,
    since: datetime,
    until: datetime,
    after: str | None,
    limit: int,
) -> list[tuple[str, Sums]]:
    """The sums of each group with attempts from `since` until before `until`, by the group's name.

    Of one tenant, or of all. `group_by` is one of `GROUPS` or `metadata.NAME`; what has no such word is in
    the group "". `after` is the last name of the page before. Reads every attempt of the time.
    """
    present = _present(group_by, since, until, tenant).subquery()
    past = _past(group_by, since, until, tenant).subquery()
    counted = (
        func.count().label("attempts"),
        func.count(present.c.job_id.distinct()).label("jobs"),
        *(func.sum(present.c[name]).label(name) for name in _NAMES[2:]),
    )
    both = union_all(
        _grouped(present, counted, after),
        _grouped(past, [func.sum(past.c[name]).label(name) for name in _NAMES], after),
    ).subquery()
    statement = (
        select(both.c.key, *(func.sum(both.c[name]).label(name) for name in _NAMES))
        .group_by(both.c.key)
        .order_by(both.c.key)
        .limit(limit)
    )
    rows = (await tx.execute(statement)).mappings()
    return [(str(row["key"]), Sums(**{name: int(row[name]) for name in _NAMES})) for row in rows]


async def sum_costs(tx: Transaction, *, tenant: str | None, since: datetime, until: datetime) -> Sums:
    """The whole of that time."""
    rows = await list_costs(tx, "", tenant=tenant, since=since, until=until, after=None, limit=1)
    return rows[0][1] if rows else Sums()


async def sum_provider(tx: Transaction, provider: str, *, since: datetime) -> Sums:
    """What went to a provider since then: dollars, running time, characters, seconds of audio. For quotas.

    `jobs` is left out. Reads the provider's attempts of the time: remember the answer for a while.
    """
    present = select(
        func.count().label("attempts"),
        *(func.coalesce(func.sum(value), 0).label(name) for name, value in _measured().items()),
    ).where(col(Attempt.billed_at) >= since, col(Attempt.provider) == provider)
    names = ["attempts", *_measured()]
    past = select(*(func.coalesce(func.sum(col(getattr(PastCost, name))), 0).label(name) for name in names))
    past = past.where(col(PastCost.provider) == provider, col(PastCost.day) >= _first_day(since))
    rows = [(await tx.execute(each)).mappings().one() for each in (present, past)]
    return Sums(**{name: sum(int(row[name]) for row in rows) for name in names})


async def sum_tenant(
    tx: Transaction, tenant: str, *, since: datetime, parted_at: datetime, with_past: bool
) -> tuple[int, int]:
    """What a tenant spent from `since` until before `parted_at`, and from then on, in micro-dollars.

    `with_past` adds to the first what deleted jobs had cost. Read from an index alone.
    """
    cost = func.coalesce(col(Attempt.cost_micros), 0)
    is_before = col(Attempt.billed_at) < parted_at
    statement = select(
        func.coalesce(func.sum(case((is_before, cost), else_=0)), 0).label("before"),
        func.coalesce(func.sum(case((is_before, 0), else_=cost)), 0).label("later"),
    ).where(col(Attempt.billed_at) >= since, col(Attempt.tenant) == tenant)
    found = (await tx.execute(statement)).mappings().one()
    gone = 0
    if with_past:
        past = select(func.coalesce(func.sum(col(PastCost.cost_micros)), 0))
        past = past.where(col(PastCost.tenant) == tenant, col(PastCost.day) >= _first_day(since))
        gone = int((await tx.execute(past)).scalar_one())
    return int(found["before"]) + gone, int(found["later"])


async def sum_reserved(tx: Transaction) -> dict[str, int]:
    """What the live jobs of each tenant hold of its budget. Reads them all: not for each call."""
    statement = (
        select(col(Job.tenant), func.sum(col(Job.reserved_micros)).label("micros"))
        .where(col(Job.state).in_(LIVE_JOB_STATES), col(Job.reserved_micros).is_not(None))
        .group_by(col(Job.tenant))
    )
    rows = (await tx.execute(statement)).mappings()
    return {row["tenant"]: int(row["micros"]) for row in rows}


async def keep_past_costs(tx: Transaction, job_ids: Sequence[str]) -> None:
    """Add what these jobs cost to the books of the past, in the transaction that deletes them."""
    statement = (
        select(
            _utc_day(col(Attempt.billed_at)).label("day"),
            col(Job.tenant),
            col(Attempt.provider),
            col(Job.kind),
            col(Attempt.model),
            literal(1).label("attempts"),
            case((col(Attempt.number) == 1, 1), else_=0).label("jobs"),
            *(value.label(name) for name, value in _measured().items()),
        )
        .join(Job, col(Job.id) == col(Attempt.job_id))
        .where(col(Attempt.job_id).in_(job_ids), col(Attempt.billed_at).is_not(None))
        .subquery()
    )
    keys = [statement.c[name] for name in _PAST_KEY]
    sums = [func.sum(statement.c[name]).label(name) for name in _NAMES]
    # In one order, so that no two who delete wait for each other.
    grouped = select(*keys, *sums).group_by(*keys).order_by(*keys)
    for row in (await tx.execute(grouped)).mappings().all():
        await _add_past(tx, dict(row))


_PAST_KEY = ("day", "tenant", "provider", "kind", "model")


async def _add_past(tx: Transaction, row: Mapping[str, Any]) -> None:
    key = {name: row[name] for name in _PAST_KEY}
    await tx.insert_new(PastCost, key | dict.fromkeys(_NAMES, 0))
    added = {name: col(getattr(PastCost, name)) + int(row[name]) for name in _NAMES}
    same = [col(getattr(PastCost, name)) == value for name, value in key.items()]
    await tx.execute(update(PastCost).where(*same).values(added))


def _measured() -> dict[str, Any]:
    """What each attempt adds to the sums."""
    basis = col(Attempt.cost_basis)
    whole = ("run_ms", "characters", "output_ms", "cost_micros")
    return {
        "unpriced": case((basis == CostBasis.UNPRICED, 1), else_=0),
        "estimated": case((basis.in_(ESTIMATES), 1), else_=0),
        **{name: func.coalesce(col(getattr(Attempt, name)), 0) for name in whole},
    }


def _present(group_by: str, since: datetime, until: datetime, tenant: str | None) -> Select[Any]:
    """One row an attempt, with the name of its group."""
    keys: dict[str, Any] = {
        "": literal(""),
        "provider": col(Attempt.provider),
        "kind": col(Job.kind),
        "model": col(Attempt.model),
        "day": _utc_day(col(Attempt.billed_at)),
        "job": col(Attempt.job_id),
    }
    if group_by.startswith(METADATA):
        value = cast(col(Job.caller_metadata)[group_by.removeprefix(METADATA)].as_string(), Text)
        key = func.coalesce(func.substr(value, 1, MOST_KEY_CHARACTERS), "")
    else:
        key = keys[group_by]
    columns = [value.label(name) for name, value in _measured().items()]
    statement = select(key.label("key"), col(Attempt.job_id).label("job_id"), *columns)
    if group_by == "kind" or group_by.startswith(METADATA):
        statement = statement.join(Job, col(Job.id) == col(Attempt.job_id))
    if tenant is not None:
        statement = statement.where(col(Attempt.tenant) == tenant)
    return statement.where(col(Attempt.billed_at) >= since, col(Attempt.billed_at) < until)


def _past(group_by: str, since: datetime, until: datetime, tenant: str | None) -> Select[Any]:
    key: Any = col(getattr(PastCost, group_by)) if group_by in _PAST_KEY else literal("")
    columns: list[Any] = [col(getattr(PastCost, name)).label(name) for name in _NAMES]
    statement = select(key.label("key"), *columns)
    if tenant is not None:
        statement = statement.where(col(PastCost.tenant) == tenant)
    return statement.where(col(PastCost.day) >= _first_day(since), col(PastCost.day) < _first_day(until))


def _grouped(rows: Any, sums: Sequence[Any], after: str | None) -> Select[Any]:
    statement = select(rows.c.key, *sums).group_by(rows.c.key)
    return statement if after is None else statement.where(rows.c.key > after)


def _first_day(moment: datetime) -> str:
    """The first day whose midnight is not before this moment."""
    moment = moment.astimezone(UTC)
    days = moment.toordinal() + (moment.time() > time.min)
    return date.fromordinal(min(days, date.max.toordinal())).isoformat()
