"""Waiting for a job's end: woken by the event, never by a clock, and nothing is left of those who gave up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from app.jobs import JobView
from app.notify import InProcessNotifier, Subscription
from db.session import Database
from tests.flow.conftest import OpenStage, Stage

LONG_S = 50.0
"""Longer than a test may take: whoever is answered was woken."""


class Counted(InProcessNotifier):
    """Counts the waits that begin: a waiter that polls would begin many."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribed = 0

    @contextmanager
    def subscribe(self, topic: str) -> Iterator[Subscription]:
        self.subscribed += 1
        with super().subscribe(topic) as subscription:
            yield subscription


@contextmanager
def counted_statements(database: Database) -> Iterator[list[str]]:
    """Every statement that reaches the reading side of the database within the block."""
    seen: list[str] = []

    def remember(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    engine = database._reader.sync_engine
    event.listen(engine, "before_cursor_execute", remember)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", remember)


async def settled(line: Stage, waiters: int) -> None:
    """Until so many waiters have subscribed and read, and none has anything left to do."""
    while line.runtime.line.notifier.count_subscriptions() < waiters:
        await asyncio.sleep(0)


@pytest.fixture
async def counted_line(stage_on: OpenStage) -> AsyncIterator[Stage]:
    async with stage_on(ports={"notifier": Counted()}) as line:
        yield line


async def test_a_wait_for_an_ended_job_returns_at_once(line: Stage) -> None:
    job_id = await line.ask()
    await line.client.post(f"/v1/jobs/{job_id}/cancel")
    reply = await line.client.get(f"/v1/jobs/{job_id}?wait=60")
    assert reply.json()["state"] == "canceled"


async def test_a_wait_is_ended_by_the_event_and_reads_no_more_than_it_must(counted_line: Stage) -> None:
    line = counted_line
    job_id = await line.ask()
    with counted_statements(line.runtime.line.database) as statements:
        waiting = asyncio.create_task(line.client.get(f"/v1/jobs/{job_id}?wait=60"))
        await settled(line, 1)
        await line.runtime.jobs.cancel(job_id)
        assert (await waiting).json()["state"] == "canceled"
    reads = [text for text in statements if "jobs.id IN" in text]
    # Once before it sleeps, once when it is woken; the cancel reads its answer too.
    assert len(reads) <= 3
    notifier = line.runtime.line.notifier
    assert isinstance(notifier, Counted)
    assert (notifier.subscribed, notifier.count_subscriptions()) == (1, 0)


async def test_ten_thousand_waiters_are_woken_at_once_and_leave_nothing(line: Stage) -> None:
    job_id = await line.ask()
    waiters = [asyncio.create_task(line.runtime.jobs.wait(job_id, timeout_s=LONG_S)) for _ in range(10_000)]
    await settled(line, 10_000)
    await line.runtime.jobs.cancel(job_id)
    views: list[JobView] = await asyncio.gather(*waiters)
    assert {view.job.state for view in views} == {"canceled"}
    assert line.runtime.line.notifier.count_subscriptions() == 0


async def test_waiters_on_many_jobs_are_each_woken_by_their_own(line: Stage) -> None:
    ids = [await line.ask() for _ in range(30)]
    waiters = {
        job_id: [asyncio.create_task(line.runtime.jobs.wait(job_id, timeout_s=LONG_S)) for _ in range(20)]
        for job_id in ids
    }
    await settled(line, 600)
    for job_id in ids[::2]:
        await line.runtime.jobs.cancel(job_id)
    for job_id in ids[::2]:
        for view in await asyncio.gather(*waiters[job_id]):
            assert (view.job.id, view.job.state) == (job_id, "canceled")
    assert not any(waiter.done() for job_id in ids[1::2] for waiter in waiters[job_id])
    for job_id in ids[1::2]:
        await line.runtime.jobs.cancel(job_id)
        await asyncio.gather(*waiters[job_id])
    assert line.runtime.line.notifier.count_subscriptions() == 0


async def test_a_canceled_waiter_leaves_nothing_and_disturbs_nobody(line: Stage) -> None:
    job_id = await line.ask()
    waiters = [asyncio.create_task(line.runtime.jobs.wait(job_id, timeout_s=LONG_S)) for _ in range(10)]
    await settled(line, 10)
    for waiter in waiters[:5]:
        waiter.cancel()
    await asyncio.gather(*waiters[:5], return_exceptions=True)
    assert line.runtime.line.notifier.count_subscriptions() == 5
    await line.runtime.jobs.cancel(job_id)
    assert all(view.is_ended for view in await asyncio.gather(*waiters[5:]))
    assert line.runtime.line.notifier.count_subscriptions() == 0


async def test_a_wait_that_times_out_answers_with_the_job_as_it_stands(sqlite_line: Stage) -> None:
    job_id = await sqlite_line.ask()
    reply = await sqlite_line.client.get(f"/v1/jobs/{job_id}?wait=0.01")
    assert (reply.status_code, reply.json()["state"]) == (200, "queued")
    assert sqlite_line.runtime.line.notifier.count_subscriptions() == 0


async def test_a_wait_for_nothing_is_not_found_and_leaves_nothing(sqlite_line: Stage) -> None:
    assert (await sqlite_line.client.get("/v1/jobs/job_nobody?wait=60")).status_code == 404
    assert sqlite_line.runtime.line.notifier.count_subscriptions() == 0


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "x"])
async def test_a_wait_that_is_no_number_of_seconds_is_refused(sqlite_line: Stage, wait: str) -> None:
    job_id = await sqlite_line.ask()
    reply = await sqlite_line.client.get(f"/v1/jobs/{job_id}?wait={wait}")
    assert (reply.status_code, reply.json()["field"]) == (422, "wait")
