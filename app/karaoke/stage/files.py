"""Which files a performance keeps: those of the song that is loaded, and of everybody in the line.

Promises: in the transaction that puts a song into a performance its files are kept, whatever becomes of the
job or upload that they came from; in the one that takes the last mention of a file out, it is let go. The
uploads that keep them are noted in the row beside the line, where no device sees them.
"""

from __future__ import annotations

from datetime import datetime

from app.karaoke.stage.rows import queue_of, song_of
from db.session import Transaction
from db.tables import Performance
from db.uploads import keep_assets, let_go

_KEPT = "files"
"""In the row's `queue`: by asset the upload that keeps it."""


async def keep_files(tx: Transaction, row: Performance, *, before: Performance | None = None) -> Performance:
    """The row as it is to be written, after `before`, with the files of its songs kept until it changes."""
    if before is not None and row.song is before.song and row.queue is before.queue:
        return row  # A slider was moved.
    held: dict[str, str] = before.queue.get(_KEPT, {}) if before is not None else {}
    named = _named(row)
    now = row.updated_at
    # What is not there any more, of a performance that kept nothing once, is passed over.
    kept = await keep_assets(tx, named - held.keys(), tenant=row.tenant, now=now)
    await let_go(tx, [upload_id for asset_id, upload_id in held.items() if asset_id not in named], now=now)
    kept |= {asset_id: upload_id for asset_id, upload_id in held.items() if asset_id in named}
    return row.model_copy(update={"queue": {**row.queue, _KEPT: kept}})


async def drop_files(tx: Transaction, row: Performance, now: datetime) -> None:
    """Let go of all: the performance is being deleted."""
    await let_go(tx, list(row.queue.get(_KEPT, {}).values()), now=now)


def _named(row: Performance) -> set[str]:
    queue, loaded = queue_of(row), song_of(row)
    entries = (queue.singing, *queue.waiting) if queue.singing else queue.waiting
    songs = [*(entry.song for entry in entries), *([loaded] if loaded else [])]
    return {asset_id for song in songs for asset_id in (song.vocals, song.instrumental) if asset_id}
