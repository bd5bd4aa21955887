"""A stream of jobs and SIGKILL of whatever the dice name: the short form of `scripts/lab/random_kills.py`."""

from __future__ import annotations

import os
import secrets

import pytest

from tests.crash.laboratory.verdict import Plan, kill_at_random

pytestmark = pytest.mark.real

KILLS = 6


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_every_accepted_job_ends_once_whoever_is_killed_at_whatever_moment(database: str) -> None:
    """Fault 52, Fault 62: services, workers, engines, ffmpeg, whole machines, at random."""
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(2**32))
    verdict = await kill_at_random(Plan(database, seed, KILLS))
    verdict.print()
    assert not verdict.broken, f"to see it again: CRASH_SEED={seed}"
