"""A stream of jobs through a service that is killed at moments nobody chose."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from pathlib import Path
from typing import Any

import pytest

from tests.crash.child import Child

pytestmark = pytest.mark.real

JOBS = 12
KILLS = 5
LATEST_S = 4.0
"""After the start of a life, which needs about half of it until it serves."""
PAUSE_S = 0.01
CALLER_LIMIT_S = 60.0


def effect(number: int) -> dict[str, Any]:
    return {
        "kind": "sound_effect",
        "input": {"prompt": "a wooden door knock", "duration_s": 0.5, "seed": number},
    }


async def test_every_accepted_job_ends_once_though_the_service_is_killed_at_random_moments(
    tmp_path: Path,
) -> None:
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(2**32))
    dice = random.Random(seed)
    # A kill costs the job in hand an attempt; what is proven here is that nothing else is lost.
    child = Child(tmp_path, MAX_ATTEMPTS="10", MAX_CRASHES="10")
    try:
        asking = asyncio.create_task(_ask(child, random.Random(seed + 1)))
        for _ in range(KILLS):
            await child.spawn()
            await asyncio.sleep(dice.uniform(0.2, LATEST_S))
            await child.kill()
        await child.start()
        accepted = await asking
        await _assert_all_ended(child, accepted)
        await child.stop()
        child.assert_nothing_temporary()
    except BaseException as exc:
        exc.add_note(f"to see it again: CRASH_SEED={seed}")
        raise
    finally:
        await child.aclose()


async def _ask(child: Child, dice: random.Random) -> list[str]:
    """One caller, who repeats a request under its key until it is answered; the accepted ids."""
    accepted = []
    async with asyncio.timeout(CALLER_LIMIT_S):
        for number in range(JOBS):
            accepted.append(await _submitted(child, number))
            await asyncio.sleep(dice.uniform(0, 1))
    return accepted


async def _submitted(child: Child, number: int) -> str:
    job_id = None
    while job_id is None:
        await asyncio.sleep(PAUSE_S)
        job_id = await child.submit(effect(number), key=f"key-{number}")
    return job_id


async def _assert_all_ended(child: Child, accepted: list[str]) -> None:
    attempts = 0
    for job_id in accepted:
        job = await child.ended(job_id)
        await child.assert_succeeded_once(job)
        attempts += len(job["attempts"])
    listed = (await child.client.get("/v1/jobs")).json()["items"]
    assert sorted(job["id"] for job in listed) == sorted(accepted)
    assert attempts <= JOBS + KILLS, "more than one extra prediction a kill"
    child.assert_only_living_folders()
