"""PostgreSQL killed under load, a few times; the long run is `scripts/lab/postgres_kills.py`."""

from __future__ import annotations

import os
import random
import secrets
from pathlib import Path

import pytest

from tests.crash.postgres_kills import laboratory

pytestmark = pytest.mark.real

KILLS = 3


async def test_nothing_is_lost_or_doubled_though_the_server_is_killed_under_load(tmp_path: Path) -> None:
    """Fault 49: PostgreSQL killed at random under load of webhooks and jobs."""
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbelow(2**32))
    dice = random.Random(seed)
    try:
        async with laboratory(tmp_path, seed=seed) as lab:
            async with lab.under_load():
                for _ in range(KILLS):
                    await lab.accepted(dice.randint(2, 8))
                    await lab.kill(down_s=dice.uniform(0, 0.5))
                await lab.accepted(4)
            report = await lab.judge()
        assert (report.lost, report.doubled, report.unended) == ([], [], []), report.table()
        assert report.states == {"succeeded": len(report.accepted)}, report.table()
        assert report.acknowledged > 0
        assert set(report.refused) <= {"503 storage_unavailable", "webhook 503"}, report.table()
    except BaseException as exc:
        exc.add_note(f"to see it again: CRASH_SEED={seed}")
        raise
