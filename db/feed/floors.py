"""Up to where a feed is no longer whole: raised by whoever deletes events, in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import Event, FeedMark


async def raise_floors(tx: Transaction, job_ids: Sequence[str]) -> None:
    """The events of these jobs are about to be deleted: who has not read the last one misses something."""
    statement = (
        select(col(Event.tenant), func.max(col(Event.position)).label("last"))
        .where(col(Event.job_id).in_(job_ids), col(Event.tenant).is_not(None), col(Event.position) > 0)
        .group_by(col(Event.tenant))
        # In one order: two who delete must not wait for each other's mark.
        .order_by(col(Event.tenant))
    )
    for row in (await tx.execute(statement)).mappings().all():
        tenant, last = row["tenant"], row["last"]
        if await tx.insert_new(FeedMark, {"tenant": tenant, "position": last}):
            continue
        lower = (col(FeedMark.tenant) == tenant) & (col(FeedMark.position) < last)
        await tx.execute(update(FeedMark).where(lower).values(position=last))
