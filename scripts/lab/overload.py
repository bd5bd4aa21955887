#!/usr/bin/env python
"""Load at twice the measured capacity with every fault now and then; then see whether all of it drains.

    scripts/lab/overload.py --minutes 10 [--database postgresql|sqlite] [--seed S] [--faults 0.01]

Faults: callbacks that are lost, doubled, forged, out of order; a provider that throttles, fails, answers
late, breaks off, or hands out what is no audio; SIGKILL of anything; PostgreSQL connections cut and
PostgreSQL crashed; a bucket that answers 500 and 503; slow callers, nonsense, cancels, one key sent twice.
Exit code 1 when a law was broken or the queue did not drain.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.crash.laboratory.load import Load
from tests.crash.laboratory.storm import Storm, weather
from tests.crash.laboratory.verdict import capacity
from tests.crash.laboratory.world import opened

BURST_S = 20.0
BURST_WAITING = 24


async def measured(database: str, seed: int) -> float:
    """Jobs a second that this machine can do while nothing goes wrong."""
    async with opened(database, seed=seed, trouble=0.0) as world:
        return await capacity(Load(world, random.Random(seed), 200.0, BURST_WAITING), for_s=BURST_S)


async def run(given: argparse.Namespace) -> int:
    able = given.capacity or await measured(given.database, given.seed)
    sys.stderr.write(f"seed {given.seed}, capacity {able:.2f} jobs / s\n")
    plan = Storm(
        given.database,
        given.seed,
        given.minutes * 60,
        round(given.load * able, 2),
        faults=given.faults,
        crashes=max(1, int(given.minutes / 3)),
        keep=given.keep,
    )
    verdict = await weather(plan)
    verdict.rows.insert(2, ("capacity", f"{able:.2f} jobs / s"))
    verdict.print()
    return 1 if verdict.broken else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--load", type=float, default=2.0, help="times the capacity")
    parser.add_argument("--capacity", type=float, help="jobs / s; measured first when left out")
    parser.add_argument("--faults", type=float, default=0.01, help="how often each thing goes wrong")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="postgresql")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--keep", action="store_true", help="keep the folder with rows and logs")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
