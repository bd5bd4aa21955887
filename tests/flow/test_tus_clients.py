"""tus as its own clients speak it: tuspy, which is kept by the makers of the protocol, over real HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed

from app.access.callers import Scope
from app.crash_points import CrashPoint
from app.intake.resumable.pieces import PIECE_BYTES
from app.main import create_app
from db.tables import Asset, PartialUpload
from tests.fakes.provider import served
from tests.fakes.proxy import proxied
from tests.flow.conftest import OpenStage, tone
from tests.flow.test_tenants import key_for
from tests.flow.test_tus import TUS, pieces

LONG = tone(600.0)
LIMIT_S = 120


async def sent(service: str, content: bytes, *, key: str | None = None, **more: Any) -> str:
    """Let tuspy send it; the upload's address. In a thread: tuspy blocks, and the service is in this loop."""
    client = TusClient(f"{service}/v1/uploads", headers={"Authorization": f"Bearer {key}"} if key else {})
    given = {"file_stream": io.BytesIO(content), "metadata": {"filename": "talk.wav"}, **more}

    def send() -> str:
        uploader = client.uploader(**given)
        uploader.upload()
        return str(uploader.url)

    async with asyncio.timeout(LIMIT_S):
        return await asyncio.to_thread(send)


async def read(address: str, **headers: str) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=LIMIT_S) as client:
        reply = await client.get(address, headers=headers)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())


@pytest.mark.parametrize(
    "manner",
    [{}, {"chunk_size": 1_000_000}, {"chunk_size": 5_000_000, "upload_checksum": True}],
    ids=["whole", "chunks", "checksums"],
)
async def test_tuspy_sends_a_file(stage_on_sqlite: OpenStage, manner: dict[str, Any]) -> None:
    async with stage_on_sqlite() as line, served(create_app(line.runtime)) as url:
        made = await read(await sent(url, LONG, **manner))
        assert (made["state"], made["sha256"]) == ("stored", hashlib.sha256(LONG).hexdigest())
        assert made["duration_s"] == 600.0
        assert (await line.count(PartialUpload), pieces(line)) == (0, [])


async def test_tuspy_goes_on_after_a_connection_was_cut_in_the_middle(stage_on: OpenStage) -> None:
    """Fault 33: reset mid-body, and again at the end, when the service has all and nobody was told."""
    cuts: list[CrashPoint] = []
    cut: Callable[[], int] = lambda: 0  # noqa: E731

    def reach(point: CrashPoint) -> None:
        if point in (CrashPoint.PIECE_COUNTED, CrashPoint.UPLOAD_COMMITTED) and point not in cuts:
            cuts.append(point)
            assert cut() > 0

    async with (
        stage_on(ports={"reach": reach}) as line,
        served(create_app(line.runtime)) as direct,
        proxied(urlsplit(direct).port or 0) as proxy,
    ):
        cut = proxy.reset
        through = f"http://127.0.0.1:{proxy.port}"
        address = await sent(through, LONG, chunk_size=len(LONG), retries=200, retry_delay=0.1)
        made = await read(address)
        assert cuts == [CrashPoint.PIECE_COUNTED, CrashPoint.UPLOAD_COMMITTED]
        assert made["sha256"] == hashlib.sha256(LONG).hexdigest()
        assert await line.count(Asset) == 1
        assert pieces(line) == []


async def test_tuspy_resumes_by_the_address_that_it_kept(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite() as line, served(create_app(line.runtime)) as url:
        client = TusClient(f"{url}/v1/uploads")

        def begin() -> str:
            uploader = client.uploader(file_stream=io.BytesIO(LONG), chunk_size=PIECE_BYTES)
            uploader.upload_chunk()
            return str(uploader.url)

        address = await asyncio.to_thread(begin)
        assert (await read(address))["offset_bytes"] == PIECE_BYTES
        assert await sent(url, LONG, url=address, metadata={}) == address
        assert (await read(address))["sha256"] == hashlib.sha256(LONG).hexdigest()
        assert await line.count(Asset) == 1


async def test_tuspy_is_told_what_is_no_sound_and_what_is_too_large(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(max_upload_bytes=1_000_000) as line, served(create_app(line.runtime)) as url:
        with pytest.raises(TusUploadFailed) as refused:
            await sent(url, b"no sound at all " * 1000)
        assert refused.value.status_code == 422
        with pytest.raises(TusCommunicationError) as too_large:
            await sent(url, LONG)
        assert too_large.value.status_code == 413
        assert await line.count(PartialUpload) == 0


async def test_another_tenant_neither_sees_nor_goes_on_with_an_upload(stage_on: OpenStage) -> None:
    """Fault 18."""
    async with stage_on() as line, served(create_app(line.runtime)) as url:
        ours, theirs = [(await key_for(line, name, Scope.JOBS_WRITE)).text for name in ("acme", "umbrella")]
        reader = (await key_for(line, "acme", Scope.JOBS_READ)).text
        begun = await line.client.post(
            "/v1/uploads",
            headers={**TUS, "Upload-Length": str(len(LONG)), "Authorization": f"Bearer {ours}"},
        )
        address = f"{url}{begun.headers['location']}"
        for key, status in ((theirs, 404), (reader, 403), ("rp_nobody", 401)):
            with pytest.raises(TusCommunicationError) as refused:
                await sent(url, LONG, key=key, url=address)
            assert refused.value.status_code == status
        assert (await read(address, Authorization=f"Bearer {ours}"))["offset_bytes"] == 0
        await sent(url, LONG, key=ours, url=address)
        made = await read(address, Authorization=f"Bearer {ours}")
        assert made["state"] == "stored"
        for key, status in ((theirs, 422), (ours, 202)):
            job = {"kind": "transcription", "input": {"audio": made["upload_id"]}}
            asked = await line.client.post("/v1/jobs", json=job, headers={"Authorization": f"Bearer {key}"})
            assert asked.status_code == status
