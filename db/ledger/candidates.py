"""What a recovery could take: live attempts, stored deliveries; first what expires soonest at the provider.

An output may be gone from a moment after its attempt was made on, and is certainly gone when that long has
passed since its limit: whoever can still be saved goes before those, the oldest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, case, func, or_, select
from sqlmodel import col

from db.ids import first_id
from db.session import Transaction
from db.states import LIVE_ATTEMPT_STATUSES, DeliverySource
from db.tables import Attempt, Delivery, Job

_ATTEMPTS = Attempt.__table__  # type: ignore[attr-defined]
ID_SLACK = timedelta(hours=1)
"""How far the clock that makes ids may be from the one that dates rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What narrows a recovery. `since` is inclusive, `until` is not."""

    tenant: str
    since: datetime
    until: datetime
    kind: str | None = None
    outcome: str | None = None
    source: str | None = None
    limit: int


async def list_live(
    tx: Transaction, wanted: Wanted, *, gone_before: Mapping[str, datetime]
) -> list[tuple[Attempt, Job]]:
    """Live attempts that were made in this time.

    `gone_before` says for each provider that keeps outputs for a while: what it ended before then is gone.
    """
    end_at = func.coalesce(col(Attempt.limit_at), col(Attempt.created_at))
    statement = (
        select(_ATTEMPTS.c.id)
        .join(Job, col(Job.id) == col(Attempt.job_id))
        .where(
            col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES),
            col(Attempt.created_at) >= wanted.since,
            col(Attempt.created_at) < wanted.until,
            col(Job.tenant) == wanted.tenant,
        )
        .order_by(_gone(col(Attempt.provider), end_at, gone_before), col(Attempt.created_at), _ATTEMPTS.c.id)
        .limit(wanted.limit)
    )
    if wanted.kind:
        statement = statement.where(col(Job.kind) == wanted.kind)
    ids = list((await tx.execute(statement)).scalars())
    return await list_pairs(tx, ids)


@dataclass(frozen=True, slots=True)
class Stored:
    """A delivery that could be sent again, without its body."""

    id: str
    attempt_id: str
    job_id: str
    provider: str
    received_at: datetime


async def list_stored(tx: Transaction, wanted: Wanted, *, gone_before: datetime) -> list[Stored]:
    """Settled news of this tenant's attempts, by postmen other than our own clock.

    First what came since `gone_before`, then the rest. Copies of earlier replays are left out unless they are
    asked for: a replay of everything would double them.
    """
    first = max(wanted.since, gone_before)
    found = await _list_stored(tx, wanted, first, wanted.until, wanted.limit)
    left = wanted.limit - len(found)
    if left and wanted.since < gone_before:
        found += await _list_stored(tx, wanted, wanted.since, min(wanted.until, gone_before), left)
    return found


async def _list_stored(
    tx: Transaction, wanted: Wanted, since: datetime, until: datetime, limit: int
) -> list[Stored]:
    """In the order in which it came, read along the primary key."""
    columns = (Delivery.id, Delivery.attempt_id, Attempt.job_id, Delivery.provider, Delivery.received_at)
    statement = (
        select(*(col(each) for each in columns))
        .join(Attempt, col(Attempt.id) == col(Delivery.attempt_id))
        .join(Job, col(Job.id) == col(Attempt.job_id))
        .where(
            col(Delivery.id) >= first_id("dlv", since - ID_SLACK),
            col(Delivery.received_at) >= since,
            col(Delivery.received_at) < until,
            col(Delivery.settled_at).is_not(None),
            col(Job.tenant) == wanted.tenant,
        )
        .order_by(col(Delivery.id))
        .limit(limit)
    )
    if wanted.kind:
        statement = statement.where(col(Job.kind) == wanted.kind)
    if wanted.outcome:
        statement = statement.where(col(Delivery.outcome) == wanted.outcome)
    if wanted.source:
        statement = statement.where(col(Delivery.source) == wanted.source)
    else:
        ours = (DeliverySource.DEADLINE, DeliverySource.REPLAY)
        statement = statement.where(col(Delivery.source).not_in(ours))
    return [Stored(**row) for row in (await tx.execute(statement)).mappings()]


async def find_pair(tx: Transaction, attempt_id: str) -> tuple[Attempt, Job] | None:
    """An attempt and its job as they stand, without a lock."""
    found = await list_pairs(tx, [attempt_id])
    return found[0] if found else None


async def find_attempt_of(tx: Transaction, provider: str, prediction_id: str) -> str | None:
    """The attempt behind a provider's prediction."""
    statement = select(_ATTEMPTS.c.id).where(
        col(Attempt.prediction_id) == prediction_id, col(Attempt.provider) == provider
    )
    found: str | None = (await tx.execute(statement.limit(1))).scalar()
    return found


async def list_pairs(tx: Transaction, attempt_ids: list[str]) -> list[tuple[Attempt, Job]]:
    """In the order of the ids; those that are gone are left out."""
    found: dict[str, tuple[Attempt, Job]] = {}
    for at in range(0, len(attempt_ids), 500):
        part = attempt_ids[at : at + 500]
        rows = (await tx.execute(select(_ATTEMPTS).where(_ATTEMPTS.c.id.in_(part)))).mappings()
        attempts = [Attempt(**row) for row in rows]
        wanted = select(Job.__table__).where(col(Job.id).in_({each.job_id for each in attempts}))  # type: ignore[attr-defined]
        jobs = {row["id"]: Job(**row) for row in (await tx.execute(wanted)).mappings()}
        found |= {each.id: (each, jobs[each.job_id]) for each in attempts if each.job_id in jobs}
    return [found[attempt_id] for attempt_id in attempt_ids if attempt_id in found]


def _gone(provider: Any, end_at: Any, gone_before: Mapping[str, datetime]) -> Any:
    """1 for what nobody can save any more, 0 for the rest."""
    late = [and_(provider == name, end_at < moment) for name, moment in gone_before.items()]
    return case((or_(*late), 1), else_=0) if late else case((provider.is_(None), 1), else_=0)
