"""SIGKILL of the whole service in the middle of a recovery of many: the next life goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.crash_points import CrashPoint
from tests.crash.child import END_LIMIT_S, Child
from tests.fakes.provider import SECRET, TOKEN, FakeReplicate, served
from tests.flow.conftest import TONE

pytestmark = pytest.mark.real
JOBS = 12


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[tuple[Child, FakeReplicate]]:
    async with AsyncExitStack() as stack:
        fake = FakeReplicate()  # whose webhooks reach nobody
        child = Child(
            tmp_path,
            REPLICATE_API_TOKEN=TOKEN,
            REPLICATE_BASE_URL=await stack.enter_async_context(served(fake)),
            REPLICATE_WEBHOOK_SECRET=SECRET,
            SILENCE_S="600",  # only who asks by hand learns of anything
        )
        stack.push_async_callback(child.aclose)
        await child.start()
        yield child, fake
        await child.stop()
        # The kill may have met some other job's finish in the middle of its write.
        await child.sweep()
        child.assert_nothing_temporary()


@pytest.mark.parametrize("point", [CrashPoint.RECOVERY_COMMITTED, CrashPoint.RECOVERY_ITEMS_DONE])
async def test_a_recovery_is_gone_on_with_after_a_death_at(
    house: tuple[Child, FakeReplicate], point: CrashPoint
) -> None:
    """Fault 52: every job ends once, every item is counted once, and the provider made nothing twice."""
    child, fake = house
    ids = [await child.submit() for _ in range(JOBS)]
    await _all_are_begun(child)
    for prediction_id in fake.live():
        await fake.finish(prediction_id, output=TONE)
    child.arm(point)
    # It may die before it can answer.
    with suppress(httpx.TransportError):
        await child.client.post("/v1/recoveries", json={})
    await child.dies()
    await child.start()
    (told,) = (await child.client.get("/v1/recoveries")).json()["items"]
    async with asyncio.timeout(END_LIMIT_S):
        while told["state"] == "running":
            told = (await child.client.get(f"/v1/recoveries/{told['id']}", params={"wait": 5})).json()
    assert (told["total"], told["done"], told["counts"]) == (JOBS, JOBS, {"finishes": JOBS})
    for job_id in ids:
        await child.assert_succeeded_once(await child.ended(str(job_id)))
    assert len(fake.predictions) == JOBS
    assert await _polls(child) == JOBS


async def _polls(child: Child) -> int:
    """Deliveries that a question of ours brought."""
    page: Any = (await child.client.get("/v1/deliveries", params={"limit": 200})).json()
    return len([each for each in page["items"] if each["source"] == "poll" and each["outcome"] == "applied"])


async def _all_are_begun(child: Child) -> None:
    """Wait until every prediction's id is stored: one that is just being made is not asked about."""
    async with asyncio.timeout(END_LIMIT_S):
        begun = 0
        while begun < JOBS:
            page: Any = (await child.client.get("/v1/jobs", params={"limit": 200})).json()
            begun = sum(any(each["prediction_id"] for each in job["attempts"]) for job in page["items"])
