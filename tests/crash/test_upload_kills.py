"""SIGKILL while an upload comes: its caller goes on from what it is told is there, and nothing else stays."""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tusclient.client import TusClient

from app.crash_points import CrashPoint
from app.housekeeping import OWNER_KEY
from tests.conftest import TEMPLATE, PostgresServer
from tests.crash.child import Child, until
from tests.flow.conftest import tone

pytestmark = pytest.mark.real
SONG = tone(600.0)
"""9.6 MB: more than two pieces."""
TUS = {"Tus-Resumable": "1.0.0"}
GONE_LIMIT_S = 30.0


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Where its rows live. Not async: the server's fixture runs a loop of its own."""
    if request.param == "sqlite":
        yield {}
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"crash_{secrets.token_hex(6)}"
    server.create(name, TEMPLATE)
    yield {"DATABASE_URL": server.url(name), "LEASE_S": "1"}
    server.drop(name)


@pytest.fixture
async def child(tmp_path: Path, place: dict[str, str]) -> AsyncIterator[Child]:
    """A service that makes nothing and sweeps often; its provider is nobody."""
    child = Child(
        tmp_path,
        REPLICATE_API_TOKEN="r8_nobody",
        REPLICATE_BASE_URL="http://127.0.0.1:1",
        REPLICATE_WEBHOOK_SECRET="whsec_bm9ib2R5IG5vYm9keSBub2JvZHkgbm9ib2R5",
        HOUSEKEEPING_INTERVAL_S="0.2",
        ORPHAN_INTERVAL_S="0.2",
        ORPHAN_AGE_S="0",
        **place,
    )
    yield child
    await child.aclose()


def objects(child: Child) -> list[str]:
    found = (path for path in (child.folder / "assets").rglob("*") if path.is_file())
    return [path.name for path in found if path.name != OWNER_KEY]


async def append(child: Child, address: str, at: int) -> httpx.Response | None:
    """Send all that is left; None when no answer came."""
    headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(at)}
    try:
        return await child.client.patch(address, content=SONG[at:], headers=headers)
    except httpx.TransportError:
        return None


async def stored(child: Child, address: str) -> dict[str, Any]:
    """The upload, whole, once its pieces are gone."""
    made = (await child.client.get(address)).json()
    assert (made["state"], made["sha256"]) == ("stored", hashlib.sha256(SONG).hexdigest())
    await until(lambda: objects(child) == [f"{made['sha256']}.wav"], GONE_LIMIT_S)
    return dict(made)


@pytest.mark.parametrize(
    ("point", "passes", "least", "most"),
    [
        (CrashPoint.PIECE_STORED, 1, 0, 0),
        (CrashPoint.PIECE_COUNTED, 1, 4 << 20, 4 << 20),
        (CrashPoint.PIECE_STORED, 2, 4 << 20, 4 << 20),
        (CrashPoint.UPLOAD_COMMITTED, 1, len(SONG), len(SONG)),
    ],
)
async def test_an_upload_goes_on_after_a_kill_at(
    child: Child, point: CrashPoint, passes: int, least: int, most: int
) -> None:
    """Faults 33, 45: what is told to be there is there, and is asked for by nobody again."""
    await child.start()
    begun = await child.client.post("/v1/uploads", headers={**TUS, "Upload-Length": str(len(SONG))})
    address = begun.headers["location"]
    child.arm(point, passes)
    answer, _ = await asyncio.gather(append(child, address, 0), child.dies())
    assert answer is None
    await child.start()
    head = await child.client.head(address, headers=TUS)
    at = int(head.headers["upload-offset"])
    assert least <= at <= most
    if at < len(SONG):
        async with asyncio.timeout(GONE_LIMIT_S):
            # The dead writer's lease runs out.
            while (again := await append(child, address, at)) is None or again.status_code == 423:
                await asyncio.sleep(0.1)
        assert again.status_code == 204, again.text
    await stored(child, address)


async def test_tuspy_goes_on_by_itself_with_the_next_life(child: Child) -> None:
    """Fault 33."""
    await child.start()
    child.arm(CrashPoint.PIECE_COUNTED, 2)

    def send() -> str:
        client = TusClient(f"{child.url}/v1/uploads")
        uploader = client.uploader(
            file_stream=io.BytesIO(SONG), chunk_size=len(SONG), retries=600, retry_delay=0.2
        )
        uploader.upload()
        return str(uploader.url).removeprefix(child.url)

    sending = asyncio.create_task(asyncio.to_thread(send))
    await child.dies()
    await child.start()
    async with asyncio.timeout(120):
        await stored(child, await sending)
