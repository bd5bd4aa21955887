"""Verbs on deliveries as they arrive: for whoever looks on, who is told of each once.

Their order is that of their ids, which are made right before they are stored. Another process may have made
an earlier one and store it later: whoever must not miss those looks again at what is not long ago.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import func, or_, select
from sqlmodel import col

from db.session import Transaction
from db.tables import Attempt, Delivery, Job

MOST_LOOKED_AT = 5000


async def find_arrivals(tx: Transaction, *, after_id: str, known: Collection[str]) -> tuple[list[str], bool]:
    """Ids of deliveries after one, but for those that are known, and whether there may be more than these."""
    statement = (
        select(col(Delivery.id))
        .where(col(Delivery.id) > after_id)
        .order_by(col(Delivery.id))
        .limit(MOST_LOOKED_AT)
    )
    found = list((await tx.execute(statement)).scalars())
    return [each for each in found if each not in known], len(found) == MOST_LOOKED_AT


async def read_arrivals(
    tx: Transaction, ids: Sequence[str], *, tenant: str, with_strays: bool, most_bytes: int
) -> list[tuple[Delivery, int]]:
    """Those of these that are the tenant's, in order, with the sizes of their bodies in bytes.

    A body larger than `most_bytes` is left out. `with_strays` also has news that belongs to no job.
    """
    size = func.length(col(Delivery.body))
    columns = [column for column in Delivery.__table__.columns if column.name != "body"]  # type: ignore[attr-defined]
    theirs = col(Job.tenant) == tenant
    statement = (
        select(*columns, size.label("size_bytes"))
        .outerjoin(Attempt, col(Attempt.id) == col(Delivery.attempt_id))
        .outerjoin(Job, col(Job.id) == func.coalesce(col(Delivery.job_id), col(Attempt.job_id)))
        .where(col(Delivery.id).in_(ids), or_(theirs, col(Job.id).is_(None)) if with_strays else theirs)
        .order_by(col(Delivery.id))
    )
    found = [dict(row) for row in (await tx.execute(statement)).mappings()]
    sizes = {row["id"]: int(row.pop("size_bytes")) for row in found}
    small = [row["id"] for row in found if sizes[row["id"]] <= most_bytes]
    bodies = {}
    if small and most_bytes:
        wanted = select(col(Delivery.id), col(Delivery.body)).where(col(Delivery.id).in_(small))
        bodies = {row["id"]: row["body"] for row in (await tx.execute(wanted)).mappings()}
    return [(Delivery(**row, body=bodies.get(row["id"], b"")), sizes[row["id"]]) for row in found]
