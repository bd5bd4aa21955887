"""SIGKILL of the whole service at every named moment: what was accepted ends once, and leaves nothing.

Each house is one service that dies at one point after the other: the life that recovers from a death is the
one that is armed with the next. The hosted provider is the fake, in the process of the test.
"""

from __future__ import annotations

import asyncio
import io
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
import soundfile

from app.crash_points import CrashPoint
from tests.conftest import TEMPLATE, PostgresServer
from tests.crash.child import Child
from tests.fakes.provider import SECRET, TOKEN, FakeReplicate, served

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

POINTS = [
    point for point in CrashPoint if point not in (CrashPoint.OBJECTS_DOOMED, CrashPoint.OBJECTS_REMOVED)
]
"""A job meets these; `test_housekeeping_kills` has the others."""
UNPROVEN = POINTS[: POINTS.index(CrashPoint.DELIVERY_APPLIED) + 1]
"""Up to here an embedded worker, which dies with the service, may take the prediction along."""
LATE_ON_A_SERVER = {CrashPoint.ATTEMPT_COMMITTED, CrashPoint.PREDICTION_CREATED}
"""Without an owner of the database a pending attempt may be another process' own. It is left alone for the
35 s that a create may take, which is too long for this suite."""
WITHOUT_HOOK = {CrashPoint.PREDICTION_CREATED, CrashPoint.PREDICTION_STORED, CrashPoint.POLL_ANSWERED}
HOUSES = ["worker-sqlite", "hosted-sqlite", "hosted-postgresql"]


@dataclass
class House:
    """A service, and the fake behind it where it has one."""

    name: str
    child: Child
    fake: FakeReplicate | None

    async def complete(self, output: str) -> None:
        """What the hosted provider does meanwhile: every prediction succeeds."""
        while self.fake is not None:
            for prediction_id in self.fake.live():
                await self.fake.finish(prediction_id, output=output)
            await asyncio.sleep(0.02)


@pytest.fixture(params=HOUSES, scope="module")
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, str]]]:
    """A house's name, and where its rows live. Not async: the server's fixture runs a loop of its own."""
    if not request.param.endswith("postgresql"):
        yield request.param, {}
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    database = f"crash_{secrets.token_hex(6)}"
    server.create(database, TEMPLATE)
    yield request.param, {"DATABASE_URL": server.url(database), "LEASE_S": "1"}
    server.drop(database)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    place: tuple[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    name, environment = place
    async with AsyncExitStack() as stack:
        fake = None
        if name.startswith("hosted"):
            fake = FakeReplicate(hooks=await stack.enter_async_context(httpx.AsyncClient(trust_env=False)))
            environment = environment | {
                "REPLICATE_API_TOKEN": TOKEN,
                "REPLICATE_BASE_URL": await stack.enter_async_context(served(fake)),
                "REPLICATE_WEBHOOK_SECRET": SECRET,
                "OUTBOUND_ALLOW": "127.0.0.1",
            }
        child = Child(tmp_path_factory.mktemp(name), **environment)
        stack.push_async_callback(child.aclose)
        yield House(name, child, fake)
        if child.is_alive:
            await child.stop()
            child.assert_nothing_temporary()


@pytest.mark.parametrize("point", POINTS)
async def test_a_job_ends_once_when_the_service_dies_at(house: House, point: CrashPoint) -> None:
    _skip_what_cannot_be(house, point)
    child, fake = house.child, house.fake
    if not child.is_alive:
        await child.start()
    child.arm(point)
    known = set(fake.predictions) if fake else set()
    if fake:
        fake.lose_hooks = frozenset({"completed"} if point in WITHOUT_HOOK else ())
    async with _completing(house, delayed=point is CrashPoint.POLL_ANSWERED) as begin:
        accepted, _ = await asyncio.gather(child.submit(key=point), child.dies())
        begin.set()
        began = time.monotonic()
        await child.start()
        job = await child.ended(await _asked_again(child, point, accepted))
    _tell(house, point, began, job)
    await child.assert_succeeded_once(job)
    child.assert_only_living_folders()
    ids = [attempt["prediction_id"] for attempt in job["attempts"]]
    if fake:
        assert len(set(fake.predictions) - known) == 1
        assert set(fake.predictions) - known <= set(ids)
    else:
        assert len(ids) <= (2 if point in UNPROVEN else 1)


@asynccontextmanager
async def _completing(house: House, *, delayed: bool) -> AsyncIterator[asyncio.Event]:
    """The provider at work; `delayed` until the event is set."""
    sound = io.BytesIO()
    noise = np.random.default_rng(7).normal(0, 0.1, 24_000).astype(np.float32)
    soundfile.write(sound, noise, 24_000, format="WAV")
    output = house.fake.keep_output("noise.wav", sound.getvalue()) if house.fake else ""
    begin = asyncio.Event()
    if not delayed:
        begin.set()

    async def complete() -> None:
        await begin.wait()
        await house.complete(output)

    task = asyncio.create_task(complete())
    try:
        yield begin
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _asked_again(child: Child, key: str, accepted: str | None) -> str:
    """The one job of the key: the accepted one, or the one that this request makes."""
    again = await child.submit(key=key)
    assert again is not None
    assert accepted in (None, again), "an accepted job was lost"
    listed = (await child.client.get("/v1/jobs", params={"limit": 2})).json()["items"]
    assert len([job for job in listed if job["finished_at"] is None or job["id"] == again]) == 1
    return again


def _skip_what_cannot_be(house: House, point: CrashPoint) -> None:
    if house.name.startswith("worker") and point is CrashPoint.POLL_ANSWERED:
        pytest.skip("a Cog server cannot be asked: recovery never has an answer of it")
    if house.name.endswith("postgresql") and point in LATE_ON_A_SERVER:
        pytest.skip("a pending attempt is left alone for 35 s")


def _tell(house: House, point: CrashPoint, began: float, job: dict[str, Any]) -> None:
    """A line of the table of recovery times, shown by `pytest -s`."""
    statuses = " ".join(attempt["status"] for attempt in job["attempts"])
    print(f"{house.name:18} {point:20} {time.monotonic() - began:5.2f} s  {job['state']}: {statuses}")
