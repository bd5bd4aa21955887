"""The messages of `/performance`, as models: what a device may say.

Names are those of the HTTP API; what older players say (`control` with `value`, `isPlaying`, `currentTime`)
is taken too. Numbers must be finite and in range: JSON as Python reads it has a NaN.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, Field, model_validator

from app.errors import InvalidInput
from app.karaoke.stage.state import (
    MOST_OFFSET_MS,
    MOST_POSITION_S,
    Control,
    LyricsSize,
    Pause,
    Play,
    Report,
    Seek,
)
from app.karaoke.stage.told import CONTROLS
from app.web.schemas import Asked

Volume = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=MOST_POSITION_S, allow_inf_nan=False)]
_PLACE = AliasChoices("current_time", "currentTime", "position")


class Join(Asked):
    """Come into a performance: the tenant's own where none is named, or the one that a token is for."""

    performance_id: str | None = Field(None, pattern=r"^prf_[0-9a-f]{32}$")


class Leave(Asked):
    """Go out of it."""

    performance_id: str | None = Field(None, max_length=64)
    """The one that this device is in, whatever stands here."""


class UpdateControl(Asked):
    """New values of one or more controls."""

    vocal_volume: Volume | None = None
    instrumental_volume: Volume | None = None
    lyrics_size: LyricsSize | None = None
    lyrics_offset: int | None = Field(None, ge=-MOST_OFFSET_MS, le=MOST_OFFSET_MS)

    @model_validator(mode="before")
    @classmethod
    def _of_older_players(cls, given: Any) -> Any:
        if isinstance(given, dict) and set(given) == {"control", "value"} and given["control"] in CONTROLS:
            return {given["control"]: given["value"]}
        return given

    def command(self) -> Control:
        """Raises InvalidInput where it names no control."""
        values = self.model_dump(exclude_none=True)
        if not values:
            raise InvalidInput(f"name one of {', '.join(CONTROLS)}", field="vocal_volume")
        return Control(**values)


class PlaybackPlay(Asked):
    """Go on, here or there."""

    current_time: Seconds | None = Field(None, validation_alias=_PLACE)

    def command(self) -> Play:
        return Play(self.current_time)


class PlaybackPause(Asked):
    """Stand."""

    current_time: Seconds | None = Field(None, validation_alias=_PLACE)

    def command(self) -> Pause:
        return Pause(self.current_time)


class PlaybackSeek(Asked):
    """Be there."""

    current_time: Seconds = Field(validation_alias=_PLACE)

    def command(self) -> Seek:
        return Seek(self.current_time)


class PlayerState(Asked):
    """What a player says of itself, a few times a second. It commands nothing."""

    is_playing: bool = Field(validation_alias=AliasChoices("is_playing", "isPlaying"))
    current_time: Seconds = Field(validation_alias=_PLACE)
    duration: Seconds = 0.0
    ended: bool = False
    version: int | None = Field(None, ge=0, le=2**31 - 1)
    """The newest that it has heard of: without it, the player cannot move the position."""

    def report(self, *, is_alone: bool) -> Report:
        return Report(
            self.current_time, self.is_playing, self.duration, self.ended, self.version, is_alone
        )  # fmt: skip
