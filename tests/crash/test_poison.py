"""A job that kills whoever works on it is put aside, and the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.crash_points import CrashPoint
from tests.crash.child import Child

pytestmark = pytest.mark.real


async def test_a_job_whose_finishing_died_too_often_fails_as_poisoned_and_the_next_one_succeeds(
    tmp_path: Path,
) -> None:
    """Fault 54."""
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
