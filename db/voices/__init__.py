"""Verbs on voice profiles.

A voice has its recording by an upload of its own that never expires, so whoever deletes what nobody has any
more, of whatever release, leaves it alone; when the voice goes, that upload's time is up.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import FOREVER, Asset, Upload, Voice


async def insert_voice(tx: Transaction, voice: Voice) -> None:
    """Store a voice and let it keep its recording. The caller holds the asset."""
    kept = Upload(
        id=voice.upload_id,
        tenant=voice.tenant,
        asset_id=voice.asset_id,
        created_at=voice.created_at,
        expires_at=FOREVER,
    )
    await tx.execute(Upload.__table__.insert(), kept.model_dump())  # type: ignore[attr-defined]
    await tx.execute(Voice.__table__.insert(), voice.model_dump())  # type: ignore[attr-defined]


async def find_voice(tx: Transaction, voice_id: str, *, tenant: str) -> Voice | None:
    statement = select(Voice.__table__).where(_mine(voice_id, tenant))  # type: ignore[attr-defined]
    row = (await tx.execute(statement)).mappings().first()
    return Voice(**row) if row else None


async def find_recordings(tx: Transaction, voice_ids: Collection[str], *, tenant: str) -> dict[str, str]:
    """The assets of these voices' recordings, by voice; those alone that the tenant has."""
    statement = select(col(Voice.id), col(Voice.asset_id)).where(
        col(Voice.id).in_(voice_ids), col(Voice.tenant) == tenant
    )
    return {row.id: row.asset_id for row in await tx.execute(statement)}


async def find_voice_names(tx: Transaction, voice_ids: Collection[str], *, tenant: str) -> dict[str, str]:
    """What these voices are called, by id; those alone that the tenant has."""
    statement = select(col(Voice.id), col(Voice.name)).where(
        col(Voice.id).in_(voice_ids), col(Voice.tenant) == tenant
    )
    return {row.id: row.name for row in await tx.execute(statement)}


async def list_voices(tx: Transaction, tenant: str, *, before_id: str | None, limit: int) -> list[Voice]:
    """The tenant's voices, newest first."""
    statement = (
        select(Voice.__table__)  # type: ignore[attr-defined]
        .where(col(Voice.tenant) == tenant)
        .order_by(col(Voice.id).desc())
        .limit(limit)
    )
    if before_id is not None:
        statement = statement.where(col(Voice.id) < before_id)
    return [Voice(**row) for row in (await tx.execute(statement)).mappings()]


async def list_embeddings(tx: Transaction, tenant: str, *, model: str, limit: int) -> list[tuple[str, bytes]]:
    """What the tenant's voices are compared by, the newest of them."""
    statement = (
        select(col(Voice.id), col(Voice.embedding))
        .where(col(Voice.tenant) == tenant, col(Voice.embedding_model) == model)
        .order_by(col(Voice.id).desc())
        .limit(limit)
    )
    return [(row.id, row.embedding) for row in await tx.execute(statement)]


async def count_voices(tx: Transaction, tenant: str) -> int:
    found = await tx.execute(select(func.count()).select_from(Voice).where(col(Voice.tenant) == tenant))
    return int(found.scalar_one())


async def rename_voice(tx: Transaction, voice_id: str, name: str, *, tenant: str) -> bool:
    renamed = await tx.execute(update(Voice).where(_mine(voice_id, tenant)).values(name=name))
    return renamed.rowcount == 1


async def delete_voice(tx: Transaction, voice_id: str, *, tenant: str, now: datetime) -> bool:
    """Delete a voice; its recording goes when nothing else has it. False when there is none."""
    voice = await find_voice(tx, voice_id, tenant=tenant)
    if voice is None:
        return False
    deleted = await tx.execute(delete(Voice).where(_mine(voice_id, tenant)))
    await tx.execute(update(Upload).where(col(Upload.id) == voice.upload_id).values(expires_at=now))
    return deleted.rowcount == 1


async def find_recording_asset(tx: Transaction, voice: Voice) -> Asset | None:
    statement = select(Asset.__table__).where(col(Asset.id) == voice.asset_id)  # type: ignore[attr-defined]
    row = (await tx.execute(statement)).mappings().first()
    return Asset(**row) if row else None


def _mine(voice_id: str, tenant: str) -> Any:
    return (col(Voice.id) == voice_id) & (col(Voice.tenant) == tenant)
