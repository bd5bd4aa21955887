"""Acts on many jobs: counted first, done once each, stopped in the middle, taken over after a death."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.bulk import runner
from app.bulk.runner import BulkRunner
from app.jobs import Jobs
from app.views import JobView
from db.ids import make_id
from db.jobs import insert_jobs
from db.tables import BulkAct, Job
from tests.flow.conftest import Stage
from tests.flow.test_cli import answer, reprise


async def act(line: Stage, **body: Any) -> dict[str, Any]:
    reply = await line.client.post("/v1/jobs/bulk", json=body)
    assert reply.status_code in (200, 202), reply.text
    return dict(reply.json())


async def look(line: Stage, act_id: str) -> dict[str, Any]:
    reply = await line.client.get(f"/v1/jobs/bulk/{act_id}")
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def counts(told: dict[str, Any]) -> tuple[str, int, int, int, int]:
    return told["state"], told["total"], told["changed"], told["skipped"], told["failed"]


async def test_a_dry_run_counts_and_changes_nothing(line: Stage) -> None:
    rain = [await line.ask(f"rain {number}") for number in range(7)]
    await line.ask("snow")
    told = await act(line, action="cancel", q="rain", dry_run=True)
    assert (told["total"], told["is_whole"]) == (7, True)
    assert [each["id"] for each in told["examples"]] == rain[:1:-1]
    assert await line.runtime.bulk_runner.check() == 0
    assert {await line.state(job_id) for job_id in rain} == {"queued"}
    none = await act(line, action="retry", q="rain", dry_run=True)
    assert none["total"] == 0, "none of them has ended"


async def test_jobs_that_a_search_finds_are_canceled_and_then_retried(line: Stage) -> None:
    rain = [await line.ask(f"rain {number}") for number in range(3)]
    snow = await line.ask("snow")
    told = await act(line, action="cancel", q="prompt:rain state:queued")
    late = await line.ask("rain that comes too late to be meant")
    assert counts(told) == ("queued", 3, 0, 0, 0)
    assert await line.runtime.bulk_runner.check() == 1
    assert counts(await look(line, told["id"])) == ("done", 3, 3, 0, 0)
    assert [await line.state(job_id) for job_id in (*rain, snow, late)] == ["canceled"] * 3 + ["queued"] * 2
    told = await act(line, action="retry", ids=rain[:2])
    assert await line.runtime.bulk_runner.check() == 1
    assert counts(await look(line, told["id"])) == ("done", 2, 2, 0, 0)
    jobs = (await line.client.get("/v1/jobs", params={"q": "state:queued rain"})).json()["items"]
    assert sorted(job["retry_of"] for job in jobs if job["retry_of"]) == sorted(rain[:2])
    listed = (await line.client.get("/v1/jobs/bulk")).json()["items"]
    assert [each["action"] for each in listed] == ["retry", "cancel"]


@pytest.mark.breaks("I3")
async def test_what_has_ended_meanwhile_is_skipped_and_named(line: Stage) -> None:
    first, second = await line.ask("rain"), await line.ask("rain")
    told = await act(line, action="cancel", q="rain")
    await line.change(Job, first, state="succeeded", finished_at=datetime.now(UTC))
    await line.runtime.bulk_runner.check()
    told = await look(line, told["id"])
    assert counts(told) == ("done", 2, 1, 1, 0)
    assert [(each["job_id"], each["outcome"]) for each in told["troubles"]] == [(first, "skipped")]
    assert await line.state(second) == "canceled"


class FrozenAfter(Jobs):
    """Commands of a process that freezes right after so many of them took effect, until it may go on."""

    def __init__(self, jobs: Jobs, after: int) -> None:
        self.__dict__.update(jobs.__dict__)
        self.left = after
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def cancel(self, job_id: str, **more: Any) -> JobView:
        return await self._freeze(await super().cancel(job_id, **more))

    async def retry(self, job_id: str, **more: Any) -> JobView:
        return await self._freeze(await super().retry(job_id, **more))

    async def _freeze(self, view: JobView) -> JobView:
        self.left -= 1
        if self.left == 0:
            self.reached.set()
            await self.go_on.wait()
        return view


async def test_an_act_that_is_aborted_in_the_middle_stops_with_a_clear_count(
    line: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "BATCH", 2)
    rain = [await line.ask("rain") for _ in range(6)]
    told = await act(line, action="cancel", q="rain")
    commands = FrozenAfter(line.runtime.jobs, after=3)
    running = asyncio.create_task(BulkRunner(line=line.runtime.line, jobs=commands).check())
    await commands.reached.wait()
    reply = await line.client.post(f"/v1/jobs/bulk/{told['id']}/abort")
    assert reply.status_code == 200
    assert reply.json()["abort_at"] is not None
    commands.go_on.set()
    assert await running == 1
    told = await look(line, told["id"])
    assert counts(told) == ("aborted", 6, 4, 0, 0), "the batch that had begun was brought to its end"
    states = [await line.state(job_id) for job_id in rain]
    assert (states.count("canceled"), states.count("queued")) == (4, 2)
    assert await line.runtime.bulk_runner.check() == 0
    again = await line.client.post(f"/v1/jobs/bulk/{told['id']}/abort")
    assert again.status_code == 200


@pytest.mark.parametrize("action", ["cancel", "retry"])
async def test_an_act_is_taken_over_from_a_dead_process_and_nothing_is_done_twice(
    line: Stage, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Dead between a job's change and the count of it: the next process comes to that job once more.

    And should it not be dead but frozen, it loses when it wakes.
    """
    monkeypatch.setattr(runner, "BATCH", 2)
    rain = [await line.ask("rain") for _ in range(5)]
    if action == "retry":
        await act(line, action="cancel", q="rain")
        await line.runtime.bulk_runner.check()
    told = await act(line, action=action, ids=rain)
    commands = FrozenAfter(line.runtime.jobs, after=3)
    frozen = asyncio.create_task(BulkRunner(line=line.runtime.line, jobs=commands).check())
    await commands.reached.wait()
    assert counts(await look(line, told["id"])) == ("running", 5, 2, 0, 0)
    assert await line.runtime.bulk_runner.check() == 0, "its lease is not over"
    await line.change(BulkAct, told["id"], lease_until=datetime.now(UTC) - timedelta(minutes=1))
    assert await line.runtime.bulk_runner.check() == 1
    assert counts(await look(line, told["id"])) == ("done", 5, 5, 0, 0)
    commands.go_on.set()
    await frozen
    assert counts(await look(line, told["id"])) == ("done", 5, 5, 0, 0)
    jobs = (await line.client.get("/v1/jobs", params={"q": "rain"})).json()["items"]
    if action == "retry":
        assert sorted(job["retry_of"] for job in jobs if job["retry_of"]) == sorted(rain)
    else:
        assert [job["state"] for job in jobs] == ["canceled"] * 5


async def test_a_process_that_stops_gives_its_act_back(line: Stage) -> None:
    for _ in range(3):
        await line.ask("rain")
    told = await act(line, action="cancel", q="rain")
    commands = FrozenAfter(line.runtime.jobs, after=1)
    stopping = asyncio.create_task(BulkRunner(line=line.runtime.line, jobs=commands).check())
    await commands.reached.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert await line.runtime.bulk_runner.check() == 1
    assert counts(await look(line, told["id"])) == ("done", 3, 3, 0, 0)


async def test_another_tenants_jobs_and_acts_are_not_there(line: Stage) -> None:
    job = Job(
        id=make_id("job"), kind="speech", tenant="other", state="queued", input={"prompt": "rain"},
        caller_metadata={}, provider="auto", turn_at=datetime.now(UTC), created_at=datetime.now(UTC),
        deadline_at=datetime.now(UTC) + timedelta(days=1), run_after=datetime.now(UTC) + timedelta(days=1),
    )  # fmt: skip
    async with line.runtime.line.database.transaction() as tx:
        await insert_jobs(tx, [job])
    assert (await act(line, action="cancel", q="since:1d", dry_run=True))["total"] == 0
    reply = await line.client.post("/v1/jobs/bulk", json={"action": "cancel", "ids": [job.id]})
    assert reply.status_code == 404
    told = await act(line, action="cancel", q="rain")
    await line.change(BulkAct, told["id"], tenant="other")
    assert (await line.client.get(f"/v1/jobs/bulk/{told['id']}")).status_code == 404
    assert (await line.client.post(f"/v1/jobs/bulk/{told['id']}/abort")).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"action": "cancel"}, 422),
        ({"action": "cancel", "q": "rain", "ids": ["job_1"]}, 422),
        ({"action": "delete", "q": "rain"}, 422),
        ({"action": "cancel", "q": "state:"}, 400),
        ({"action": "cancel", "ids": ["job_1"]}, 404),
        ({"action": "cancel", "ids": ["x"] * 1001}, 422),
    ],
)
async def test_what_makes_no_sense_is_refused(sqlite_line: Stage, body: dict[str, Any], status: int) -> None:
    reply = await sqlite_line.client.post("/v1/jobs/bulk", json=body)
    assert reply.status_code == status, reply.text
    assert (
        await sqlite_line.client.post("/v1/jobs/bulk", json={**body, "dry_run": True})
    ).status_code == status


def test_the_commands_count_first_and_follow_an_act_to_its_end(tmp_path: Path) -> None:
    """A process of its own for each command; the act is run by the service that the last one opens."""
    asked = [answer(tmp_path, "request", "sound_effect", f"rain {n}", **NOBODY) for n in range(2)]
    answer(tmp_path, "request", "sound_effect", "snow", **NOBODY)
    wanted = ("jobs", "cancel", "--query", "rain -snow")
    told = answer(tmp_path, *wanted, "--dry-run", **NOBODY)
    assert (told["total"], told["dry_run"]) == (2, True)
    told = answer(tmp_path, *wanted, **NOBODY)
    assert counts(told) == ("done", 2, 2, 0, 0)
    page = answer(tmp_path, "jobs", "list", "state:canceled", "rain", **NOBODY)
    assert sorted(job["id"] for job in page["items"]) == sorted(job["id"] for job in asked)
    wrong = reprise(tmp_path, "jobs", "cancel", **NOBODY)
    assert wrong.returncode == 2
    assert "--query" in wrong.stderr


NOBODY = {"COG_URLS": "http://127.0.0.1:1"}
"""Jobs are taken, and their provider never answers."""
