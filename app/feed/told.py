"""What a feed tells besides events, and what a reader wants of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from db.feed import FeedRow


@dataclass(frozen=True, slots=True)
class Wanted:
    """Every field narrows; None leaves it open."""

    kind: str | None = None
    type: str | None = None
    state: str | None = None
    """The state that the job was in after the event."""
    job_id: str | None = None
    """Also a job that does a part of another's work; without it such jobs are left out."""

    def takes(self, row: FeedRow) -> bool:
        """Whether this event is wanted. Which job it is of, the reading has seen to."""
        return (
            (self.job_id is not None or row.parent_id is None)
            and (self.kind is None or row.kind == self.kind)
            and (self.type is None or row.type == self.type)
            and (self.state is None or row.data.get("status") == self.state)
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Events after a position, and where the next page begins."""

    rows: Sequence[FeedRow]
    position: int
    """Up to where the feed was looked at: the next page begins after it."""
    has_more: bool
    is_reset: bool = False
    """Events after the position that was asked for are gone: read the jobs anew, go on from `position`."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream stands there."""

    position: int


@dataclass(frozen=True, slots=True)
class Moved:
    """Nothing that is wanted happened up to there."""

    position: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The position is not one that the feed can go on from; it goes on from this one."""

    position: int


class End(StrEnum):
    """Why a stream ends."""

    STOPPING = "stopping"
    """This process stops: another one goes on from the position."""
    TOO_SLOW = "too_slow"
    """The reader let a single event wait for too long."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The stream's last word."""

    position: int
    reason: End


Told = Opened | Moved | Reset | Closed | FeedRow


def without_superseded(rows: Sequence[FeedRow]) -> list[FeedRow]:
    """For a reader that cannot keep up: of a job's progress only the newest; every other event stays."""
    newest = {row.job_id: row.position for row in rows if row.type == PROGRESS}
    return [row for row in rows if row.type != PROGRESS or newest[row.job_id] == row.position]


PROGRESS = "job.progress"
