"""Verbs on announcements that wait: made with the job's end, claimed under a lease, noted by its holder.

Promises: of those that are due every receiver has its share of a look, the one that has waited longest
first; who has lost a lease notes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CTE, ScalarSelect, delete, func, select, update
from sqlmodel import col

from db.session import Transaction
from db.states import AnnouncementState
from db.tables import Announcement, AnnouncementAttempt, UtcDateTime

EARLY_S = 0.5
"""What the clocks of processes on one database may differ by: see `db.jobs`."""
ATTEMPTS_KEPT = 50
"""Of one announcement, the newest; the schedule alone makes a quarter of that."""
_ANNOUNCEMENTS = Announcement.__table__  # type: ignore[attr-defined]
_IS_PENDING = col(Announcement.state) == AnnouncementState.PENDING
_NO_LEASE: dict[str, Any] = {"lease": None, "lease_until": None}


async def insert_announcement(tx: Transaction, announcement: Announcement) -> None:
    await tx.execute(_ANNOUNCEMENTS.insert(), announcement.model_dump())


async def find_announcement(tx: Transaction, announcement_id: str) -> Announcement | None:
    statement = select(_ANNOUNCEMENTS).where(col(Announcement.id) == announcement_id)
    row = (await tx.execute(statement)).mappings().first()
    return Announcement(**row) if row else None


async def list_due_announcements(
    tx: Transaction, *, now: datetime, limit: int, per_receiver: int
) -> Sequence[str]:
    """Ids that could be sent now: the first of every receiver, then the second ones, at most `limit`."""
    receivers = _receivers()
    due = [_due(receivers.c.receiver, now, nth) for nth in range(per_receiver)]
    first_due = (
        select(func.min(col(Announcement.run_after), type_=UtcDateTime))
        .where(_IS_PENDING, col(Announcement.receiver) == receivers.c.receiver)
        .scalar_subquery()
    )
    statement = (
        select(*(each.label(f"nth_{nth}") for nth, each in enumerate(due)))
        .where(receivers.c.receiver.is_not(None))
        .order_by(first_due)
        .limit(limit)
    )
    rows = (await tx.execute(statement)).all()
    return [row[nth] for nth in range(per_receiver) for row in rows if row[nth] is not None][:limit]


async def list_due_of(tx: Transaction, receiver: str, *, now: datetime, limit: int) -> Sequence[str]:
    """The same of one receiver."""
    statement = (
        select(col(Announcement.id))
        .where(_IS_PENDING, col(Announcement.receiver) == receiver, *_free(now))
        .order_by(col(Announcement.run_after))
        .limit(limit)
    )
    return list((await tx.execute(statement)).scalars())


async def claim_announcement(
    tx: Transaction, announcement_id: str, *, lease: str, now: datetime, lease_s: float
) -> Announcement | None:
    """Take the lease of one that is due, counted as begun; None when it is not ours to take.

    Leases go by the database's clock where it has one; `now` is the caller's.
    """
    taken = await tx.execute(
        update(Announcement)
        .where(
            col(Announcement.id) == announcement_id,
            _IS_PENDING,
            col(Announcement.run_after) <= tx.clock(now, later_s=EARLY_S),
            col(Announcement.lease).is_(None) | (col(Announcement.lease_until) < tx.clock(now)),
        )
        .values(
            lease=lease,
            lease_until=tx.clock(now, later_s=lease_s),
            crashes=col(Announcement.crashes) + 1,
        )
    )
    return await find_announcement(tx, announcement_id) if taken.rowcount == 1 else None


async def note_announcement(tx: Transaction, announcement_id: str, *, lease: str, **values: Any) -> bool:
    """Write what became of it and give the lease back; False when the lease is another's by now."""
    noted = await tx.execute(
        update(Announcement)
        .where(col(Announcement.id) == announcement_id, col(Announcement.lease) == lease, _IS_PENDING)
        .values({**_NO_LEASE, "crashes": 0, **values})
    )
    return noted.rowcount == 1


async def insert_attempt(tx: Transaction, attempt: AnnouncementAttempt) -> None:
    """Keep one try, and of its announcement the newest ones alone."""
    await tx.execute(AnnouncementAttempt.__table__.insert(), attempt.model_dump())  # type: ignore[attr-defined]
    if attempt.number > ATTEMPTS_KEPT:
        old = delete(AnnouncementAttempt).where(
            col(AnnouncementAttempt.announcement_id) == attempt.announcement_id,
            col(AnnouncementAttempt.number) <= attempt.number - ATTEMPTS_KEPT,
        )
        await tx.execute(old)


async def pause_announcements(tx: Transaction, endpoint_id: str, *, until: datetime) -> None:
    """Let nothing go to this endpoint before then."""
    waiting = (col(Announcement.endpoint_id) == endpoint_id) & _IS_PENDING
    earlier = update(Announcement).where(waiting, col(Announcement.run_after) < until)
    await tx.execute(earlier.values(run_after=until))


async def hold_announcements(tx: Transaction, endpoint_id: str, *, error: str, now: datetime) -> int:
    """Set aside all that waits for an endpoint, but for what is on its way; how many."""
    waiting = (col(Announcement.endpoint_id) == endpoint_id) & _IS_PENDING & col(Announcement.lease).is_(None)
    held = update(Announcement).where(waiting)
    return (
        await tx.execute(held.values(state=AnnouncementState.HELD, settled_at=now, error=error[:500]))
    ).rowcount


async def release_announcements(tx: Transaction) -> int:
    """Forget every lease. Only for a process that knows it is the only one on this database."""
    statement = update(Announcement).where(_IS_PENDING, col(Announcement.lease).is_not(None))
    return (await tx.execute(statement.values(_NO_LEASE))).rowcount


async def bring_announcements_forward(tx: Transaction, latest: datetime) -> int:
    """Let no announcement wait for a time after `latest`; how many did."""
    statement = update(Announcement).where(_IS_PENDING, col(Announcement.run_after) > latest)
    return (await tx.execute(statement.values(run_after=latest))).rowcount


def _free(now: datetime) -> tuple[Any, ...]:
    return (
        col(Announcement.run_after) <= now,
        col(Announcement.lease).is_(None) | (col(Announcement.lease_until) < now),
    )


def _due(receiver: Any, now: datetime, nth: int) -> ScalarSelect[str]:
    """The `nth` that could be sent to this receiver: so no list of them all is ever made."""
    return (
        select(col(Announcement.id))
        .where(_IS_PENDING, col(Announcement.receiver) == receiver, *_free(now))
        .order_by(col(Announcement.run_after), col(Announcement.id))
        .limit(1)
        .offset(nth)
        .scalar_subquery()
    )


def _receivers() -> CTE:
    """Everybody for whom something waits: one look into the index for each, however much it is."""
    name = col(Announcement.receiver)
    first = select(func.min(name).label("receiver")).where(_IS_PENDING).cte("receivers", recursive=True)
    following = select(func.min(name)).where(_IS_PENDING, name > first.c.receiver)
    return first.union_all(select(following.scalar_subquery()).where(first.c.receiver.is_not(None)))
