#!/usr/bin/env python3
"""Kill PostgreSQL at random under load, and count what was lost: the long run of fault 49.

A server of its own with fsync on, killed by SIGKILL every 5-40 seconds (`--every`), down for 0-2 seconds,
under a load of jobs and signed webhooks. Prints a table and exits 1 if anything was lost, doubled or did not
end.
Usage: scripts/lab/postgres_kills.py [--minutes N] [--seed N] [--every LOW HIGH]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import structlog

from tests.crash.postgres_kills import Report, laboratory


async def run(minutes: float, seed: int, every_s: tuple[float, float]) -> Report:
    dice = random.Random(seed)
    ends_at = time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory(prefix="reprise-lab-") as folder:
        async with laboratory(Path(folder), seed=seed) as lab:
            async with lab.under_load():
                while time.monotonic() < ends_at:
                    await asyncio.sleep(dice.uniform(*every_s))
                    await lab.kill(down_s=dice.uniform(0, 2))
                    await lab.accepted(1)
                    print(f"kill {lab.report.kills}: {len(lab.report.accepted)} jobs accepted", flush=True)
            return await lab.judge()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--every", type=float, nargs=2, default=(5, 40), metavar=("LOW", "HIGH"))
    given = parser.parse_args()
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable()  # asyncpg's own tracebacks of a server that is not there
    print(f"seed {seed}", flush=True)
    report = asyncio.run(run(given.minutes, seed, tuple(given.every)))
    print(report.table())
    return int(bool(report.lost or report.doubled or report.unended))


if __name__ == "__main__":
    sys.exit(main())
