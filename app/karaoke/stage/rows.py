"""A performance's row as the pure parts see it, and back. Pure."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from app.karaoke.stage import singers
from app.karaoke.stage.singers import Queue, Song
from app.karaoke.stage.state import State
from db.tables import Performance

_SHARED = (
    "vocal_volume", "instrumental_volume", "lyrics_size", "lyrics_offset", "is_playing", "position_s",
    "position_at", "duration_s", "version", "moved_version",
)  # fmt: skip


def state_of(row: Performance) -> State:
    """What its devices share."""
    return State(**{name: getattr(row, name) for name in _SHARED})


def queue_of(row: Performance) -> Queue:
    """Its singers."""
    return singers.of_row(row.queue, row.queue_version)


def song_of(row: Performance) -> Song | None:
    """What is played; None: nothing yet."""
    return Song(**row.song) if row.song else None


def changed(
    row: Performance,
    now: datetime,
    *,
    state: State | None = None,
    queue: Queue | None = None,
    song: Song | None = None,
    title: str | None = None,
) -> Performance:
    """The row with these in the place of what it had."""
    values: dict[str, object] = {"updated_at": now}
    if state is not None:
        values |= {name: getattr(state, name) for name in _SHARED}
    if queue is not None:
        values |= {"queue": singers.as_row(queue), "queue_version": queue.version}
    if song is not None:
        values["song"] = asdict(song)
    if title is not None:
        values["title"] = title
    return row.model_copy(update=values)
