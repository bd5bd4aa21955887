"""Verbs on assets, on the outputs that point at them, and on the tombstones of objects.

The law of deletion: an object is deleted only after a tombstone that names its key is committed, and no row
is inserted for a key that a tombstone names. Whoever stores the same bytes meanwhile takes another key. So a
delete that comes late, twice, or from a process that was frozen, hits nothing that a row points at.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import String, cast, delete, func, null, select, union_all, update
from sqlalchemy.orm import aliased
from sqlmodel import col

from db.ids import make_id
from db.session import Transaction
from db.tables import FOREVER, Asset, Job, JobInput, Output, Tombstone, Upload


class ObjectsDoomed(Exception):
    """The asset's objects were condemned while they were being stored: store them again, under new keys."""


async def insert_asset(tx: Transaction, asset: Asset) -> Asset:
    """Store an asset, or return the one that holds the same bytes already. Raises ObjectsDoomed."""
    if await tx.insert_new(Asset, asset.model_dump()):
        # Only now: whoever condemns these bytes waits for this row, or has been waited for by the insert.
        tombstone = await find_tombstone(tx, asset.sha256)
        if tombstone and {asset.storage_key, asset.peaks_key} & set(tombstone.keys):
            raise ObjectsDoomed
        return asset
    statement = select(Asset.__table__).where(col(Asset.sha256) == asset.sha256)  # type: ignore[attr-defined]
    # Held until the commit, so that it is not deleted while an output comes to point at it.
    row = (await tx.execute(statement.with_for_update(read=True, key_share=True))).mappings().first()
    if row is None:
        raise ObjectsDoomed
    return Asset.of(row)


async def insert_output(tx: Transaction, job_id: str, name: str, asset_id: str) -> None:
    await tx.insert_new(Output, {"job_id": job_id, "name": name, "asset_id": asset_id})


async def find_asset(tx: Transaction, asset_id: str) -> Asset | None:
    statement = select(Asset.__table__).where(col(Asset.id) == asset_id)  # type: ignore[attr-defined]
    row = (await tx.execute(statement)).mappings().first()
    return Asset.of(row) if row else None


async def find_any_asset(tx: Transaction) -> Asset | None:
    row = (await tx.execute(select(Asset.__table__).limit(1))).mappings().first()  # type: ignore[attr-defined]
    return Asset.of(row) if row else None


@dataclass(frozen=True, slots=True)
class Hold:
    """What a tenant has an asset for."""

    kind: str | None
    """The kind of a job that made it; None where it is only read or uploaded."""
    expires_at: datetime | None
    """When the last of its jobs and uploads that have it expires; None when one of them never does."""


async def find_hold(tx: Transaction, asset_id: str, *, tenant: str) -> Hold | None:
    """What the tenant has the asset for; None where nothing of its own has it."""
    nothing, parent = cast(null(), String), aliased(Job)
    # A child goes with its parent.
    expires_at = func.coalesce(col(Job.expires_at), col(parent.expires_at))
    of_jobs: Any = (
        select(kind.label("kind"), expires_at.label("expires_at"))
        .select_from(table)
        .join(Job, col(Job.id) == job_id)
        .outerjoin(parent, col(parent.id) == col(Job.parent_id))
        .where(has == asset_id, col(Job.tenant) == tenant)
        for table, job_id, has, kind in (
            (Output, col(Output.job_id), col(Output.asset_id), col(Job.kind)),
            (JobInput, col(JobInput.job_id), col(JobInput.asset_id), nothing),
        )
    )
    of_uploads: Any = select(nothing.label("kind"), col(Upload.expires_at).label("expires_at")).where(
        col(Upload.asset_id) == asset_id, col(Upload.tenant) == tenant
    )
    users = union_all(*of_jobs, of_uploads).subquery()
    statement = select(
        func.max(users.c.kind).label("kind"),
        func.max(users.c.expires_at).label("latest"),
        func.count().label("users"),
        func.count(users.c.expires_at).label("expiring"),
    ).select_from(users)
    found = (await tx.execute(statement)).mappings().one()
    if not found["users"]:
        return None
    # A voice's recording has an expiry that never comes.
    expires = found["users"] == found["expiring"] and found["latest"] < FOREVER
    return Hold(found["kind"], found["latest"] if expires else None)


async def find_assets_by_digest(tx: Transaction, digests: Collection[str]) -> dict[str, Asset]:
    """The assets of these SHA-256 digests, by digest."""
    statement = select(Asset.__table__).where(col(Asset.sha256).in_(digests))  # type: ignore[attr-defined]
    return {row["sha256"]: Asset.of(row) for row in (await tx.execute(statement)).mappings()}


async def list_outputs(tx: Transaction, *job_ids: str) -> dict[str, dict[str, Asset]]:
    """The assets of these jobs, by job and output name."""
    statement = (
        select(col(Output.job_id), col(Output.name), *Asset.__table__.columns)  # type: ignore[attr-defined]
        .join(Asset, col(Asset.id) == col(Output.asset_id))
        .where(col(Output.job_id).in_(job_ids))
        .order_by(col(Output.name))
    )
    found: dict[str, dict[str, Asset]] = {}
    for row in (await tx.execute(statement)).mappings():
        values = dict(row)
        job_id, name = values.pop("job_id"), values.pop("name")
        found.setdefault(job_id, {})[name] = Asset(**values)
    return found


async def find_tombstone(tx: Transaction, sha256: str) -> Tombstone | None:
    statement = select(Tombstone.__table__).where(col(Tombstone.sha256) == sha256)  # type: ignore[attr-defined]
    row = (await tx.execute(statement)).mappings().first()
    return Tombstone.of(row) if row else None


async def was_deleted(tx: Transaction, asset_id: str) -> bool:
    """Whether there was such an asset, whoever had it, as far back as tombstones are kept."""
    statement = select(col(Tombstone.sha256)).where(col(Tombstone.asset_id) == asset_id).limit(1)
    return (await tx.execute(statement)).first() is not None


async def doom_objects(tx: Transaction, sha256: str, keys: Sequence[str], *, now: datetime) -> list[str]:
    """Condemn those of these objects of one digest that no asset has: to be deleted after the commit."""
    placeholder = Asset(
        id=make_id("ast"), sha256=sha256, storage_key="", peaks_key="", media_type="",
        size_bytes=0, duration_s=0.0, sample_rate=0, channels=0, created_at=now,
    )  # fmt: skip
    # The lock is the unique digest: a finisher that has inserted it is waited for, one that comes later
    # waits for this transaction and then sees the tombstone. The row itself is never committed.
    if await tx.insert_new(Asset, placeholder.model_dump()):
        await lay_tombstone(tx, sha256, keys, now=now)
        await tx.execute(delete(Asset).where(col(Asset.id) == placeholder.id))
        return list(keys)
    statement = select(Asset.__table__).where(col(Asset.sha256) == sha256)  # type: ignore[attr-defined]
    row = (await tx.execute(statement.with_for_update())).mappings().first()
    if row is None:
        return []  # deleted this moment: whoever did it has laid a tombstone, the rest is for the next round
    strays = [key for key in keys if key not in (row["storage_key"], row["peaks_key"])]
    if strays:
        await lay_tombstone(tx, sha256, strays, now=now)
    return strays


async def lay_tombstone(
    tx: Transaction, sha256: str, keys: Sequence[str], *, now: datetime, asset_id: str | None = None
) -> None:
    """Name keys that no row may point at from now on. The caller holds the digest's lock."""
    older = await find_tombstone(tx, sha256)
    if older is not None:
        await tx.execute(delete(Tombstone).where(col(Tombstone.sha256) == sha256))
    laid = Tombstone(
        sha256=sha256,
        mark=make_id("x")[-12:],
        keys=sorted({*keys, *(older.keys if older else ())}),
        asset_id=asset_id or (older.asset_id if older else None),
        laid_at=now,
    )
    await tx.execute(Tombstone.__table__.insert(), laid.model_dump())  # type: ignore[attr-defined]


async def list_doomed(tx: Transaction, *, limit: int) -> list[Tombstone]:
    """Tombstones whose objects may still be there."""
    statement = (
        select(Tombstone.__table__).where(col(Tombstone.removed_at).is_(None)).limit(limit)  # type: ignore[attr-defined]
    )
    return [Tombstone.of(row) for row in (await tx.execute(statement)).mappings()]


async def note_removed(tx: Transaction, tombstone: Tombstone, *, now: datetime) -> bool:
    """Its objects are gone; False when it was laid anew meanwhile, for more of them."""
    noted = await tx.execute(
        update(Tombstone)
        .where(col(Tombstone.sha256) == tombstone.sha256, col(Tombstone.mark) == tombstone.mark)
        .values(removed_at=now)
    )
    return noted.rowcount == 1


async def forget_tombstones(tx: Transaction, *, before: datetime) -> int:
    """Drop those whose objects were gone before this time."""
    return (await tx.execute(delete(Tombstone).where(col(Tombstone.removed_at) < before))).rowcount
