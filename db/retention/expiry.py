"""Verbs that delete what has expired: an ended job with all that hangs on it, and news of nothing of ours.

A live job is never deleted, nor one whose prediction is still being ended at its provider. An asset stays
until the last job or upload that has it goes; its objects are condemned in the same transaction and
deleted after it. What the job cost is added to the books of the past (`db.costs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import RowMapping, bindparam, delete, or_, select, update
from sqlmodel import SQLModel, col

from db.announcements.endpoints import delete_idle_endpoints
from db.assets import lay_tombstone
from db.costs import keep_past_costs
from db.families import has_child_under_way, is_by_itself, list_children
from db.feed import raise_floors
from db.search.index import delete_words
from db.session import Transaction
from db.states import LIVE_ATTEMPT_STATUSES, LIVE_JOB_STATES
from db.tables import (
    Announcement,
    Asset,
    Attempt,
    Delivery,
    Event,
    IdempotencyKey,
    Job,
    JobInput,
    Output,
    Upload,
)


async def date_ended_jobs(tx: Transaction, *, age: timedelta, limit: int) -> int:
    """Give an expiry to jobs that ended when there was none, counted from their end; how many."""
    statement = (
        select(col(Job.id), col(Job.finished_at), col(Job.retention_s))
        # A child goes with its parent; what an older release deleted the parent of goes by itself.
        .where(col(Job.expires_at).is_(None), col(Job.finished_at).is_not(None), is_by_itself())
        .limit(limit)
    )
    ended = (await tx.execute(statement)).mappings().all()
    if ended:
        dated = (
            update(Job.__table__)  # type: ignore[attr-defined]
            .where(col(Job.id) == bindparam("job_id"))
            .values(expires_at=bindparam("at"))
        )
        await tx.execute(dated, [{"job_id": row["id"], "at": _expiry_of(row, age)} for row in ended])
    return len(ended)


def _expiry_of(ended: RowMapping, age: timedelta) -> datetime:
    own = ended["retention_s"]
    kept_for = age if own is None else timedelta(seconds=own)
    finished_at: datetime = ended["finished_at"]
    return finished_at + kept_for


async def delete_expired_jobs(
    tx: Transaction, *, now: datetime, limit: int, keyed_since: datetime, only_of_their_own: bool = False
) -> tuple[int, int]:
    """Delete jobs past their expiry, the oldest first; how many, and how many assets went with them.

    Of a job that was made after `keyed_since` an Idempotency-Key may still be there: it goes too, since it
    would answer with a job that is not. Only for those, because looking for keys reads all there are.
    `only_of_their_own`: only jobs that were given a retention of their own.
    """
    under_way = select(col(Attempt.id)).where(
        col(Attempt.job_id) == col(Job.id), col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES)
    )
    statement = (
        select(col(Job.id), col(Job.created_at))
        .where(
            col(Job.expires_at) <= now,
            col(Job.state).not_in(LIVE_JOB_STATES),
            ~under_way.exists(),
            ~has_child_under_way(),
        )
        .order_by(col(Job.expires_at))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if only_of_their_own:
        statement = statement.where(col(Job.retention_s).is_not(None))
    expired = (await tx.execute(statement)).all()
    job_ids = [row.id for row in expired]
    if not job_ids:
        return 0, 0
    job_ids += [child.id for child in await list_children(tx, *job_ids)]
    asset_ids = await assets_of(tx, job_ids)
    await keep_past_costs(tx, job_ids)
    await _delete_rows(tx, job_ids)
    keyed = [row.id for row in expired if row.created_at >= keyed_since]
    if keyed:
        await tx.execute(delete(IdempotencyKey).where(col(IdempotencyKey.job_id).in_(keyed)))
    return len(expired), await delete_unused_assets(tx, asset_ids, now)


async def delete_expired_uploads(tx: Transaction, *, now: datetime, limit: int) -> tuple[int, int]:
    """Delete uploads past their time, the oldest first; how many, and how many assets went with them."""
    statement = (
        select(col(Upload.id), col(Upload.asset_id))
        .where(col(Upload.expires_at) <= now)
        .order_by(col(Upload.expires_at))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    uploads = (await tx.execute(statement)).mappings().all()
    if not uploads:
        return 0, 0
    await tx.execute(delete(Upload).where(col(Upload.id).in_([row["id"] for row in uploads])))
    asset_ids = sorted({row["asset_id"] for row in uploads})
    return len(uploads), await delete_unused_assets(tx, asset_ids, now)


async def delete_stray_deliveries(tx: Transaction, *, before: datetime, limit: int) -> int:
    """Delete settled news that belongs to no job and came before this time."""
    statement = (
        select(col(Delivery.id))
        .where(
            col(Delivery.job_id).is_(None),
            col(Delivery.settled_at).is_not(None),
            col(Delivery.received_at) < before,
        )
        .limit(limit)
    )
    ids = list((await tx.execute(statement)).scalars())
    if ids:
        await tx.execute(delete(Delivery).where(col(Delivery.id).in_(ids)))
    return len(ids)


async def assets_of(tx: Transaction, job_ids: Sequence[str]) -> list[str]:
    """The assets that these jobs have, read or made, in one order."""
    found: set[str] = set()
    for table in (Output, JobInput):
        had = select(col(table.asset_id)).where(col(table.job_id).in_(job_ids))
        found.update((await tx.execute(had)).scalars())
    return sorted(found)


async def _delete_rows(tx: Transaction, job_ids: Sequence[str]) -> None:
    await raise_floors(tx, job_ids)
    await delete_words(tx, job_ids)
    attempt_ids = select(col(Attempt.id)).where(col(Attempt.job_id).in_(job_ids))
    await tx.execute(
        delete(Delivery).where(
            or_(col(Delivery.job_id).in_(job_ids), col(Delivery.attempt_id).in_(attempt_ids))
        )
    )
    told = select(col(Announcement.endpoint_id)).where(col(Announcement.job_id).in_(job_ids)).distinct()
    endpoint_ids = list((await tx.execute(told)).scalars())
    # The tries at an announcement go with it, by the database.
    owned: tuple[type[SQLModel], ...] = (Output, JobInput, Event, Attempt, Announcement)
    for table in owned:
        await tx.execute(delete(table).where(table.__table__.c.job_id.in_(job_ids)))  # type: ignore[attr-defined]
    await tx.execute(delete(Job).where(col(Job.id).in_(job_ids)))
    await delete_idle_endpoints(tx, endpoint_ids)


async def delete_unused_assets(tx: Transaction, asset_ids: Sequence[str], now: datetime) -> int:
    """Delete those of these assets that no job or upload has any more, with their objects; how many."""
    # Locked before it is asked who has them: a finisher that is about to is waited for, or waits.
    statement = (
        select(Asset.__table__)  # type: ignore[attr-defined]
        .where(col(Asset.id).in_(asset_ids))
        .order_by(col(Asset.id))
        .with_for_update()
    )
    assets = [Asset(**row) for row in (await tx.execute(statement)).mappings()]
    used: set[str] = set()
    for table in (Output, JobInput, Upload):
        still = select(col(table.asset_id)).where(col(table.asset_id).in_(asset_ids))
        used.update((await tx.execute(still)).scalars())
    unused = [asset for asset in assets if asset.id not in used]
    for asset in unused:
        await tx.execute(delete(Asset).where(col(Asset.id) == asset.id))
        keys = [asset.storage_key, asset.peaks_key]
        await lay_tombstone(tx, asset.sha256, keys, now=now, asset_id=asset.id)
    return len(unused)
