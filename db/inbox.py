"""Verbs on deliveries: stored raw exactly once, settled exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlmodel import col

from db.session import Transaction
from db.states import DeliveryOutcome
from db.tables import Delivery

_WITHOUT_BODY = [column for column in Delivery.__table__.columns if column.name != "body"]  # type: ignore[attr-defined]


async def find_delivery(tx: Transaction, delivery_id: str) -> Delivery | None:
    statement = select(Delivery.__table__).where(col(Delivery.id) == delivery_id)  # type: ignore[attr-defined]
    row = (await tx.execute(statement)).mappings().first()
    return Delivery(**row) if row else None


async def settle_delivery(
    tx: Transaction,
    delivery_id: str,
    outcome: DeliveryOutcome,
    *,
    now: datetime,
    detail: str | None = None,
    job_id: str | None = None,
) -> bool:
    """Record the delivery's own end; False when it was settled before."""
    known = {"job_id": job_id} if job_id else {}
    settled = await tx.execute(
        update(Delivery)
        .where(col(Delivery.id) == delivery_id, col(Delivery.settled_at).is_(None))
        .values(settled_at=now, outcome=outcome, detail=detail and detail[:500], **known)
    )
    return settled.rowcount == 1


async def postpone_delivery(
    tx: Transaction, delivery_id: str, *, run_after: datetime, detail: str, tries: int
) -> None:
    """Applying it failed for a passing reason: let it wait, with so many tries counted."""
    await tx.execute(
        update(Delivery)
        .where(col(Delivery.id) == delivery_id, col(Delivery.settled_at).is_(None))
        .values(run_after=run_after, tries=tries, detail=detail[:500])
    )


async def begin_delivery(tx: Transaction, delivery_id: str, *, tries: int) -> None:
    """Count a try before it is made: it may be the end of whoever makes it."""
    unsettled = (col(Delivery.id) == delivery_id) & col(Delivery.settled_at).is_(None)
    await tx.execute(update(Delivery).where(unsettled).values(tries=tries))


async def list_due_deliveries(tx: Transaction, *, now: datetime, limit: int) -> Sequence[str]:
    statement = (
        select(col(Delivery.id))
        .where(col(Delivery.settled_at).is_(None), col(Delivery.run_after) <= now)
        .order_by(col(Delivery.id))
        .limit(limit)
    )
    return list((await tx.execute(statement)).scalars())


async def list_deliveries(
    tx: Transaction,
    *,
    job_id: str | None = None,
    outcome: DeliveryOutcome | None = None,
    before_id: str | None = None,
    limit: int,
) -> list[Delivery]:
    """The ledger, newest first, without bodies: those may be megabytes each."""
    statement = select(*_WITHOUT_BODY).order_by(col(Delivery.id).desc()).limit(limit)
    if job_id:
        statement = statement.where(col(Delivery.job_id) == job_id)
    if outcome:
        statement = statement.where(col(Delivery.outcome) == outcome)
    if before_id:
        statement = statement.where(col(Delivery.id) < before_id)
    rows = (await tx.execute(statement)).mappings()
    return [Delivery(**row, body=b"") for row in rows]


async def has_unsettled(tx: Transaction, attempt_id: str) -> bool:
    """Whether news of this attempt is stored and not applied yet."""
    statement = (
        select(col(Delivery.id))
        .where(col(Delivery.attempt_id) == attempt_id, col(Delivery.settled_at).is_(None))
        .limit(1)
    )
    return (await tx.execute(statement)).first() is not None


async def bring_deliveries_forward(tx: Transaction, latest: datetime) -> int:
    """Let no delivery wait for a time after `latest`; how many did."""
    statement = update(Delivery).where(col(Delivery.settled_at).is_(None), col(Delivery.run_after) > latest)
    return (await tx.execute(statement.values(run_after=latest))).rowcount
