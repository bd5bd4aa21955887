"""Verbs on uploads and on the input files of jobs.

An upload waits for a job until it expires. A job that names one holds the asset from then on by a row of its
own, so an upload may go while its jobs live. What no job has is kept by an upload that nobody is told of
and that never expires: so whoever deletes what nobody has any more, of whatever release, leaves it alone.
Deleting is `db.retention`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, Select, exists, or_, select, update
from sqlmodel import col

from db.ids import make_id
from db.session import Transaction
from db.tables import FOREVER, Asset, Job, JobInput, Output, Upload


async def insert_upload(tx: Transaction, upload: Upload) -> None:
    await tx.execute(Upload.__table__.insert(), upload.model_dump())  # type: ignore[attr-defined]


async def find_upload(
    tx: Transaction, upload_id: str, *, tenant: str, now: datetime
) -> tuple[Upload, Asset] | None:
    """An upload of this tenant's that has not expired, with its asset."""
    mine = col(Upload.id) == upload_id, col(Upload.tenant) == tenant, col(Upload.expires_at) > now
    row = (await tx.execute(select(Upload.__table__).where(*mine))).mappings().first()  # type: ignore[attr-defined]
    if row is None:
        return None
    its = select(Asset.__table__).where(col(Asset.id) == row["asset_id"])  # type: ignore[attr-defined]
    return Upload(**row), Asset(**(await tx.execute(its)).mappings().one())


async def expire_upload(tx: Transaction, upload_id: str, *, tenant: str, now: datetime) -> bool:
    """Let its time be over; False where there is none of this tenant's."""
    mine = col(Upload.id) == upload_id, col(Upload.tenant) == tenant, col(Upload.expires_at) > now
    return (await tx.execute(update(Upload).where(*mine).values(expires_at=now))).rowcount == 1


async def hold_upload(tx: Transaction, upload_id: str, *, tenant: str, now: datetime) -> Asset | None:
    """The asset of an upload of this tenant's that has not expired, held until the commit."""
    mine = select(col(Upload.asset_id)).where(
        col(Upload.id) == upload_id, col(Upload.tenant) == tenant, col(Upload.expires_at) > now
    )
    return await _hold(tx, col(Asset.id).in_(mine))


async def hold_asset(tx: Transaction, asset_id: str, *, tenant: str) -> Asset | None:
    """An asset that this tenant has as the output or input of a job or as an upload, held as above."""
    mine = or_(
        exists(_of_jobs(Output, asset_id, tenant)),
        exists(_of_jobs(JobInput, asset_id, tenant)),
        exists(select(col(Upload.id)).where(col(Upload.asset_id) == asset_id, col(Upload.tenant) == tenant)),
    )
    return await _hold(tx, (col(Asset.id) == asset_id) & mine)


async def insert_inputs(tx: Transaction, job_id: str, files: Mapping[str, str]) -> None:
    """Let a job keep these assets, by the names of its inputs. The caller holds them."""
    rows = [{"job_id": job_id, "name": name, "asset_id": asset_id} for name, asset_id in files.items()]
    await tx.execute(JobInput.__table__.insert(), rows)  # type: ignore[attr-defined]


async def keep_assets(
    tx: Transaction, asset_ids: Collection[str], *, tenant: str, now: datetime
) -> dict[str, str]:
    """Keep those of these assets that the tenant has; by asset the upload that keeps it."""
    kept = {}
    for asset_id in sorted(asset_ids):  # In one order: two who lock the same ones wait, and do not deadlock.
        if await hold_asset(tx, asset_id, tenant=tenant) is None:
            continue
        kept[asset_id] = make_id("upl")
        dates = {"created_at": now, "expires_at": FOREVER}
        await insert_upload(tx, Upload(id=kept[asset_id], tenant=tenant, asset_id=asset_id, **dates))
    return kept


async def let_go(tx: Transaction, upload_ids: Collection[str], *, now: datetime) -> None:
    """Their time is up: they are deleted, and with them the assets that nothing else has."""
    if upload_ids:
        await tx.execute(update(Upload).where(col(Upload.id).in_(upload_ids)).values(expires_at=now))


def _of_jobs(table: type[Output] | type[JobInput], asset_id: str, tenant: str) -> Select[str]:
    return (
        select(col(table.job_id))
        .join(Job, col(Job.id) == col(table.job_id))
        .where(col(table.asset_id) == asset_id, col(Job.tenant) == tenant)
    )


async def _hold(tx: Transaction, which: ColumnElement[bool]) -> Asset | None:
    # Locked, so that whoever deletes assets that nothing needs waits until the input is written.
    statement = select(Asset.__table__).where(which)  # type: ignore[attr-defined]
    row = (await tx.execute(statement.with_for_update(read=True, key_share=True))).mappings().first()
    return Asset(**row) if row else None
