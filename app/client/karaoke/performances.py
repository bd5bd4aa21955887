"""Performances and their singers: answers as values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import Field

from app.client.models import Fact


class StageState(Fact):
    """What every screen of a performance shows, with the position as it was at `at`."""

    vocal_volume: float
    instrumental_volume: float
    lyrics_size: str
    lyrics_offset: int
    """Milliseconds."""
    is_playing: bool
    current_time: float
    """Seconds."""
    duration: float
    """Seconds; 0: not known."""
    version: int
    at: datetime
    """When `current_time` was so, by the service's clock."""


class Track(Fact):
    """A stem."""

    asset_id: str
    url: str = Field(repr=False)
    """Signed and expiring; relative to the service's address."""


class Song(Fact):
    """What is sung."""

    title: str
    vocals: Track | None
    instrumental: Track | None
    lyrics_id: str | None
    job_id: str | None
    duration_s: float
    """0: not known."""


class Singer(Fact):
    """One singer with one song."""

    id: str
    position: int | None
    """From 1; None for whoever sings now."""
    singer: str
    song: Song
    added_at: datetime


class Singers(Fact):
    """The line of singers."""

    version: int
    """Whoever changes the line may name it."""
    singing: Singer | None
    items: Sequence[Singer]
    """Who waits, the next one first."""


class PerformanceFacts(Fact):
    """A performance in a list."""

    id: str
    title: str
    is_default: bool
    """Whether it is meant where none is named."""
    version: int
    created_at: datetime
    updated_at: datetime


class Performance(PerformanceFacts):
    """A performance as it stands."""

    state: StageState
    song: Song | None
    queue: Singers


class RemoteToken(Fact):
    """What opens one performance to a guest's phone, and nothing else."""

    token: str = Field(repr=False)
    expires_at: datetime
    url: str = Field(repr=False)
    """A page for the phone, with the token behind `#`: for a QR code."""
