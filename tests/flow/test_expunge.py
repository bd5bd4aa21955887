"""Retention of one job, and forgetting one at once: what it said and made goes, the tombstone stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from db.ids import make_id
from db.tables import Asset, Attempt, Delivery, Event, Job, JobWord, Output
from tests.flow.conftest import OpenStage, Stage
from tests.flow.test_retention import stored, succeeded, url_of

SECRET = "xylophone"


async def expunge(line: Stage, job_id: str) -> tuple[int, dict[str, Any]]:
    reply = await line.client.post(f"/v1/jobs/{job_id}/expunge")
    return reply.status_code, reply.json()


async def everything_said(line: Stage) -> str:
    """Every value of every row, as text."""
    found: list[str] = []
    async with line.runtime.line.database.reading() as tx:
        for table in Job.metadata.tables:
            rows = (await tx.execute(text(f"SELECT * FROM {table}"))).all()
            found += [_as_text(cell) for row in rows for cell in row]
    return "\n".join(found)


def _as_text(cell: object) -> str:
    return bytes(cell).decode(errors="replace") if isinstance(cell, (bytes, memoryview)) else str(cell)


async def test_expunging_leaves_a_tombstone_with_state_and_cost_and_nothing_that_was_said(
    line: Stage,
) -> None:
    body = {"prompt": SECRET, "metadata": {"note": SECRET}}
    job_id = await succeeded(line, **body)
    before = await line.read(job_id)
    url = await url_of(line, job_id)
    assert SECRET in await everything_said(line)
    assert stored(line)
    status, told = await expunge(line, job_id)
    assert status == 200
    assert (told["state"], told["input"], told["metadata"], told["outputs"]) == ("succeeded", {}, {}, {})
    assert told["expunged_at"] is not None
    assert told["cost"] == before["cost"]
    assert SECRET not in await everything_said(line)
    assert stored(line) == [], "the objects are gone at once"
    assert (await line.client.get(url)).status_code == 410
    for table in (Output, Asset, JobWord):
        assert await line.count(table) == 0, table.__name__
    assert {delivery.body for delivery in await line.rows(Delivery)} == {b""}
    assert await line.count(Attempt) == 1
    assert await line.count(Event) == len(await line.events(job_id)), "the numbers have no gap"
    assert (await line.client.get("/v1/jobs", params={"q": SECRET})).json()["items"] == []
    assert [job["id"] for job in (await line.client.get("/v1/jobs")).json()["items"]] == [job_id]
    assert await expunge(line, job_id) == (200, told), "once more changes nothing"


async def test_what_was_forgotten_cannot_be_asked_for_again(line: Stage) -> None:
    job_id = await line.ask()
    await line.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (await expunge(line, job_id))[0] == 200
    for path, body in (("retry", None), ("rerun", {"from": "dispatch"}), ("rerun", {"from": "finish"})):
        reply = await line.client.post(f"/v1/jobs/{job_id}/{path}", json=body)
        assert (reply.status_code, reply.json()["code"]) == (410, "gone"), path


async def test_late_news_of_a_forgotten_job_tells_nothing_anew(line: Stage) -> None:
    job_id = await succeeded(line)
    await expunge(line, job_id)
    attempt = (await line.attempts())[0]
    told = await line.read(job_id)
    asked = await line.client.post(f"/v1/deliveries/{(await line.ledger())[-1]['id']}/replay")
    assert asked.status_code in (202, 409)
    await line.drain()
    after = await line.read(job_id)
    assert (after["state"], after["input"], after["outputs"]) == (told["state"], {}, {})
    assert attempt.id == (await line.attempts())[0].id


async def test_a_live_job_is_not_forgotten_nor_one_whose_prediction_is_alive(line: Stage) -> None:
    queued = await line.ask()
    status, problem = await expunge(line, queued)
    assert (status, problem["code"]) == (409, "conflict")
    running, _ = await line.start()
    await line.client.post(f"/v1/jobs/{running}/cancel")
    status, problem = await expunge(line, running)
    assert (status, "provider" in problem["detail"]) == (409, True)
    assert (await expunge(line, make_id("job")))[0] == 404


async def test_files_that_others_have_stay_for_them(line: Stage) -> None:
    first, second = await succeeded(line), await succeeded(line)
    url = await url_of(line, second)
    await expunge(line, first)
    assert (await line.client.get(url)).status_code == 200
    await expunge(line, second)
    assert stored(line) == []


async def test_another_tenants_job_is_not_there(line: Stage) -> None:
    job_id = await succeeded(line)
    await line.change(Job, job_id, tenant="other")
    assert (await expunge(line, job_id))[0] == 404
    assert stored(line)


@pytest.mark.breaks("I1")
async def test_a_job_with_its_own_retention_goes_also_where_nothing_else_does(line: Stage) -> None:
    kept = await succeeded(line)
    short = await succeeded(line, retention_s=60)
    job = await line.read(short)
    age = datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["finished_at"])
    assert (age, job["retention_s"]) == (timedelta(seconds=60), 60)
    assert await line.runtime.housekeeper.expire() == 0
    past = datetime.now(UTC) - timedelta(seconds=1)
    for job_id in (kept, short):
        await line.change(Job, job_id, expires_at=past)
    assert await line.runtime.housekeeper.expire() == 1
    assert [row.id for row in await line.rows(Job)] == [kept]


async def test_a_retention_of_its_own_goes_before_that_of_all(stage_on: OpenStage) -> None:
    async with stage_on(retention_s=60.0) as line:
        job = await line.read(await succeeded(line, retention_s=7200))
        age = datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["finished_at"])
        assert age == timedelta(hours=2)


async def test_the_retention_is_part_of_the_request_that_a_key_stands_for(line: Stage) -> None:
    body: dict[str, Any] = {"kind": "sound_effect", "input": {"prompt": "rain"}, "retention_s": 60}
    headers = {"Idempotency-Key": "once"}
    first = await line.client.post("/v1/jobs", json=body, headers=headers)
    again = await line.client.post("/v1/jobs", json=body, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    other = await line.client.post("/v1/jobs", json={**body, "retention_s": 61}, headers=headers)
    assert other.status_code == 422


@pytest.mark.parametrize("retention_s", [0, 59, -1, 315_360_001, "soon"])
async def test_a_retention_out_of_bounds_is_refused(sqlite_line: Stage, retention_s: object) -> None:
    body = {"kind": "sound_effect", "input": {"prompt": "rain"}, "retention_s": retention_s}
    reply = await sqlite_line.client.post("/v1/jobs", json=body)
    assert (reply.status_code, reply.json()["field"]) == (422, "retention_s")
