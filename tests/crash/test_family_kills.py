"""SIGKILL of the whole service while a job's work is other jobs: no part is done twice, none is forgotten.

The worker is a fake in the process of the test, so that what was asked of it is known.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.crash_points import CrashPoint
from db.session import Database
from tests.conftest import TEMPLATE, PostgresServer
from tests.crash.child import END_LIMIT_S, Child, until
from tests.fakes.cog import FakeCog
from tests.fakes.provider import served
from tests.flow.songs import STEMS, TRANSFERRED, make_voice, sound

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

MOMENTS = [
    (CrashPoint.JOB_COMMITTED, 1),
    (CrashPoint.FAMILY_PLANNED, 1),
    (CrashPoint.FAMILY_PLANNED, 2),
    (CrashPoint.FAMILY_PLANNED, 3),
    (CrashPoint.JOB_FINISHED, 1),
    (CrashPoint.JOB_FINISHED, 2),
    (CrashPoint.FINISH_CLAIMED, 3),
    (CrashPoint.PARTS_JOINED, 1),
    (CrashPoint.JOB_FINISHED, 3),
]
"""And how often the point is passed before: first comes the separation, then the transfer, then the mix."""


@asynccontextmanager
async def at_work(cog: FakeCog) -> AsyncIterator[None]:
    """The worker ends whatever it is asked, also while nobody is there to be told."""

    async def work() -> None:
        while True:
            for prediction_id, asked in list(cog.running.items()):
                output = TRANSFERRED if "pitch_shift" in asked["input"] else STEMS
                try:
                    await cog.finish(prediction_id, output=output)
                except httpx.TransportError:
                    # It tells again, as the real one does.
                    cog.running[prediction_id] = asked
            await asyncio.sleep(0.02)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@dataclass
class House:
    """A service, the fake worker behind it, and a voice."""

    child: Child
    cog: FakeCog
    voice: str

    async def song(self, number: int) -> dict[str, Any]:
        """A request for a song that was never sent before: nothing of it is made."""
        song = sound(440, 100.0 + number)
        upload = await self.child.client.post("/v1/uploads", files={"file": ("song.flac", song)})
        # The fake gives the same stems for all: what is made of them differs by this.
        wanted = {"audio": upload.json()["upload_id"], "voice_id": self.voice, "pitch_shift": number}
        return {"kind": "voice_conversion", "input": wanted}


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(place: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One service that dies at one point after the other: the life that recovers is armed with the next."""
    folder = tmp_path_factory.mktemp("family")
    async with httpx.AsyncClient(trust_env=False) as hooks, served(cog := FakeCog(hooks=hooks)) as url:
        child = Child(folder, COG_URLS=url, OUTBOUND_ALLOW="127.0.0.1", **place)
        try:
            await child.start()
            database = Database(place.get("DATABASE_URL", f"sqlite+aiosqlite:///{folder}/reprise.db"))
            try:
                voice = await make_voice(child.client, database)
            finally:
                await database.aclose()
            yield House(child, cog, voice)
            if child.is_alive:
                await child.stop()
                # A kill may have met another part of the song in the middle of its write.
                await child.sweep()
                child.assert_nothing_temporary()
        finally:
            await child.aclose()


@pytest.mark.parametrize(("point", "passes"), MOMENTS, ids=str)
async def test_a_song_is_converted_once_when_the_service_dies_at(
    house: House, point: CrashPoint, passes: int
) -> None:
    """Fault 52: each part is one job with one prediction, whenever the service dies."""
    child, cog, key = house.child, house.cog, f"{point}-{passes}"
    if not child.is_alive:
        await child.start()
    asked, before = await house.song(MOMENTS.index((point, passes))), len(cog.asked)
    child.arm(point, passes)
    async with at_work(cog):
        accepted, _ = await asyncio.gather(child.submit(asked, key=key), child.dies())
        await child.start()
        job_id = await child.submit(asked, key=key)
        assert job_id is not None
        assert accepted in (None, job_id)
        job = await child.ended(job_id)
    await child.assert_succeeded_once(job)
    parts = (await child.client.get("/v1/jobs", params={"parent_id": job_id})).json()["items"]
    assert [part["step"] for part in parts] == ["transfer", "separation"]
    for part in parts:
        await child.assert_succeeded_once(part)
    assert len(cog.asked) - before == 2
    assert len(set(cog.asked)) == len(cog.asked)
    child.assert_only_living_folders()


async def test_a_cancel_that_dies_in_the_middle_has_ended_the_whole_and_its_parts(house: House) -> None:
    """Fault 28: in one commit."""
    child, cog = house.child, house.cog
    if not child.is_alive:
        await child.start()
    job_id = await child.submit(await house.song(12))
    await until(lambda: cog.running, END_LIMIT_S)
    child.arm(CrashPoint.JOB_CANCELED)
    with suppress(httpx.TransportError):
        await child.client.post(f"/v1/jobs/{job_id}/cancel")
    await child.dies()
    await child.start()
    job = await child.ended(job_id or "")
    assert job["state"] == "canceled"
    assert [part["state"] for part in job["children"]] == ["canceled"]
    await until(lambda: not cog.running, END_LIMIT_S)
