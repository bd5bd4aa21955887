"""Verbs on events: facts about a job, appended with a per-job `seq` that has no gaps."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import Event, Job


async def append_event(tx: Transaction, job_id: str, event_type: str, *, at: datetime, **data: Any) -> int:
    """Append a fact and return its `seq`. The job's own row hands out the number: it orders the writers."""
    await tx.execute(update(Job).where(col(Job.id) == job_id).values(seq=col(Job.seq) + 1))
    seq = int((await tx.execute(select(col(Job.seq)).where(col(Job.id) == job_id))).scalar_one())
    await tx.execute(
        Event.__table__.insert(),  # type: ignore[attr-defined]
        {"job_id": job_id, "seq": seq, "type": event_type, "data": data, "at": at},
    )
    return seq


async def list_events(tx: Transaction, job_id: str, *, after_seq: int = 0, limit: int) -> list[Event]:
    statement = (
        select(Event.__table__)  # type: ignore[attr-defined]
        .where(col(Event.job_id) == job_id, col(Event.seq) > after_seq)
        .order_by(col(Event.seq))
        .limit(limit)
    )
    return [Event(**row) for row in (await tx.execute(statement)).mappings()]
