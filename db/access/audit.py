"""Verbs on the audit log: appended in the transaction of the act, read by its tenant, pruned by age."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlmodel import col

from db.session import Transaction
from db.tables import Audit

_AUDIT = Audit.__table__  # type: ignore[attr-defined]


async def insert_audit(tx: Transaction, *rows: Audit) -> None:
    await tx.execute(_AUDIT.insert(), [row.model_dump() for row in rows])


async def list_audit(
    tx: Transaction,
    *,
    tenant: str | None,
    act: str | None = None,
    subject: str | None = None,
    before_id: str | None = None,
    limit: int,
) -> list[Audit]:
    """Newest first, of one tenant or of all."""
    statement = select(_AUDIT).order_by(col(Audit.id).desc()).limit(limit)
    if tenant is not None:
        statement = statement.where(col(Audit.tenant) == tenant)
    if act is not None:
        statement = statement.where(col(Audit.act) == act)
    if subject is not None:
        statement = statement.where(col(Audit.subject) == subject)
    if before_id is not None:
        statement = statement.where(col(Audit.id) < before_id)
    return [Audit(**row) for row in (await tx.execute(statement)).mappings()]


async def delete_audit(tx: Transaction, *, before: datetime, limit: int) -> int:
    """Forget acts from before this time, the oldest first; how many."""
    old = select(col(Audit.id)).where(col(Audit.at) < before).order_by(col(Audit.at)).limit(limit)
    ids: Sequence[str] = list((await tx.execute(old)).scalars())
    if ids:
        await tx.execute(delete(Audit).where(col(Audit.id).in_(ids)))
    return len(ids)
