"""Running a job again from a step: a new job, the old one as it was, and nobody paid for what is there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.tables import Attempt, Delivery, Job
from tests.flow.conftest import TONE, OpenStage, Stage, as_data_uri, tone

PADDED = as_data_uri(tone(0.6, pad_s=0.5))
"""0.6 s of sound between two half seconds of silence."""


async def succeeded(line: Stage, output: Any = PADDED, **body: Any) -> str:
    job_id, prediction_id = await line.start(**body)
    await line.fake.finish(prediction_id, output=output)
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    return job_id


async def rerun(line: Stage, job_id: str, step: str, **edits: Any) -> tuple[int, dict[str, Any]]:
    reply = await line.client.post(f"/v1/jobs/{job_id}/rerun", json={"from": step, "input": edits})
    return reply.status_code, reply.json()


async def steps(line: Stage, job_id: str) -> dict[str, tuple[str, bool, str | None]]:
    items = (await line.client.get(f"/v1/jobs/{job_id}/steps")).json()["items"]
    return {item["name"]: (item["state"], item["can_rerun"], item["code"]) for item in items}


async def test_a_job_is_finished_again_with_other_trim_settings_and_no_provider_is_asked(line: Stage) -> None:
    old_id = await succeeded(line)
    old = await line.read(old_id)
    asked = len(line.fake.predictions)
    status, made = await rerun(line, old_id, "finish", trim_silence=False)
    assert (status, made["state"], made["rerun_of"]) == (202, "finishing", old_id)
    await line.drain()
    new = await line.read(made["id"])
    assert new["state"] == "succeeded"
    assert new["input"] == {**old["input"], "trim_silence": False}
    assert new["outputs"]["audio"]["duration_s"] > old["outputs"]["audio"]["duration_s"] + 0.5
    assert (len(line.fake.predictions), new["attempts"], new["cost"]["items"]) == (asked, [], [])
    stands = await line.read(old_id)
    for job in (old, stands):
        del job["outputs"]["audio"]["url"]  # signed anew at each reading
    assert stands == old, "the old one stays as it was"
    assert await line.events(new["id"]) == ["job.created", "job.succeeded"]
    # And once more from there: it leads back to the same result.
    status, again = await rerun(line, new["id"], "finish", trim_silence=True)
    assert status == 202
    await line.drain()
    sha256 = (await line.read(again["id"]))["outputs"]["audio"]["sha256"]
    assert sha256 == old["outputs"]["audio"]["sha256"]


async def test_a_job_is_asked_for_again_with_an_edited_prompt(line: Stage) -> None:
    old_id = await succeeded(line, metadata={"album": "blue"}, retention_s=3600)
    status, made = await rerun(line, old_id, "dispatch", prompt="heavier rain")
    assert (status, made["state"]) == (202, "queued")
    assert (made["input"]["prompt"], made["input"]["duration_s"]) == ("heavier rain", 1)
    assert (made["metadata"], made["retention_s"], made["retry_of"]) == ({"album": "blue"}, 3600, None)
    await line.drain()
    assert len(line.fake.predictions) == 2
    await line.fake.finish(list(line.fake.predictions)[-1], output=TONE)
    await line.drain()
    assert await line.state(made["id"]) == "succeeded"
    found = (await line.client.get("/v1/jobs", params={"q": "heavier"})).json()["items"]
    assert [job["id"] for job in found] == [made["id"]]


async def test_an_edit_that_would_have_changed_what_the_provider_was_asked_is_refused_from_finish(
    line: Stage,
) -> None:
    old_id = await succeeded(line)
    status, problem = await rerun(line, old_id, "finish", prompt="snow")
    assert (status, problem["code"], problem["field"]) == (422, "invalid_input", "input.prompt")
    for step in ("dispatch", "finish"):
        status, problem = await rerun(line, old_id, step, duration_s=99)
        assert (status, problem["field"]) == (422, "input.duration_s")
        status, problem = await rerun(line, old_id, step, colour="blue")
        assert (status, problem["field"]) == (422, "input.colour")
    assert await line.count(Job) == 1


async def test_the_steps_say_what_can_be_run_again_and_why_not(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    assert await steps(line, job_id) == {
        "dispatch": ("running", False, "conflict"),
        "finish": ("waiting", False, "conflict"),
    }
    assert (await rerun(line, job_id, "dispatch"))[0] == 409
    await line.fake.finish(prediction_id, status="failed", error="no")
    await line.drain()
    await line.client.post(f"/v1/jobs/{job_id}/cancel")
    assert await steps(line, job_id) == {
        "dispatch": ("ended", True, None),
        "finish": ("ended", False, "conflict"),
    }
    status, problem = await rerun(line, job_id, "finish")
    assert (status, problem["code"]) == (409, "conflict")
    done = await succeeded(line)
    assert await steps(line, done) == {"dispatch": ("done", True, None), "finish": ("done", True, None)}


async def test_what_the_provider_keeps_no_longer_is_a_410_and_nothing_is_made(stage_on: OpenStage) -> None:
    async with stage_on(serve=True) as line:
        old_id = await succeeded(line, output=line.fake.keep_output("out.wav", tone()))
        status, made = await rerun(line, old_id, "finish")
        assert status == 202
        await line.drain()
        assert await line.state(made["id"]) == "succeeded"
        for delivery in await line.rows(Delivery):
            await line.change(Delivery, delivery.id, received_at=datetime.now(UTC) - timedelta(hours=2))
        status, problem = await rerun(line, old_id, "finish")
        assert (status, problem["code"]) == (410, "gone")
        assert (await steps(line, old_id))["finish"] == ("done", False, "gone")
        assert await line.count(Job) == 2


async def test_an_output_that_expires_after_all_fails_the_new_job_and_asks_nobody(
    stage_on: OpenStage,
) -> None:
    async with stage_on(serve=True) as line:
        old_id = await succeeded(line, output=line.fake.keep_output("out.wav", tone()))
        line.fake.expire("out.wav")
        status, made = await rerun(line, old_id, "finish")
        assert status == 202
        await line.drain()
        new = await line.read(made["id"])
        assert (new["state"], new["error"]["code"]) == ("failed", "output_expired")
        assert await line.count(Attempt) == 1
        # Retried, it is a job like any other: a provider is asked.
        reply = await line.client.post(f"/v1/jobs/{made['id']}/retry")
        assert (reply.json()["state"], reply.json()["rerun_of"]) == ("queued", None)


async def test_another_tenants_job_cannot_be_run_again(line: Stage) -> None:
    job_id = await succeeded(line)
    await line.change(Job, job_id, tenant="other")
    assert (await rerun(line, job_id, "dispatch"))[0] == 404
    assert (await line.client.get(f"/v1/jobs/{job_id}/steps")).status_code == 404


@pytest.mark.parametrize("body", [{}, {"from": "announce"}, {"from": "finish", "inputs": {}}])
async def test_a_step_that_is_none_is_refused(sqlite_line: Stage, body: dict[str, Any]) -> None:
    job_id = await succeeded(sqlite_line)
    reply = await sqlite_line.client.post(f"/v1/jobs/{job_id}/rerun", json=body)
    assert reply.status_code == 422
