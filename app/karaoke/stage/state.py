"""What the devices of one performance share, and the law by which it changes. Pure.

`apply(state, command, now)` is the only way from one state to the next; each change counts `version` up by
one, and a command that changes nothing returns the very state. Every device shows the state with the highest
version that it has heard of, so all end with the same values, in whatever order they hear.

The position is kept as (where, since when): the live position is computed from it, by whoever asks, at any
time, so a device that comes late is where the others are and nothing is written while a song plays on. A
player's reports are no commands. They say how long the song is and that it has ended; and the position
follows the player where it is the only one. A report that was made before the last seek, pause or play
(`seen_version` below `moved_version`) says nothing about the position.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

LyricsSize = Literal["small", "medium", "large"]

MOST_OFFSET_MS = 60_000
MOST_POSITION_S = 43_200.0
END_S = 0.5
"""So close to the end a player that has stopped has come to it."""
LATE_S = 5.0
"""How far before the end by our clock a player that knows no versions may say that it has ended."""
DRIFT_S = 1.0
"""How far a player may be off before the position follows it."""
SETTLE_S = 3.0
"""The shortest time between two such corrections, and after a seek."""


@dataclass(frozen=True, slots=True)
class State:
    """What every screen shows. `vocal_volume` is 0 because the singer is in the room."""

    position_at: datetime
    """When the song was at `position_s`."""
    vocal_volume: float = 0.0
    instrumental_volume: float = 1.0
    lyrics_size: str = "medium"
    lyrics_offset: int = 0
    """Milliseconds; the current line is the last that begins by position + offset."""
    is_playing: bool = False
    position_s: float = 0.0
    duration_s: float = 0.0
    """0: not known."""
    version: int = 0
    moved_version: int = 0
    """The version that last set the position."""

    def live_s(self, now: datetime) -> float:
        """Where the song is now."""
        gone_s = max(0.0, (now - self.position_at).total_seconds()) if self.is_playing else 0.0
        return _within(self.position_s + gone_s, self.duration_s)


@dataclass(frozen=True, slots=True)
class Control:
    """New values of controls; None: as it is."""

    vocal_volume: float | None = None
    instrumental_volume: float | None = None
    lyrics_size: LyricsSize | None = None
    lyrics_offset: int | None = None


@dataclass(frozen=True, slots=True)
class Play:
    """Go on; from `position_s` where one is given, from the beginning where the song has ended."""

    position_s: float | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Stand; at `position_s` where one is given."""

    position_s: float | None = None


@dataclass(frozen=True, slots=True)
class Seek:
    """Be there, and go on as before."""

    position_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """Another song: it stands at its beginning until somebody plays it."""

    duration_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a player says of itself."""

    position_s: float
    is_playing: bool
    duration_s: float = 0.0
    ended: bool = False
    seen_version: int | None = None
    """The newest version that it has heard of; None: it does not say."""
    is_alone: bool = False
    """Whether it is the only player that reports."""


Command = Control | Play | Pause | Seek | Load | Report


def apply(state: State, command: Command, now: datetime) -> State:
    """The next state; the very same object where nothing changes."""
    match command:
        case Control():
            return _control(state, command)
        case Play():
            return _play(state, command, now)
        case Pause():
            return _pause(state, command, now)
        case Seek():
            return _moved(state, now, position_s=command.position_s)
        case Load():
            loaded = replace(state, is_playing=False, duration_s=max(0.0, command.duration_s))
            return _moved(loaded, now, position_s=0.0)
        case Report():
            return _report(state, command, now)


def has_ended(before: State, after: State) -> bool:
    """Whether the song came to its end between the two, and not to a pause or another song."""
    return before.is_playing and not after.is_playing and 0 < after.duration_s <= after.position_s


def _control(state: State, wanted: Control) -> State:
    values = {
        name: value
        for name in ("vocal_volume", "instrumental_volume", "lyrics_size", "lyrics_offset")
        if (value := getattr(wanted, name)) is not None and value != getattr(state, name)
    }
    return replace(state, **values, version=state.version + 1) if values else state


def _play(state: State, wanted: Play, now: datetime) -> State:
    live_s = state.live_s(now)
    if state.is_playing and (wanted.position_s is None or abs(wanted.position_s - live_s) <= DRIFT_S):
        return state
    position_s = live_s if wanted.position_s is None else wanted.position_s
    if 0 < state.duration_s <= position_s:
        position_s = 0.0
    return _moved(replace(state, is_playing=True), now, position_s=position_s)


def _pause(state: State, wanted: Pause, now: datetime) -> State:
    if not state.is_playing:
        return state
    # At our position, unless the player's own is near it: a phone that was asleep does not move the song.
    position_s = live_s = state.live_s(now)
    if wanted.position_s is not None and abs(wanted.position_s - live_s) <= DRIFT_S:
        position_s = wanted.position_s
    return _moved(replace(state, is_playing=False), now, position_s=position_s)


def _report(state: State, said: Report, now: datetime) -> State:
    if state.duration_s == 0 < said.duration_s <= MOST_POSITION_S:
        # Somebody may have sought beyond: then it stands at the end.
        position_s = min(state.position_s, said.duration_s)
        state = replace(state, duration_s=said.duration_s, position_s=position_s, version=state.version + 1)
    if not state.is_playing:
        return state
    if _says_ended(state, said):
        return _end(state, now) if _may_end(state, said, now) else state
    drift_s = abs(_within(said.position_s, state.duration_s) - state.live_s(now))
    is_fresh = said.seen_version is not None and said.seen_version >= state.moved_version
    has_settled = (now - state.position_at).total_seconds() >= SETTLE_S
    if said.is_alone and said.is_playing and is_fresh and has_settled and drift_s > DRIFT_S:
        return _moved(state, now, position_s=said.position_s)
    return state


def _says_ended(state: State, said: Report) -> bool:
    if not state.duration_s:
        return said.ended
    return said.ended or (not said.is_playing and said.position_s >= state.duration_s - END_S)


def _may_end(state: State, said: Report, now: datetime) -> bool:
    """Whether a player that has ended speaks of what is played now, and not of what was before a seek."""
    if said.seen_version is not None:
        return said.seen_version >= state.moved_version
    return bool(state.duration_s) and state.live_s(now) >= state.duration_s - LATE_S


def _end(state: State, now: datetime) -> State:
    # Where nobody knew how long it is, it is as long as it was played.
    duration_s = state.duration_s or max(state.live_s(now), 0.001)
    stopped = replace(state, is_playing=False, duration_s=duration_s)
    return _moved(stopped, now, position_s=duration_s)


def _moved(state: State, now: datetime, *, position_s: float) -> State:
    version = state.version + 1
    position_s = _within(position_s, state.duration_s)
    return replace(
        state, position_s=position_s, position_at=now, version=version, moved_version=version
    )  # fmt: skip


def _within(position_s: float, duration_s: float) -> float:
    return min(max(position_s, 0.0), duration_s or MOST_POSITION_S)
