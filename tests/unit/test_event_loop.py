"""The watch over the event loop: it sees a block from outside, says where, and says nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import LogCapture

from app.watch.event_loop import BLOCKED_S, LoopWatch
from app.watch.metrics import Metrics
from tests.conftest import becomes


@pytest.fixture
def logged() -> Iterator[LogCapture]:
    capture = LogCapture()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[capture])
    yield capture
    structlog.configure(processors=before)


def hold_the_loop(until: threading.Event, password: str) -> None:
    """A callback that blocks: the fault itself."""
    assert password
    until.wait(30)


async def test_a_blocked_loop_is_counted_timed_and_its_place_named_once(logged: LogCapture) -> None:
    """Fault 54: the watchdog's metric, for a block of more than a second."""
    metrics = Metrics()
    watch = LoopWatch(metrics)
    watch.start()
    seen = threading.Event()
    try:
        told = threading.Thread(target=_when_told, args=(logged, seen))
        told.start()
        hold_the_loop(seen, "hunter2")
        await becomes(lambda: watch.worst_s() >= BLOCKED_S)
        await becomes(lambda: len(logged.entries) == 2)
    finally:
        watch.stop()
    blocked, free = logged.entries
    assert blocked["event"] == "event_loop.blocked"
    assert any("test_event_loop.py" in place and "hold_the_loop" in place for place in blocked["stack"])
    assert "hunter2" not in str(logged.entries)
    assert free["event"] == "event_loop.free"
    assert free["blocked_s"] >= BLOCKED_S
    shown = metrics.render().decode()
    assert "reprise_event_loop_blocked_total 1.0" in shown


def _when_told(logged: LogCapture, seen: threading.Event) -> None:
    """Let the loop go once the watch has said that it is blocked."""
    for _ in range(3000):
        if logged.entries:
            break
        threading.Event().wait(0.01)
    seen.set()


async def test_a_loop_that_answers_is_measured_and_not_told_of(logged: LogCapture) -> None:
    metrics = Metrics()
    watch = LoopWatch(metrics)
    watch.start()
    measured = metrics.registry
    await becomes(lambda: (measured.get_sample_value("reprise_event_loop_lag_seconds_count") or 0) >= 2)
    watch.stop()
    assert logged.entries == []
    assert 0.0 < watch.worst_s() < BLOCKED_S
    await asyncio.sleep(0)
