"""What `/performance` tells, as models for its reference page: what `app.karaoke.stage.told` makes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.karaoke.stage.state import LyricsSize


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")

    performance_id: str


class StateTold(_Told):
    """The whole state."""

    title: str
    vocal_volume: float = Field(description="0 to 1, as the other")
    instrumental_volume: float
    lyrics_size: LyricsSize
    lyrics_offset: int = Field(
        description="In ms, added to the position that chooses the line: higher shows it earlier"
    )
    is_playing: bool
    current_time: float = Field(description="In seconds, at `at`")
    duration: float = Field(description="In seconds; 0: not known yet")
    version: int = Field(description="Show the highest that you have heard of")
    at: datetime
    song: dict[str, Any] | None = Field(description="As in `GET /v1/performances/{id}`, without links")


class ControlTold(StateTold):
    """The state, and what of it was changed."""

    changed: list[str]
    control: str | None = Field(None, description="With `value`, where it was one: for older players")
    value: float | str | None = None


class EntryTold(BaseModel):
    """A singer with a song."""

    model_config = ConfigDict(extra="forbid")

    id: str
    position: int | None = Field(description="From 1; null: singing now")
    singer: str
    song: dict[str, Any]
    added_at: datetime


class QueueTold(_Told):
    """The whole line of singers."""

    version: int = Field(description="Of the line, which has one of its own")
    singing: EntryTold | None
    items: list[EntryTold]


class SongTold(EntryTold, _Told):
    """Who sings now, and what."""

    version: int = Field(description="Of the line")


class DeletedTold(_Told):
    """Which it was."""


OUTGOING: dict[str, tuple[str, type[BaseModel]]] = {
    "performance_state": (
        "How it stands: to whoever joins, and when another song or title is set",
        StateTold,
    ),
    "control_updated": ("A volume, the size or the offset was changed", ControlTold),
    "playback_play": ("It plays on from `current_time`", StateTold),
    "playback_pause": ("It stands at `current_time`", StateTold),
    "playback_seek": ("It goes on from another place", StateTold),
    "queue_updated": ("The line of singers was changed: to whoever joins, too", QueueTold),
    "play_song": ("The next singer is on; the song stands at 0", SongTold),
    "performance_deleted": ("There is no such performance any more", DeletedTold),
}
