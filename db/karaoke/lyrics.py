"""Verbs on lyrics. A new version is written by whoever holds the row and knows its newest number."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import Lyrics, LyricsVersion

_LYRICS = Lyrics.__table__  # type: ignore[attr-defined]
_VERSIONS = LyricsVersion.__table__  # type: ignore[attr-defined]


async def insert_lyrics(tx: Transaction, lyrics: Lyrics, first: LyricsVersion) -> None:
    """Store lyrics with their first version."""
    await tx.execute(_LYRICS.insert(), lyrics.model_dump())
    await tx.execute(_VERSIONS.insert(), first.model_dump())


async def find_lyrics(tx: Transaction, lyrics_id: str, *, tenant: str, lock: bool = False) -> Lyrics | None:
    """A tenant's lyrics without what they say; with `lock` held until the commit."""
    statement = select(_LYRICS).where(_LYRICS.c.id == lyrics_id, _LYRICS.c.tenant == tenant)
    if lock:
        statement = statement.with_for_update()
    row = (await tx.execute(statement)).mappings().first()
    return Lyrics(**row) if row else None


async def list_lyrics(tx: Transaction, *, tenant: str, before_id: str | None, limit: int) -> list[Lyrics]:
    """The tenant's, newest first."""
    statement = select(_LYRICS).where(_LYRICS.c.tenant == tenant)
    if before_id is not None:
        statement = statement.where(_LYRICS.c.id < before_id)
    found = await tx.execute(statement.order_by(_LYRICS.c.id.desc()).limit(limit))
    return [Lyrics(**row) for row in found.mappings()]


async def find_version(tx: Transaction, lyrics_id: str, number: int) -> LyricsVersion | None:
    statement = select(_VERSIONS).where(_VERSIONS.c.lyrics_id == lyrics_id, _VERSIONS.c.number == number)
    row = (await tx.execute(statement)).mappings().first()
    return LyricsVersion(**row) if row else None


async def list_versions(tx: Transaction, lyrics_id: str) -> list[LyricsVersion]:
    """All that are kept, the newest first, without their lines."""
    columns = [column for column in _VERSIONS.columns if column.name != "lines"]
    statement = select(*columns).where(_VERSIONS.c.lyrics_id == lyrics_id).order_by(_VERSIONS.c.number.desc())
    return [LyricsVersion(**row, lines=[]) for row in (await tx.execute(statement)).mappings()]


async def add_version(tx: Transaction, version: LyricsVersion, *, keep: int, **values: Any) -> bool:
    """Make it the newest, where its number follows on the newest; False where another came first.

    `values` go into the lyrics' row; of all versions the newest `keep` stay.
    """
    moved = await tx.execute(
        update(Lyrics)
        .where(col(Lyrics.id) == version.lyrics_id, col(Lyrics.version) == version.number - 1)
        .values(version=version.number, updated_at=version.made_at, **values)
    )
    if moved.rowcount != 1:
        return False
    await tx.execute(_VERSIONS.insert(), version.model_dump())
    old = _VERSIONS.c.number <= version.number - keep
    await tx.execute(delete(LyricsVersion).where(_VERSIONS.c.lyrics_id == version.lyrics_id, old))
    return True


async def rename_lyrics(tx: Transaction, lyrics_id: str, *, title: str, now: datetime) -> None:
    """What they are called is no part of any version."""
    renamed = update(Lyrics).where(col(Lyrics.id) == lyrics_id)
    await tx.execute(renamed.values(title=title, updated_at=now))


async def delete_lyrics(tx: Transaction, lyrics_id: str) -> None:
    # The versions first: SQLite looks after foreign keys only where it is asked to.
    await tx.execute(delete(LyricsVersion).where(col(LyricsVersion.lyrics_id) == lyrics_id))
    await tx.execute(delete(Lyrics).where(col(Lyrics.id) == lyrics_id))
