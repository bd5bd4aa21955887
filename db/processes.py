"""Verbs on processes: who is alive, for work that dies with the process that began it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Select, delete, select, update
from sqlmodel import col

from db.session import Transaction
from db.states import LIVE_ATTEMPT_STATUSES, AttemptStatus, JobState
from db.tables import Attempt, Job, Process


async def beat(tx: Transaction, process_id: str, *, now: datetime) -> None:
    """Say that this process is alive."""
    known = await tx.execute(update(Process).where(col(Process.id) == process_id).values(heard_at=now))
    if known.rowcount == 0:
        await tx.insert_new(Process, {"id": process_id, "heard_at": now})


async def list_orphaned_attempts(tx: Transaction, *, silent_since: datetime, limit: int) -> list[Attempt]:
    """Live attempts whose owner has not been heard of since then, or is not known any more."""
    statement = (
        select(Attempt.__table__)  # type: ignore[attr-defined]
        .where(
            col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES),
            col(Attempt.owner).is_not(None),
            col(Attempt.owner).not_in(heard_since(silent_since)),
        )
        .limit(limit)
    )
    return [Attempt(**row) for row in (await tx.execute(statement)).mappings()]


async def hand_over_unasked(
    tx: Transaction, *, silent_since: datetime, check_at: datetime, made_before: datetime
) -> int:
    """Let recovery ask, from `check_at` on, about what processes silent since then were asking for.

    Only what they began before `made_before`: later, the provider need not have it yet.
    """
    statement = (
        update(Attempt)
        .where(
            col(Attempt.status) == AttemptStatus.PENDING,
            col(Attempt.check_at) > check_at,
            col(Attempt.created_at) < made_before,
            col(Attempt.begun_by).is_not(None),
            col(Attempt.begun_by).not_in(heard_since(silent_since)),
        )
        .values(check_at=check_at)
    )
    return (await tx.execute(statement)).rowcount


async def release_orphaned_leases(tx: Transaction, *, silent_since: datetime, limit: int) -> list[str]:
    """Free the jobs that processes not heard of since were at work on; their ids. The crash stays counted."""
    found = (
        select(col(Job.id))
        .where(
            col(Job.state) == JobState.FINISHING,
            col(Job.leased_by).is_not(None),
            col(Job.leased_by).not_in(heard_since(silent_since)),
        )
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list((await tx.execute(found)).scalars())
    if ids:
        freed = update(Job).where(col(Job.id).in_(ids))
        await tx.execute(freed.values(lease=None, lease_until=None, leased_by=None))
    return ids


async def leave(tx: Transaction, process_id: str) -> None:
    """Say that this process works no more, so that nobody waits for its silence."""
    await tx.execute(delete(Process).where(col(Process.id) == process_id))


async def forget_processes(tx: Transaction, *, before: datetime) -> int:
    """Drop the rows of processes that have been silent since before this time."""
    return (await tx.execute(delete(Process).where(col(Process.heard_at) < before))).rowcount


def heard_since(moment: datetime) -> Select[str]:
    return select(col(Process.id)).where(col(Process.heard_at) >= moment)
