"""How many rows wait at each station and for how long, by the indexes of what is due; the server's clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case, func, select
from sqlmodel import col

from db.session import Transaction
from db.states import LIVE_JOB_STATES, AnnouncementState, JobState
from db.tables import Announcement, Delivery, Job, UtcDateTime


@dataclass(frozen=True, slots=True)
class QueueFigure:
    """Rows in one state, of one kind."""

    queue: str
    """`queued`, `running`, `finishing`: the job's state; `delivery` for news that is not applied yet,
    `announcement` for what its receiver has not taken yet."""
    kind: str
    """The job kind; empty for deliveries and announcements."""
    depth: int
    due: int
    """Of these, the ones that somebody could work on now."""
    oldest_at: datetime | None
    """When the oldest of them was made."""
    oldest_due_at: datetime | None
    """When the one that has been due for longest became so."""


async def read_queues(tx: Transaction, *, now: datetime) -> list[QueueFigure]:
    """Every queue that has a row. One pass over the rows that wait."""
    jobs = [_figure(row["state"], row["kind"], row) for row in await _rows(tx, _jobs(now))]
    news = [_figure("delivery", "", row) for row in await _rows(tx, _deliveries(now)) if row["depth"]]
    told = [_figure("announcement", "", row) for row in await _rows(tx, _announcements(now)) if row["depth"]]
    return jobs + news + told


async def read_clock(tx: Transaction) -> datetime | None:
    """The server's time at this moment; None where the database has no clock but its process's."""
    if not tx.has_clock:
        return None
    found: datetime = (await tx.execute(select(func.clock_timestamp()))).scalar_one()
    return found


def _jobs(now: datetime) -> Any:
    free = col(Job.lease).is_(None) | (col(Job.lease_until) < now)
    is_due = (col(Job.run_after) <= now) & (col(Job.state) != JobState.RUNNING) & free
    return (
        select(col(Job.state), col(Job.kind), *_counted(Job, is_due, col(Job.created_at)))
        .where(col(Job.state).in_(LIVE_JOB_STATES))
        .group_by(col(Job.state), col(Job.kind))
    )


def _deliveries(now: datetime) -> Any:
    is_due = col(Delivery.run_after) <= now
    return select(*_counted(Delivery, is_due, col(Delivery.received_at))).where(
        col(Delivery.settled_at).is_(None)
    )


def _announcements(now: datetime) -> Any:
    is_due = col(Announcement.run_after) <= now
    return select(*_counted(Announcement, is_due, col(Announcement.created_at))).where(
        col(Announcement.state) == AnnouncementState.PENDING
    )


def _counted(table: Any, is_due: Any, made_at: Any) -> list[Any]:
    due_at = case((is_due, col(table.run_after)))
    return [
        func.count().label("depth"),
        func.count(due_at).label("due"),
        func.min(made_at, type_=UtcDateTime).label("oldest_at"),
        func.min(due_at, type_=UtcDateTime).label("oldest_due_at"),
    ]


async def _rows(tx: Transaction, statement: Any) -> list[Any]:
    return list((await tx.execute(statement)).mappings())


def _figure(queue: str, kind: str, row: Any) -> QueueFigure:
    return QueueFigure(queue, kind, row["depth"], row["due"], row["oldest_at"], row["oldest_due_at"])
