"""Verbs on access keys. A key's row is never deleted: that there ever was one is what closes the house."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Select, or_, select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import AccessKey

MOST_TOGETHER = 500
"""Ids in one statement."""
_KEYS = AccessKey.__table__  # type: ignore[attr-defined]


async def insert_access_key(tx: Transaction, key: AccessKey) -> None:
    await tx.execute(_KEYS.insert(), key.model_dump())


async def find_key_of(tx: Transaction, digest: str) -> AccessKey | None:
    """The key whose text has this SHA-256, whatever became of it."""
    return await _first(tx, select(_KEYS).where(col(AccessKey.digest) == digest))


async def find_access_key(
    tx: Transaction, key_id: str, *, tenant: str | None, lock: bool = False
) -> AccessKey | None:
    """A key by its id; with `tenant`, only if it is one of theirs. `lock` holds the row to the commit."""
    statement = select(_KEYS).where(col(AccessKey.id) == key_id)
    if tenant is not None:
        statement = statement.where(col(AccessKey.tenant) == tenant)
    return await _first(tx, statement.with_for_update() if lock else statement)


async def list_access_keys(
    tx: Transaction, *, tenant: str | None, before_id: str | None, limit: int
) -> list[AccessKey]:
    """Newest first, of one tenant or of all."""
    statement = select(_KEYS).order_by(col(AccessKey.id).desc()).limit(limit)
    if tenant is not None:
        statement = statement.where(col(AccessKey.tenant) == tenant)
    if before_id is not None:
        statement = statement.where(col(AccessKey.id) < before_id)
    return [AccessKey(**row) for row in (await tx.execute(statement)).mappings()]


async def find_ended(tx: Transaction, key_ids: Collection[str], *, now: datetime) -> set[str]:
    """Those of these keys that prove nothing any more: revoked, expired, or never made."""
    holding = or_(col(AccessKey.expires_at).is_(None), col(AccessKey.expires_at) > now)
    ended = set(key_ids)
    wanted = sorted(ended)
    for at in range(0, len(wanted), MOST_TOGETHER):
        statement = select(col(AccessKey.id)).where(
            col(AccessKey.id).in_(wanted[at : at + MOST_TOGETHER]),
            col(AccessKey.revoked_at).is_(None),
            holding,
        )
        ended.difference_update((await tx.execute(statement)).scalars())
    return ended


async def has_access_keys(tx: Transaction) -> bool:
    """Whether a key was ever made, whatever became of it."""
    return (await tx.execute(select(col(AccessKey.id)).limit(1))).first() is not None


async def revoke_access_key(tx: Transaction, key_id: str, *, at: datetime) -> bool:
    """End a key; False when it has been ended before."""
    statement = update(AccessKey).where(col(AccessKey.id) == key_id, col(AccessKey.revoked_at).is_(None))
    return (await tx.execute(statement.values(revoked_at=at))).rowcount == 1


async def shorten_access_key(tx: Transaction, key_id: str, *, expires_at: datetime) -> None:
    """Let a key end at this time, unless it does so sooner."""
    later = or_(col(AccessKey.expires_at).is_(None), col(AccessKey.expires_at) > expires_at)
    statement = update(AccessKey).where(col(AccessKey.id) == key_id, later)
    await tx.execute(statement.values(expires_at=expires_at))


async def note_key_used(tx: Transaction, key_id: str, *, at: datetime, unless_since: datetime) -> None:
    """Write down a use, unless one since then is written already."""
    stale = or_(col(AccessKey.last_used_at).is_(None), col(AccessKey.last_used_at) < unless_since)
    await tx.execute(update(AccessKey).where(col(AccessKey.id) == key_id, stale).values(last_used_at=at))


async def _first(tx: Transaction, statement: Select[AccessKey]) -> AccessKey | None:
    row = (await tx.execute(statement)).mappings().first()
    return AccessKey(**row) if row else None
