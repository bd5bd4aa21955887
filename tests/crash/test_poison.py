"""A job, or a piece of news, that kills whoever works on it is put aside, and the others go on."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.crash_points import CrashPoint
from app.inbox import MOST_TRIES
from tests.crash.child import END_LIMIT_S, Child
from tests.fakes.provider import SECRET, TOKEN, FakeReplicate, served
from tests.flow.conftest import tone

pytestmark = pytest.mark.real

OUTPUT = "data:audio/wav;base64," + base64.b64encode(tone()).decode()


@asynccontextmanager
async def hosted(
    folder: Path, url: str, *names: str, **more: str
) -> AsyncIterator[tuple[FakeReplicate, Any]]:
    """Services that share a database and a hosted provider, each in a folder of its own; not started yet."""
    async with AsyncExitStack() as stack:
        fake = FakeReplicate(hooks=await stack.enter_async_context(httpx.AsyncClient(trust_env=False)))
        environment = {
            "DATABASE_URL": url,
            "STORAGE_URL": f"file://{folder}/assets",
            "REPLICATE_API_TOKEN": TOKEN,
            "REPLICATE_BASE_URL": await stack.enter_async_context(served(fake)),
            "REPLICATE_WEBHOOK_SECRET": SECRET,
            "OUTBOUND_ALLOW": "127.0.0.1",
            **more,
        }
        children = []
        for name in names:
            (folder / name).mkdir()
            children.append(Child(folder / name, **environment))
            stack.push_async_callback(children[-1].aclose)
        yield fake, children


async def predicted(fake: FakeReplicate, known: int) -> str:
    async with asyncio.timeout(END_LIMIT_S):
        while len(fake.predictions) <= known:
            await asyncio.sleep(0.02)
    return list(fake.predictions)[-1]


async def test_a_job_whose_finishing_died_too_often_fails_as_poisoned_and_the_next_one_succeeds(
    tmp_path: Path,
) -> None:
    """Fault 54: the reason stands on the job."""
    child = Child(tmp_path, MAX_CRASHES="2")
    try:
        await child.start()
        child.arm(CrashPoint.FINISH_CLAIMED)
        job_id = await child.submit()
        assert job_id is not None
        await child.dies()
        child.arm(CrashPoint.OUTPUT_FETCHED)
        await child.spawn()
        await child.dies()
        await child.start()
        job = await child.ended(job_id)
        assert (job["state"], job["error"]["code"]) == ("failed", "poisoned")
        await child.assert_ended_once(job)
        following = await child.submit()
        assert following is not None
        await child.assert_succeeded_once(await child.ended(following))
        await child.stop()
        child.assert_nothing_temporary()
    finally:
        await child.aclose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_fault_54_of_two_workers_one_ends_another_job_while_a_poisoned_one_kills_the_other(
    tmp_path: Path, database_url: str
) -> None:
    """Fault 54: the poison kills each worker that takes it, is put aside after two, and costs nobody else."""
    async with hosted(tmp_path, database_url, "one", "two", MAX_CRASHES="2") as (fake, (one, two)):
        await asyncio.gather(one.start(), two.start())
        for child in (one, two):
            child.arm(CrashPoint.FINISH_CLAIMED)
        job_id = await one.submit()
        await fake.finish(await predicted(fake, 0), output=OUTPUT)
        # Whoever is first dies, and the other takes it over and dies of it too.
        await asyncio.gather(one.dies(), two.dies())
        await asyncio.gather(one.start(), two.start())
        following = await two.submit()
        await fake.finish(await predicted(fake, 1), output=OUTPUT)
        assert job_id is not None
        assert following is not None
        job, other = await asyncio.gather(one.ended(job_id), two.ended(following))
        assert (job["state"], job["error"]["code"]) == ("failed", "poisoned")
        await one.assert_ended_once(job)
        assert other["state"] == "succeeded"
        assert one.is_alive
        assert two.is_alive
        await asyncio.gather(one.stop(), two.stop())


async def test_fault_54_news_that_kills_its_reader_is_put_aside_and_the_next_is_read(
    tmp_path: Path, database_url: str
) -> None:
    """Fault 54: a try is counted before it is made: a delivery cannot kill one life after the other."""
    async with hosted(tmp_path, database_url, "one", SILENCE_S="600") as (fake, (child,)):
        await child.start()
        child.arm(CrashPoint.DELIVERY_PARSED)
        assert await child.submit() is not None
        poison = await predicted(fake, 0)
        finishing = asyncio.create_task(fake.finish(poison, output=OUTPUT))
        await child.dies()
        for _ in range(MOST_TRIES):
            child.arm(CrashPoint.DELIVERY_PARSED)
            await child.spawn()
            await child.dies()
        child.arm(CrashPoint.DELIVERY_PARSED)
        await child.start()
        async with asyncio.timeout(END_LIMIT_S):
            ledger: list[dict[str, Any]] = []
            while not ledger:
                reply = await child.client.get("/v1/deliveries", params={"outcome": "quarantined"})
                ledger = reply.json()["items"]
        assert ledger[0]["detail"] == f"applying it ended the process {MOST_TRIES} times"
        await finishing
        child._armed.unlink()
        following = await child.submit()
        assert following is not None
        await fake.finish(await predicted(fake, 1), output=OUTPUT)
        assert (await child.ended(following))["state"] == "succeeded"
        await child.stop()
