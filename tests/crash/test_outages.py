"""An outage of every kind in turn, under load: the short form of `scripts/lab/outages.py`."""

from __future__ import annotations

import os
import secrets

import pytest

from tests.crash.laboratory.outages import Plan, suffer

pytestmark = pytest.mark.real


async def test_every_job_ends_well_and_in_time_through_an_outage_of_every_kind() -> None:
    """Fault 56, Fault 57, Fault 58: broke, barred, throttled, away, unanswered, cold, silent, wrong."""
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(2**32))
    verdict = await suffer(Plan(seed, jobs=30, each_s=1.2))
    verdict.print()
    assert not verdict.broken, f"to see it again: CRASH_SEED={seed}"


async def test_every_job_ends_well_and_in_time_while_our_own_worker_is_killed_and_full() -> None:
    """Fault 68: jobs go on at the hosted provider, or begin anew here; each has one end."""
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(2**32))
    verdict = await suffer(Plan(seed, jobs=12, each_s=3.0, outages=("killed", "full")))
    verdict.print()
    assert not verdict.broken, f"to see it again: CRASH_SEED={seed}"
