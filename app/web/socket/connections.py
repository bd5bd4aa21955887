"""Who is connected: each connection with its caller, its allowance and its end.

A connection is one client's line; it may be in several namespaces, and is a `Member` of each. Promises: what
a client may send in a time is bounded; a connection that was told good-bye is gone a few seconds later, also
where the client takes nothing any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.access.callers import Caller

BURST_S = 3.0
"""A client may send at once what it may send in so long."""


class Goodbye(StrEnum):
    """Why the service ends a connection: the `reason` of the event `closed`."""

    STOPPING = "stopping"
    """This process stops: connect again, to it or to another."""
    TOO_SLOW = "too_slow"
    """The client took too little for too long: connect again, with the last `seq`."""
    RATE_LIMITED = "rate_limited"
    """The client sent more messages than it may."""
    BAD_MESSAGE = "bad_message"
    """The client sent what is no message of this protocol."""
    UNAUTHENTICATED = "unauthenticated"
    """The key that it connected with has ended, or it never showed one."""
    UNAVAILABLE = "unavailable"
    """The service cannot go on with it now: connect again, with the last `seq`."""


COME_AGAIN = frozenset({Goodbye.STOPPING, Goodbye.TOO_SLOW, Goodbye.UNAVAILABLE})
"""After these a client connects again by itself: only the line is closed, not the namespace."""


class Allowance:
    """How many messages one client may send: so many a second, and a burst."""

    __slots__ = ("_left", "_most", "_rate", "_seen_s")

    def __init__(self, per_s: float) -> None:
        self._rate = per_s
        self._most = self._left = per_s * BURST_S
        self._seen_s = time.monotonic()

    def take(self) -> bool:
        """One more; False when it is one too many."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._seen_s) * self._rate)
        self._seen_s = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(slots=True)
class Member:
    """A client in one namespace."""

    sid: str
    caller: Caller
    connection: Connection
    state: Any = None
    """The namespace's own."""


@dataclass(slots=True)
class Connection:
    """One client's line."""

    id: str
    """The library's id of the line; a member's `sid` is another."""
    address: str
    authorization: str | None
    """Of the request that opened it; programs may send their key there."""
    allowance: Allowance
    opened_s: float
    cut: Callable[[], object] | None = None
    """Ends the line at once, whatever was not sent yet; None for polling, which has no line."""
    caller: Caller | None = None
    """Once it is in a namespace."""
    members: dict[str, Member] = field(default_factory=dict)
    """By namespace."""
    is_closing: bool = False

    @property
    def counted_as(self) -> str:
        """Whose connections are counted together: those of a key, without keys those of an address."""
        return (self.caller.key_id if self.caller else None) or self.address
