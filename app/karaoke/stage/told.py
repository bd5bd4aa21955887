"""What is said to the devices when a performance has changed: which events, and what they carry. Pure.

Each event carries the whole state with its version, and its name says what changed: a device that missed one,
or hears two in the wrong order, is right again with the next. Payloads name files by the ids of their assets
alone, because guests hear them too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from app.karaoke.stage.rows import queue_of, state_of
from app.karaoke.stage.singers import Entry
from db.tables import Performance

CONTROLS = ("vocal_volume", "instrumental_volume", "lyrics_size", "lyrics_offset")
Told = tuple[str, dict[str, Any]]


def state_payload(row: Performance, now: datetime) -> dict[str, Any]:
    """The state as every screen shows it, with the position at `at`."""
    state = state_of(row)
    return {
        "performance_id": row.id,
        "title": row.title,
        **{name: getattr(state, name) for name in CONTROLS},
        "is_playing": state.is_playing,
        "current_time": round(state.live_s(now), 3),
        "duration": round(state.duration_s, 3),
        "version": state.version,
        "at": now.isoformat(),
        "song": row.song or None,
    }


def queue_payload(row: Performance) -> dict[str, Any]:
    """The line of singers; places are counted from 1."""
    queue = queue_of(row)
    return {
        "performance_id": row.id,
        "version": queue.version,
        "singing": _entry(queue.singing, None) if queue.singing else None,
        "items": [_entry(each, at) for at, each in enumerate(queue.waiting, 1)],
    }


def events_between(before: Performance, after: Performance, now: datetime) -> Iterator[Told]:
    """What has happened between two looks at one performance, the state before the singers."""
    if (before.song, before.title) != (after.song, after.title):
        yield "performance_state", state_payload(after, now)
    elif before.version != after.version:
        yield from _state_events(before, after, now)
    if before.queue_version == after.queue_version:
        return
    yield "queue_updated", queue_payload(after)
    was, singing = queue_of(before).singing, queue_of(after).singing
    if singing is not None and (was is None or was.id != singing.id):
        yield (
            "play_song",
            {
                "performance_id": after.id,
                "version": after.queue_version,
                **_entry(singing, None),
            },
        )


def _state_events(before: Performance, after: Performance, now: datetime) -> Iterator[Told]:
    payload = state_payload(after, now)
    changed = [name for name in CONTROLS if getattr(before, name) != getattr(after, name)]
    if changed:
        # Clients of older players know one control at a time, by these two words.
        one = {"control": changed[0], "value": payload[changed[0]]} if len(changed) == 1 else {}
        yield "control_updated", {**payload, "changed": changed, **one}
    if before.is_playing != after.is_playing:
        yield ("playback_play" if after.is_playing else "playback_pause"), payload
    elif before.moved_version != after.moved_version:
        yield "playback_seek", payload
    elif not changed:
        yield "performance_state", payload


def _entry(entry: Entry, position: int | None) -> dict[str, Any]:
    return {
        "id": entry.id,
        "position": position,
        "singer": entry.singer,
        "song": asdict(entry.song),
        "added_at": entry.added_at,
    }
