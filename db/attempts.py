"""Verbs on attempts: the numbered tries at a job, each with the provider's own status word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update
from sqlmodel import col

from db.session import Transaction
from db.states import ATTEMPT_MOVES, LIVE_ATTEMPT_STATUSES, AttemptStatus
from db.tables import Attempt, Delivery, Job

_WANTED = col(Attempt.id).in_(bindparam("wanted", expanding=True))
# Built once: each webhook runs these, and to build one and its key takes as long as to run it.
_LOCK_JOBS = (
    select(Job.__table__)  # type: ignore[attr-defined]
    .where(col(Job.id).in_(select(col(Attempt.job_id)).where(_WANTED)))
    .order_by(col(Job.id))
    .with_for_update()
)
_LOCK = select(Attempt.__table__).where(_WANTED).order_by(col(Attempt.id)).with_for_update()  # type: ignore[attr-defined]
_FIND_RESULT = (
    select(col(Attempt.provider), col(Delivery.body), col(Delivery.received_at))
    .join(Delivery, col(Delivery.id) == col(Attempt.result_delivery_id))
    .where(col(Attempt.job_id) == bindparam("of_job"), col(Attempt.status) == AttemptStatus.SUCCEEDED)
    .order_by(col(Attempt.number).desc())
    .limit(1)
)


async def insert_attempt(tx: Transaction, attempt: Attempt) -> None:
    await tx.execute(Attempt.__table__.insert(), attempt.model_dump())  # type: ignore[attr-defined]


async def find_attempt(tx: Transaction, attempt_id: str, *, lock: bool = False) -> Attempt | None:
    statement = select(Attempt.__table__).where(col(Attempt.id) == attempt_id)  # type: ignore[attr-defined]
    row = (await tx.execute(statement.with_for_update() if lock else statement)).mappings().first()
    return Attempt.of(row) if row else None


async def lock_attempt(tx: Transaction, attempt_id: str) -> tuple[Job, Attempt] | None:
    """The attempt and its job, both locked: the job first, as everybody does who locks both."""
    return (await lock_attempts(tx, [attempt_id])).get(attempt_id)


async def lock_attempts(tx: Transaction, attempt_ids: Sequence[str]) -> dict[str, tuple[Job, Attempt]]:
    """Those of these attempts that exist, by id, with their jobs, all locked.

    The jobs first, and each table in the order of its ids: so no two who lock several wait for each other.
    """
    wanted = {"wanted": list(attempt_ids)}
    locked = {row["id"]: Job.of(row) for row in (await tx.execute(_LOCK_JOBS, wanted)).mappings()}
    if not locked:
        return {}
    found = [Attempt.of(row) for row in (await tx.execute(_LOCK, wanted)).mappings()]
    return {each.id: (locked[each.job_id], each) for each in found if each.job_id in locked}


async def list_attempts(tx: Transaction, *job_ids: str) -> list[Attempt]:
    """All attempts of these jobs, in order of number."""
    statement = (
        select(Attempt.__table__)  # type: ignore[attr-defined]
        .where(col(Attempt.job_id).in_(job_ids))
        .order_by(col(Attempt.job_id), col(Attempt.number))
    )
    return [Attempt.of(row) for row in (await tx.execute(statement)).mappings()]


@dataclass(frozen=True, slots=True)
class Result:
    """The news that brought a job's output."""

    provider: str
    body: bytes
    received_at: datetime


async def find_result(tx: Transaction, job_id: str) -> Result | None:
    """What the job's last success was told by: an earlier one is one whose output had expired."""
    row = (await tx.execute(_FIND_RESULT, {"of_job": job_id})).first()
    return Result(row.provider, row.body, row.received_at) if row else None


async def move_attempt(
    tx: Transaction, attempt_id: str, to: AttemptStatus, *, now: datetime, **values: Any
) -> bool:
    """Move an attempt along a legal edge of `ATTEMPT_MOVES`; a terminal one never moves."""
    sources = [status for status in AttemptStatus if to in ATTEMPT_MOVES[status]]
    ended = {"ended_at": now} if to.is_terminal else {}
    # Handed over as parameters: a statement with a dozen values in it takes longer to build than to run.
    statement = update(Attempt.__table__).where(  # type: ignore[attr-defined]
        col(Attempt.id) == attempt_id, col(Attempt.status).in_(sources)
    )
    return (await tx.execute(statement, {"status": to, **ended, **values})).rowcount == 1


async def note_attempt(tx: Transaction, attempt_id: str, **values: Any) -> None:
    """Record what is known of an attempt besides its status, whatever that is: ids, metrics, times."""
    await tx.execute(update(Attempt).where(col(Attempt.id) == attempt_id).values(**values))


async def withdraw_attempt(tx: Transaction, attempt_id: str) -> bool:
    """Take back an attempt that the provider certainly never made: it was not a try."""
    withdrawn = await tx.execute(
        delete(Attempt).where(col(Attempt.id) == attempt_id, col(Attempt.status) == AttemptStatus.PENDING)
    )
    return withdrawn.rowcount == 1


async def count_live_attempts(tx: Transaction, provider: str, *, owner: str | None = None) -> int:
    """Predictions of ours that the provider, or this owner's worker, is believed to be working on."""
    statement = (
        select(func.count())
        .select_from(Attempt)
        .where(col(Attempt.provider) == provider, col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES))
    )
    if owner is not None:
        statement = statement.where(col(Attempt.owner) == owner)
    return int((await tx.execute(statement)).scalar_one())


async def list_silent_attempts(tx: Transaction, *, now: datetime, limit: int) -> list[Attempt]:
    """Live attempts that recovery should ask about by now, the longest waiting first."""
    statement = (
        select(Attempt.__table__)  # type: ignore[attr-defined]
        .where(col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES), col(Attempt.check_at) <= now)
        .order_by(col(Attempt.check_at))
        .limit(limit)
    )
    return [Attempt.of(row) for row in (await tx.execute(statement)).mappings()]


async def list_live_attempts(
    tx: Transaction,
    *,
    owner: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    kind: str | None = None,
    tenant: str | None = None,
    limit: int,
) -> list[Attempt]:
    """Live attempts, oldest first: they are nearest to losing their output at the provider."""
    statement = (
        select(Attempt.__table__)  # type: ignore[attr-defined]
        .where(col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES))
        .order_by(col(Attempt.created_at))
        .limit(limit)
    )
    if owner:
        statement = statement.where(col(Attempt.owner) == owner)
    if since:
        statement = statement.where(col(Attempt.created_at) >= since)
    if until:
        statement = statement.where(col(Attempt.created_at) < until)
    if kind or tenant is not None:
        statement = statement.join(Job, col(Job.id) == col(Attempt.job_id))
    if kind:
        statement = statement.where(col(Job.kind) == kind)
    if tenant is not None:
        statement = statement.where(col(Job.tenant) == tenant)
    return [Attempt.of(row) for row in (await tx.execute(statement)).mappings()]


async def bring_checks_forward(tx: Transaction, latest: datetime) -> int:
    """Let recovery ask about every live attempt by `latest`; for how many that is sooner."""
    statement = update(Attempt).where(
        col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES), col(Attempt.check_at) > latest
    )
    return (await tx.execute(statement.values(check_at=latest))).rowcount
