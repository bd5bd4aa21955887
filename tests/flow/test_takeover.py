"""The story "takeover": what a process had in hand goes on at another: soon if it died, at once if told."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.work import Station
from app.work.pulse import Pulse
from app.worker import BEAT_S, DEAD_AFTER
from db.processes import beat
from db.session import Database
from db.tables import Attempt, Job, Process
from tests.conftest import becomes
from tests.fakes.provider import Drop
from tests.flow.conftest import TONE, OpenStage, Stage, tone

LONG_AGO = timedelta(minutes=1)
OTHER = "proc_other"
"""A process beside the stage's own."""


async def heard(line: Stage, process_id: str, at: datetime) -> None:
    async with line.runtime.line.database.transaction() as tx:
        await beat(tx, process_id, now=at)


async def take_over(line: Stage) -> None:
    """A beat of a process that has been alive for long enough to judge others."""
    worker = line.runtime.worker
    worker._heard_at = await worker.beat()
    worker._beating_since = worker._heard_at - 2 * DEAD_AFTER
    await worker._keep_beating()


async def finishing(line: Stage, by: str) -> str:
    """A job that this process is finishing, under a lease that lasts."""
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    for item in await line.ledger():
        await line.runtime.inbox.step(item["id"])
    until = datetime.now(UTC) + LONG_AGO
    await line.change(Job, job_id, lease="lease_of_other", leased_by=by, lease_until=until, crashes=1)
    return job_id


async def test_fault_62_the_lease_of_a_dead_process_is_free_before_its_time(line: Stage) -> None:
    """Fault 62: nobody waits for the rest of a lease whose holder has fallen silent; the crash is counted."""
    await heard(line, OTHER, datetime.now(UTC) - LONG_AGO)
    job_id = await finishing(line, by=OTHER)
    await line.drain()
    assert await line.state(job_id) == "finishing", "it is leased"
    await take_over(line)
    [job] = await line.rows(Job)
    assert (job.lease, job.crashes) == (None, 1)
    await line.drain()
    assert await line.state(job_id) == "succeeded"


async def test_fault_62_the_lease_of_a_living_process_is_left_alone(line: Stage) -> None:
    """Fault 62: a step that is longer than everybody's patience is not run twice while its process lives."""
    await heard(line, OTHER, datetime.now(UTC))
    job_id = await finishing(line, by=OTHER)
    await take_over(line)
    await line.drain()
    assert await line.state(job_id) == "finishing"
    [job] = await line.rows(Job)
    assert job.lease == "lease_of_other"


@pytest.mark.parametrize("begun_s_ago", [60, 1])
async def test_a_question_that_a_dead_process_was_asking_is_asked_for_soon(
    line: Stage, begun_s_ago: float
) -> None:
    """Not at once, though: what it asked for a second ago the provider need not have yet."""
    line.fake.script("create", Drop(after=True))
    await line.start()
    await heard(line, OTHER, datetime.now(UTC) - LONG_AGO)
    [attempt] = await line.attempts()
    now = datetime.now(UTC)
    made_at = now - timedelta(seconds=begun_s_ago)
    later = now + timedelta(seconds=30)
    await line.change(Attempt, attempt.id, begun_by=OTHER, created_at=made_at, check_at=later)
    await take_over(line)
    await line.runtime.recovery.check()
    await line.drain()
    [attempt] = await line.attempts()
    assert attempt.status == ("starting" if begun_s_ago > 5 else "pending")
    assert len(line.fake.predictions) == 1


async def test_a_question_of_a_living_process_is_its_own(line: Stage) -> None:
    line.fake.script("create", Drop(after=True))
    await line.start()
    await heard(line, OTHER, datetime.now(UTC))
    [attempt] = await line.attempts()
    now = datetime.now(UTC)
    await line.change(Attempt, attempt.id, begun_by=OTHER, created_at=now - LONG_AGO, check_at=now + LONG_AGO)
    await take_over(line)
    await line.runtime.recovery.check()
    [attempt] = await line.attempts()
    assert attempt.status == "pending"
    assert not [seen for seen in line.fake.seen if seen.method == "GET"]


async def test_a_process_that_leaves_is_known_to_have_left(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        async with line.runtime.worker.alive():
            assert [process.id for process in await line.rows(Process)] == [line.runtime.process_id]
        left = [] if "postgresql" in line.runtime.line.database.url else [line.runtime.process_id]
        assert [process.id for process in await line.rows(Process)] == left


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_fault_54_a_process_whose_loop_is_held_up_is_not_taken_for_dead(database: Database) -> None:
    """Fault 54: the second heart beats for longer than the others' patience, while the loop does nothing."""
    pulse = Pulse(url=database.url, process_id="proc_busy", pause_s=BEAT_S / 10)
    began_at: datetime | None = None
    beats: set[datetime] = set()

    async def watch() -> None:
        nonlocal began_at
        watching = Database(database.url)
        while began_at is None or max(beats) - began_at < DEAD_AFTER:
            async with watching.reading() as tx:
                found = (await tx.execute(select(Process.__table__))).mappings().first()  # type: ignore[attr-defined]
            if found:
                beats.add(found["heard_at"])
                began_at = began_at or found["heard_at"]
        await watching.aclose()

    watcher = threading.Thread(target=asyncio.run, args=[watch()])
    pulse.start()
    watcher.start()
    watcher.join(timeout=4 * DEAD_AFTER.total_seconds())  # this holds the loop up
    pulse.close()
    assert not watcher.is_alive()
    longest = max(later - earlier for earlier, later in zip(sorted(beats), sorted(beats)[1:], strict=False))
    assert longest < DEAD_AFTER


class Stalling:
    """A server whose outputs never come to their end."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.asked = 0
        self.open = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/outputs/") and not self.open.is_set():
            self.asked += 1
            await self.open.wait()
            await Response(status_code=503)(scope, receive, send)
            return
        await self._inner(scope, receive, send)


async def test_fault_53_a_finisher_that_is_stopped_gives_its_job_back_at_once(stage_on: OpenStage) -> None:
    """Fault 53: no lease left, due now, no crash counted; the next finisher ends it."""
    async with stage_on(serve=True) as line:
        stalling = Stalling(line.fake._app)
        line.fake._app = stalling  # type: ignore[assignment]
        job_id, prediction_id = await line.start()
        output = line.fake.keep_output("tone.wav", tone())
        await line.fake.finish(prediction_id, output=output)
        for item in await line.ledger():
            await line.runtime.inbox.step(item["id"])
        timed = line.runtime.worker._timed(Station.FINISH, line.runtime.finisher.step)
        step = asyncio.create_task(timed(job_id))
        await becomes(lambda: stalling.asked)
        line.runtime.worker.stop()
        await line.runtime.worker.hand_back()
        await step
        [job] = await line.rows(Job)
        assert (job.state, job.lease, job.leased_by, job.crashes) == ("finishing", None, None, 0)
        assert job.run_after <= datetime.now(UTC)
        assert job.waiting_reason == "its worker stopped"
        stalling.open.set()
        await line.drain()
        assert await line.state(job_id) == "succeeded"


async def test_fault_53_what_was_handed_back_is_no_attempt_of_the_jobs(stage_on: OpenStage) -> None:
    """Fault 53: of its two attempts the job has both, also after a stop in the middle of one."""
    async with stage_on(routes=("cog",), max_attempts=2) as line:
        job_id = await line.ask()
        await line.drain()
        [attempt] = await line.attempts()
        await line.change(Attempt, attempt.id, owner=OTHER)
        assert await line.runtime.recovery.hand_back(OTHER) == 1
        line.cog.running.clear()  # it went with its server
        await line.drain()
        job = await line.read(job_id)
        assert job["state"] == "running", "due again at once, not after a pause"
        for _ in range(2):
            [prediction] = list(line.cog.running)
            await line.cog.finish(prediction, error="out of memory")
            await line.drain()
            await line.hurry()
            await line.drain()
        job = await line.read(job_id)
        assert (job["state"], job["error"]["code"]) == ("failed", "prediction_failed")
        assert [each["status"] for each in job["attempts"]] == ["lost", "failed", "failed"]
