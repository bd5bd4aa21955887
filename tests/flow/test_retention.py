"""Retention: what has expired goes whole, what is alive or shared stays, and nobody is left holding half."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import wave
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.housekeeping import OWNER_KEY
from app.main import create_app
from app.web.content import sending
from db.assets import insert_asset, insert_output
from db.ids import make_id
from db.retention.expiry import delete_expired_jobs
from db.tables import Asset, Attempt, Delivery, Event, IdempotencyKey, Job, Output
from tests.fakes.provider import served
from tests.flow.conftest import TONE, OpenStage, Stage, as_data_uri

pytestmark = pytest.mark.breaks("I1")
"""What has had its time is deleted."""

DAY_S = 86_400.0
PAST = timedelta(seconds=1)


async def succeeded(line: Stage, output: str = TONE, **body: object) -> str:
    job_id, prediction_id = await line.start(**body)
    await line.fake.finish(prediction_id, output=output)
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    return job_id


async def expire(line: Stage, *job_ids: str) -> int:
    """Let the time of these jobs come; how many went."""
    for job_id in job_ids:
        await line.change(Job, job_id, expires_at=datetime.now(UTC) - PAST)
    gone = await line.runtime.housekeeper.expire()
    await line.runtime.housekeeper.remove_doomed()
    return gone


def stored(line: Stage) -> list[Path]:
    root = line.runtime.bench.storage.root
    assert root is not None
    return [path for path in root.rglob("*") if path.is_file() and path.name != OWNER_KEY]


async def url_of(line: Stage, job_id: str) -> str:
    return str((await line.read(job_id))["outputs"]["audio"]["url"])


async def test_an_expired_job_goes_with_all_that_hangs_on_it(stage_on: OpenStage) -> None:
    async with stage_on(retention_s=DAY_S) as line:
        reply = await line.client.post(
            "/v1/jobs",
            json={"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}},
            headers={"Idempotency-Key": "once"},
        )
        job_id = reply.json()["id"]
        assert reply.json()["expires_at"] is None
        await line.drain()
        await line.fake.finish(next(iter(line.fake.predictions)), output=TONE)
        await line.drain()
        job = await line.read(job_id)
        age = datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["finished_at"])
        assert age == timedelta(seconds=DAY_S)
        asset = (await line.client.get(f"/v1/assets/{job['outputs']['audio']['asset_id']}")).json()
        assert asset["expires_at"] == job["expires_at"]
        assert await line.runtime.housekeeper.expire() == 0, "its time has not come"
        assert await expire(line, job_id) == 1
        for table in (Job, Attempt, Event, Delivery, Output, Asset, IdempotencyKey):
            assert await line.count(table) == 0, table.__name__
        assert stored(line) == []
        assert (await line.client.get(f"/v1/jobs/{job_id}")).status_code == 404


async def test_live_jobs_and_predictions_under_way_are_never_deleted(stage_on: OpenStage) -> None:
    async with stage_on(retention_s=DAY_S) as line:
        running, _ = await line.start()
        canceled, _ = await line.start()
        await line.runtime.jobs.cancel(canceled)
        assert await expire(line, running, canceled) == 0
        assert await line.state(running) == "running"
        assert await line.state(canceled) == "canceled"
        await line.look()  # the provider is told, and its prediction ends
        assert [each.status for each in await line.attempts()][1] == "canceled"
        assert await expire(line, running, canceled) == 1
        assert await line.state(running) == "running"


async def test_bytes_that_jobs_share_stay_until_the_last_of_them_goes(stage_on: OpenStage) -> None:
    async with stage_on(retention_s=DAY_S) as line:
        first, second = await succeeded(line), await succeeded(line)
        url = await url_of(line, second)
        assert await expire(line, first) == 1
        assert (await line.client.get(url)).status_code == 200
        assert await line.count(Asset) == 1
        assert await expire(line, second) == 1
        assert stored(line) == []


async def test_what_has_expired_is_410_before_and_after_it_is_deleted(stage_on: OpenStage) -> None:
    """Fault 46: also where only the address is known, without a link that proves it was there."""
    async with stage_on(retention_s=DAY_S) as line:
        job_id = await succeeded(line)
        url = await url_of(line, job_id)
        asset_id = (await line.rows(Asset))[0].id
        addresses = [url, *(f"/v1/assets/{asset_id}{part}" for part in ("", "/content", "/peaks"))]
        await line.change(Job, job_id, expires_at=datetime.now(UTC) - PAST)
        for deleted in (False, True):
            if deleted:
                assert await expire(line, job_id) == 1
            for address in addresses:
                reply = await line.client.get(address)
                assert (reply.status_code, reply.json()["code"]) == (410, "gone"), (deleted, address)
        assert (await line.client.get(f"/v1/assets/{make_id('ast')}/content")).status_code == 404


async def test_jobs_that_ended_before_there_was_a_retention_get_their_time(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        job_id = await succeeded(line)
        assert (await line.read(job_id))["expires_at"] is None
        assert await line.runtime.housekeeper.expire() == 0
    async with stage_on(retention_s=DAY_S) as line:
        await line.runtime.housekeeper.expire()
        job = await line.read(job_id)
        assert job["expires_at"] is not None
    async with stage_on() as line:
        await line.change(Job, job_id, expires_at=datetime.now(UTC) - PAST)
        assert await line.runtime.housekeeper.expire() == 0, "an empty setting deletes nothing"
        assert await line.state(job_id) == "succeeded"


async def test_many_expired_jobs_go_in_bounded_batches(stage_on: OpenStage) -> None:
    async with stage_on(retention_s=DAY_S, replicate_api_token=None) as line:
        past = datetime.now(UTC) - PAST
        rows = [
            Job(
                id=make_id("job"), kind="sound_effect", state="failed", input={}, caller_metadata={},
                provider="auto", created_at=past, finished_at=past, deadline_at=past, run_after=past,
                expires_at=past,
            ).model_dump()
            for _ in range(250)
        ]  # fmt: skip
        async with line.runtime.line.database.transaction() as tx:
            await tx.insert_new(Job, *rows)
        async with line.runtime.line.database.transaction() as tx:
            gone = await delete_expired_jobs(tx, now=datetime.now(UTC), limit=100, keyed_since=past)
        assert gone == (100, 0)
        assert await line.runtime.housekeeper.expire() == 150
        assert await line.count(Job) == 0


@pytest.mark.breaks("I2")
async def test_a_job_that_comes_to_share_an_expiring_asset_keeps_it(stage_on: OpenStage) -> None:
    """Fault 45: the finisher's row is locked before it is asked who else has it."""
    async with stage_on(retention_s=DAY_S) as line:
        old, other = await succeeded(line), (await line.start())[0]
        await line.change(Job, old, expires_at=datetime.now(UTC) - PAST)
        asset = (await line.rows(Asset))[0]
        async with line.runtime.line.database.transaction() as tx:
            same = await insert_asset(tx, asset.model_copy(update={"id": make_id("ast")}))
            deleting = asyncio.create_task(line.runtime.housekeeper.expire())
            # Where rows are not locked it is over by then, and the next statement finds no asset to point at.
            await asyncio.wait({deleting}, timeout=0.5)
            await insert_output(tx, other, "audio", same.id)
        assert await deleting == 1
        assert [each.id for each in await line.rows(Asset)] == [asset.id]


async def test_news_of_nothing_of_ours_goes_at_the_same_age(stage_on: OpenStage) -> None:
    async with stage_on(retention_s=DAY_S) as line:
        body = b'{"id": "x", "status": "succeeded"}'
        reply = await line.post("att_nobody", body, line.fake.signed("msg_x", body))
        assert reply.status_code == 200
        rows = await line.rows(Delivery)
        await line.change(Delivery, rows[0].id, settled_at=datetime.now(UTC))
        await line.runtime.housekeeper.expire()
        assert await line.count(Delivery) == 1
        await line.change(Delivery, rows[0].id, received_at=datetime.now(UTC) - timedelta(seconds=DAY_S + 1))
        await line.runtime.housekeeper.expire()
        assert await line.count(Delivery) == 0


async def test_a_download_in_progress_ends_whole_while_its_file_expires(stage_on_sqlite: OpenStage) -> None:
    """Fault 46: from a folder a file that was opened is read to its end, also a range of it."""
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(stage_on_sqlite(retention_s=DAY_S))
        job_id = await succeeded(line, as_data_uri(noise(3_000_000)))
        url = await url_of(line, job_id)
        address = await stack.enter_async_context(served(create_app(line.runtime)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=address, trust_env=False))
        whole = (await client.get(url)).content
        assert len(whole) > sending.PROVEN_BYTES
        for headers, wanted in (({}, whole), ({"range": "bytes=1000-"}, whole[1000:])):
            async with client.stream("GET", url, headers=headers) as reply:
                pieces = reply.aiter_raw(65_536)
                got = await anext(pieces)
                if not headers:
                    continue
                assert await expire(line, job_id) == 1
                assert stored(line) == []
                async for piece in pieces:
                    got += piece
            assert got == wanted
        assert (await client.get(url)).status_code == 410


async def test_a_download_from_a_bucket_whose_file_expires_is_cut_short_and_not_padded(
    stage_on_sqlite: OpenStage, bucket: object
) -> None:
    """Fault 46: a clean end. Fewer bytes come than were declared, and the client is told so."""
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(stage_on_sqlite(retention_s=DAY_S, storage_url="s3://assets"))
        job_id = await succeeded(line, as_data_uri(noise(6_000_000)))
        url = await url_of(line, job_id)
        address = await stack.enter_async_context(served(create_app(line.runtime)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=address, trust_env=False))
        async with client.stream("GET", url) as reply:
            assert reply.status_code == 200
            pieces = reply.aiter_raw(65_536)
            await anext(pieces)
            assert await expire(line, job_id) == 1
            with pytest.raises(httpx.RemoteProtocolError, match="without sending"):
                await _read_all(pieces)
        assert (await client.get(url)).status_code == 410


async def _read_all(pieces: AsyncIterator[bytes]) -> None:
    async for _ in pieces:
        pass


def noise(size_bytes: int) -> bytes:
    """A WAV of noise: nothing of it is trimmed."""
    target = io.BytesIO()
    with wave.open(target, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(48_000)
        writer.writeframes(os.urandom(size_bytes))
    return target.getvalue()


@pytest.mark.parametrize("size_bytes", [50_000, 3_000_000], ids=["small", "large"])
@pytest.mark.parametrize("damage", ["shorter", "longer", "another"])
async def test_bytes_that_changed_behind_us_are_never_sent_as_the_assets(
    stage_on_sqlite: OpenStage, size_bytes: int, damage: str
) -> None:
    """Fault 46: a checksum problem; of a large file whose size is right, all but the proof of it is sent."""
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(stage_on_sqlite())
        source = noise(size_bytes)
        job_id = await succeeded(line, as_data_uri(source))
        url = await url_of(line, job_id)
        asset = (await line.rows(Asset))[0]
        path = Path(line.runtime.bench.storage.place_of(asset.storage_key))
        good = path.read_bytes()
        spoiled = {"shorter": good[:-1], "longer": good + b"x", "another": good[:-1] + bytes([good[-1] ^ 1])}
        path.write_bytes(spoiled[damage])
        address = await stack.enter_async_context(served(create_app(line.runtime)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=address, trust_env=False))
        if damage == "another" and size_bytes > sending.PROVEN_BYTES:
            with pytest.raises(httpx.RemoteProtocolError, match="without sending"):
                await client.get(url)
        else:
            reply = await client.get(url)
            assert (reply.status_code, reply.json()["code"]) == (410, "checksum_mismatch")
        # The same bytes made again heal it: they are compared, not taken for there by their name.
        await succeeded(line, as_data_uri(source))
        assert await line.count(Asset) == 1
        assert hashlib.sha256((await client.get(url)).content).hexdigest() == asset.sha256
