"""Hints: "row X changed, look". Never a fact: whoever hears one re-reads the row.

Promises: publishing never blocks and never fails; a subscriber that came before the change hears of it; a
waiter that is cancelled or times out leaves nothing behind. What it does not promise is delivery across
processes (that is the PostgreSQL notifier's) nor history (that is the event log's).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

from db.session import Transaction


class Subscription:
    """A standing wish to hear of one topic. Hints that come between two waits are not lost, only merged."""

    __slots__ = ("_heard",)

    def __init__(self) -> None:
        self._heard = asyncio.Event()

    def hear(self) -> None:
        self._heard.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """True at the next hint, or at once if one came since the last wait; False after the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._heard.wait()
        except TimeoutError:
            return False
        self._heard.clear()
        return True


class Notifier(Protocol):
    """The port: topics are `job:ID`, `feed:TENANT`, `performance:ID`, `deliveries`, `recovery`."""

    def announce(self, tx: Transaction, *topics: str) -> None:
        """Publish these once the transaction has committed; never on a rollback."""
        ...

    def publish(self, topic: str) -> None:
        """Publish to this process at once."""
        ...

    def publish_all(self) -> None:
        """Hint everybody in this process, whatever they listen to."""
        ...

    def subscribe(self, topic: str) -> AbstractContextManager[Subscription]: ...

    def count_subscriptions(self) -> int: ...

    def trouble(self) -> str | None:
        """Why hints of other processes do not arrive; None when they do."""
        ...


class InProcessNotifier:
    """Hints within one process and one event loop: what SQLite needs."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, set[Subscription]] = {}

    def announce(self, tx: Transaction, *topics: str) -> None:
        for topic in topics:
            tx.after_commit(partial(self.publish, topic))

    def publish_all(self) -> None:
        """Hint everybody: somebody may have missed something."""
        for topic in self._subscriptions:
            self.publish(topic)

    def publish(self, topic: str) -> None:
        for subscription in self._subscriptions.get(topic, ()):
            subscription.hear()

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[Subscription]:
        subscription = Subscription()
        self._subscriptions.setdefault(topic, set()).add(subscription)
        try:
            yield subscription
        finally:
            listeners = self._subscriptions[topic]
            listeners.discard(subscription)
            if not listeners:
                del self._subscriptions[topic]

    def count_subscriptions(self) -> int:
        """How many waiters there are, on all topics."""
        return sum(len(listeners) for listeners in self._subscriptions.values())

    def trouble(self) -> str | None:
        return None


RECOVERY = "recovery"
"""Somebody should be asked about at once, not at the next scheduled look."""


DELIVERIES = "deliveries"
"""News was stored by this process. Of other processes' news nobody is hinted."""


def job_topic(job_id: str) -> str:
    return f"job:{job_id}"


def feed_topic(tenant: str) -> str:
    """Something happened to a job of this tenant."""
    return f"feed:{tenant}"


def performance_topic(performance_id: str) -> str:
    """Something on the stage has changed: a control, the position, the song, the singers."""
    return f"performance:{performance_id}"
