"""The Python client over a network that cuts, loses and refuses: nothing twice, nothing half."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app import client as reprise
from db.tables import Asset, Job, RecoveryRun
from tests.flow.client_ground import Ground, ground_on
from tests.flow.conftest import OpenStage, as_data_uri, tone

RAIN = {"prompt": "rain", "duration_s": 1}


@pytest.fixture(params=["blocking", "async"])
async def ground(request: pytest.FixtureRequest, stage_on_sqlite: OpenStage) -> AsyncIterator[Ground]:
    async with stage_on_sqlite(serve=True) as stage, ground_on(stage, request.param) as ground:
        yield ground


async def made(ground: Ground, seconds: float = 0.6) -> Any:
    job = await ground.client.jobs.create("sound_effect", RAIN)
    await ground.finish(as_data_uri(tone(seconds)))
    return await ground.client.jobs.get(job.id)


async def test_an_answer_that_is_lost_after_the_job_was_made_makes_no_second_one(ground: Ground) -> None:
    """Fault 19: the same request again, by the same key, is the same job."""
    ground.front.lose("POST", "/v1/jobs")
    job = await ground.client.jobs.create("sound_effect", RAIN)
    asked = ground.front.asked("POST", "/v1/jobs")
    assert len(asked) == 2
    assert len({each.headers["idempotency-key"] for each in asked}) == 1
    assert [row.id for row in await ground.stage.rows(Job)] == [job.id]


async def test_what_works_later_is_asked_again_at_most_three_times(ground: Ground) -> None:
    for number, status in enumerate((429, 502, 503, 504), 1):
        ground.front.seen.clear()
        for _ in range(3):
            ground.front.refuse("POST", "/v1/jobs", status, retry_after="0")
        job = await ground.client.jobs.create("sound_effect", RAIN)
        asked = ground.front.asked("POST", "/v1/jobs")
        assert len(asked) == 4
        assert len({each.headers["idempotency-key"] for each in asked}) == 1
        assert await ground.stage.count(Job) == number
        for _ in range(4):
            ground.front.refuse("GET", job.id, status, retry_after="0")
        with pytest.raises(reprise.RateLimited if status == 429 else reprise.Unavailable) as refused:
            await job.refresh()
        assert (refused.value.status, refused.value.retry_after_s) == (status, 0)
        assert len(ground.front.asked("GET", job.id)) == 4


async def test_what_never_works_is_asked_once(ground: Ground) -> None:
    for status in (302, 400, 401, 402, 403, 404, 409, 410, 413, 415, 422, 500):
        ground.front.seen.clear()
        ground.front.refuse("POST", "/v1/jobs", status, location="http://elsewhere.test/")
        with pytest.raises(reprise.RepriseError) as refused:
            await ground.client.jobs.create("sound_effect", RAIN)
        assert refused.value.status == status
        assert len(ground.front.asked("POST", "/v1/jobs")) == 1


async def test_a_wait_that_would_be_too_long_is_not_begun(ground: Ground) -> None:
    ground.front.refuse("POST", "/v1/jobs", 503, retry_after="3600")
    with pytest.raises(reprise.Unavailable) as refused:
        await ground.client.jobs.create("sound_effect", RAIN)
    assert refused.value.retry_after_s == 3600
    assert len(ground.front.asked("POST", "/v1/jobs")) == 1


async def test_a_retry_whose_answer_is_lost_makes_one_job(ground: Ground) -> None:
    """Fault 19: a retry has its key, too."""
    job = await ground.client.jobs.create("sound_effect", RAIN)
    await job.cancel()
    for act in (ground.client.jobs.retry, None):
        ground.front.seen.clear()
        ground.front.lose("POST", "/retry")
        again = await (act(job.id) if act else (await job.refresh()).retry())
        asked = ground.front.asked("POST", "/retry")
        assert (len(asked), again.retry_of) == (2, job.id)
        assert len({each.headers["idempotency-key"] for each in asked}) == 1
    assert await ground.stage.count(Job) == 3
    own = [await ground.client.jobs.retry(job.id, idempotency_key="again-1") for _ in range(2)]
    assert own[0].id == own[1].id


async def test_what_would_be_done_twice_is_not_repeated_unless_nothing_was_done(ground: Ground) -> None:
    ground.front.refuse("POST", "/v1/recoveries", 429, retry_after="0")
    ground.front.lose("POST", "/v1/recoveries")
    with pytest.raises(reprise.Unavailable):
        await ground.client.recoveries.recover()
    assert len(ground.front.asked("POST", "/v1/recoveries")) == 2
    assert await ground.stage.count(RecoveryRun) == 1


async def test_a_download_that_is_cut_goes_on_from_where_it_was(ground: Ground, tmp_path: Path) -> None:
    """Fault 33: cut on the way, it is resumed by Range and If-Range; what is saved is whole."""
    output = (await made(ground, 2.0)).outputs["audio"]
    # Each connection ends after so many bytes of answers, their heads with them.
    most_bytes = output.size_bytes // 4 + 600
    ground.proxy.reset()
    ground.proxy.spoil(limit_bytes=most_bytes)
    path = await output.save(tmp_path / "rain.flac")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == output.sha256
    asked = ground.front.asked("GET", "/content")
    assert len(asked) >= 4
    assert "range" not in asked[0].headers
    for each in asked[1:]:
        assert each.headers["range"].startswith("bytes=")
        assert each.headers["if-range"] == f'"{output.sha256}"'
    assert int(asked[-1].headers["range"][6:-1]) > int(asked[1].headers["range"][6:-1]) > 0


async def test_what_is_not_whole_or_not_the_same_is_not_saved(ground: Ground, tmp_path: Path) -> None:
    output = (await made(ground)).outputs["audio"]
    path = tmp_path / "rain.flac"
    path.write_bytes(b"of before")
    inner = getattr(output, "_inner", output)
    for change in ({"sha256": "0" * 64}, {"size_bytes": output.size_bytes - 1}):
        damaged = inner.model_copy(update=change)
        damaged._transport = inner._transport
        with pytest.raises(reprise.DownloadDamaged):
            await (asyncio.to_thread(damaged.save, path) if inner is not output else damaged.save(path))
    ground.front.refuse("GET", "/content", 410)
    with pytest.raises(reprise.Gone):
        await output.save(path)
    with pytest.raises(IsADirectoryError):
        await output.save(tmp_path)
    assert path.read_bytes() == b"of before"
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".part"] == []


async def test_events_over_cut_connections_have_no_gap_and_no_double(ground: Ground) -> None:
    """Fault 63: the stream goes on from the last `seq` that came."""
    job = await made(ground)
    whole = [event async for event in job.events()]
    ground.front.seen.clear()
    ground.proxy.reset()
    ground.proxy.spoil(limit_bytes=1000)
    assert [event async for event in job.events()] == whole
    begun = [each.headers.get("last-event-id") for each in ground.front.asked("GET", "/events")]
    assert len(begun) > 1
    assert begun[0] is None
    assert [int(each or 0) for each in begun] == sorted(int(each or 0) for each in begun)


async def test_a_stream_is_followed_through_a_restart_of_what_is_between(ground: Ground) -> None:
    job = await ground.client.jobs.create("sound_effect", RAIN)
    seen: list[int] = []
    begun = asyncio.Event()

    async def follow() -> None:
        async for event in job.events():
            seen.append(event.seq)
            begun.set()

    following = asyncio.create_task(follow())
    waiting = asyncio.create_task(job.wait(60))
    await begun.wait()
    await ground.proxy.down()
    await ground.proxy.up()
    await ground.finish()
    await following
    assert seen == list(range(1, len(seen) + 1))
    assert (await waiting).state == "succeeded"


async def test_an_upload_that_is_cut_is_sent_again_from_its_beginning(ground: Ground) -> None:
    content = tone(20.0)
    ground.front.lose("POST", "/v1/uploads")
    sent: list[int] = []
    upload = await ground.client.uploads.create(
        io.BytesIO(content), progress=lambda done, _total: sent.append(done)
    )
    assert (upload.size_bytes, upload.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert sent.count(len(content)) == 2
    asked = ground.front.asked("POST", "/v1/uploads")
    assert len({each.headers["idempotency-key"] for each in asked}) == 1
    own = [await ground.client.uploads.create(io.BytesIO(content), idempotency_key="song") for _ in range(2)]
    assert own[0] == own[1]
    assert own[0].upload_id != upload.upload_id


async def test_what_is_still_under_way_is_asked_again(ground: Ground) -> None:
    """Fault 19: the first try of a request may outlive its connection."""
    ground.front.refuse("POST", "/v1/uploads", 409, body='{"code": "request_under_way"}')
    upload = await ground.client.uploads.create(io.BytesIO(tone(1.0)))
    asked = ground.front.asked("POST", "/v1/uploads")
    assert len(asked) == 2
    assert len({each.headers["idempotency-key"] for each in asked}) == 1
    assert upload.upload_id.startswith("upl_")
    for _ in range(4):
        ground.front.refuse("POST", "/v1/uploads", 409, body='{"code": "request_under_way"}')
    with pytest.raises(reprise.UnderWay):
        await ground.client.uploads.create(io.BytesIO(tone(1.0)))


async def test_waits_and_streams_go_on_through_refusals(ground: Ground) -> None:
    job = await made(ground)
    for path in (job.id, "/events"):
        for status in (429, 503, 502):
            ground.front.refuse("GET", path, status, retry_after="0")
    assert (await ground.client.jobs.wait(job.id, 60)).state == "succeeded"
    assert [event.type async for event in job.events()][-1] == "job.succeeded"


async def test_a_service_that_ends_waits_early_is_not_asked_without_end(ground: Ground) -> None:
    client = ground.connect(ground.url, retry_for_s=2)
    job = await client.jobs.create("sound_effect", RAIN)
    ground.front.is_hasty = True
    with pytest.raises(reprise.Unavailable, match="before their time"):
        await client.jobs.wait(job.id, 600)
    assert len(ground.front.asked("GET", job.id)) < 30
    assert (await client.jobs.get(job.id)).state == "queued"


async def test_a_feed_that_is_closed_at_once_is_not_asked_without_end(ground: Ground) -> None:
    client = ground.connect(ground.url, retry_for_s=2)
    ground.stage.runtime.feed.release()
    with pytest.raises(reprise.Unavailable, match="was closed"):
        [event async for event in client.events()]
    assert 1 < len(ground.front.asked("GET", "/v1/events")) < 30


async def test_of_a_file_that_changes_while_it_is_sent_no_half_is_stored(ground: Ground) -> None:
    class Growing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(size) or b"more"[:size]

    class Emptied(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b""

    content = tone(1.0)
    assert (await ground.client.uploads.create(Growing(content))).size_bytes == len(content)
    with pytest.raises(reprise.InvalidInput, match="ended after 0 of its"):
        await ground.client.uploads.create(Emptied(content))
    assert await ground.stage.count(Asset) == 1


async def test_a_service_that_is_not_there_is_given_up(ground: Ground) -> None:
    client = ground.connect(ground.url, retry_for_s=2)
    job = await client.jobs.create("sound_effect", RAIN)
    await ground.proxy.down()
    for act in (client.jobs.get, client.jobs.wait, client.jobs.cancel):
        with pytest.raises(reprise.Unavailable, match=r"^http://127\.0\.0\.1:\d+: ") as lost:
            await act(job.id)
        assert (lost.value.code, lost.value.status) == ("unreachable", None)
    with pytest.raises(reprise.Unavailable):
        [event async for event in client.jobs.events(job.id)]


async def test_another_service_at_the_address_is_said_to_be_one(ground: Ground) -> None:
    ground.front.refuse("GET", "job_1", 200)
    with pytest.raises(reprise.UnexpectedAnswer, match="is this address a Reprise service"):
        await ground.client.jobs.get("job_1")


async def test_a_caller_that_is_canceled_leaves_nothing_behind(
    stage_on_sqlite: OpenStage, tmp_path: Path
) -> None:
    async with stage_on_sqlite(serve=True) as stage, ground_on(stage, "async") as ground:
        output = (await made(ground, 2.0)).outputs["audio"]
        ground.proxy.reset()
        ground.proxy.spoil(half_open=True)
        saving = asyncio.create_task(output.save(tmp_path / "rain.flac"))
        while not list(tmp_path.glob(".rain*")):
            await asyncio.sleep(0.01)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert list(tmp_path.glob("*rain*")) == []
