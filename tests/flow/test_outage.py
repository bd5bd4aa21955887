"""The story "outage": a provider that comes back is not met by all who waited for it at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update

from app.backoff import RetryBudget, full_jitter_s, jittered
from db.states import JobState
from db.tables import Attempt, Job
from tests.conftest import becomes
from tests.fakes.provider import throttled
from tests.flow.conftest import OpenStage, Stage

WAITING = 80
PER_S = 10
STORM = 50
"""In a second. A wave would be all of them; a machine that stands still for three seconds is none."""


class Watched:
    """The fake, with the moment of each call."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.at: list[float] = []

    async def __call__(self, *call: Any) -> None:
        self.at.append(time.monotonic())
        await self._inner(*call)


def most_in_a_second(moments: list[float]) -> int:
    return max(sum(begin <= moment < begin + 1 for moment in moments) for begin in moments)


async def waiting(line: Stage, many: int) -> None:
    """Jobs that a provider was asked for once, and that are all due again."""
    for _ in range(many):
        await line.ask()
    now = datetime.now(UTC)
    async with line.runtime.line.database.transaction() as tx:
        await tx.execute(update(Job).values(started_at=now, run_after=now))


async def test_after_an_outage_the_retries_come_at_the_stated_rate_and_all_of_them_come(
    stage_on: OpenStage,
) -> None:
    """Fault 72: no retry storm. 80 jobs are due at one moment; the provider is never asked for a wave."""
    async with stage_on(retries_per_s=PER_S, sweep_interval_s=0.2) as line:
        await waiting(line, WAITING)
        watched = Watched(line.fake._app)
        line.fake._app = watched  # type: ignore[assignment]
        working = asyncio.create_task(line.runtime.worker.run())
        await becomes(lambda: len(line.fake.predictions) == WAITING, within_s=120)
        line.runtime.worker.stop()
        await working
        assert most_in_a_second(watched.at) < STORM
        assert len(watched.at) == WAITING


async def test_fresh_work_does_not_wait_among_the_retries(stage_on: OpenStage) -> None:
    async with stage_on(retries_per_s=0.5) as line:
        await waiting(line, 30)
        fresh = await line.ask("fresh")
        await line.drain()
        states = Counter([job.state for job in await line.rows(Job)])
        assert (await line.read(fresh))["state"] == "running"
        assert states[JobState.QUEUED] >= 10
        reasons = {job.waiting_reason for job in await line.rows(Job) if job.state == JobState.QUEUED}
        assert reasons == {"among the retries at replicate"}


async def test_those_that_are_refused_at_one_moment_come_back_at_many(line: Stage) -> None:
    line.fake.script("create", *[throttled(10) for _ in range(20)])
    for _ in range(20):
        await line.ask()
    await line.drain()
    now = datetime.now(UTC)
    waits = [(job.run_after - now).total_seconds() for job in await line.rows(Job)]
    assert min(waits) > 8, "nobody comes sooner than was asked for"
    assert max(waits) < 16
    assert max(waits) - min(waits) > 0.5


async def test_after_an_outage_of_ours_the_silent_are_asked_about_at_the_stated_rate(
    stage_on: OpenStage,
) -> None:
    async with stage_on(retries_per_s=10) as line:
        for _ in range(60):
            await line.ask()
        await line.drain()
        past = datetime.now(UTC) - timedelta(minutes=1)
        async with line.runtime.line.database.transaction() as tx:
            await tx.execute(update(Attempt).values(check_at=past))
        await line.runtime.recovery.check()
        asked = [seen for seen in line.fake.seen if seen.method == "GET"]
        assert 1 <= len(asked) <= 20
        now = datetime.now(UTC)
        later = sorted((each.check_at - now).total_seconds() for each in await line.attempts())
        assert later[len(asked)] < 30
        moments = {round(wait_s, 2) for wait_s in later if wait_s < 10}
        assert len(moments) > 30, "each has a moment of its own"


async def test_a_job_past_its_deadline_is_ended_however_many_finish_late(line: Stage) -> None:
    """Fault 49: a batch of those that only their finisher can end must not hide the others."""
    late = [await line.ask() for _ in range(120)]
    queued = await line.ask()
    past = datetime.now(UTC) - timedelta(hours=1)
    for job_id in late:
        await line.change(Job, job_id, state="finishing", deadline_at=past)
    await line.change(Job, queued, deadline_at=past + timedelta(minutes=1))
    await line.runtime.recovery.check()
    for item in await line.ledger():
        await line.runtime.inbox.step(item["id"])
    assert (await line.read(queued))["error"]["code"] == "deadline_exceeded"


def test_a_budget_gives_each_retry_a_moment_of_its_own() -> None:
    now = 100.0
    budget = RetryBudget(per_s=10, clock=lambda: now)
    waits = [budget.book(str(number)) for number in range(30)]
    assert waits[:10] == [0.0] * 10
    assert [round(wait_s, 3) for wait_s in waits[10:]] == [round(0.1 * n, 3) for n in range(1, 21)]
    assert budget.book("29") == waits[29], "asking again is no second booking"
    now += 2.01
    assert [budget.book(str(number)) for number in range(10, 30)] == [0.0] * 20
    assert 0 < budget.book("new") <= 0.1, "those were all that the time has brought"


def test_fresh_work_earns_retries_beside_the_rate_and_no_more_than_a_second_of_them() -> None:
    now = 100.0
    budget = RetryBudget(per_s=10, share=0.1, clock=lambda: now)
    for number in range(20):
        budget.book(str(number))
    for _ in range(50):
        budget.earn()
    assert budget.book("next") == budget.book("next") < 1.0
    for _ in range(10_000):
        budget.earn()
    assert [budget.book(f"burst{n}") for n in range(11)].count(0.0) == 10


def test_jitter_stays_within_its_bounds_and_does_not_repeat() -> None:
    around = [jittered(10.0) for _ in range(200)]
    assert 5 <= min(around) < max(around) <= 15
    anything = [full_jitter_s(4) for _ in range(200)]
    assert 0 <= min(anything) < 2 < 6 < max(anything) <= 8
    assert len(set(around)) > 190
