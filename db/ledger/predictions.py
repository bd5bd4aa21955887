"""Reads for the ledger of predictions: each attempt, and the first news of its end by every postman."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, case, func, or_, select
from sqlmodel import col

from db.inbox import SILENCE
from db.ledger.candidates import list_pairs
from db.session import Transaction
from db.states import LIVE_ATTEMPT_STATUSES, AttemptStatus, DeliveryOutcome, JobState
from db.tables import Attempt, Delivery, Job, UtcDateTime

_ENDS = [SILENCE, *(status.value for status in AttemptStatus if status.is_terminal)]
_ENDING = ("finish", "tryagain", "fail")
"""What a release that did not keep the status word wrote instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFilter:
    """What narrows the list. `since` is inclusive, `until` is not; `told_by` may be `none`."""

    tenant: str
    since: datetime | None = None
    until: datetime | None = None
    told_by: str | None = None
    provider: str | None = None
    kind: str | None = None


async def list_predictions(
    tx: Transaction, wanted: LedgerFilter, *, before_id: str | None, limit: int
) -> list[tuple[Attempt, Job]]:
    """Attempts with their jobs, newest first."""
    statement = (
        select(col(Attempt.id))
        .join(Job, col(Job.id) == col(Attempt.job_id))
        .where(col(Job.tenant) == wanted.tenant)
        .order_by(col(Attempt.id).desc())
        .limit(limit)
    )
    if wanted.told_by == "none":
        statement = statement.where(col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES))
    elif wanted.told_by:
        statement = statement.where(col(Attempt.told_by) == wanted.told_by)
    if wanted.since:
        statement = statement.where(col(Attempt.created_at) >= wanted.since)
    if wanted.until:
        statement = statement.where(col(Attempt.created_at) < wanted.until)
    if wanted.provider:
        statement = statement.where(col(Attempt.provider) == wanted.provider)
    if wanted.kind:
        statement = statement.where(col(Job.kind) == wanted.kind)
    if before_id:
        statement = statement.where(col(Attempt.id) < before_id)
    return await list_pairs(tx, list((await tx.execute(statement)).scalars()))


@dataclass(frozen=True, slots=True)
class EndTold:
    """The first news of an attempt's end by one postman."""

    attempt_id: str
    source: str
    delivery_id: str
    received_at: datetime
    told: str | None
    outcome: str | None
    times: int
    """How often this postman told an end of it."""


async def list_ends(tx: Transaction, attempt_ids: Sequence[str]) -> list[EndTold]:
    """In the order in which they came."""
    old = and_(
        col(Delivery.told).is_(None),
        or_(
            col(Delivery.outcome) == DeliveryOutcome.LATE_RESULT,
            and_(col(Delivery.outcome) == DeliveryOutcome.APPLIED, col(Delivery.detail).in_(_ENDING)),
        ),
    )
    first = (
        select(func.min(col(Delivery.id)).label("id"), func.count().label("times"))
        .where(col(Delivery.attempt_id).in_(attempt_ids), or_(col(Delivery.told).in_(_ENDS), old))
        .group_by(col(Delivery.attempt_id), col(Delivery.source))
        .subquery()
    )
    columns = (Delivery.attempt_id, Delivery.source, Delivery.received_at, Delivery.told, Delivery.outcome)
    statement = (
        select(*(col(each) for each in columns), col(Delivery.id).label("delivery_id"), first.c.times)
        .join(first, first.c.id == col(Delivery.id))
        .order_by(col(Delivery.id))
    )
    return [EndTold(**row) for row in (await tx.execute(statement)).mappings()]


@dataclass(frozen=True, slots=True)
class Unsaved:
    """Outputs of a provider that are not in our store, or may come to be."""

    provider: str
    oldest_at: datetime
    """When the first of them ended, or was begun where its end is not known."""
    at_risk: int
    """How many did so before a given moment."""


async def count_unsaved(tx: Transaction, *, before: datetime) -> list[Unsaved]:
    """By provider, over live attempts and successes whose jobs are being finished."""
    since = func.coalesce(col(Attempt.completed_at), col(Attempt.created_at))
    finishing = and_(col(Attempt.status) == AttemptStatus.SUCCEEDED, col(Job.state) == JobState.FINISHING)
    statement = (
        select(
            col(Attempt.provider),
            func.min(since, type_=UtcDateTime).label("oldest_at"),
            func.count(case((since < before, 1))).label("at_risk"),
        )
        .join(Job, col(Job.id) == col(Attempt.job_id))
        .where(
            col(Job.state).in_((JobState.RUNNING, JobState.FINISHING)),
            or_(col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES), finishing),
        )
        .group_by(col(Attempt.provider))
    )  # fmt: skip
    return [Unsaved(**row) for row in (await tx.execute(statement)).mappings()]
