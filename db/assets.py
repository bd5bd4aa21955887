"""Verbs on assets and on the outputs that point at them."""

from __future__ import annotations

from sqlalchemy import select
from sqlmodel import col

from db.session import Transaction
from db.tables import Asset, Output


async def insert_asset(tx: Transaction, asset: Asset) -> Asset:
    """Store an asset, or return the one that holds the same bytes already."""
    if await tx.insert_new(Asset, asset.model_dump()):
        return asset
    statement = select(Asset.__table__).where(col(Asset.sha256) == asset.sha256)  # type: ignore[attr-defined]
    return Asset(**(await tx.execute(statement)).mappings().one())


async def insert_output(tx: Transaction, job_id: str, name: str, asset_id: str) -> None:
    await tx.insert_new(Output, {"job_id": job_id, "name": name, "asset_id": asset_id})


async def find_asset(tx: Transaction, asset_id: str) -> Asset | None:
    statement = select(Asset.__table__).where(col(Asset.id) == asset_id)  # type: ignore[attr-defined]
    row = (await tx.execute(statement)).mappings().first()
    return Asset(**row) if row else None


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
