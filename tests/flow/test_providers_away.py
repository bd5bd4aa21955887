"""Providers that throttle, refuse, are broke, busy or away: jobs wait with a reason, move on, or end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from starlette.responses import JSONResponse, Response

from db.tables import Attempt, Job
from tests.fakes.provider import bad_gateway, invalid, no_credit, problem, throttled
from tests.flow.conftest import TONE, OpenStage, Stage


async def job_row(line: Stage, job_id: str) -> Job:
    return next(job for job in await line.rows(Job) if job.id == job_id)


@pytest.mark.parametrize("told_by", ["header", "date", "body", "text", "nothing"])
async def test_fault_56_a_throttled_job_waits_as_long_as_it_is_told_and_spends_no_attempt(
    line: Stage, told_by: str
) -> None:
    line.fake.script("create", throttled(45, told_by=told_by))
    job_id = await line.ask()
    before = datetime.now(UTC)
    await line.drain()
    job = await line.read(job_id)
    assert (job["state"], job["attempts"], job["error"]) == ("queued", [], None)
    assert "429" in job["waiting_reason"]
    waits = (await job_row(line, job_id)).run_after - before
    assert waits >= timedelta(seconds=1 if told_by == "nothing" else 43)
    await line.hurry()
    await line.drain()
    job = await line.read(job_id)
    assert job["state"] == "running"
    assert job["waiting_reason"].startswith("replicate starting since")
    assert [attempt["number"] for attempt in job["attempts"]] == [1]


async def test_a_job_that_is_throttled_for_ever_ends_at_its_deadline(sqlite_line: Stage) -> None:
    line = sqlite_line
    line.fake.script("create", *[throttled(86_400) for _ in range(3)])
    job_id = await line.ask()
    await line.drain()
    await line.age(4000)
    await line.runtime.recovery.check()
    await line.drain()
    job = await line.read(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "deadline_exceeded")
    assert "429" in job["error"]["message"]


async def test_fault_56_a_provider_that_wants_money_makes_way_for_the_next(stage_on: OpenStage) -> None:
    async with stage_on(routes=("replicate", "cog")) as line:
        line.fake.script("create", no_credit())
        job_id = await line.ask()
        await line.drain()
        job = await line.read(job_id)
        assert [(each["provider"], each["status"]) for each in job["attempts"]] == [
            ("replicate", "failed"),
            ("cog", "starting"),
        ]
        await line.cog.finish(line.cog.asked[0], output=TONE)
        await line.drain()
        assert await line.state(job_id) == "succeeded"


@pytest.mark.parametrize(
    ("refusal", "status", "words"),
    [
        (lambda: invalid("prompt", "prompt is too long"), 422, "prompt: prompt is too long"),
        (lambda: problem(404, "Not found", "no such model"), 404, "no such model"),
    ],
    ids=["422", "404"],
)
async def test_a_refusal_without_another_provider_is_a_typed_failure_that_says_why(
    line: Stage, refusal: object, status: int, words: str
) -> None:
    line.fake.script("create", refusal())  # type: ignore[operator]
    job_id = await line.ask()
    await line.drain()
    job = await line.read(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "provider_rejected")
    assert str(status) in job["error"]["message"]
    assert words in job["error"]["message"]
    assert job["attempts"][0]["status"] == "failed"
    assert len(line.fake.predictions) == 0


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (no_credit, "insufficient credit"),
        (lambda: problem(401, "Unauthenticated", "You did not pass a valid token"), "Unauthenticated"),
    ],
    ids=["402", "401"],
)
async def test_credit_and_credentials_are_the_operators_to_mend_and_the_job_waits(
    line: Stage, refusal: object, words: str
) -> None:
    line.fake.script("create", refusal())  # type: ignore[operator]
    job_id = await line.ask()
    await line.drain()
    job = await line.read(job_id)
    assert (job["state"], job["attempts"]) == ("queued", [])
    assert words in job["waiting_reason"]
    await line.hurry()
    await line.drain()
    assert (await line.read(job_id))["state"] == "running", "mended, it goes on"


async def test_a_caller_that_names_a_provider_is_kept_to_it(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(routes=("replicate", "cog")) as line:
        line.fake.script("create", no_credit())
        job_id = await line.ask(provider="replicate")
        await line.drain()
        assert (await line.read(job_id))["state"] == "queued", "it waits there, it does not go elsewhere"
        other = await line.ask(provider="cog")
        await line.drain()
        assert [each["provider"] for each in (await line.read(other))["attempts"]] == ["cog"]


async def test_a_refusal_everywhere_ends_the_job(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(routes=("replicate", "cog")) as line:
        line.fake.script("create", *[no_credit() for _ in range(5)])
        line.cog.refuse = JSONResponse({"detail": [{"loc": ["input", "prompt"], "msg": "bad"}]}, 422)
        job_id = await line.ask()
        await line.drain()
        job = await line.read(job_id)
        assert (job["state"], job["error"]["code"]) == ("failed", "provider_rejected")
        assert [(each["trouble"], each["action"]) for each in job["attempts"]] == [
            ("no_credit", "fall_back"),
            ("bad_input", "abort"),
        ]


@pytest.mark.parametrize(
    "answer",
    [
        bad_gateway,
        lambda: problem(500, "Internal", "oops"),
        lambda: Response(b"", 504),
        lambda: Response(b"<html>", 200, media_type="text/html"),
        lambda: JSONResponse(["not", "an", "object"], 201),
        lambda: JSONResponse({"status": "starting"}, 201),
    ],
    ids=["502-html", "500", "504", "200-html", "201-list", "201-no-id"],
)
async def test_an_answer_that_leaves_open_whether_it_was_made_is_looked_up_first(
    line: Stage, answer: object
) -> None:
    line.fake.script("create", answer())  # type: ignore[operator]
    job_id = await line.ask()
    await line.drain()
    assert [attempt.status in ("pending", "starting") for attempt in await line.attempts()] == [True]
    assert len([seen for seen in line.fake.seen if seen.method == "POST"]) == 1
    await line.look()
    assert any(seen.method == "GET" for seen in line.fake.seen)
    await line.hurry()
    await line.drain()
    assert await line.state(job_id) == "running"
    assert len(line.fake.predictions) == 1


async def test_a_flaky_provider_ends_no_job_and_makes_nothing_twice(line: Stage) -> None:
    line.fake.flaky = True
    job_id = await line.ask()
    for _ in range(8):
        await line.hurry()
        await line.drain()
        await line.look()
        for prediction_id in line.fake.live():
            await line.fake.finish(prediction_id, output=TONE)
        await line.drain()
    assert await line.state(job_id) == "succeeded"
    assert len([row for row in line.fake.predictions.values() if row["status"] == "succeeded"]) == 1


async def test_jobs_wait_for_a_busy_provider_and_are_woken_in_order_of_priority(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        first = await line.ask("first")
        await line.drain()
        low = await line.ask("low", priority=-1)
        late = await line.ask("late")
        high = await line.ask("high", priority=5)
        await line.drain()
        assert list(line.cog.running) == line.cog.asked[:1]
        reasons = [(await line.read(job_id))["waiting_reason"] for job_id in (low, late, high)]
        assert all("behind" in reason and "cog" in reason for reason in reasons)
        order = []
        for _ in range(4):
            (running,) = line.cog.running
            order.append(running)
            await line.cog.finish(running, output=TONE)
            await line.drain()
        owners = {attempt.id: attempt.job_id for attempt in await line.attempts()}
        assert [owners[each] for each in order] == [first, high, late, low]
        assert {await line.state(job_id) for job_id in (first, low, late, high)} == {"succeeded"}
        assert len(line.cog.asked) == 4, "nobody was sent to a busy server"


async def test_a_worker_that_says_busy_costs_no_attempt(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        line.cog.running["somebody's"] = {}
        job_id = await line.ask()
        await line.drain()
        job = await line.read(job_id)
        assert (job["state"], job["attempts"]) == ("queued", [])
        assert "slots are taken" in job["waiting_reason"]
        line.cog.running.clear()
        await line.hurry()
        await line.drain()
        assert [each["number"] for each in (await line.read(job_id))["attempts"]] == [1]
        assert await line.count(Attempt) == 1


async def test_an_ended_attempt_wakes_one_job_for_each_slot_that_comes_free(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        await line.ask()
        await line.drain()
        waiting = [await line.ask() for _ in range(3)]
        await line.drain()
        (running,) = line.cog.running
        await line.cog.finish(running, error="Worker crashed")
        await line.drain()
        states = [await line.state(job_id) for job_id in waiting]
        assert states.count("running") == 1
        assert len(line.cog.running) == 1
