"""Verbs that read a feed: from a position on, its head, and where a time begins in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, literal, literal_column, select
from sqlmodel import col

from db.feed.numbering import EVENTS_IN_A_TRANSACTION
from db.session import Transaction
from db.tables import Event, FeedMark, Job

_MOST_STEPS = 64
"""Halvings that find a time among all positions that there can be."""


@dataclass(frozen=True, slots=True)
class FeedRow:
    """An event as the feed shows it."""

    position: int
    job_id: str
    kind: str
    seq: int
    type: str
    at: datetime
    data: dict[str, Any]
    parent_id: str | None = None
    """The job of whose work this one is a part."""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """What follows a position."""

    rows: Sequence[FeedRow]
    is_held: bool
    """More is there that may not be shown yet: a transaction under way could put something before it."""
    floor: int
    """Events up to there have been deleted: a reader who stood before it has missed some."""


async def read_feed(
    tx: Transaction, tenant: str, *, after: int, limit: int, job_id: str | None = None
) -> FeedPage:
    """At most `limit` events after a position, of one job if one is named; the oldest first."""
    statement = (
        select(
            col(Event.position), col(Event.job_id), col(Job.kind), col(Event.seq), col(Event.type),
            col(Event.at), col(Event.data), col(Job.parent_id), _horizon(tx).label("horizon"),
        )
        .join(Job, col(Job.id) == col(Event.job_id))
        .where(col(Event.tenant) == tenant, col(Event.position) > after)
        .order_by(col(Event.position))
        .limit(limit)
    )  # fmt: skip
    if job_id is not None:
        statement = statement.where(col(Event.job_id) == job_id)
    found = [dict(row) for row in (await tx.execute(statement)).mappings()]
    rows = [
        FeedRow(**each)
        for each in found
        if (horizon := each.pop("horizon")) is None or each["position"] < horizon
    ]
    # Asked last: what is deleted while we read must be noticed, or it would be missed in silence.
    return FeedPage(rows, len(rows) < len(found), await _read_floor(tx, tenant))


async def read_head(tx: Transaction, tenant: str) -> int:
    """The position of the newest event that may be shown: who reads rows from now on goes on from there."""
    visible = _visible(tx, tenant)
    newest = (await tx.execute(select(func.max(col(Event.position))).where(*visible))).scalar_one()
    return max(newest or 0, await _read_floor(tx, tenant))


async def read_start(tx: Transaction, tenant: str, *, since: datetime) -> int:
    """The position after which events of that time and later begin; found by halving, for times only grow.

    Clocks of several processes differ by a little, and so may the first of these events.
    """
    visible = _visible(tx, tenant)
    low, high = await _read_floor(tx, tenant), await read_head(tx, tenant)
    for _ in range(_MOST_STEPS):
        if low >= high:
            break
        middle = (low + high) // 2
        statement = (
            select(col(Event.position), col(Event.at))
            .where(*visible, col(Event.position) > middle)
            .order_by(col(Event.position))
            .limit(1)
        )
        first = (await tx.execute(statement)).first()
        if first is None or first.at >= since:
            high = middle
        else:
            low = first.position
    return low


async def _read_floor(tx: Transaction, tenant: str) -> int:
    statement = select(col(FeedMark.position)).where(col(FeedMark.tenant) == tenant)
    floor: int | None = (await tx.execute(statement)).scalar_one_or_none()
    return floor or 0


def _visible(tx: Transaction, tenant: str) -> list[ColumnElement[bool]]:
    visible = [col(Event.tenant) == tenant, col(Event.position) > 0]
    if tx.is_shared:
        visible.append(col(Event.position) < _horizon(tx))
    return visible


def _horizon(tx: Transaction) -> ColumnElement[Any]:
    """From there on something may still be committed in between; null where nothing can be."""
    if not tx.is_shared:
        return literal(None)
    oldest = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
    return literal_column(f"{oldest} * {EVENTS_IN_A_TRANSACTION}")
