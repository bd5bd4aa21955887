"""Verbs on deliveries: stored raw exactly once, settled exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, bindparam, func, or_, select, update
from sqlmodel import col

from db.session import Transaction
from db.states import DeliveryOutcome
from db.tables import Attempt, Delivery, Job

SILENCE = "silence"
"""What a limit of our own tells."""

_DELIVERIES = Delivery.__table__  # type: ignore[attr-defined]
_WITHOUT_BODY = [column for column in _DELIVERIES.columns if column.name != "body"]

# Built once: each webhook runs these, and to build one and its key takes as long as to run it.
_FIND = select(_DELIVERIES).where(col(Delivery.id) == bindparam("wanted"))
_LOCK = (
    select(col(Delivery.id), col(Delivery.settled_at))
    .where(col(Delivery.id).in_(bindparam("wanted", expanding=True)))
    .order_by(col(Delivery.id))
    .with_for_update()
)
_SETTLE = (
    update(_DELIVERIES)
    .where(_DELIVERIES.c.id == bindparam("settled"))
    .values(
        settled_at=bindparam("at"),
        outcome=bindparam("as_what"),
        detail=bindparam("why"),
        job_id=bindparam("of_job"),
        told=bindparam("said"),
    )
)


async def find_delivery(
    tx: Transaction, delivery_id: str, *, tenant: str | None = None, with_strays: bool = False
) -> Delivery | None:
    """A delivery; with `tenant`, only one of a job of theirs, or `with_strays` one of no job at all."""
    statement = _FIND if tenant is None else _FIND.where(_is_of(tenant, with_strays=with_strays))
    row = (await tx.execute(statement, {"wanted": delivery_id})).mappings().first()
    return Delivery.of(row) if row else None


async def list_open_deliveries(
    tx: Transaction, delivery_ids: Sequence[str], *, most_bytes: int
) -> list[Delivery]:
    """Those of these deliveries that are not settled and whose body has fewer bytes, as they came."""
    statement = (
        select(_DELIVERIES)
        .where(col(Delivery.id).in_(delivery_ids), func.length(col(Delivery.body)) < most_bytes)
        .order_by(col(Delivery.id))
    )
    # By the key alone: asked for those not settled, PostgreSQL reads the index of all that are not.
    found = [row for row in (await tx.execute(statement)).mappings() if row["settled_at"] is None]
    return [Delivery.of(row) for row in found]


async def lock_deliveries(tx: Transaction, delivery_ids: Sequence[str]) -> set[str]:
    """Which of these are not settled; nobody else settles them until the transaction ends."""
    found = await tx.execute(_LOCK, {"wanted": list(delivery_ids)})
    return {row.id for row in found if row.settled_at is None}


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of one delivery."""

    delivery_id: str
    outcome: DeliveryOutcome
    detail: str
    job_id: str | None
    told: str | None = None
    """The status word in it; None where it was not understood."""


async def settle_deliveries(tx: Transaction, settlements: Sequence[Settlement], *, now: datetime) -> None:
    """Record the ends of deliveries that this transaction has locked."""
    if not settlements:
        return
    await tx.execute(
        _SETTLE,
        [
            {
                "settled": each.delivery_id,
                "at": now,
                "as_what": each.outcome,
                "why": each.detail[:500],
                "of_job": each.job_id,
                "said": each.told,
            }
            for each in settlements
        ],
    )


@dataclass(frozen=True, slots=True)
class Known:
    """A delivery that was there before another under its key."""

    id: str
    is_same: bool
    """Whether their bodies are the same."""


async def find_known(tx: Transaction, dedupe_key: bytes, body: bytes) -> Known | None:
    """The delivery under this key, held against a body that came under it too."""
    statement = select(col(Delivery.id), (col(Delivery.body) == body).label("is_same"))
    row = (await tx.execute(statement.where(col(Delivery.dedupe_key) == dedupe_key))).first()
    return Known(row.id, bool(row.is_same)) if row else None


async def note_conflict(tx: Transaction, delivery_id: str) -> None:
    """Another body came under its message id."""
    one_more = update(Delivery).where(col(Delivery.id) == delivery_id)
    await tx.execute(one_more.values(conflicts=col(Delivery.conflicts) + 1))


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
    tenant: str | None = None,
    with_strays: bool = False,
    job_id: str | None = None,
    outcome: DeliveryOutcome | None = None,
    before_id: str | None = None,
    limit: int,
) -> list[Delivery]:
    """The ledger, newest first, without bodies: those may be megabytes each. `tenant` as `find_delivery`."""
    statement = select(*_WITHOUT_BODY).order_by(col(Delivery.id).desc()).limit(limit)
    if tenant is not None:
        statement = statement.where(_is_of(tenant, with_strays=with_strays))
    if job_id:
        statement = statement.where(col(Delivery.job_id) == job_id)
    if outcome:
        statement = statement.where(col(Delivery.outcome) == outcome)
    if before_id:
        statement = statement.where(col(Delivery.id) < before_id)
    rows = (await tx.execute(statement)).mappings()
    return [Delivery(**row, body=b"") for row in rows]


def _is_of(tenant: str, *, with_strays: bool) -> ColumnElement[bool]:
    """Whether a delivery's job is of this tenant; news that is not applied yet has it by its attempt.

    Scalar, so that each database walks the ledger in its order and asks for each row: joined, PostgreSQL may
    put all jobs of the tenant before the first row of a page.
    """
    known = select(col(Job.tenant)).where(col(Job.id) == col(Delivery.job_id)).scalar_subquery()
    told = (
        select(col(Job.tenant))
        .join(Attempt, col(Attempt.job_id) == col(Job.id))
        .where(col(Attempt.id) == col(Delivery.attempt_id))
        .scalar_subquery()
    )
    whose = func.coalesce(known, told)
    return or_(whose == tenant, whose.is_(None)) if with_strays else whose == tenant


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
