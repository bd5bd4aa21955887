"""The line of singers: who sings, and who waits in which order. Pure.

Whoever sings has left the line and stands beside it, so no removal can promote anybody by renumbering; a
place in the line is the index in a list, counted from 1, and nothing else stores it. Each change counts the
version up by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from app.errors import Conflict, InvalidInput, NotFound

MOST_WAITING = 200


class QueueFull(Conflict):
    """As many singers wait as one performance takes."""

    code = "queue_full"


@dataclass(frozen=True, slots=True)
class Song:
    """What is sung: two stems to be mixed in the room, and lyrics. Ids of assets and of lyrics."""

    title: str
    vocals: str | None = None
    instrumental: str | None = None
    lyrics_id: str | None = None
    job_id: str | None = None
    """The job that made the stems, where one was named."""
    duration_s: float = 0.0
    """0: not known."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One singer with one song."""

    id: str
    singer: str
    song: Song
    added_at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Who sings, who waits, and which version of that this is."""

    singing: Entry | None = None
    waiting: tuple[Entry, ...] = ()
    version: int = 0


def add(queue: Queue, entry: Entry) -> Queue:
    """To the end of the line. Raises QueueFull."""
    if len(queue.waiting) >= MOST_WAITING:
        raise QueueFull(f"{MOST_WAITING} singers wait already")
    return _changed(queue, waiting=(*queue.waiting, entry))


def remove(queue: Queue, entry_id: str) -> Queue:
    """Out of the line; or off the stage, and then nobody sings. Raises NotFound."""
    if queue.singing is not None and queue.singing.id == entry_id:
        return _changed(queue, singing=None)
    waiting = tuple(entry for entry in queue.waiting if entry.id != entry_id)
    if len(waiting) == len(queue.waiting):
        raise NotFound(f"there is no singer {entry_id[:64]} here")
    return _changed(queue, waiting=waiting)


def reorder(queue: Queue, ids: Sequence[str]) -> Queue:
    """The line in this order, which names everybody in it once. Raises InvalidInput, Conflict."""
    if len(set(ids)) != len(ids):
        raise InvalidInput("ids: each singer stands in the line once", field="ids")
    by_id = {entry.id: entry for entry in queue.waiting}
    if set(ids) != set(by_id):
        raise Conflict("ids: they are not those who wait; read the line again")
    waiting = tuple(by_id[each] for each in ids)
    return queue if waiting == queue.waiting else _changed(queue, waiting=waiting)


def move(queue: Queue, entry_id: str, *, to: int) -> Queue:
    """One singer to a place in the line, from 1; beyond the last is the last. Raises NotFound."""
    entry = next((each for each in queue.waiting if each.id == entry_id), None)
    if entry is None:
        raise NotFound(f"there is no singer {entry_id[:64]} in the line")
    others = [each for each in queue.waiting if each.id != entry_id]
    others.insert(max(0, to - 1), entry)
    waiting = tuple(others)
    return queue if waiting == queue.waiting else _changed(queue, waiting=waiting)


def advance(queue: Queue) -> Queue:
    """The first in the line sings; where nobody waits, nobody does."""
    if queue.waiting:
        return _changed(queue, singing=queue.waiting[0], waiting=queue.waiting[1:])
    return queue if queue.singing is None else _changed(queue, singing=None)


def as_row(queue: Queue) -> dict[str, Any]:
    """As it is stored, without the version: plain JSON."""
    return {
        "singing": asdict(queue.singing) if queue.singing else None,
        "waiting": [asdict(entry) for entry in queue.waiting],
    }


def of_row(row: dict[str, Any], version: int) -> Queue:
    """A queue as `as_row` has written it."""
    singing = row.get("singing")
    waiting = tuple(_entry(each) for each in row.get("waiting", ()))
    return Queue(_entry(singing) if singing else None, waiting, version)


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(row["id"], row["singer"], Song(**row["song"]), row["added_at"])


def _changed(queue: Queue, **values: Any) -> Queue:
    return replace(queue, **values, version=queue.version + 1)
