"""Verbs on endpoints: how an address of a tenant does. When it is paused or disabled is not decided here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import Announcement, Endpoint

_ENDPOINTS = Endpoint.__table__  # type: ignore[attr-defined]


async def find_endpoint(tx: Transaction, endpoint_id: str) -> Endpoint | None:
    statement = select(_ENDPOINTS).where(col(Endpoint.id) == endpoint_id)
    row = (await tx.execute(statement)).mappings().first()
    return Endpoint(**row) if row else None


async def lock_endpoint(
    tx: Transaction, endpoint_id: str, *, tenant: str, url: str, now: datetime
) -> Endpoint:
    """The endpoint, to be changed in this transaction; made where there was none."""
    fresh = Endpoint(id=endpoint_id, tenant=tenant, url=url, created_at=now)
    await tx.insert_new(Endpoint, fresh.model_dump())
    statement = select(_ENDPOINTS).where(col(Endpoint.id) == endpoint_id).with_for_update()
    return Endpoint(**(await tx.execute(statement)).mappings().one())


async def save_endpoint(tx: Transaction, endpoint_id: str, **values: Any) -> None:
    """Write an endpoint that this transaction has locked."""
    await tx.execute(update(Endpoint).where(col(Endpoint.id) == endpoint_id).values(**values))


async def list_endpoints(
    tx: Transaction, tenant: str, *, before_id: str | None, disabled: bool | None, limit: int
) -> list[Endpoint]:
    """A tenant's endpoints, in the order of their ids backwards."""
    statement = select(_ENDPOINTS).where(col(Endpoint.tenant) == tenant)
    if before_id is not None:
        statement = statement.where(col(Endpoint.id) < before_id)
    if disabled is not None:
        is_disabled = col(Endpoint.disabled_at).is_not(None)
        statement = statement.where(is_disabled if disabled else ~is_disabled)
    statement = statement.order_by(col(Endpoint.id).desc()).limit(limit)
    return [Endpoint(**row) for row in (await tx.execute(statement)).mappings()]


async def delete_idle_endpoints(tx: Transaction, endpoint_ids: Sequence[str]) -> None:
    """Forget those of these that no announcement names any more. One that is disabled stays so."""
    if not endpoint_ids:
        return
    named = select(col(Announcement.id)).where(col(Announcement.endpoint_id) == col(Endpoint.id))
    idle = col(Endpoint.id).in_(endpoint_ids) & col(Endpoint.disabled_at).is_(None) & ~named.exists()
    await tx.execute(delete(Endpoint).where(idle))
