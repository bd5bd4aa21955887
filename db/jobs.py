"""Verbs on jobs. A move is compare-and-set and says whether it moved; losing the race is not an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, Update, bindparam, case, func, select, update
from sqlmodel import col

from db.session import Transaction
from db.states import JOB_MOVES, LIVE_JOB_STATES, JobState
from db.tables import Job

EARLY_S = 0.5
"""What the clocks of processes on one database may differ by: a step may begin that much before its time.
One that came a moment early and was turned away would have to wait for the next sweep."""
EARLY = timedelta(seconds=EARLY_S)
PRIORITY_STEP = timedelta(minutes=1)
"""How much older a job counts for each step of its priority: so none is passed by others for ever."""
_NEXT_SEQ = {"seq": col(Job.seq) + 1}
_FIND = select(Job.__table__).where(col(Job.id) == bindparam("wanted"))  # type: ignore[attr-defined]
_LOCK = _FIND.with_for_update()
_NO_LEASE = {"lease": None, "lease_until": None, "leased_by": None}
MOST_COUNTED = 1000
"""Where a job's place in its line is only told roughly: beyond, it is not counted on."""


def turn_of(created_at: datetime, priority: int) -> datetime:
    """Where a job stands in its tenant's line: as old as it is, and older by its priority."""
    return created_at - priority * PRIORITY_STEP


async def insert_jobs(tx: Transaction, jobs: Sequence[Job]) -> None:
    """Store new jobs, in one statement a group."""
    await tx.execute(Job.__table__.insert(), [job.model_dump() for job in jobs])  # type: ignore[attr-defined]


async def find_job(tx: Transaction, job_id: str, *, lock: bool = False) -> Job | None:
    """`lock` holds the row until the transaction ends, where the database locks rows."""
    row = (await tx.execute(_LOCK if lock else _FIND, {"wanted": job_id})).mappings().first()
    return Job.of(row) if row else None


async def find_jobs(tx: Transaction, job_ids: Sequence[str]) -> list[Job]:
    """Those of these jobs that exist, in no order."""
    statement = select(Job.__table__).where(col(Job.id).in_(job_ids))  # type: ignore[attr-defined]
    return [Job.of(row) for row in (await tx.execute(statement)).mappings()]


@dataclass(frozen=True, slots=True)
class Crowd:
    """The live jobs of one tenant that asked for one provider (or `auto`)."""

    tenant: str
    provider: str
    live: int
    queued: int
    oldest: datetime | None
    """When the oldest of those queued was made that no provider was ever asked for."""


async def count_crowds(tx: Transaction) -> list[Crowd]:
    """Every live job, counted by whose it is and where it wants to go. Reads them all: not for each call."""
    # A parent waits for no provider itself.
    queued = (col(Job.state) == JobState.QUEUED) & col(Job.plan_at).is_(None)
    fresh = queued & col(Job.started_at).is_(None)
    statement = (
        select(
            col(Job.tenant),
            col(Job.provider),
            func.count().label("live"),
            func.sum(case((queued, 1), else_=0)).label("queued"),
            func.min(case((fresh, col(Job.created_at)))).label("oldest"),
        )
        .where(col(Job.state).in_(LIVE_JOB_STATES))
        .group_by(col(Job.tenant), col(Job.provider))
    )
    return [
        Crowd(row.tenant, row.provider, int(row.live), int(row.queued), row.oldest)
        for row in await tx.execute(statement)
    ]


async def count_started(tx: Transaction, *, since: datetime) -> dict[str, int]:
    """How many jobs were first given to a provider since then, by the provider that they asked for."""
    tenants = _tenants(None)
    statement = (
        select(col(Job.provider), func.count().label("began"))
        .join(tenants, col(Job.tenant) == tenants.c.tenant)
        .where(col(Job.started_at) >= since)
        .group_by(col(Job.provider))
    )
    return {row.provider: int(row.began) for row in await tx.execute(statement)}


async def move_job(
    tx: Transaction,
    job_id: str,
    to: JobState,
    *,
    only_from: Collection[JobState] = tuple(JobState),
    lease: str | None = None,
    values: Mapping[str, Any],
) -> bool:
    """Move a job along a legal edge of `JOB_MOVES`, clearing its lease; it makes the `seq` of one event.

    With `lease`, only for the holder of that token: a worker that was frozen and wakes up loses here.
    """
    held = {} if lease is None else {"held": lease}
    facts = {"moved": job_id, **held, "state": to, **_NO_LEASE, "crashes": 0, **values}
    moved = await tx.execute(_move_to(to, frozenset(only_from), is_held=lease is not None), facts)
    return moved.rowcount == 1


@cache
def _move_to(to: JobState, only_from: frozenset[JobState], *, is_held: bool) -> Update:
    """Built once for each edge; what is set comes as parameters, which takes a third of the time."""
    sources = [state for state in JobState if state in only_from and to in JOB_MOVES[state]]
    statement = update(Job.__table__).where(  # type: ignore[attr-defined]
        col(Job.id) == bindparam("moved"), col(Job.state).in_(sources)
    )
    if is_held:
        statement = statement.where(col(Job.lease) == bindparam("held"))
    return statement.values(_NEXT_SEQ)


async def claim_job(
    tx: Transaction, job_id: str, state: JobState, *, lease: str, by: str, now: datetime, lease_s: float
) -> Job | None:
    """Take the lease of a due job for one step, counted as begun; None when it is not ours to take.

    Leases begin and end by the database's clock, so that machines whose clocks differ agree on who holds
    one; `now` is the caller's, for a database that has none.
    """
    taken = await tx.execute(
        update(Job)
        .where(
            col(Job.id) == job_id,
            col(Job.state) == state,
            col(Job.run_after) <= tx.clock(now, later_s=EARLY_S),
            (col(Job.lease).is_(None)) | (col(Job.lease_until) < tx.clock(now)),
        )
        .values(
            lease=lease,
            lease_until=tx.clock(now, later_s=lease_s),
            leased_by=by,
            crashes=col(Job.crashes) + 1,
        )
    )
    return await find_job(tx, job_id) if taken.rowcount == 1 else None


async def renew_lease(tx: Transaction, job_id: str, *, lease: str, now: datetime, lease_s: float) -> bool:
    """Say that the holder is alive; False when it is not the holder any more."""
    renewed = await tx.execute(
        update(Job)
        .where(col(Job.id) == job_id, col(Job.lease) == lease)
        .values(lease_until=tx.clock(now, later_s=lease_s))
    )
    return renewed.rowcount == 1


async def release_job(
    tx: Transaction, job_id: str, *, lease: str, run_after: datetime, waiting_reason: str
) -> bool:
    """Give a lease back with the step undone but alive: the job stays where it is, due at `run_after`."""
    released = await tx.execute(
        update(Job)
        .where(col(Job.id) == job_id, col(Job.lease) == lease)
        .values({**_NO_LEASE, "crashes": 0, "run_after": run_after, "waiting_reason": waiting_reason[:500]})
    )
    return released.rowcount == 1


async def release_all_leases(tx: Transaction) -> int:
    """Forget every lease. Only for a process that knows it is the only one on this database."""
    statement = update(Job).where(col(Job.lease).is_not(None)).values(_NO_LEASE)
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


async def bring_jobs_forward(tx: Transaction, latest: datetime) -> int:
    """Let no job wait for a time after `latest`; how many did."""
    statement = update(Job).where(
        col(Job.state).in_([JobState.QUEUED, JobState.FINISHING]), col(Job.run_after) > latest
    )
    return (await tx.execute(statement.values(run_after=latest))).rowcount


async def count_waiting_before(tx: Transaction, provider: str, job: Job) -> int:
    """How many of the job's own tenant come before it at this provider, at most `MOST_COUNTED`."""
    ahead = (
        select(col(Job.id))
        .where(
            col(Job.waiting_for) == provider,
            col(Job.tenant) == job.tenant,
            (col(Job.turn_at) < job.turn_at) | ((col(Job.turn_at) == job.turn_at) & (col(Job.id) < job.id)),
        )
        .limit(MOST_COUNTED)
        .subquery()
    )
    return int((await tx.execute(select(func.count()).select_from(ahead))).scalar_one())


async def wake_waiting(tx: Transaction, provider: str, *, now: datetime, limit: int = 1) -> Sequence[str]:
    """Make the next jobs that wait for a slot at this provider due now, tenants in turn; their ids."""
    woken: list[str] = []
    tenants = (await tx.execute(_TENANTS_WAITING, {"provider": provider})).scalars().all()
    for tenant in tenants:
        statement = (
            select(col(Job.id))
            .where(
                col(Job.waiting_for) == provider,
                col(Job.tenant) == tenant,
                col(Job.state) == JobState.QUEUED,
            )
            .order_by(col(Job.turn_at))
            .limit(limit - len(woken))
            # Two attempts that end at once wake two jobs, not the same one twice.
            .with_for_update(skip_locked=True)
        )
        woken += (await tx.execute(statement)).scalars()
        if len(woken) >= limit:
            break
    if woken:
        await tx.execute(
            update(Job)
            .where(col(Job.id).in_(woken), col(Job.state) == JobState.QUEUED)
            .values(run_after=now, waiting_for=None)
        )
    return woken


async def find_next_job(
    tx: Transaction, state: JobState, *, now: datetime, providers: Collection[str] | None = None
) -> Job | None:
    """The due job whose turn it is, locked: the tenant whose last start is the longest ago, its earliest.

    With `providers`, only a job that asked for one of these.
    """
    line = (col(Job.state) == state) & col(Job.waiting_for).is_(None)
    # A case, so that no index is chosen by it: SQLite would sort all that is due, 14 ms of 100,000 waiting.
    is_due = case((col(Job.run_after) <= now, 1), else_=0) == 1
    for tenant in await _tenants_in_turn(tx, line):
        statement = (
            select(Job.__table__)  # type: ignore[attr-defined]
            .where(line, is_due, col(Job.tenant) == tenant)
            .order_by(col(Job.turn_at))
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if providers is not None:
            statement = statement.where(col(Job.provider).in_(providers))
        row = (await tx.execute(statement)).mappings().first()
        if row is not None:
            return Job.of(row)
    return None


async def _tenants_in_turn(tx: Transaction, line: ColumnElement[bool]) -> list[str]:
    return list((await tx.execute(_in_turn(line))).scalars())


def _in_turn(line: ColumnElement[bool]) -> Select[tuple[str]]:
    """Those who have a job in this line; first whoever has waited the longest since one of theirs began."""
    tenants = _tenants(line)
    last_start = select(func.max(col(Job.started_at))).where(col(Job.tenant) == tenants.c.tenant)
    began_at = last_start.scalar_subquery()
    statement = select(tenants.c.tenant).where(tenants.c.tenant.is_not(None))
    return statement.order_by(began_at.is_not(None), began_at, tenants.c.tenant)


def _tenants(line: ColumnElement[bool] | None) -> CTE:
    """The tenants with a row in this line: one look into the index for each, however many rows they have."""
    inside = [] if line is None else [line]
    first = select(func.min(col(Job.tenant)).label("tenant")).where(*inside).cte("tenants", recursive=True)
    following = select(func.min(col(Job.tenant))).where(*inside, col(Job.tenant) > first.c.tenant)
    return first.union_all(select(following.scalar_subquery()).where(first.c.tenant.is_not(None)))


_TENANTS_WAITING = _in_turn(col(Job.waiting_for) == bindparam("provider"))
"""Built once, 0.2 ms: each attempt that ends asks it."""


async def advance_job(tx: Transaction, job_id: str, *, progress: float, stage: str | None) -> bool:
    """Show progress of a running job, never backwards; it makes the `seq` of one event."""
    advanced = await tx.execute(
        update(Job)
        .where(
            col(Job.id) == job_id,
            col(Job.state) == JobState.RUNNING,
            (col(Job.progress) < progress) | (col(Job.stage).is_distinct_from(stage)),
            col(Job.progress) <= progress,
        )
        .values({"progress": progress, "stage": stage, **_NEXT_SEQ})
    )
    return advanced.rowcount == 1


async def list_due_jobs(tx: Transaction, state: JobState, *, now: datetime, limit: int) -> Sequence[str]:
    """Ids of jobs that could be worked on now, the longest due first; parents wait for no provider."""
    statement = (
        select(col(Job.id))
        .where(
            col(Job.state) == state,
            col(Job.run_after) <= now,
            col(Job.plan_at).is_(None),
            (col(Job.lease).is_(None)) | (col(Job.lease_until) < now),
        )
        .order_by(col(Job.run_after))
        .limit(limit)
    )
    return list((await tx.execute(statement)).scalars())


async def list_overdue_jobs(tx: Transaction, *, now: datetime, limit: int) -> list[Job]:
    """Jobs without a result whose deadline has passed. One that is finishing has its result, and its end."""
    statement = (
        select(Job.__table__)  # type: ignore[attr-defined]
        .where(col(Job.state).in_((JobState.QUEUED, JobState.RUNNING)), col(Job.deadline_at) <= now)
        .order_by(col(Job.deadline_at))
        .limit(limit)
    )
    return [Job.of(row) for row in (await tx.execute(statement)).mappings()]
