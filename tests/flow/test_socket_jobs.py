"""What happens to jobs, told over Socket.IO: every event once, whatever is cut, by the feed's own number."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from sqlmodel import col

from app.web.socket.jobs import FanoutLimits, JobsNamespace
from db.events import append_event
from db.jobs import find_job
from db.retention.expiry import delete_expired_jobs
from db.tables import Job
from tests.flow.conftest import TONE, OpenStage, Stage
from tests.flow.sockets import Listener, listening_to, served

TOLD = ("job_created", "job_updated", "job_completed", "job_failed", "job_cancelled")
FIELDS = {"seq", "id", "job_id", "status", "progress", "stage", "message", "timestamp", "kind", "job_seq"}


async def feed(stage: Stage) -> list[tuple[int, str]]:
    """Position and job of every event, as `GET /v1/events` has them."""
    reply = await stage.client.get("/v1/events", params={"limit": 500})
    return [(item["position"], item["job_id"]) for item in reply.json()["items"]]


def told(listener: Listener) -> list[tuple[int, str]]:
    return [(each["seq"], each["job_id"]) for each in listener.named(*TOLD)]


async def progress(stage: Stage, job_id: str, times: int = 1) -> None:
    """Say so often that the job has got on."""
    for number in range(times):
        async with stage.runtime.line.database.transaction() as tx:
            await tx.execute(update(Job).where(col(Job.id) == job_id).values(seq=col(Job.seq) + 1))
            at, share = datetime.now(UTC), round(number / max(times, 1), 3)
            await append_event(tx, job_id, "job.progress", at=at, status="running", progress=share, stage="x")
            job = await find_job(tx, job_id)
            assert job is not None
            stage.runtime.line.hint_job(tx, job)


async def forget(stage: Stage, job_id: str) -> None:
    """Delete an ended job as its retention would."""
    now = datetime.now(UTC)
    await stage.change(Job, job_id, expires_at=now - timedelta(seconds=1))
    async with stage.runtime.line.database.transaction() as tx:
        await delete_expired_jobs(tx, now=now, limit=10, keyed_since=now - timedelta(days=1))


@asynccontextmanager
async def subscribed(stage: Stage, transport: str = "websocket") -> AsyncIterator[Listener]:
    """One listener to all jobs."""
    async with (
        served(stage.runtime) as (url, _),
        listening_to(url, transport=transport) as listener,
    ):
        await listener.ask("subscribe_to_jobs", {})
        yield listener


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_job_is_told_from_its_asking_to_its_stored_sound(line: Stage, transport: str) -> None:
    async with subscribed(line, transport) as listener:
        job_id, prediction = await line.start()
        await line.fake.finish(prediction, output=TONE)
        await line.drain()
        done = await listener.wait_for("job_completed")
        assert next(event for event, _ in listener.heard if event in TOLD) == "job_created"
        assert told(listener) == await feed(line)
        assert set(done) >= FIELDS
        assert (done["id"], done["status"], done["progress"]) == (job_id, "completed", 1.0)
        assert (await line.client.get(done["output_url"])).status_code == 200
        for event, payload in listener.heard:
            JobsNamespace.outgoing[event][1].model_validate(payload)
        updates = listener.named("job_updated")
        assert {each["status"] for each in updates} == {"processing"}
        assert all("output_url" not in each for each in updates)


async def test_only_the_end_links_to_the_sound_when_all_is_told_at_once(line: Stage) -> None:
    await line.start()
    start = (await feed(line))[0][0]
    await line.fake.finish(line.fake.live()[0], output=TONE)
    await line.drain()
    async with served(line.runtime) as (url, _), listening_to(url) as listener:
        await listener.ask("subscribe_to_jobs", {"after_seq": start})
        assert (await listener.wait_for("job_completed"))["output_url"]
        updates = listener.named("job_updated")
        assert updates
        assert all("output_url" not in each for each in updates)


async def test_a_failure_and_a_cancel_are_told_with_their_words(line: Stage) -> None:
    async with subscribed(line) as listener:
        canceled = await line.ask("wind")
        await line.client.post(f"/v1/jobs/{canceled}/cancel")
        assert (await listener.wait_for("job_cancelled"))["status"] == "cancelled"
        failed = await line.ask("rain", deadline_s=30)
        await line.age(60)
        await line.look()
        said = await listener.wait_for("job_failed")
        job = await line.read(failed)
        assert (said["job_id"], said["status"]) == (failed, "failed")
        assert (said["code"], said["error"]) == (job["error"]["code"], job["error"]["message"])


async def test_whoever_comes_back_with_the_last_seq_misses_nothing_and_hears_nothing_twice(
    stage_on: OpenStage,
) -> None:
    """Fault 63: cut again and again, by the client and by a restart of the service."""
    heard: list[tuple[int, str]] = []
    last = 0
    for number in range(3):
        async with stage_on() as stage:
            await stage.ask(f"before {number}")
            async with served(stage.runtime) as (url, _), listening_to(url) as listener:
                await listener.ask("subscribe_to_jobs", {"after_seq": last})
                job_id = await stage.ask(f"while {number}")
                await stage.client.post(f"/v1/jobs/{job_id}/cancel")
                await listener.until(lambda: len(told(listener)) >= 3)
                heard += told(listener)
                last = heard[-1][0]
            # Nobody listens: these are told at the next coming.
    async with stage_on() as stage:
        assert heard == await feed(stage)
        assert len(heard) == 9


async def test_a_client_that_goes_on_far_behind_reads_it_all_in_order(sqlite_line: Stage) -> None:
    job_id = await sqlite_line.ask()
    await progress(sqlite_line, job_id, 600)
    async with served(sqlite_line.runtime) as (url, app), listening_to(url) as listener:
        # However long the machine stands still: that is not the client's doing.
        app.api.state.sockets.library.namespace_handlers["/jobs"]._limits = FanoutLimits(slow_s=600)
        first = (await feed(sqlite_line))[0][0]
        await listener.ask("subscribe_to_jobs", {"after_seq": first})
        end = await sqlite_line.ask("the end")
        await listener.until(lambda: (told(listener) or [(0, "")])[-1][1] == end)
        positions = [seq for seq, _ in told(listener)]
        assert positions == sorted(set(positions))
        assert [each["job_seq"] for each in listener.named("job_updated")] == list(range(2, 602))


@pytest.mark.breaks("I1")
async def test_a_gap_that_is_gone_is_answered_with_what_stands(line: Stage) -> None:
    """Fault 63: a buffer that was passed is an explicit `reset` with a snapshot."""
    gone, kept = await line.ask("gone"), await line.ask("kept")
    first = (await feed(line))[0][0]
    await line.client.post(f"/v1/jobs/{gone}/cancel")
    await forget(line, gone)
    async with served(line.runtime) as (url, _), listening_to(url) as listener:
        await listener.ask("subscribe_to_jobs", {"after_seq": first})
        reset = await listener.wait_for("reset")
        assert [job["job_id"] for job in reset["jobs"]] == [kept]
        assert (reset["job_id"], reset["has_more"]) == (None, False)
        await line.client.post(f"/v1/jobs/{kept}/cancel")
        assert (await listener.wait_for("job_cancelled"))["seq"] > reset["seq"]
        assert len(told(listener)) == 1
    async with served(line.runtime) as (url, _), listening_to(url) as listener:
        # One that was never there: of another database, or of this one before it was set back.
        await listener.ask("subscribe_to_jobs", {"after_seq": 2**60})
        assert (await listener.wait_for("reset"))["jobs"]


async def test_one_job_is_followed_alone_and_together_with_all_others_once(line: Stage) -> None:
    async with served(line.runtime) as (url, _), listening_to(url) as listener:
        _, second = await line.ask("one"), await line.ask("two")
        start = (await feed(line))[0][0] - 1
        assert await listener.ask("subscribe_to_jobs", {"job_id": second, "after_seq": start})
        await listener.wait_for("job_created")
        assert [job for _, job in told(listener)] == [second]
        await listener.ask("subscribe_to_jobs", {})
        await listener.ask("subscribe_to_jobs", {"job_id": second})
        await line.client.post(f"/v1/jobs/{second}/cancel")
        await listener.wait_for("job_cancelled")
        await listener.ask("unsubscribe_from_jobs", {})
        await line.ask("three")
        await listener.ask("subscribe_to_jobs", {})
        last = await line.ask("four")
        await listener.wait_for("job_created", 2)
        assert [job for _, job in told(listener)] == [second, second, last]


async def test_the_list_goes_on_where_its_seq_says(line: Stage) -> None:
    async with served(line.runtime) as (url, _), listening_to(url) as listener:
        first, second = await line.ask("one"), await line.ask("two")
        await listener.ask("request_jobs_list", {"limit": 1})
        page = await listener.wait_for("jobs_list")
        assert ([job["id"] for job in page["jobs"]], page["has_more"]) == ([second], True)
        assert page["jobs"][0]["status"] == "queued"
        await line.client.post(f"/v1/jobs/{first}/cancel")
        await listener.ask("subscribe_to_jobs", {"after_seq": page["seq"]})
        assert (await listener.wait_for("job_cancelled"))["job_id"] == first
        assert len(told(listener)) == 1


async def test_every_process_tells_its_own_clients(stage_on: OpenStage) -> None:
    """Fault 63: whoever comes back to another replica goes on there; on PostgreSQL hints cross processes."""
    async with stage_on() as one:
        if not one.runtime.settings.is_shared:
            pytest.skip("only PostgreSQL has several processes")
        async with (
            stage_on() as other,
            served(one.runtime) as (here, _),
            served(other.runtime) as (there, _),
            listening_to(here) as near,
            listening_to(there) as far,
        ):
            for listener in (near, far):
                await listener.ask("subscribe_to_jobs", {})
            job_id = await one.ask()
            await other.client.post(f"/v1/jobs/{job_id}/cancel")
            for listener in (near, far):
                await listener.wait_for("job_cancelled")
            assert told(near) == told(far) == await feed(one)
            last = told(near)[0][0]
            async with listening_to(there) as moved:
                await moved.ask("subscribe_to_jobs", {"after_seq": last})
                await moved.wait_for("job_cancelled")
                assert told(moved) == told(near)[1:]


async def test_whoever_listens_reads_the_feed_no_oftener_for_being_many(sqlite_line: Stage) -> None:
    reads = sqlite_line.runtime.feed
    async with served(sqlite_line.runtime) as (url, _):
        listeners = [Listener() for _ in range(20)]
        for listener in listeners:
            await listener.connect(url)
            await listener.ask("subscribe_to_jobs", {})
        before = reads.reads_made
        jobs = [await sqlite_line.ask(f"job {number}") for number in range(10)]
        for listener in listeners:
            await listener.wait_for("job_created", 10)
            assert [job for _, job in told(listener)] == jobs
        assert reads.reads_made - before <= 3 * len(jobs)
        for listener in listeners:
            await listener.client.disconnect()
