"""Verbs on refusals: the newest of each tenant, in a table that never grows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlmodel import col

from db.session import Transaction
from db.tables import Attempt, Job, Refusal

_REFUSALS = Refusal.__table__  # type: ignore[attr-defined]


async def tenants_of(tx: Transaction, attempt_ids: Sequence[str]) -> dict[str, str]:
    """Whose attempts these are; those that are not ours are left out."""
    statement = (
        select(col(Attempt.id), col(Job.tenant))
        .join(Job, col(Job.id) == col(Attempt.job_id))
        .where(col(Attempt.id).in_(attempt_ids))
    )
    return {row.id: row.tenant for row in await tx.execute(statement)}


async def insert_refusals(tx: Transaction, refusals: Sequence[Refusal], *, most: int) -> None:
    """Store these, and delete what is older than the newest `most` of their tenants."""
    await tx.execute(insert(_REFUSALS), [refusal.model_dump() for refusal in refusals])
    for tenant in sorted({refusal.tenant for refusal in refusals}):
        theirs = _REFUSALS.c.tenant == tenant
        oldest = select(_REFUSALS.c.id).where(theirs).order_by(_REFUSALS.c.id.desc()).offset(most).limit(1)
        last = (await tx.execute(oldest)).scalar()
        if last is not None:
            await tx.execute(delete(_REFUSALS).where(theirs, _REFUSALS.c.id <= last))


async def list_refusals(
    tx: Transaction,
    *,
    tenant: str,
    failed: str | None = None,
    since: datetime | None = None,
    before_id: str | None = None,
    limit: int,
) -> list[Refusal]:
    """Newest first."""
    statement = (
        select(_REFUSALS).where(_REFUSALS.c.tenant == tenant).order_by(_REFUSALS.c.id.desc()).limit(limit)
    )
    if failed:
        statement = statement.where(_REFUSALS.c.failed == failed)
    if since:
        statement = statement.where(_REFUSALS.c.at >= since)
    if before_id:
        statement = statement.where(_REFUSALS.c.id < before_id)
    return [Refusal(**row) for row in (await tx.execute(statement)).mappings()]
