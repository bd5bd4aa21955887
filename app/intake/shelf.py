"""How a file of ours comes into the store: under a key that nobody is about to delete, before any row.

Whoever makes an asset (the finisher, an upload) puts the file with `shelve` and inserts the row that it
returns in a transaction of its own: `db.assets.insert_asset`, which says when the bytes were condemned
meanwhile. Until then the object is an orphan, and a sweep takes it where the row never comes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from app.audio import Clip
from app.storage import Storage, content_key, measure
from db.assets import find_assets_by_digest, find_tombstone
from db.ids import make_id
from db.session import Database
from db.tables import Asset


@dataclass(frozen=True, slots=True)
class Described:
    """What a file is, as measured by whoever puts it. Text has no length, rate or channels."""

    suffix: str
    """With its dot."""
    media_type: str
    duration_s: float = 0.0
    sample_rate: int = 0
    channels: int = 0


def described_sound(clip: Clip) -> Described:
    """A sound file as its clip says."""
    return Described(f".{clip.container}", clip.media_type, clip.duration_s, clip.sample_rate, clip.channels)


async def shelve(
    storage: Storage, database: Database, path: Path, described: Described, *, now: datetime
) -> Asset:
    """Put the file into the store; the asset to be inserted for it. Raises StorageUnavailable."""
    sha256, size_bytes = await asyncio.to_thread(measure, path)
    key, peaks_key = await _choose_keys(database, sha256, described.suffix)
    await storage.put(path, key, size_bytes=size_bytes)
    return Asset(
        id=make_id("ast"),
        sha256=sha256,
        storage_key=key,
        peaks_key=peaks_key,
        media_type=described.media_type,
        size_bytes=size_bytes,
        duration_s=round(described.duration_s, 6),
        sample_rate=described.sample_rate,
        channels=described.channels,
        created_at=now,
    )


async def _choose_keys(database: Database, sha256: str, suffix: str) -> tuple[str, str]:
    """Those of the asset with these bytes, else ones that nobody is about to delete."""
    async with database.reading() as tx:
        known = (await find_assets_by_digest(tx, [sha256])).get(sha256)
        tombstone = None if known else await find_tombstone(tx, sha256)
    if known is not None:
        return known.storage_key, known.peaks_key
    mark = tombstone.mark if tombstone else ""
    return content_key(sha256, suffix, mark=mark), content_key(sha256, ".peaks.json", mark=mark)
