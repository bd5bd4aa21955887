"""Verbs on resumable uploads while they come: one writer at a time, an offset that only pieces move.

Whoever writes holds the lease, renewed while bytes come; one that has run out is taken over. Every move of
the offset names the lease and the place it moves from, so that a writer who was overtaken moves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import PartialUpload, UploadPiece


async def insert_partial(tx: Transaction, partial: PartialUpload) -> None:
    await tx.execute(PartialUpload.__table__.insert(), partial.model_dump())  # type: ignore[attr-defined]


async def find_partial(tx: Transaction, upload_id: str, *, tenant: str) -> PartialUpload | None:
    """One of this tenant's, also when its time is over."""
    return await _find(tx, col(PartialUpload.id) == upload_id, col(PartialUpload.tenant) == tenant)


async def count_partials(tx: Transaction, tenant: str) -> int:
    counted = select(func.count()).select_from(PartialUpload).where(col(PartialUpload.tenant) == tenant)
    return int((await tx.execute(counted)).scalar_one())


async def take_lease(
    tx: Transaction, upload_id: str, *, lease: str, now: datetime, lease_s: float
) -> PartialUpload | None:
    """The row, to be written to by nobody else until the lease runs out; None while somebody else has it."""
    free = or_(
        col(PartialUpload.lease).is_(None),
        col(PartialUpload.lease) == lease,
        col(PartialUpload.lease_until) <= tx.clock(now),
    )
    taken = await tx.execute(
        update(PartialUpload)
        .where(col(PartialUpload.id) == upload_id, free)
        .values(lease=lease, lease_until=tx.clock(now, later_s=lease_s))
    )
    return await _find(tx, col(PartialUpload.id) == upload_id) if taken.rowcount == 1 else None


async def renew_lease(tx: Transaction, upload_id: str, *, lease: str, now: datetime, lease_s: float) -> bool:
    """Say that the writer is alive; False when it is not the writer any more."""
    renewed = update(PartialUpload).where(*_held(upload_id, lease))
    return (await tx.execute(renewed.values(lease_until=tx.clock(now, later_s=lease_s)))).rowcount == 1


async def release_lease(tx: Transaction, upload_id: str, *, lease: str) -> None:
    released = update(PartialUpload).where(*_held(upload_id, lease))
    await tx.execute(released.values(lease=None, lease_until=None))


async def append_pieces(
    tx: Transaction, pieces: Sequence[UploadPiece], *, lease: str, expires_at: datetime
) -> bool:
    """Move the offset past these pieces, which follow one another; False for a writer that was overtaken.

    Once more after it was committed it changes nothing and says the same.
    """
    first, last = pieces[0], pieces[-1]
    end = last.start_bytes + last.size_bytes
    moved = await tx.execute(
        update(PartialUpload)
        .where(*_held(first.upload_id, lease), col(PartialUpload.offset_bytes) == first.start_bytes)
        .values(offset_bytes=end, pieces=col(PartialUpload.pieces) + len(pieces), expires_at=expires_at)
    )
    if moved.rowcount != 1:
        found = await _find(tx, *_held(first.upload_id, lease))
        return found is not None and found.offset_bytes == end
    await tx.execute(UploadPiece.__table__.insert(), [each.model_dump() for each in pieces])  # type: ignore[attr-defined]
    return True


async def list_pieces(tx: Transaction, upload_id: str) -> list[UploadPiece]:
    """In the order of their bytes."""
    statement = (
        select(UploadPiece.__table__)  # type: ignore[attr-defined]
        .where(col(UploadPiece.upload_id) == upload_id)
        .order_by(col(UploadPiece.start_bytes))
    )
    return [UploadPiece(**row) for row in (await tx.execute(statement)).mappings()]


async def delete_partial(tx: Transaction, upload_id: str, *, lease: str) -> bool:
    """Let its writer take it out, with its pieces; False for a writer that was overtaken."""
    held = await tx.execute(select(col(PartialUpload.id)).where(*_held(upload_id, lease)).with_for_update())
    if held.first() is None:
        return False
    await _delete(tx, [upload_id])
    return True


async def end_partial(tx: Transaction, upload_id: str, *, tenant: str) -> list[str] | None:
    """Take out one of this tenant's, whoever writes to it; the objects it had. None: there is none."""
    mine = col(PartialUpload.id) == upload_id, col(PartialUpload.tenant) == tenant
    found = await tx.execute(select(col(PartialUpload.id)).where(*mine).with_for_update())
    return None if found.first() is None else await _delete(tx, [upload_id])


async def delete_expired_partials(tx: Transaction, *, now: datetime, limit: int) -> tuple[int, list[str]]:
    """Take out those past their time, the oldest first; how many, and the objects they had."""
    statement = (
        select(col(PartialUpload.id))
        .where(col(PartialUpload.expires_at) <= now)
        .order_by(col(PartialUpload.expires_at))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    expired = list((await tx.execute(statement)).scalars())
    return len(expired), await _delete(tx, expired) if expired else []


async def find_partial_ids(tx: Transaction, upload_ids: Collection[str]) -> set[str]:
    """Which of these there are."""
    there = select(col(PartialUpload.id)).where(col(PartialUpload.id).in_(upload_ids))
    return set((await tx.execute(there)).scalars())


def _held(upload_id: str, lease: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return col(PartialUpload.id) == upload_id, col(PartialUpload.lease) == lease


async def _find(tx: Transaction, *which: ColumnElement[bool]) -> PartialUpload | None:
    row = (await tx.execute(select(PartialUpload.__table__).where(*which))).mappings().first()  # type: ignore[attr-defined]
    return PartialUpload(**row) if row else None


async def _delete(tx: Transaction, upload_ids: Sequence[str]) -> list[str]:
    keys = select(col(UploadPiece.storage_key)).where(col(UploadPiece.upload_id).in_(upload_ids))
    found = list((await tx.execute(keys)).scalars())
    await tx.execute(delete(UploadPiece).where(col(UploadPiece.upload_id).in_(upload_ids)))
    await tx.execute(delete(PartialUpload).where(col(PartialUpload.id).in_(upload_ids)))
    return found
