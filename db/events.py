"""Verbs on events: facts about a job, appended with a per-job `seq` that has no gaps.

Each also gets its place in its tenant's feed, from the database itself or from `db.feed.numbering`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select
from sqlmodel import col

from db.feed import number_appended
from db.session import Transaction
from db.tables import Event, Job

FIRST_SEQ = 1
"""The number of a job's first event, which is stored with it."""
_EVENTS = Event.__table__  # type: ignore[attr-defined]
_APPEND = _EVENTS.insert().from_select(
    ["job_id", "seq", "type", "data", "at", "tenant"],
    select(
        col(Job.id),
        col(Job.seq),
        bindparam("event", type_=_EVENTS.c.type.type),
        bindparam("facts", type_=_EVENTS.c.data.type),
        bindparam("when", type_=_EVENTS.c.at.type),
        col(Job.tenant),
    ).where(col(Job.id) == bindparam("of_job")),
)
"""Built once: every move of a job runs it."""


async def insert_first_events(
    tx: Transaction, jobs: Sequence[Job], event_type: str, data_of: Callable[[Job], dict[str, Any]]
) -> None:
    """The first fact of each of these new jobs; their rows have its `seq`."""
    rows = [
        {
            "job_id": job.id,
            "seq": FIRST_SEQ,
            "type": event_type,
            "data": data_of(job),
            "at": job.created_at,
            "tenant": job.tenant,
        }
        for job in jobs
    ]
    await tx.execute(_EVENTS.insert(), rows)
    number_appended(tx, [job.id for job in jobs])


async def append_event(tx: Transaction, job_id: str, event_type: str, *, at: datetime, **data: Any) -> None:
    """Append the fact of a job's move, in its transaction: `move_job` and `advance_job` make its `seq`.

    So the job's own row orders the writers, and the number never leaves the database.
    """
    fact = {"of_job": job_id, "event": event_type, "facts": data, "when": at}
    await tx.execute(_APPEND, fact)
    number_appended(tx, [job_id])


async def list_events(tx: Transaction, job_id: str, *, after_seq: int = 0, limit: int) -> list[Event]:
    statement = (
        select(_EVENTS)
        .where(col(Event.job_id) == job_id, col(Event.seq) > after_seq)
        .order_by(col(Event.seq))
        .limit(limit)
    )
    return [Event(**row) for row in (await tx.execute(statement)).mappings()]
