"""Verbs on jobs. A move is compare-and-set and says whether it moved; losing the race is not an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select, update
from sqlmodel import col

from db.ids import made_at
from db.session import Transaction
from db.states import JOB_MOVES, LIVE_JOB_STATES, JobState
from db.tables import Job

SEARCHED_TOGETHER = 10_000
"""Jobs that one page looks through for words: tens of milliseconds (`docs/reference/performance.md`)."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What a list shows: every field narrows it; `before_id` is the keyset cursor, newest first."""

    state: JobState | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    before_id: str | None = None


async def insert_job(tx: Transaction, job: Job) -> None:
    await tx.execute(Job.__table__.insert(), job.model_dump())  # type: ignore[attr-defined]


async def find_job(tx: Transaction, job_id: str, *, lock: bool = False) -> Job | None:
    """`lock` holds the row until the transaction ends, where the database locks rows."""
    statement = select(Job.__table__).where(col(Job.id) == job_id)  # type: ignore[attr-defined]
    row = (await tx.execute(statement.with_for_update() if lock else statement)).mappings().first()
    return Job(**row) if row else None


async def find_jobs(tx: Transaction, job_ids: Sequence[str]) -> list[Job]:
    """Those of these jobs that exist, in no order."""
    statement = select(Job.__table__).where(col(Job.id).in_(job_ids))  # type: ignore[attr-defined]
    return [Job(**row) for row in (await tx.execute(statement)).mappings()]


async def list_jobs(tx: Transaction, wanted: JobFilter, *, limit: int) -> tuple[list[Job], str | None]:
    """A page, newest first, and the id to go on before; None when there is no more.

    Words are looked for in the newest `SEARCHED_TOGETHER` of the jobs that the other fields leave: a page may
    hold fewer than `limit`, even none, and there is more all the same. So no search reads the whole table.
    """
    narrowed = _narrowed(wanted)
    if wanted.before_id is not None:
        at = await _created_at(tx, wanted.before_id)
        narrowed.append(
            (col(Job.created_at) <= at) & ((col(Job.created_at) < at) | (col(Job.id) < wanted.before_id))
        )
    searched_to = await _end_of_search(tx, narrowed) if wanted.text else None
    if searched_to is not None:
        to = searched_to.created_at
        narrowed.append(
            (col(Job.created_at) >= to) & ((col(Job.created_at) > to) | (col(Job.id) >= searched_to.id))
        )
    if wanted.text:
        prompt = func.coalesce(col(Job.input)["prompt"].as_string(), col(Job.input)["text"].as_string(), "")
        narrowed.append(prompt.icontains(wanted.text, autoescape=True))
    statement = _newest_first(select(Job.__table__).where(*narrowed)).limit(limit + 1)  # type: ignore[attr-defined]
    jobs = [Job(**row) for row in (await tx.execute(statement)).mappings()]
    if len(jobs) > limit:
        return jobs[:limit], jobs[limit - 1].id
    return jobs, searched_to.id if searched_to else None


def _narrowed(wanted: JobFilter) -> list[ColumnElement[bool]]:
    """What a list's plain fields ask, each of which an index can answer."""
    clauses: list[ColumnElement[bool]] = []
    if wanted.state:
        clauses.append(col(Job.state) == wanted.state)
    if wanted.kind:
        clauses.append(col(Job.kind) == wanted.kind)
    if wanted.since:
        clauses.append(col(Job.created_at) >= wanted.since)
    if wanted.until:
        clauses.append(col(Job.created_at) < wanted.until)
    return clauses


def _newest_first(statement: Any) -> Any:
    return statement.order_by(col(Job.created_at).desc(), col(Job.id).desc())


async def _created_at(tx: Transaction, job_id: str) -> datetime:
    """When a job was made; of one that is gone, what its id says. Raises ValueError for no id of ours."""
    statement = select(col(Job.created_at)).where(col(Job.id) == job_id)
    return (await tx.execute(statement)).scalar_one_or_none() or made_at(job_id)


async def _end_of_search(tx: Transaction, narrowed: list[ColumnElement[bool]]) -> Row[Any] | None:
    """The last job that is looked at for words; None when there are not that many."""
    statement = select(col(Job.id), col(Job.created_at)).where(*narrowed)
    last = _newest_first(statement).offset(SEARCHED_TOGETHER - 1).limit(1)
    return (await tx.execute(last)).first()


async def count_jobs(tx: Transaction) -> dict[str, int]:
    """How many jobs stand in each state."""
    rows = (
        await tx.execute(select(col(Job.state), func.count().label("count")).group_by(col(Job.state)))
    ).mappings()
    return {row["state"]: row["count"] for row in rows}


async def count_live_jobs(tx: Transaction) -> int:
    """How many jobs have not ended."""
    statement = select(func.count()).select_from(Job).where(col(Job.state).in_(LIVE_JOB_STATES))
    return int((await tx.execute(statement)).scalar_one())


async def move_job(
    tx: Transaction,
    job_id: str,
    to: JobState,
    *,
    only_from: Collection[JobState] = tuple(JobState),
    lease: str | None = None,
    values: Mapping[str, Any],
) -> bool:
    """Move a job along a legal edge of `JOB_MOVES`, clearing its lease.

    With `lease`, only for the holder of that token: a worker that was frozen and wakes up loses here.
    """
    sources = [state for state in only_from if to in JOB_MOVES[state]]
    statement = update(Job).where(col(Job.id) == job_id, col(Job.state).in_(sources))
    if lease is not None:
        statement = statement.where(col(Job.lease) == lease)
    moved = await tx.execute(
        statement.values({"state": to, "lease": None, "lease_until": None, "crashes": 0, **values})
    )
    return moved.rowcount == 1


async def claim_job(
    tx: Transaction, job_id: str, state: JobState, *, lease: str, now: datetime, until: datetime
) -> Job | None:
    """Take the lease of a due job for one step, counted as begun; None when it is not ours to take."""
    taken = await tx.execute(
        update(Job)
        .where(
            col(Job.id) == job_id,
            col(Job.state) == state,
            col(Job.run_after) <= now,
            (col(Job.lease).is_(None)) | (col(Job.lease_until) < now),
        )
        .values(lease=lease, lease_until=until, crashes=col(Job.crashes) + 1)
    )
    return await find_job(tx, job_id) if taken.rowcount == 1 else None


async def renew_lease(tx: Transaction, job_id: str, *, lease: str, until: datetime) -> bool:
    """Say that the holder is alive; False when it is not the holder any more."""
    renewed = await tx.execute(
        update(Job).where(col(Job.id) == job_id, col(Job.lease) == lease).values(lease_until=until)
    )
    return renewed.rowcount == 1


async def release_job(
    tx: Transaction, job_id: str, *, lease: str, run_after: datetime, waiting_reason: str
) -> bool:
    """Give a lease back with the step undone but alive: the job stays where it is, due at `run_after`."""
    released = await tx.execute(
        update(Job)
        .where(col(Job.id) == job_id, col(Job.lease) == lease)
        .values(
            lease=None, lease_until=None, crashes=0, run_after=run_after, waiting_reason=waiting_reason[:500]
        )
    )
    return released.rowcount == 1


async def release_all_leases(tx: Transaction) -> int:
    """Forget every lease. Only for a process that knows it is the only one on this database."""
    statement = update(Job).where(col(Job.lease).is_not(None)).values(lease=None, lease_until=None)
    return (await tx.execute(statement)).rowcount


async def postpone_job(
    tx: Transaction,
    job_id: str,
    *,
    run_after: datetime,
    waiting_reason: str,
    waiting_for: str | None = None,
) -> bool:
    """Let a queued job wait, with the reason in words, until a time or until a provider has a free slot."""
    postponed = await tx.execute(
        update(Job)
        .where(col(Job.id) == job_id, col(Job.state) == JobState.QUEUED)
        .values(run_after=run_after, waiting_reason=waiting_reason[:500], waiting_for=waiting_for)
    )
    return postponed.rowcount == 1


async def count_waiting_before(tx: Transaction, provider: str, job: Job) -> int:
    """How many jobs that wait for a free slot at this provider come before this one."""
    earlier = (col(Job.priority) > job.priority) | (
        (col(Job.priority) == job.priority) & (col(Job.id) < job.id)
    )
    statement = (
        select(func.count())
        .select_from(Job)
        .where(col(Job.state) == JobState.QUEUED, col(Job.waiting_for) == provider, earlier)
    )
    return int((await tx.execute(statement)).scalar_one())


async def wake_waiting(tx: Transaction, provider: str, *, now: datetime, limit: int = 1) -> Sequence[str]:
    """Make the first jobs that wait for a slot at this provider due now; their ids."""
    statement = (
        select(col(Job.id))
        .where(col(Job.state) == JobState.QUEUED, col(Job.waiting_for) == provider)
        .order_by(col(Job.priority).desc(), col(Job.id))
        .limit(limit)
        # Two attempts that end at once wake two jobs, not the same one twice.
        .with_for_update(skip_locked=True)
    )
    ids = list((await tx.execute(statement)).scalars())
    if not ids:
        return ids
    await tx.execute(
        update(Job)
        .where(col(Job.id).in_(ids), col(Job.state) == JobState.QUEUED)
        .values(run_after=now, waiting_for=None)
    )
    return ids


async def advance_job(tx: Transaction, job_id: str, *, progress: float, stage: str | None) -> bool:
    """Show progress of a running job; never backwards."""
    advanced = await tx.execute(
        update(Job)
        .where(
            col(Job.id) == job_id,
            col(Job.state) == JobState.RUNNING,
            (col(Job.progress) < progress) | (col(Job.stage).is_distinct_from(stage)),
            col(Job.progress) <= progress,
        )
        .values(progress=progress, stage=stage)
    )
    return advanced.rowcount == 1


async def list_due_jobs(tx: Transaction, state: JobState, *, now: datetime, limit: int) -> Sequence[str]:
    """Ids of jobs that could be worked on now, most urgent and oldest first."""
    statement = (
        select(col(Job.id))
        .where(
            col(Job.state) == state,
            col(Job.run_after) <= now,
            (col(Job.lease).is_(None)) | (col(Job.lease_until) < now),
        )
        .order_by(col(Job.priority).desc(), col(Job.run_after), col(Job.id))
        .limit(limit)
    )
    return list((await tx.execute(statement)).scalars())


async def list_overdue_jobs(tx: Transaction, *, now: datetime, limit: int) -> list[Job]:
    """Live jobs whose deadline has passed."""
    statement = (
        select(Job.__table__)  # type: ignore[attr-defined]
        .where(col(Job.state).in_(LIVE_JOB_STATES), col(Job.deadline_at) <= now)
        .order_by(col(Job.deadline_at))
        .limit(limit)
    )
    return [Job(**row) for row in (await tx.execute(statement)).mappings()]
