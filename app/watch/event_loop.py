"""Whether the event loop answers: measured from a thread, because a blocked loop cannot measure itself.

Ten times a second the thread asks the loop to call back and takes the time. A loop that has not answered
for a second is logged once with the place in the code where it stands: names of files and functions,
never values.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path

import structlog

from app.watch.metrics import Metrics

log = structlog.get_logger()

ASK_EVERY_S = 0.1
BLOCKED_S = 1.0
"""Silence of the loop that is worth a line in the log."""
MOST_FRAMES = 12
_MINUTE_S = 60


class LoopWatch:
    """Watches the loop on which `start` is called, until `stop`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ending = threading.Event()
        self._worst: deque[tuple[float, float]] = deque()
        """Falling lags with their times, the worst of the last minute first."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        loop, looped = asyncio.get_running_loop(), threading.get_ident()
        self._thread = threading.Thread(
            target=self._watch, args=(loop, looped), name="loop-watch", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Called on the loop; the thread's last call to it may go unanswered."""
        self._ending.set()

    def worst_s(self) -> float:
        """The worst lag of the last minute, in seconds."""
        oldest = time.monotonic() - _MINUTE_S
        while self._worst and self._worst[0][0] < oldest:
            self._worst.popleft()
        return self._worst[0][1] if self._worst else 0.0

    def _watch(self, loop: asyncio.AbstractEventLoop, looped: int) -> None:
        while not self._ending.wait(ASK_EVERY_S):
            answered = threading.Event()
            asked_at = time.monotonic()
            try:
                loop.call_soon_threadsafe(self._answer, asked_at, answered)
            except RuntimeError:
                return  # the loop is closed
            if not answered.wait(BLOCKED_S):
                self._tell(looped, asked_at, answered)

    def _tell(self, looped: int, asked_at: float, answered: threading.Event) -> None:
        frame = sys._current_frames().get(looped)  # noqa: SLF001 - the documented way to see another thread
        stack = [
            f"{Path(place.filename).name}:{place.lineno} {place.name}"
            for place in traceback.extract_stack(frame)[-MOST_FRAMES:]
        ]
        del frame
        self._metrics.loop_blocked.inc()
        log.warning("event_loop.blocked", limit_s=BLOCKED_S, stack=stack)
        while not answered.wait(BLOCKED_S):
            if self._ending.is_set():
                return
        log.warning("event_loop.free", blocked_s=round(time.monotonic() - asked_at, 2))

    def _answer(self, asked_at: float, answered: threading.Event) -> None:
        """On the loop."""
        now = time.monotonic()
        lag_s = now - asked_at
        self._metrics.loop_lag.observe(lag_s)
        while self._worst and self._worst[-1][1] <= lag_s:
            self._worst.pop()
        self._worst.append((now, lag_s))
        self.worst_s()
        answered.set()
