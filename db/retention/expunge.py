"""The verb that empties one ended job: all that it said and made goes, the row stays with state and cost."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from sqlalchemy import delete, or_, select, update
from sqlmodel import col

from db.families import list_children
from db.jobs import find_job
from db.retention.expiry import assets_of, delete_unused_assets
from db.search.index import forget_said
from db.session import Transaction
from db.states import LIVE_ATTEMPT_STATUSES, AnnouncementState, JobState
from db.tables import Announcement, AnnouncementAttempt, Attempt, Delivery, Event, Job, JobInput, Output


class Expunged(Enum):
    """What came of it."""

    DONE = "done"
    UNKNOWN = "unknown"
    ALIVE = "alive"
    A_PART = "a part"
    """It goes with its parent."""
    AT_PROVIDER = "at provider"
    """A prediction of it is still being ended: its last news is to come, and would tell things anew."""


async def expunge_job(tx: Transaction, job_id: str, *, tenant: str, now: datetime) -> Expunged:
    """Empty an ended job of this tenant's, and its children; its objects that nobody else has are condemned
    with it."""
    job = await find_job(tx, job_id, lock=True)
    if job is None or job.tenant != tenant:
        return Expunged.UNKNOWN
    if not JobState(job.state).is_terminal:
        return Expunged.ALIVE
    if job.parent_id is not None:
        return Expunged.A_PART
    job_ids = [job_id, *(child.id for child in await list_children(tx, job_id))]
    under_way = select(col(Attempt.id)).where(
        col(Attempt.job_id).in_(job_ids), col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES)
    )
    if (await tx.execute(under_way.limit(1))).first() is not None:
        return Expunged.AT_PROVIDER
    asset_ids = await assets_of(tx, job_ids)
    for each in job_ids:
        await _empty(tx, each, job.expunged_at or now)
    await delete_unused_assets(tx, asset_ids, now)
    return Expunged.DONE


async def _empty(tx: Transaction, job_id: str, expunged_at: datetime) -> None:
    for table in (Output, JobInput):
        await tx.execute(delete(table).where(col(table.job_id) == job_id))
    await _silence_news(tx, job_id)
    # The numbers stay, so that a client that reads on finds no gap.
    await tx.execute(update(Event).where(col(Event.job_id) == job_id).values(data={}))
    # What it cost stays in the attempts; what was said of it there goes.
    await tx.execute(update(Attempt).where(col(Attempt.job_id) == job_id).values(error=None, metrics={}))
    await forget_said(tx, job_id)
    await _forget_announcements(tx, job_id)
    await tx.execute(
        update(Job)
        .where(col(Job.id) == job_id)
        .values(
            input={},
            caller_metadata={},
            error_message=None,
            recipe=None,
            measured=None,
            expunged_at=expunged_at,
        )
    )


async def _silence_news(tx: Transaction, job_id: str) -> None:
    """Deliveries keep when they came, from whom and what they did; not what they held."""
    attempt_ids = select(col(Attempt.id)).where(col(Attempt.job_id) == job_id)
    await tx.execute(
        update(Delivery)
        .where(or_(col(Delivery.job_id) == job_id, col(Delivery.attempt_id).in_(attempt_ids)))
        .values(body=b"", headers={}, detail=None)
    )


async def _forget_announcements(tx: Transaction, job_id: str) -> None:
    """What the caller was told and answered; what is yet to be told is told first."""
    told = select(col(Announcement.id)).where(
        col(Announcement.job_id) == job_id, col(Announcement.state) != AnnouncementState.PENDING
    )
    ids = list((await tx.execute(told)).scalars())
    attempts = col(AnnouncementAttempt.announcement_id).in_(ids)
    await tx.execute(delete(AnnouncementAttempt).where(attempts))
    await tx.execute(delete(Announcement).where(col(Announcement.id).in_(ids)))
