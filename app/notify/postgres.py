"""Hints across processes: PostgreSQL's LISTEN and NOTIFY, sent within our own transactions.

Reconnects for as long as it runs. What was said while nobody listened is not said again, so everybody is
hinted once after each connect, and looks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg
import structlog

from app.backoff import backoff_s, jittered
from app.notify import InProcessNotifier, Subscription
from db.session import DatabaseUnavailable, Transaction, dsn_of

log = structlog.get_logger()

CHANNEL = "reprise_hints"
MOST_TOPICS = 100
"""Topics in one NOTIFY: its payload may have 8000 bytes."""
PROBE_S = 2.0
"""How often the connection is tried: a dead server may never say so."""
ASYNCPG_TROUBLE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # What the driver makes of a connection that died while it was being used.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


class PostgresHints:
    """Hints over LISTEN/NOTIFY: the notifier of many processes."""

    def __init__(self, url: str) -> None:
        self._dsn = dsn_of(url)
        self._local = InProcessNotifier()
        self._listening: asyncio.Task[None] | None = None
        self._trouble: str | None = "not connected yet"

    async def start(self) -> None:
        """Listen until `aclose`; returns once the first connection is up, or has failed and is retried."""
        ready = asyncio.Event()
        self._listening = asyncio.create_task(self._listen(ready))
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await ready.wait()

    def announce(self, tx: Transaction, *topics: str) -> None:
        tx.before_commit("hints", list(topics), self._notify)

    def publish(self, topic: str) -> None:
        self._local.publish(topic)

    def publish_all(self) -> None:
        self._local.publish_all()

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[Subscription]:
        with self._local.subscribe(topic) as subscription:
            yield subscription

    def count_subscriptions(self) -> int:
        return self._local.count_subscriptions()

    def trouble(self) -> str | None:
        return self._trouble

    async def aclose(self) -> None:
        # Asked again until it has ended: a driver that is just saying goodbye to a server which vanished
        # takes the cancellation for its own timeout, and the loop would go on.
        while self._listening is not None and not self._listening.done():
            self._listening.cancel()
            await asyncio.wait([self._listening], timeout=1)

    async def _notify(self, tx: Transaction, topics: list[str]) -> None:
        connection = (await tx.raw_connection()).driver_connection
        unique = sorted(set(topics))
        try:
            for at in range(0, len(unique), MOST_TOPICS):
                payload = json.dumps(unique[at : at + MOST_TOPICS])
                await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)
        except ASYNCPG_TROUBLE as exc:
            raise DatabaseUnavailable(type(exc).__name__) from exc

    async def _listen(self, ready: asyncio.Event) -> None:
        failures = 0
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=5)
                # However it ends: what counts is that the server took us, so the next try comes soon.
                failures = 0
                try:
                    await self._hear(connection, ready)
                finally:
                    await connection.close(timeout=2)
            except ASYNCPG_TROUBLE as exc:
                failures += 1
                self._trouble = f"reconnecting after {type(exc).__name__}"
                log.warning("hints.reconnecting", reason=type(exc).__name__)
            await asyncio.sleep(jittered(backoff_s(failures, first_s=0.2, most_s=5.0)))

    async def _hear(self, connection: asyncpg.Connection, ready: asyncio.Event) -> None:
        """Hear until the connection is gone. Probed, because a dead server may never say so."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(CHANNEL, self._heard)
        self._trouble = None
        ready.set()
        # What was said while nobody listened is not said again: everybody looks once.
        self._local.publish_all()
        while not lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(PROBE_S):
                    await lost.wait()
            if not lost.is_set():
                await connection.execute("SELECT 1", timeout=5)

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        for topic in json.loads(str(payload)):
            self._local.publish(topic)
