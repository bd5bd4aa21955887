"""A second heart: says that the process is alive while its event loop cannot.

Where others would take over from a silent process, a loop that is held up for some seconds (a large body, a
slow disk under swap) must not make it one: its engines and its ffmpeg go on. The first heart is the loop's
own (`app.worker`). This one is a thread that notices its silence and beats instead, on a connection of its
own, for `HELD_UP_LIMIT_S` at most: a loop that never comes back is a dead process, whatever its threads say.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

import structlog

from db.engines import PoolLimits
from db.processes import beat
from db.session import Database, DatabaseUnavailable

log = structlog.get_logger()

LOOK_S = 0.25
HELD_UP_LIMIT_S = 30.0
_LIMITS = PoolLimits(size=1, max_overflow=0, timeout_s=2, statement_timeout_s=2)


class Pulse:
    """The thread. `mark` after each beat of the loop's own, `close` before the process says it leaves."""

    def __init__(self, *, url: str, process_id: str, pause_s: float) -> None:
        """`pause_s` between two beats; a beat that is twice as late is made up for."""
        self._url = url
        self._process_id = process_id
        self._pause_s = pause_s
        self._marked_at = time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self.mark()
        self._thread.start()

    def mark(self) -> None:
        """The loop has just beaten by itself."""
        self._marked_at = time.monotonic()

    def close(self) -> None:
        """Beat no more; returns once no beat is under way."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * _LIMITS.statement_timeout_s)

    def _run(self) -> None:
        while not self._closed.wait(LOOK_S):
            if self._is_needed():
                asyncio.run(self._stand_in())

    def _is_needed(self) -> bool:
        silent_s = time.monotonic() - self._marked_at
        return 2 * self._pause_s < silent_s < HELD_UP_LIMIT_S and not self._closed.is_set()

    async def _stand_in(self) -> None:
        log.warning("loop.held_up", silent_s=round(time.monotonic() - self._marked_at, 1))
        database = Database(self._url, _LIMITS)
        try:
            while self._is_needed():
                # A database that is away is no news of this process: everybody is silent then.
                with suppress(DatabaseUnavailable):
                    await _beat(database, self._process_id)
                await asyncio.sleep(self._pause_s)
        finally:
            await database.aclose()


async def _beat(database: Database, process_id: str) -> None:
    async with database.transaction() as tx:
        await beat(tx, process_id, now=await tx.now())
