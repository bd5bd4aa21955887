#!/usr/bin/env python
"""Kill whatever the dice name, again and again, under load; then see what is left, and print a table.

    scripts/lab/random_kills.py --kills 500 --database postgresql [--seed S] [--per-minute 30]

On PostgreSQL two machines (a web and a worker; and a service that is all in one), a server of the run's own
with fsync on, a bucket and a hosted provider in processes of their own. On SQLite one process tree. Exit code
1 when a law was broken. A developers' tool: it uses the laboratory under tests/crash.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.crash.laboratory import law
from tests.crash.laboratory.kills import Killer
from tests.crash.laboratory.load import Load, waiting
from tests.crash.laboratory.takeover import Takeover
from tests.crash.laboratory.world import World, opened

DRAIN_LIMIT_S = 180.0
ORPHANS_PER_KILL = 2
"""The sound and its outline, stored before the row that names them; the sweep's to take."""
SAY_EVERY_S = 15.0


@dataclass
class Verdict:
    """What the run came to."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


async def strike(world: World, dice: random.Random, takeover: Takeover, given: argparse.Namespace) -> Killer:
    """Kill until there were enough, or the time is over."""
    killer = Killer(world, dice, before=takeover.note)
    began = said = due = time.monotonic()
    while len(killer.kills) < given.kills and not world.faults:
        due += dice.expovariate(given.per_minute / 60)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if (kill := await killer.kill()) is not None and kill.owners:
            takeover.follow(kill)
        now = time.monotonic()
        if now - said > SAY_EVERY_S:
            said = now
            sys.stderr.write(
                f"{now - began:6.0f} s  {len(killer.kills)} kills, {await waiting(world)} waiting\n"
            )
        if given.stop_after and now - began > given.stop_after * 60:
            break
    return killer


async def drained(world: World) -> float:
    """Wait until every job has ended and every delivery is settled; how long that took."""
    began = time.monotonic()
    while time.monotonic() - began < DRAIN_LIMIT_S:
        if await waiting(world) == 0 and await law.unsettled(world) == 0:
            break
        await asyncio.sleep(0.2)
    return time.monotonic() - began


async def judge(world: World, load: Load, killer: Killer, verdict: Verdict) -> None:
    """Hold everything that is left against the law."""
    rows = await law.read_rows(world)
    book = (await world.provider.get("/lab/book")).json()
    broken, orphans = await law.objects_whole(world, rows)
    kills = len(killer.kills)
    verdict.broken += world.faults + load.refusals + broken
    verdict.broken += law.jobs_ended(rows, list(load.accepted.values()), may_fail_with=frozenset())
    verdict.broken += law.events_told_once(rows)
    verdict.broken += law.no_second_effect(rows, book, kills)
    verdict.broken += law.callbacks_stored_once(rows, book)
    verdict.broken += law.only_living_folders(world) + law.no_orphan_process(world)
    if orphans > ORPHANS_PER_KILL * kills:
        verdict.broken.append(f"{orphans} objects that no row names, after {kills} kills")
    states = Counter(job["state"] for job in rows.jobs)
    outcomes = Counter(each["outcome"] for each in rows.deliveries)
    verdict.rows += [
        ("jobs accepted", str(len(load.accepted))),
        ("jobs ended", ", ".join(f"{count} {state}" for state, count in sorted(states.items()))),
        ("requests that were repeated", str(load.repeated)),
        ("attempts beyond a job's first", str(law.extra_attempts(rows))),
        ("predictions at the hosted provider", str(len(book["predictions"]))),
        ("callbacks it sent, acknowledged", f"{book['sent']}, {len(book['acknowledged'])}"),
        ("deliveries", ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))),
        ("objects that no row names", str(orphans)),
    ]


async def run(given: argparse.Namespace) -> Verdict:
    dice = random.Random(given.seed)
    verdict = Verdict()
    began = time.monotonic()
    async with opened(given.database, seed=given.seed, keep=given.keep) as world:
        load, takeover = Load(world, random.Random(given.seed + 1), given.jobs_per_s), Takeover(world)
        asking = asyncio.create_task(load.run())
        killer = await strike(world, dice, takeover, given)
        struck_s = time.monotonic() - began
        await load.stop()
        await asking
        drain_s = await drained(world)
        await takeover.settle()
        verdict.rows += [
            ("kills", f"{len(killer.kills)} in {struck_s:.0f} s"),
            *((f"  of {what}", str(n)) for what, n in Counter(k.what for k in killer.kills).most_common()),
            ("drained after the last", f"{drain_s:.1f} s"),
            ("starts given up for a Cog server that was killed", str(sum(m.gave_up for m in world.members))),
            *takeover.rows(),
        ]
        await judge(world, load, killer, verdict)
        for member in world.members:
            await member.end()
        verdict.broken += world.faults + law.nothing_temporary(world) + law.no_process(world)
        if given.keep:
            verdict.rows.append(("kept", str(world.folder)))
    return verdict


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--per-minute", type=float, default=40.0, help="kills aimed at, on average")
    parser.add_argument("--jobs-per-s", type=float, default=2.0)
    parser.add_argument(
        "--stop-after", type=float, metavar="MINUTES", help="stop killing, whatever the count"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder with rows and logs")
    given = parser.parse_args()
    sys.stderr.write(f"seed {given.seed}\n")
    verdict = asyncio.run(run(given))
    width = max(len(name) for name, _ in verdict.rows)
    for name, value in [("database", given.database), ("seed", str(given.seed)), *verdict.rows]:
        print(f"{name:{width}}  {value}")
    print(f"{'laws broken':{width}}  {len(verdict.broken)}")
    for each in verdict.broken[:50]:
        print(f"  {each}")
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
