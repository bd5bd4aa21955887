"""Verbs on processes: who is alive, for work that dies with the process that began it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select, update
from sqlmodel import col

from db.session import Transaction
from db.states import LIVE_ATTEMPT_STATUSES
from db.tables import Attempt, Process


async def beat(tx: Transaction, process_id: str, *, now: datetime) -> None:
    """Say that this process is alive."""
    known = await tx.execute(update(Process).where(col(Process.id) == process_id).values(heard_at=now))
    if known.rowcount == 0:
        await tx.insert_new(Process, {"id": process_id, "heard_at": now})


async def list_orphaned_attempts(tx: Transaction, *, silent_since: datetime, limit: int) -> list[Attempt]:
    """Live attempts whose owner has not been heard of since then, or is not known any more."""
    living = select(col(Process.id)).where(col(Process.heard_at) >= silent_since)
    statement = (
        select(Attempt.__table__)  # type: ignore[attr-defined]
        .where(
            col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES),
            col(Attempt.owner).is_not(None),
            col(Attempt.owner).not_in(living),
        )
        .limit(limit)
    )
    return [Attempt(**row) for row in (await tx.execute(statement)).mappings()]


async def forget_processes(tx: Transaction, *, before: datetime) -> int:
    """Drop the rows of processes that have been silent since before this time."""
    return (await tx.execute(delete(Process).where(col(Process.heard_at) < before))).rowcount
