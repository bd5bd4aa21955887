"""What a hub keeps of a subscriber, what it tells through, and its bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.web.socket.connections import Goodbye, Member
from app.web.socket.jobs.told import Word
from db.feed import FeedRow


@dataclass(frozen=True, slots=True)
class FanoutLimits:
    """The bounds of a hub; tests take others."""

    window: int = 64
    """Packets that may wait for a client before it counts as behind."""
    kept: int = 500
    """Events that a hub keeps for readers that are behind, or have just come back."""
    most_read: int = 500
    """Events that a reader further behind reads at once."""
    readers: int = 4
    """Of these, how many of a tenant read at once."""
    slow_s: float = 2.0
    """A reader that had no room for so long is told progress only as it stands, until it has caught up."""
    stall_s: float = 30.0
    """A reader that is behind and takes nothing for so long is closed."""
    look_s: float = 2.0
    """How often readers that are behind are looked at, if they do not ask."""


class Outlet(Protocol):
    """What a hub tells through; the namespace."""

    def room(self, member: Member) -> int:
        """Packets that wait for this client already."""
        ...

    async def hand(self, member: Member, word: Word) -> None:
        """Send an event. Waits for nobody."""
        ...

    async def words(self, tenant: str, rows: Sequence[FeedRow]) -> list[Word]:
        """Encode events. Raises DatabaseUnavailable."""
        ...

    async def reset(self, member: Member, job_id: str | None) -> int:
        """Say what stands instead of what is gone; the position to go on from. Raises DatabaseUnavailable."""
        ...

    def drop(self, member: Member, reason: Goodbye) -> None:
        """Close a client, soon."""
        ...

    def coalesced(self, count: int) -> None:
        """So many events were left out for newer ones."""
        ...


class Subscription:
    """One client's wish: all jobs of its tenant, or one."""

    __slots__ = (
        "cursor", "full_since_s", "is_begun", "is_behind", "is_gone", "is_slow", "job_id", "member",
        "reading", "unsure",
    )  # fmt: skip

    def __init__(self, member: Member, job_id: str | None, cursor: int) -> None:
        self.member = member
        self.job_id = job_id
        self.cursor = cursor
        """It was told everything up to there."""
        self.is_behind = True
        """Events wait for it; else it is told each as it comes."""
        self.is_begun = False
        self.is_gone = False
        self.unsure: int | None = None
        """A place that the client gave, and that must be asked the feed about: it may be gone, or made up."""
        self.full_since_s: float | None = None
        """Since when there was no room for it; None while there is."""
        self.is_slow = False
        """That was for long: it is told less, until it has caught up."""
        self.reading: asyncio.Task[None] | None = None

    def wants(self, word: Word) -> bool:
        return word.position > self.cursor and self.job_id in (None, word.job_id)
