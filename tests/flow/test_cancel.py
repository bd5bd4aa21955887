"""Cancel and retry: one end whoever comes first, the provider is told, and a retry is a job of its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from app.crash_points import CrashPoint
from db.attempts import lock_attempt, note_attempt
from db.jobs import wake_waiting
from db.tables import Job, Output
from tests.fakes.provider import bad_gateway
from tests.flow.conftest import TONE, OpenStage, Stage


async def canceled(line: Stage, job_id: str) -> int:
    return (await line.client.post(f"/v1/jobs/{job_id}/cancel")).status_code


async def test_a_queued_job_is_canceled_and_never_begun(line: Stage) -> None:
    job_id = await line.ask()
    reply = await line.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (reply.status_code, reply.json()["state"]) == (200, "canceled")
    assert reply.json()["finished_at"]
    await line.hurry()
    await line.drain()
    assert line.fake.predictions == {}
    assert await line.events(job_id) == ["job.created", "job.canceled"]


async def test_a_running_job_is_canceled_and_the_provider_is_told_at_once(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    assert await canceled(line, job_id) == 200
    # No waiting: the cancel made the attempt due for recovery.
    await line.runtime.recovery.check()
    await line.drain()
    assert line.fake.predictions[prediction_id]["status"] == "canceled"
    job = await line.read(job_id)
    assert (job["state"], job["attempts"][0]["status"]) == ("canceled", "canceled")
    assert job["attempts"][0]["ended_at"]
    assert (await line.events(job_id))[-1] == "job.canceled"


async def test_a_cancel_that_the_provider_does_not_hear_is_repeated(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    await canceled(line, job_id)
    line.fake.script("get", *[bad_gateway() for _ in range(3)])
    await line.runtime.recovery.check()
    assert line.fake.predictions[prediction_id]["status"] == "starting"
    await line.look()
    assert line.fake.predictions[prediction_id]["status"] == "canceled"


async def test_a_worker_is_told_too_and_its_slot_is_free_again(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        job_id = await line.ask()
        await line.drain()
        waiting = await line.ask()
        await line.drain()
        await canceled(line, job_id)
        await line.look()
        assert line.cog.canceled == line.cog.asked[:1]
        await line.hurry()
        await line.drain()
        assert await line.state(waiting) == "running"


async def test_a_finishing_job_is_canceled_and_its_finisher_commits_nothing(stage_on: OpenStage) -> None:
    """Fault 28."""
    async with stage_on() as line:
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=TONE)
        await line.runtime.inbox.step((await line.ledger())[0]["id"])
        assert await line.state(job_id) == "finishing"
        assert await canceled(line, job_id) == 200
        await line.drain()
        assert await line.state(job_id) == "canceled"
        assert await line.count(Output) == 0


async def test_a_cancel_while_the_file_is_being_made_wins_over_the_finisher(
    stage_on_sqlite: OpenStage,
) -> None:
    """Fault 28."""
    reached = asyncio.Event()

    def note(point: CrashPoint) -> None:
        if point is CrashPoint.OUTPUT_FETCHED:
            reached.set()

    async with stage_on_sqlite(ports={"reach": note}) as line:
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=TONE)
        finishing = asyncio.create_task(line.drain())
        await reached.wait()
        assert await canceled(line, job_id) == 200
        await finishing
        assert await line.state(job_id) == "canceled"
        assert await line.count(Output) == 0
        assert (await line.events(job_id))[-1] == "job.canceled"


async def test_fault_28_canceling_twice_is_answered_alike_and_an_ended_job_is_a_conflict(line: Stage) -> None:
    job_id = await line.ask()
    assert [await canceled(line, job_id), await canceled(line, job_id)] == [200, 200]
    assert (await line.events(job_id)).count("job.canceled") == 1
    done, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    assert await canceled(line, done) == 409
    assert await line.state(done) == "succeeded"
    assert await canceled(line, "job_nobody") == 404


async def test_fault_28_ten_cancels_at_once_are_one_cancel(line: Stage) -> None:
    job_id, _ = await line.start()
    assert set(await asyncio.gather(*(canceled(line, job_id) for _ in range(10)))) == {200}
    assert (await line.events(job_id)).count("job.canceled") == 1


async def test_fault_28_cancel_and_completion_at_once_make_one_end(line: Stage) -> None:
    """Both lock the same two rows: neither may wait for the other for ever, nor fail for that."""
    for _ in range(10):
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=TONE)
        delivery = (await line.ledger(job_id=job_id) or await line.ledger())[-1]["id"]
        statuses = await asyncio.gather(
            canceled(line, job_id),
            line.runtime.inbox.step(delivery),
            canceled(line, job_id),
        )
        await line.drain()
        state = await line.state(job_id)
        assert (state, statuses[0], statuses[2]) == ("canceled", 200, 200)
        ends = [each for each in await line.events(job_id) if each in ("job.canceled", "job.succeeded")]
        assert ends == ["job.canceled"]


async def test_a_cancel_and_the_inbox_never_wait_for_each_other_in_a_circle(line: Stage) -> None:
    job_id, _ = await line.start()
    attempt = (await line.attempts())[0]
    database = line.runtime.line.database
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        if database.is_shared
        else "SELECT count(*) FROM information_schema.processlist"
        " WHERE db = database() AND info LIKE '%FOR UPDATE' AND id <> connection_id()"
    )
    async with database.transaction() as tx:
        # What the inbox locks, with a cancel that comes before it has moved anything.
        await lock_attempt(tx, attempt.id)
        asked = asyncio.create_task(canceled(line, job_id))
        blocked = database.is_sqlite  # where the cancel waits for its turn to write
        while not blocked:
            async with database.reading() as look:
                blocked = bool((await look.execute(waiting)).scalar_one())
        await note_attempt(tx, attempt.id, metrics={"by": "the inbox"})
    assert await asked == 200


async def test_two_attempts_that_end_at_once_wake_two_jobs(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        await line.ask()
        await line.drain()
        waiting = [await line.ask() for _ in range(3)]
        await line.drain()
        database, now = line.runtime.line.database, datetime.now(UTC)
        async with database.transaction() as first:
            woken = list(await wake_waiting(first, "cog", now=now))
            if not database.is_sqlite:  # SQLite has one writer: there is no "at once"
                async with database.transaction() as second:
                    woken += await wake_waiting(second, "cog", now=now)
        assert woken == waiting[: len(woken)]


async def test_fault_28_cancel_and_finish_at_once_make_one_end(line: Stage) -> None:
    for _ in range(5):
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=TONE)
        await line.runtime.inbox.step((await line.ledger())[-1]["id"])
        _, status = await asyncio.gather(line.runtime.finisher.step(job_id), canceled(line, job_id))
        state = await line.state(job_id)
        assert (state, status) in (("canceled", 200), ("succeeded", 409))
        assert len((await line.read(job_id))["outputs"]) == (1 if state == "succeeded" else 0)


async def test_a_job_that_is_canceled_while_its_prediction_is_being_created_stops_being_paid_for(
    line: Stage,
) -> None:
    """The create reply arrives when the attempt has been ended already: the provider is told even so."""
    job_id = await line.ask()
    asked = line.fake._create

    async def slow_create(request: object) -> object:
        await canceled(line, job_id)
        await line.runtime.recovery.check()
        for item in await line.ledger():
            await line.runtime.inbox.step(item["id"])
        return await asked(request)  # type: ignore[arg-type]

    for route in line.fake._app.router.routes[:2]:
        route.endpoint = slow_create  # type: ignore[attr-defined]
        route.app = _as_app(slow_create)  # type: ignore[attr-defined]
    await line.drain()
    assert await line.state(job_id) == "canceled"
    (prediction,) = line.fake.predictions.values()
    assert prediction["status"] == "canceled"


def _as_app(endpoint: object) -> object:
    from starlette.routing import request_response

    return request_response(endpoint)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["failed", "canceled"])
async def test_a_retry_is_a_new_job_that_names_the_old_one(line: Stage, end: str) -> None:
    body = {"priority": 3, "metadata": {"a": 1}, "deadline_s": 500}
    job_id, prediction_id = await line.start(**body)
    if end == "canceled":
        await canceled(line, job_id)
    else:
        await line.fake.finish(prediction_id, error="NSFW content was flagged as sensitive")
        await line.drain()
    old = await line.read(job_id)
    assert old["state"] == end
    reply = await line.client.post(f"/v1/jobs/{job_id}/retry")
    assert reply.status_code == 202
    new = reply.json()
    assert reply.headers["location"] == f"/v1/jobs/{new['id']}"
    assert new["id"] != job_id
    assert (new["retry_of"], new["state"], new["attempts"], new["error"]) == (job_id, "queued", [], None)
    for name in ("kind", "input", "metadata", "provider"):
        assert new[name] == old[name]
    assert (new["started_at"], new["finished_at"], new["outputs"], new["progress"]) == (None, None, {}, 0)
    rows = {job.id: job for job in await line.rows(Job)}
    span = rows[new["id"]].deadline_at - rows[new["id"]].created_at
    assert (span.total_seconds(), rows[new["id"]].priority) == (500, 3)
    assert await line.events(new["id"]) == ["job.created"]
    await line.drain()
    await line.fake.finish(line.fake.live()[-1], output=TONE)
    await line.drain()
    assert await line.state(new["id"]) == "succeeded"
    assert await line.read(job_id) == old, "the old one stays as it ended"


async def test_only_a_failed_or_canceled_job_can_be_retried(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    for _ in range(3):
        reply = await line.client.post(f"/v1/jobs/{job_id}/retry")
        assert (reply.status_code, reply.json()["code"]) == (409, "conflict")
        await line.fake.finish(prediction_id, output=TONE)
        await line.drain()
    assert (await line.client.post("/v1/jobs/job_nobody/retry")).status_code == 404
    assert await line.count(Job) == 1
