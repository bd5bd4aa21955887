"""What `/v1/performances` is asked and answers, as models; the same shapes go to Socket.IO clients."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.access.links import Links
from app.karaoke.stage.rows import queue_of, song_of, state_of
from app.karaoke.stage.singers import Entry, Queue, Song
from app.karaoke.stage.songs import MOST_TITLE_CHARS, WantedSong
from app.karaoke.stage.state import State
from app.web.schemas import Asked
from db.tables import Performance

AssetName = Annotated[str, Field(pattern=r"^ast_[0-9a-f]{32}$")]


class SongAsked(Asked):
    """A song, by the job that made its stems or by assets."""

    job_id: str | None = Field(
        None,
        pattern=r"^job_[0-9a-f]{32}$",
        description="A `stem_separation`, or a `voice_conversion` with its stems; any job with an `audio`",
    )
    vocals: AssetName | None = None
    instrumental: AssetName | None = None
    lyrics_id: str | None = Field(None, pattern=r"^lyr_[0-9a-f]{32}$")

    def wanted(self, title: str | None) -> WantedSong:
        """The song under this title."""
        return WantedSong(title, self.job_id, self.vocals, self.instrumental, self.lyrics_id)


class NewPerformance(SongAsked):
    """A performance, with its first song or none."""

    title: str = Field("Karaoke", min_length=1, max_length=MOST_TITLE_CHARS)


class PerformanceChange(SongAsked):
    """Another title, another song, or both."""

    title: str | None = Field(None, min_length=1, max_length=MOST_TITLE_CHARS)
    song_title: str | None = Field(None, min_length=1, max_length=MOST_TITLE_CHARS)


class NewSinger(SongAsked):
    """Somebody who wants to sing."""

    singer: str = Field(min_length=1, max_length=MOST_TITLE_CHARS)
    title: str | None = Field(None, min_length=1, max_length=MOST_TITLE_CHARS, description="The song's")


class StateOut(BaseModel):
    """What every screen shows, with the position as it is at `at`."""

    vocal_volume: float = Field(ge=0, le=1)
    instrumental_volume: float = Field(ge=0, le=1)
    lyrics_size: Literal["small", "medium", "large"]
    lyrics_offset: int = Field(description="Milliseconds")
    is_playing: bool
    current_time: float = Field(description="Seconds")
    duration: float = Field(description="Seconds; 0: not known")
    version: int
    at: datetime = Field(description="When `current_time` was so, by the service's clock")

    @classmethod
    def of(cls, state: State, now: datetime) -> StateOut:
        return cls(
            vocal_volume=state.vocal_volume,
            instrumental_volume=state.instrumental_volume,
            lyrics_size=state.lyrics_size,
            lyrics_offset=state.lyrics_offset,
            is_playing=state.is_playing,
            current_time=round(state.live_s(now), 3),
            duration=round(state.duration_s, 3),
            version=state.version,
            at=now,
        )


class TrackOut(BaseModel):
    """A stem."""

    asset_id: str
    url: str = Field(description="Signed and expiring; relative to the service's address")


class SongOut(BaseModel):
    """What is sung. Its files stay while a performance names them."""

    title: str
    vocals: TrackOut | None
    instrumental: TrackOut | None
    lyrics_id: str | None
    job_id: str | None
    duration_s: float = Field(description="0: not known")

    @classmethod
    def of(cls, song: Song, links: Links, tenant: str) -> SongOut:
        def track(asset_id: str | None) -> TrackOut | None:
            if asset_id is None:
                return None
            return TrackOut(asset_id=asset_id, url=links.url(asset_id, tenant=tenant))

        return cls(
            title=song.title,
            vocals=track(song.vocals),
            instrumental=track(song.instrumental),
            lyrics_id=song.lyrics_id,
            job_id=song.job_id,
            duration_s=song.duration_s,
        )


class EntryOut(BaseModel):
    """One singer with one song."""

    id: str
    position: int | None = Field(description="From 1; null for whoever sings now")
    singer: str
    song: SongOut
    added_at: datetime

    @classmethod
    def of(cls, entry: Entry, position: int | None, links: Links, tenant: str) -> EntryOut:
        return cls(
            id=entry.id,
            position=position,
            singer=entry.singer,
            song=SongOut.of(entry.song, links, tenant),
            added_at=datetime.fromisoformat(entry.added_at),
        )


class QueueOut(BaseModel):
    """The line of singers."""

    version: int
    singing: EntryOut | None
    items: list[EntryOut] = Field(description="Who waits, the next one first")

    @classmethod
    def of(cls, queue: Queue, links: Links, tenant: str) -> QueueOut:
        singing = EntryOut.of(queue.singing, None, links, tenant) if queue.singing else None
        items = [EntryOut.of(each, at, links, tenant) for at, each in enumerate(queue.waiting, 1)]
        return cls(version=queue.version, singing=singing, items=items)


class PerformanceSummary(BaseModel):
    """A performance in a list."""

    id: str
    title: str
    is_default: bool = Field(description="Whether it is meant where none is named")
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def summary(cls, row: Performance) -> PerformanceSummary:
        known = row.model_dump(include={"id", "title", "version", "created_at", "updated_at"})
        return cls(**known, is_default=row.default_of is not None)


class PerformanceOut(PerformanceSummary):
    """A performance as it stands."""

    state: StateOut
    song: SongOut | None
    queue: QueueOut

    @classmethod
    def of(cls, row: Performance, links: Links, now: datetime) -> PerformanceOut:
        song = song_of(row)
        return cls(
            **PerformanceSummary.summary(row).model_dump(),
            state=StateOut.of(state_of(row), now),
            song=SongOut.of(song, links, row.tenant) if song else None,
            queue=QueueOut.of(queue_of(row), links, row.tenant),
        )
