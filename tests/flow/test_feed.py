"""Everything that happens, in one order: as pages, and as a stream that survives whatever cuts it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from sqlmodel import col

from app.feed import Closed, End, Feed, FeedLimits, Opened, Told, Wanted
from app.main import create_app
from db.events import append_event
from db.feed import FeedRow
from db.jobs import find_job
from db.retention.expiry import delete_expired_jobs
from db.tables import Job
from tests.fakes.provider import served
from tests.flow.conftest import OpenStage, Stage

LIMIT_S = 60.0


@asynccontextmanager
async def reached(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """The stage's service behind a socket, as a stream needs it."""
    async with (
        served(create_app(stage.runtime)) as url,
        httpx.AsyncClient(base_url=url, timeout=LIMIT_S) as client,
    ):
        yield client


async def listed(stage: Stage, **wanted: Any) -> dict[str, Any]:
    reply = await stage.client.get("/v1/events", params=wanted)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def stories(stage: Stage, **wanted: Any) -> list[tuple[str, str]]:
    """Job and type of all events, page by page."""
    items: list[dict[str, Any]] = []
    after: dict[str, Any] = {}
    while True:
        page = await listed(stage, **wanted, **after)
        items += page["items"]
        if not page["has_more"]:
            return [(item["job_id"], item["type"]) for item in items]
        after = {"after": page["position"]}


async def messages(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """What a stream says: `event`, `id` and the decoded `data` of each message."""
    said: dict[str, Any] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if line and name:
            said[name] = json.loads(value) if name == "data" else value
        elif said:
            yield said
            said = {}


@asynccontextmanager
async def streaming(
    client: httpx.AsyncClient, *, last: str | None = None, **wanted: Any
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    headers = {"accept": "text/event-stream", **({"last-event-id": last} if last else {})}
    async with (
        asyncio.timeout(LIMIT_S),
        client.stream("GET", "/v1/events", params=wanted, headers=headers) as reply,
    ):
        assert reply.status_code == 200
        yield messages(reply)


async def progress(stage: Stage, job_id: str, times: int = 1) -> None:
    """Say so often that the job has got on."""
    for _ in range(times):
        async with stage.runtime.line.database.transaction() as tx:
            await tx.execute(update(Job).where(col(Job.id) == job_id).values(seq=col(Job.seq) + 1))
            await append_event(tx, job_id, "job.progress", at=datetime.now(UTC), status="running")
            job = await find_job(tx, job_id)
            assert job is not None
            stage.runtime.line.hint_job(tx, job)


async def expire(stage: Stage, job_id: str) -> None:
    """Delete an ended job as its retention would."""
    now = datetime.now(UTC)
    await stage.change(Job, job_id, expires_at=now - timedelta(seconds=1))
    async with stage.runtime.line.database.transaction() as tx:
        assert await delete_expired_jobs(tx, now=now, limit=10, keyed_since=now - timedelta(days=1)) == (1, 0)


async def test_pages_tell_everything_in_the_order_in_which_it_happened(line: Stage) -> None:
    first, second = await line.ask("rain"), await line.ask("wind")
    await line.client.post(f"/v1/jobs/{first}/cancel")
    assert await stories(line) == await stories(line, limit=1)
    assert await stories(line) == [
        (first, "job.created"), (second, "job.created"), (first, "job.canceled"),
    ]  # fmt: skip
    page = await listed(line)
    item = page["items"][-1]
    assert (item["kind"], item["seq"], item["data"]["status"]) == ("sound_effect", 2, "canceled")
    assert (page["position"], page["reset"]) == (item["position"], False)
    assert (await listed(line, after=page["position"]))["items"] == []


async def test_a_page_is_narrowed_by_kind_type_state_job_and_time(line: Stage) -> None:
    first, second = await line.ask("rain"), await line.ask("wind")
    await line.client.post(f"/v1/jobs/{first}/cancel")
    assert await stories(line, job_id=second) == [(second, "job.created")]
    assert await stories(line, type="job.canceled") == [(first, "job.canceled")]
    assert await stories(line, state="queued", limit=1) == [(first, "job.created"), (second, "job.created")]
    assert await stories(line, kind="speech") == []
    assert len(await stories(line, kind="sound_effect")) == 3
    at = (await listed(line))["items"][2]["at"]
    assert await stories(line, since=at) == [(first, "job.canceled")]
    for wrong in ({"after": "-1"}, {"state": "odd"}, {"limit": "0"}, {"since": "noon"}):
        assert (await line.client.get("/v1/events", params=wrong)).status_code == 422
    reply = await line.client.get("/v1/events", headers={"last-event-id": "first"})
    assert (reply.status_code, reply.json()["field"]) == (422, "Last-Event-ID")


async def test_a_stream_that_is_cut_again_and_again_tells_everything_once(line: Stage) -> None:
    """Fault 63: a reader that comes back with the last id it saw misses nothing and sees nothing twice."""
    told: list[tuple[str, str]] = []
    last: str | None = None
    jobs: list[str] = []
    async with reached(line) as client:
        for _ in range(4):
            async with streaming(client, last=last) as stream:
                opened = await anext(stream)
                assert opened["event"] == "opened"
                last = opened["id"]
                job_id = await line.ask()
                jobs.append(job_id)
                # Two of the three are read; the stream is cut before the third.
                await line.client.post(f"/v1/jobs/{job_id}/cancel")
                async for said in stream:
                    last = said["id"]
                    told.append((said["data"]["job_id"], said["event"]))
                    if len(told) % 3 == 2:
                        break
            jobs.append(await line.ask())
        async with streaming(client, last=last) as stream:
            async for said in stream:
                if said["event"] != "opened":
                    told.append((said["data"]["job_id"], said["event"]))
                if len(told) == 12:
                    break
    assert told == await stories(line)
    assert {job_id for job_id, _ in told} == set(jobs)


async def test_a_stream_begins_with_what_happens_from_now_on(line: Stage) -> None:
    await line.ask("before")
    async with reached(line) as client, streaming(client) as stream:
        opened = await anext(stream)
        job_id = await line.ask("after")
        said = await anext(stream)
    assert (said["event"], said["data"]["job_id"]) == ("job.created", job_id)
    assert int(opened["id"]) < int(said["id"]) == said["data"]["position"]


@pytest.mark.breaks("I1")
async def test_a_position_before_what_is_kept_is_answered_by_a_reset(line: Stage) -> None:
    """Fault 63: what is missing is said, with a position from which nothing is."""
    gone, kept = await line.ask(), await line.ask()
    position = (await listed(line))["items"][0]["position"]
    await line.client.post(f"/v1/jobs/{gone}/cancel")
    await expire(line, gone)
    page = await listed(line, after=position)
    assert (page["reset"], page["items"]) == (True, [])
    assert await stories(line) == [(kept, "job.created")]
    async with reached(line) as client, streaming(client, last=str(position)) as stream:
        assert (await anext(stream))["event"] == "opened"
        reset = await anext(stream)
        assert (reset["event"], int(reset["id"])) == ("reset", page["position"])
        later = await line.ask()
        said = await anext(stream)
    assert (said["event"], said["data"]["job_id"]) == ("job.created", later)
    assert (await listed(line, after=page["position"]))["items"][0]["job_id"] == later


@pytest.mark.breaks("I1")
async def test_what_a_reader_has_seen_may_be_deleted_without_a_reset(line: Stage) -> None:
    gone, _ = await line.ask(), await line.ask()
    await line.client.post(f"/v1/jobs/{gone}/cancel")
    position = (await listed(line))["position"]
    await expire(line, gone)
    assert (await listed(line, after=position))["reset"] is False


async def test_a_position_from_beyond_the_head_is_answered_by_a_reset(line: Stage) -> None:
    await line.ask()
    head = (await listed(line))["position"]
    page = await listed(line, after=head + 10**9)
    assert (page["reset"], page["position"]) == (True, head)
    async with reached(line) as client, streaming(client, after=head + 10**9) as stream:
        reset = await anext(stream)
    assert (reset["event"], int(reset["id"])) == ("reset", head)


async def test_another_tenant_gets_nothing_of_it(line: Stage) -> None:
    await line.ask()
    feed = line.runtime.feed
    assert list((await feed.page("other", Wanted(), after=None, limit=10)).rows) == []
    assert await feed.head("other") == 0


async def test_streams_of_one_tenant_share_their_reads(line: Stage) -> None:
    """Of 40 streams and 20 events: a read for each of both would be 800."""
    job_id = await line.ask()
    feed = line.runtime.feed
    opened = 0

    async def follow() -> int:
        nonlocal opened
        count = 0
        async for told in feed.follow("default", Wanted(), after=None):
            opened += isinstance(told, Opened)
            count += isinstance(told, FeedRow)
            if count == 20:
                return count
        return count

    async with asyncio.timeout(LIMIT_S):
        following = [asyncio.create_task(follow()) for _ in range(40)]
        while opened < 40:
            await asyncio.sleep(0.005)
        await progress(line, job_id, 20)
        assert await asyncio.gather(*following) == [20] * 40
    assert feed.reads_made < 200
    assert line.runtime.line.notifier.count_subscriptions() == 0


async def test_a_reader_that_takes_nothing_is_closed_with_a_last_word(sqlite_line: Stage) -> None:
    """Fault 64: with a position from which it may come again."""
    feed = Feed(line=sqlite_line.runtime.line, limits=FeedLimits(stall_s=0.0))
    await sqlite_line.ask()
    told = []
    async for each in feed.follow("default", Wanted(), after=0):
        told.append(each)
        await asyncio.sleep(0.001)
    row, last = told[1:]
    assert isinstance(row, FeedRow)
    assert last == Closed(row.position, End.TOO_SLOW)


async def test_a_slow_reader_is_spared_progress_that_is_no_more_and_nothing_else(sqlite_line: Stage) -> None:
    """Fault 64: progress is coalesced, what ends a job is told."""
    feed = Feed(line=sqlite_line.runtime.line, limits=FeedLimits(slow_s=0.0, most_read=4, pause_s=0.0))
    job_id, other = await sqlite_line.ask(), await sqlite_line.ask()
    await progress(sqlite_line, job_id, 2)  # the first page ends here, and was slow
    await progress(sqlite_line, job_id, 2)
    await progress(sqlite_line, other, 1)
    await sqlite_line.client.post(f"/v1/jobs/{job_id}/cancel")
    told: list[Told] = []
    async for each in feed.follow("default", Wanted(), after=0):
        told.append(each)
        await asyncio.sleep(0.001)
        if isinstance(each, FeedRow) and each.type == "job.canceled":
            break
    rows = [(row.job_id, row.seq) for row in told if isinstance(row, FeedRow)]
    assert rows == [(job_id, 1), (other, 1), (job_id, 2), (job_id, 3), (job_id, 5), (other, 2), (job_id, 6)]


async def test_a_stop_ends_every_stream_with_a_last_word(stage_on: OpenStage) -> None:
    async with stage_on() as stage, reached(stage) as client:
        await stage.ask()
        async with streaming(client) as stream:
            opened = await anext(stream)
            stage.runtime.feed.release()
            last = await anext(stream)
            assert (last["event"], last["id"]) == ("closed", opened["id"])
            assert last["data"]["reason"] == "stopping"
            assert [said async for said in stream] == []


async def test_no_more_streams_than_the_limit_are_taken(sqlite_line: Stage) -> None:
    runtime = sqlite_line.runtime
    following = [
        runtime.feed.follow("default", Wanted(), after=None) for _ in range(FeedLimits().most_streams)
    ]
    for each in following:
        await anext(each)
    reply = await sqlite_line.client.get("/v1/events", headers={"accept": "text/event-stream"})
    assert (reply.status_code, reply.json()["code"]) == (503, "overloaded")
    for each in following:
        await each.aclose()
    assert runtime.line.notifier.count_subscriptions() == 0
