"""Giving events their positions where the database's own trigger does not, and mending what others left.

On MySQL and MariaDB the counter's row is taken when all other rows of a transaction are, right before its
commit: nobody who holds it waits for anything but the disk, so it is in no deadlock, and whoever has the
higher number commits later.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, select, text, update
from sqlmodel import col

from db.session import Database, Transaction
from db.tables import Event, FeedMark, Job

EVENTS_IN_A_TRANSACTION = 16_384
"""Room for positions in each transaction on PostgreSQL; the migration that made the trigger says the same."""

_TAKE_NUMBERS = text(
    "INSERT INTO feed_marks (tenant, position) VALUES ('', :count)"
    " ON DUPLICATE KEY UPDATE position = position + :count"
)
_NUMBER = text(
    "UPDATE events JOIN (SELECT job_id, seq, ROW_NUMBER() OVER (ORDER BY job_id, seq) AS place FROM events"
    " WHERE job_id IN :job_ids AND position IS NULL) AS fresh"
    " ON fresh.job_id = events.job_id AND fresh.seq = events.seq"
    " JOIN feed_marks ON feed_marks.tenant = ''"
    " SET events.position = feed_marks.position - :count + fresh.place"
).bindparams(bindparam("job_ids", expanding=True))

_NEWEST = text(
    "WITH RECURSIVE tenants AS ("
    " SELECT min(tenant) AS tenant FROM events UNION ALL"
    " SELECT (SELECT min(tenant) FROM events WHERE events.tenant > tenants.tenant) FROM tenants"
    " WHERE tenants.tenant IS NOT NULL)"
    " SELECT max((SELECT max(position) FROM events WHERE events.tenant = tenants.tenant)) FROM tenants"
)
_NEXT = text(f"SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint * {EVENTS_IN_A_TRANSACTION}")
MOST_AT_ONCE = 1000


def number_appended(tx: Transaction, job_ids: Sequence[str]) -> None:
    """These jobs, whose rows the transaction holds, got events, an event for each time that one is named."""
    if tx.is_mysql:
        tx.before_commit("feed", list(job_ids), _number)


async def settle_feed(database: Database) -> None:
    """Put in order, at a start, what could not be while nobody of this release was there.

    Events that an older release appended get what it does not know of. And where PostgreSQL's transactions
    count from lower numbers than the events do, the rows were brought here from another server: they leave
    the feed, whose readers are told to begin anew. Raises DatabaseUnavailable.
    """
    if database.is_shared:
        await _forget_foreign_time(database)
        return
    while await _adopt(database):
        pass


async def _number(tx: Transaction, job_ids: Sequence[str]) -> None:
    await tx.execute(_TAKE_NUMBERS, {"count": len(job_ids)})
    await tx.execute(_NUMBER, {"count": len(job_ids), "job_ids": sorted(set(job_ids))})


async def _adopt(database: Database) -> int:
    """Give the next of the orphans their tenant, and their position where no trigger did; how many."""
    missing = col(Event.position).is_(None) if database.is_mysql else col(Event.position) > 0
    statement = (
        select(col(Event.job_id), col(Event.seq))
        .where(col(Event.tenant).is_(None), missing)
        .order_by(col(Event.at), col(Event.job_id), col(Event.seq))
        .limit(MOST_AT_ONCE)
    )
    async with database.reading() as tx:
        orphans = [(row["job_id"], row["seq"]) for row in (await tx.execute(statement)).mappings()]
    if not orphans:
        return 0
    owner = select(col(Job.tenant)).where(col(Job.id) == bindparam("of_job")).scalar_subquery()
    adopted = (
        update(Event.__table__)  # type: ignore[attr-defined]
        .where(col(Event.job_id) == bindparam("of_job"), col(Event.seq) == bindparam("at_seq"))
        .values(tenant=owner)
    )
    async with database.transaction() as tx:
        await tx.execute(adopted, [{"of_job": job_id, "at_seq": seq} for job_id, seq in orphans])
        number_appended(tx, [job_id for job_id, _ in orphans])
    return len(orphans)


async def _forget_foreign_time(database: Database) -> None:
    async with database.reading() as tx:
        newest = (await tx.execute(_NEWEST)).scalar_one()
        following = (await tx.execute(_NEXT)).scalar_one()
    if newest is None or newest < following:
        return
    async with database.transaction() as tx:
        foreign = col(Event.position) >= following
        await tx.execute(update(Event).where(foreign).values(position=None, tenant=None))
        await tx.execute(update(FeedMark).where(col(FeedMark.position) >= following).values(position=0))
