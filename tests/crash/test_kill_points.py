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
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
import soundfile

from app.crash_points import CrashPoint
from tests.conftest import TEMPLATE, PostgresServer
from tests.crash.child import END_LIMIT_S, Child, until
from tests.fakes.provider import SECRET, TOKEN, Drop, FakeReplicate, invalid, served, throttled

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

ASIDE = {
    CrashPoint.PREDICTION_CANCELED: ("canceled", None),
    CrashPoint.JOB_CANCELED: ("canceled", None),
    CrashPoint.ATTEMPT_WITHDRAWN: ("succeeded", None),
    CrashPoint.ATTEMPT_REFUSED: ("failed", "provider_rejected"),
    CrashPoint.FINISH_POSTPONED: ("succeeded", None),
    CrashPoint.FINISH_FAILED: ("failed", "audio_rejected"),
    CrashPoint.OUTPUT_ASKED_AGAIN: ("succeeded", None),
    CrashPoint.PREDICTION_FOUND: ("succeeded", None),
}
"""Points that a job only meets when something goes otherwise, and how it ends then."""
CANCELED = {CrashPoint.JOB_CANCELED, CrashPoint.PREDICTION_CANCELED}
OF_HOUSEKEEPING = {CrashPoint.OBJECTS_DOOMED, CrashPoint.OBJECTS_REMOVED}
"""No job meets these: `test_housekeeping_kills` has them."""
OF_ANNOUNCING = {
    CrashPoint.ANNOUNCEMENT_CLAIMED,
    CrashPoint.ANNOUNCEMENT_SENT,
    CrashPoint.ANNOUNCEMENT_NOTED,
}
"""After the job's end: `test_announcing_kills` has them."""
OF_RECOVERIES = {CrashPoint.RECOVERY_COMMITTED, CrashPoint.RECOVERY_ITEMS_DONE}
"""Nor these: `test_recovery_kills` has them."""
OF_UPLOADS = {CrashPoint.PIECE_STORED, CrashPoint.PIECE_COUNTED, CrashPoint.UPLOAD_COMMITTED}
"""Nor these: `test_upload_kills` has them."""
OF_FAMILIES = {CrashPoint.FAMILY_PLANNED, CrashPoint.PARTS_JOINED}
"""Only a job whose work is other jobs meets these: `test_family_kills` has them."""
ELSEWHERE = {*ASIDE, *OF_HOUSEKEEPING, *OF_ANNOUNCING, *OF_RECOVERIES, *OF_UPLOADS, *OF_FAMILIES}
POINTS = [point for point in CrashPoint if point not in ELSEWHERE]
UNPROVEN = POINTS[: POINTS.index(CrashPoint.DELIVERY_APPLIED) + 1]
"""Up to here an embedded worker, which dies with the service, may take the prediction along."""
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
    """Fault 45, Fault 52: no second effect, at most one prediction more, and that one is an attempt."""
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


@pytest.mark.parametrize("point", ASIDE)
async def test_a_job_that_meets_trouble_ends_once_when_the_service_dies_at(
    house: House, point: CrashPoint
) -> None:
    """Fault 9, Fault 34, Fault 52, Fault 57: a cancel, a refusal, a broken answer, an output that is gone."""
    child, fake = house.child, house.fake
    if fake is None:
        pytest.skip("the troubles here are a hosted provider's")
    if not child.is_alive:
        await child.start()
    known = set(fake.predictions)
    _prepare(fake, point)
    child.arm(point)
    async with _meeting_trouble(fake, point):
        job_id = await child.submit(key=f"aside-{point}")
        assert job_id is not None
        if point in CANCELED:
            await _cancel_once_begun(child, job_id)
        await child.dies()
        fake.outputs_down = False
        await child.start()
        job = await child.ended(job_id)
    state, code = ASIDE[point]
    assert (job["state"], (job["error"] or {}).get("code")) == (state, code), job
    await child.assert_ended_once(job)
    if state == "succeeded":
        await child.assert_succeeded_once(job)
    made = set(fake.predictions) - known
    assert made <= {attempt["prediction_id"] for attempt in job["attempts"]}
    assert len(made) == {"provider_rejected": 0}.get(code or "", 1 + (point is CrashPoint.OUTPUT_ASKED_AGAIN))
    # Also what was canceled has come to its end at the provider: nobody goes on paying for it.
    await until(lambda: not fake.live(), END_LIMIT_S)
    child.assert_only_living_folders()


def _prepare(fake: FakeReplicate, point: CrashPoint) -> None:
    """What has to go otherwise, so that a job meets this point."""
    fake.lose_hooks = frozenset({"start", "completed"} if point is CrashPoint.PREDICTION_FOUND else ())
    fake.outputs_down = point is CrashPoint.FINISH_POSTPONED
    if point is CrashPoint.ATTEMPT_WITHDRAWN:
        fake.script("create", throttled(1))
    elif point is CrashPoint.ATTEMPT_REFUSED:
        fake.script("create", invalid("prompt", "not this one"))
    elif point is CrashPoint.PREDICTION_FOUND:
        fake.script("create", Drop(after=True))


@asynccontextmanager
async def _meeting_trouble(fake: FakeReplicate, point: CrashPoint) -> AsyncIterator[None]:
    """The provider at work. What is to be canceled never ends by itself."""
    good = fake.keep_output("noise.wav", _noise())
    page = fake.keep_output("page.wav", b"<html>Sign in</html>")
    outputs = {CrashPoint.FINISH_FAILED: [page], CrashPoint.OUTPUT_ASKED_AGAIN: [f"{good}.gone"]}.get(
        point, []
    )

    async def complete() -> None:
        while point not in CANCELED:
            for prediction_id in fake.live():
                await fake.finish(prediction_id, output=outputs.pop(0) if outputs else good)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(complete())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _cancel_once_begun(child: Child, job_id: str) -> None:
    job: dict[str, Any] = {"attempts": []}
    async with asyncio.timeout(END_LIMIT_S):
        while not any(attempt["prediction_id"] for attempt in job["attempts"]):
            job = (await child.client.get(f"/v1/jobs/{job_id}")).json()
    # It may die before it can answer.
    with suppress(httpx.TransportError):
        await child.client.post(f"/v1/jobs/{job_id}/cancel")


def _noise() -> bytes:
    sound = io.BytesIO()
    noise = np.random.default_rng(7).normal(0, 0.1, 24_000).astype(np.float32)
    soundfile.write(sound, noise, 24_000, format="WAV")
    return sound.getvalue()


@asynccontextmanager
async def _completing(house: House, *, delayed: bool) -> AsyncIterator[asyncio.Event]:
    """The provider at work; `delayed` until the event is set."""
    output = house.fake.keep_output("noise.wav", _noise()) if house.fake else ""
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
    if point is CrashPoint.DELIVERY_BEGUN:
        pytest.skip("only large news and what an earlier life left passes there: tests/crash/test_poison.py")
    if house.name.startswith("worker") and point is CrashPoint.POLL_ANSWERED:
        pytest.skip("a Cog server cannot be asked: recovery never has an answer of it")


def _tell(house: House, point: CrashPoint, began: float, job: dict[str, Any]) -> None:
    """A line of the table of recovery times, shown by `pytest -s`."""
    statuses = " ".join(attempt["status"] for attempt in job["attempts"])
    print(f"{house.name:18} {point:20} {time.monotonic() - began:5.2f} s  {job['state']}: {statuses}")
