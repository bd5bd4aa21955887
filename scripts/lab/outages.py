#!/usr/bin/env python
"""Let the hosted provider go through an outage of every kind in turn while jobs come in.

    scripts/lab/outages.py [--jobs 200] [--each 6] [--seed N] [--only KIND,… | --worker] [--keep]

With `--worker` our own worker is killed, hangs and is full, and jobs fall back to the hosted one.
A service with its embedded worker, SQLite, and a hosted provider in a process of its own. Every job must
end well and within its deadline, at whichever provider; printed are what went wrong with the attempts and
what was done about it, and every job that was paid for twice. Exit code 1 when a law was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.crash.laboratory.outages import OUTAGES, WORKER_OUTAGES, Plan, suffer


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--each", type=float, default=6.0, help="seconds an outage lasts")
    parser.add_argument("--only", default=",".join(OUTAGES), help="kinds, comma-separated")
    parser.add_argument("--worker", action="store_true", help="the outages of our own worker instead")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--keep", action="store_true", help="keep the folder with rows and logs")
    given = parser.parse_args()
    outages = tuple(WORKER_OUTAGES) if given.worker else tuple(given.only.split(","))
    verdict = asyncio.run(suffer(Plan(given.seed, given.jobs, given.each, outages, keep=given.keep)))
    verdict.print()
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
