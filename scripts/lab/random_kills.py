#!/usr/bin/env python
"""Kill whatever the dice name, again and again, under load; then see what is left, and print a table.

    scripts/lab/random_kills.py --kills 500 --database postgresql [--seed S] [--per-minute 40]

On PostgreSQL two machines (a web and a worker; and a service that is all in one), a server of the run's own
with fsync on, a bucket and a hosted provider in processes of their own. On SQLite one process tree. Exit code
1 when a law was broken. A developers' tool: it uses the laboratory under tests/crash.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.crash.laboratory.verdict import Plan, kill_at_random


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--per-minute", type=float, default=40.0, help="kills aimed at, on average")
    parser.add_argument("--jobs-per-s", type=float, default=3.0)
    parser.add_argument(
        "--stop-after", type=float, metavar="MINUTES", help="stop killing, whatever the count"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder with rows and logs")
    given = parser.parse_args()
    sys.stderr.write(f"seed {given.seed}\n")
    plan = Plan(
        database=given.database,
        seed=given.seed,
        kills=given.kills,
        per_minute=given.per_minute,
        jobs_per_s=given.jobs_per_s,
        stop_after_s=given.stop_after * 60 if given.stop_after else None,
        keep=given.keep,
    )
    verdict = asyncio.run(kill_at_random(plan))
    verdict.print()
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
