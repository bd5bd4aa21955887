"""More load than the machine can carry, and every fault: the short form of `scripts/lab/overload.py`."""

from __future__ import annotations

import os
import secrets

import pytest

from tests.crash.laboratory.storm import Storm, weather

pytestmark = pytest.mark.real

STORM_S = 8.0
JOBS_PER_S = 12.0
DRAIN_LIMIT_S = 400.0
"""Far above what is needed: how fast it drains is the long run's to measure."""


async def test_a_storm_of_load_and_faults_breaks_no_law_and_drains_without_help() -> None:
    """Fault 72: callbacks lost, doubled, forged; kills, nonsense, cancels; a provider that does harm."""
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(2**32))
    plan = Storm(
        "sqlite", seed, STORM_S, JOBS_PER_S, faults=0.03, kills_per_minute=20, drain_limit_s=DRAIN_LIMIT_S
    )
    verdict = await weather(plan)
    for name, value in verdict.rows:
        print(f"{name:50} {value}")
    assert not verdict.broken, f"to see it again: CRASH_SEED={seed}"
