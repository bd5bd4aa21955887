"""The story "recovery": what a lost webhook, reply, prediction or worker cannot do to a job."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from db.attempts import note_attempt
from db.processes import beat
from db.tables import Attempt, Job, Output
from tests.fakes.provider import Drop, bad_gateway
from tests.flow.conftest import TONE, OpenStage, Stage, tone

SILENT = frozenset({"start", "logs", "completed"})


async def statuses(line: Stage, job_id: str) -> list[str]:
    return [attempt["status"] for attempt in (await line.read(job_id))["attempts"]]


async def test_fault_60_a_webhook_that_never_comes_is_asked_for(line: Stage) -> None:
    line.fake.lose_hooks = SILENT
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.look()
    assert await line.state(job_id) == "succeeded"
    assert [item["source"] for item in await line.ledger()] == ["poll"]


async def test_an_attempt_is_not_asked_about_before_it_has_been_silent(line: Stage) -> None:
    await line.start()
    assert await line.runtime.recovery.check() == 0
    assert not [seen for seen in line.fake.seen if seen.method == "GET"]


async def test_fault_57_a_create_whose_reply_was_lost_is_found_and_adopted(line: Stage) -> None:
    line.fake.script("create", Drop(after=True))
    job_id, prediction_id = await line.start()
    assert await statuses(line, job_id) == ["pending"]
    await line.look()
    job = await line.read(job_id)
    assert [(each["status"], each["prediction_id"]) for each in job["attempts"]] == [
        ("starting", prediction_id)
    ]
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    assert len(line.fake.predictions) == 1


async def test_fault_57_a_lost_reply_to_an_ended_prediction_costs_no_second_one(line: Stage) -> None:
    line.fake.script("create", Drop(after=True))
    line.fake.lose_hooks = SILENT
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.look()
    assert await line.state(job_id) == "succeeded"
    assert len(line.fake.predictions) == 1


async def test_fault_57_a_create_that_was_never_carried_out_is_made_again(line: Stage) -> None:
    line.fake.script("create", Drop(after=False))
    job_id = await line.ask()
    await line.drain()
    await line.look()
    await line.hurry()
    await line.drain()
    assert await statuses(line, job_id) == ["lost", "starting"]
    assert len(line.fake.predictions) == 1


async def test_a_strangers_prediction_is_never_taken_for_ours_nor_canceled(line: Stage) -> None:
    _, own = await line.start()
    row = dict(line.fake.predictions[own])
    line.fake.script("create", Drop(after=False))
    job_id = await line.ask()
    await line.drain()
    attempt_id = (await line.read(job_id))["attempts"][0]["id"]
    strangers = {
        "other": f"https://elsewhere.test/v1/webhooks/replicate/x?attempt={attempt_id}",
        "prefix": f"https://reprise.test/v1/webhooks/replicate/{attempt_id}x?token=t",
        "short": f"https://reprise.test/v1/webhooks/replicate/{attempt_id[:-1]}?token=t",
        "none": None,
    }
    for name, webhook in strangers.items():
        line.fake.predictions[name] = row | {
            "id": name,
            "webhook": webhook,
            "status": "succeeded",
            "output": TONE,
        }
    await line.look()
    await line.hurry()
    await line.drain()
    assert await statuses(line, job_id) == ["lost", "starting"]
    assert {line.fake.predictions[name]["status"] for name in strangers} == {"succeeded"}
    canceled = [seen.path.split("/")[-2] for seen in line.fake.seen if seen.path.endswith("/cancel")]
    assert not set(canceled) & set(strangers)


async def test_fault_58_a_prediction_stuck_past_its_limit_is_canceled_and_tried_again(line: Stage) -> None:
    job_id, first = await line.start()
    await line.age(400)
    await line.look()
    assert line.fake.predictions[first]["status"] == "canceled"
    await line.hurry()
    await line.drain()
    assert len(await statuses(line, job_id)) == 2
    _, second = line.fake.predictions
    # Its late success after all: kept, without an effect.
    line.fake.predictions[first] |= {"status": "succeeded", "output": TONE}
    await line.fake.send_hook("completed", first)
    await line.drain()
    assert await line.state(job_id) == "running"
    assert (await line.ledger())[-1]["outcome"] == "late_result"
    await line.fake.finish(second, output=TONE)
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    assert await line.count(Output) == 1


@pytest.mark.parametrize("end", ["aborted", "canceled", "failed"])
async def test_an_end_without_a_result_leads_to_another_attempt(line: Stage, end: str) -> None:
    line.fake.lose_hooks = SILENT
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, status=end)
    await line.look()
    await line.hurry()
    await line.drain()
    assert await statuses(line, job_id) == [end, "starting"]


async def test_fault_59_an_unknown_status_is_no_end_and_no_success(line: Stage) -> None:
    line.fake.lose_hooks = SILENT
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, status="pondering", output=TONE)
    await line.look()
    assert (await line.state(job_id), await line.outcomes()) == ("running", ["quarantined"])
    await line.fake.finish(prediction_id, output=TONE)
    await line.look()
    assert await line.state(job_id) == "succeeded"


async def test_fault_59_an_unknown_status_ends_at_the_attempts_limit(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    line.fake.predictions[prediction_id]["status"] = "pondering"
    await line.age(400)
    await line.look()
    await line.hurry()
    await line.drain()
    assert len(await statuses(line, job_id)) == 2


async def test_fault_60_a_prediction_that_is_gone_is_lost_and_tried_again(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    gone = line.fake.predictions.pop(prediction_id)
    await line.look()
    await line.hurry()
    await line.drain()
    assert await statuses(line, job_id) == ["lost", "starting"]
    assert gone["status"] == "starting"


async def test_fault_34_an_expired_output_is_made_again_and_the_new_one_is_taken(stage_on: OpenStage) -> None:
    async with stage_on(serve=True) as line:
        job_id, first = await line.start()
        url = line.fake.keep_output("first.wav", tone())
        line.fake.expire("first.wav")
        await line.fake.finish(first, output=url)
        await line.drain()
        _, second = line.fake.predictions
        await line.fake.finish(second, output=line.fake.keep_output("second.wav", tone()))
        await line.drain()
        job = await line.read(job_id)
        assert job["state"] == "succeeded", job["error"]
        assert "job.requeued" in await line.events(job_id)


async def test_fault_34_an_output_that_always_expires_ends_in_a_word_for_it(stage_on: OpenStage) -> None:
    async with stage_on(serve=True, max_attempts=2) as line:
        job_id = await line.ask()
        for number in range(2):
            await line.drain()
            prediction_id = list(line.fake.predictions)[number]
            await line.fake.finish(prediction_id, output=f"{line.fake.base_url}/outputs/gone.wav")
            await line.drain()
        job = await line.read(job_id)
        assert (job["state"], job["error"]["code"]) == ("failed", "output_expired")
        assert len(job["attempts"]) == 2


async def test_a_result_whose_data_was_removed_is_made_again(line: Stage) -> None:
    line.fake.lose_hooks = SILENT
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    line.fake.remove_data(prediction_id)
    await line.look()
    await line.hurry()
    await line.drain()
    assert await statuses(line, job_id) == ["failed", "starting"]
    assert "removed" in (await line.read(job_id))["attempts"][0]["error"]


async def test_i8_a_job_whose_deadline_passes_in_the_queue_fails_with_the_reason(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        await line.ask()
        waiting = await line.ask()
        await line.drain()
        assert (await line.read(waiting))["waiting_reason"] == "behind 1 jobs at cog"
        await line.age(4000)
        await line.runtime.recovery.check()
        await line.drain()
        job = await line.read(waiting)
        assert (job["state"], job["error"]["code"]) == ("failed", "deadline_exceeded")
        assert "behind 1 jobs at cog" in job["error"]["message"]


@pytest.mark.parametrize("silent", [False, True])
async def test_i8_a_job_whose_deadline_passes_while_it_runs_fails_and_is_not_begun_again(
    line: Stage, *, silent: bool
) -> None:
    line.fake.lose_hooks = SILENT if silent else frozenset()
    job_id, prediction_id = await line.start()
    await line.age(4000)
    await line.look()
    await line.look()
    job = await line.read(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "deadline_exceeded")
    assert line.fake.predictions[prediction_id]["status"] == "canceled"
    assert len(line.fake.predictions) == 1


async def test_a_deadline_that_passes_while_the_provider_is_away_still_ends_the_job(line: Stage) -> None:
    job_id, _ = await line.start()
    await line.age(4000)
    line.fake.script("get", *[bad_gateway() for _ in range(20)])
    await line.look()
    job = await line.read(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "deadline_exceeded")


async def test_a_result_that_is_there_at_the_deadline_is_taken(line: Stage) -> None:
    line.fake.lose_hooks = SILENT
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.age(4000)
    await line.look()
    assert await line.state(job_id) == "succeeded"


async def test_fault_60_a_webhook_and_a_poll_at_once_make_one_end(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    line.fake.lose_hooks = SILENT
    await line.fake.finish(prediction_id, output=TONE)
    await line.hurry()
    await asyncio.gather(
        line.fake.send_hook("completed", prediction_id),
        line.runtime.recovery.check(),
        line.runtime.recovery.check(),
    )
    ids = [item["id"] for item in await line.ledger()]
    assert len(ids) == 2
    await asyncio.gather(*(line.runtime.inbox.step(delivery_id) for delivery_id in ids * 2))
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    assert sorted(str(each) for each in await line.outcomes()) == ["applied", "ignored"]
    assert (await line.events(job_id)).count("job.succeeded") == 1


async def test_a_replayed_delivery_has_one_effect_and_says_so(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    original = (await line.ledger())[0]["id"]
    for _ in range(2):
        reply = await line.client.post(f"/v1/deliveries/{original}/replay")
        assert reply.status_code == 202
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    kept = await line.ledger()
    assert [(each["source"], each["outcome"]) for each in kept] == [
        ("webhook", "applied"),
        ("replay", "ignored"),
        ("replay", "ignored"),
    ]
    assert (await line.events(job_id)).count("job.succeeded") == 1
    assert (await line.client.post("/v1/deliveries/dlv_nobody/replay")).status_code == 404


async def test_a_passed_deadline_cannot_be_replayed(sqlite_line: Stage) -> None:
    await sqlite_line.start()
    await sqlite_line.age(4000)
    await sqlite_line.look()
    deadline = next(each for each in await sqlite_line.ledger() if each["source"] == "deadline")
    reply = await sqlite_line.client.post(f"/v1/deliveries/{deadline['id']}/replay")
    assert (reply.status_code, reply.json()["code"]) == (409, "conflict")


async def test_what_a_dead_worker_had_in_hand_is_begun_again(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        job_id = await line.ask()
        waiting = await line.ask()
        await line.drain()
        line.cog.running.clear()
        last = (await line.attempts())[-1].created_at
        async with line.runtime.line.database.transaction() as tx:
            for attempt in await line.attempts():
                await note_attempt(tx, attempt.id, owner="proc_test")
        assert await line.runtime.recovery.forget("proc_test", last) == 0, "only what was begun before"
        await line.hurry()
        later = (await line.rows(Job))[0].deadline_at
        assert await line.runtime.recovery.forget("proc_test", later) == 1
        await line.drain()
        await line.hurry()
        await line.drain()
        assert await statuses(line, job_id) in (["lost"], ["lost", "starting"])
        # The slot is free again: one of the two has it.
        assert len(line.cog.running) == 1
        assert {await line.state(each) for each in (job_id, waiting)} == {"running", "queued"}


async def test_a_silent_worker_that_cannot_be_asked_is_given_up_at_its_limit(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        job_id = await line.ask()
        await line.drain()
        await line.look()
        assert await statuses(line, job_id) == ["starting"]
        await line.age(400)
        await line.look()
        await line.hurry()
        await line.drain()
        assert await statuses(line, job_id) == ["lost", "starting"]
        assert line.cog.canceled == [line.cog.asked[0]]


async def test_our_own_worker_is_replaced_when_a_prediction_outlives_its_limit(
    stage_on_sqlite: OpenStage,
) -> None:
    """Fault 68: nothing else would ever end an engine that hangs in native code."""
    async with stage_on_sqlite(routes=("cog",)) as line:
        reasons: list[str] = []
        line.runtime.recovery.condemn = reasons.append
        await line.ask()
        await line.drain()
        (attempt,) = await line.attempts()
        await line.age(400)
        await line.look()
        assert reasons == [], "a worker of somebody else's is not ours to end"
        await line.hurry()
        await line.drain()
        attempt = (await line.attempts())[-1]
        await line.change(Attempt, attempt.id, owner=line.runtime.process_id)
        await line.age(400)
        await line.look()
        assert reasons == [f"{attempt.id} ran past its limit"]


async def test_a_process_that_looks_for_the_silent_never_takes_itself_for_dead(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        job_id = await line.ask()
        await line.drain()
        runtime = line.runtime
        long_ago = datetime.now(UTC) - timedelta(minutes=1)
        async with runtime.line.database.transaction() as tx:
            await beat(tx, runtime.process_id, now=long_ago)
            for attempt in await line.attempts():
                await note_attempt(tx, attempt.id, owner=runtime.process_id)
        await runtime.recovery.check()
        await line.drain()
        assert await statuses(line, job_id) == ["starting"]


async def test_a_job_that_is_overdue_in_the_queue_is_not_paid_for(line: Stage) -> None:
    job_id = await line.ask()
    await line.age(4000)
    await line.drain()
    job = await line.read(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "deadline_exceeded")
    assert len(line.fake.predictions) == 0
