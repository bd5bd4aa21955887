"""A whole run of random kills, and what it came to: rows for a table, and every law that was broken.

Shared by the quick test and the long run. `judge` alone is for runs that bring about something else.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.crash.laboratory import law
from tests.crash.laboratory.kills import Killer
from tests.crash.laboratory.load import Load, waiting
from tests.crash.laboratory.takeover import Takeover
from tests.crash.laboratory.world import World, opened
from tests.laws import costs_booked, events_told_once

DRAIN_LIMIT_S = 180.0
ORPHANS_PER_CUT = 1
"""The sound, stored before the row that names it; the sweep's to take."""
SAY_EVERY_S = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run of random kills does; the same seed rolls the same dice."""

    database: str
    seed: int
    kills: int
    per_minute: float = 40.0
    jobs_per_s: float = 3.0
    stop_after_s: float | None = None
    keep: bool = False


@dataclass
class Verdict:
    """What a run came to."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def print(self) -> None:
        width = max(len(name) for name, _ in self.rows)
        for name, value in [*self.rows, ("laws broken", str(len(self.broken)))]:
            print(f"{name:{width}}  {value}")
        for each in self.broken[:50]:
            print(f"  {each}")


async def kill_at_random(plan: Plan) -> Verdict:
    """Load, kills, drain, judgement, an ordinary stop, and a look at what it leaves."""
    verdict = Verdict([("database", plan.database), ("seed", str(plan.seed))])
    async with opened(plan.database, seed=plan.seed, keep=plan.keep) as world:
        load, takeover = Load(world, random.Random(plan.seed + 1), plan.jobs_per_s), Takeover(world)
        killer = Killer(world, random.Random(plan.seed), before=takeover.note)
        asking = asyncio.create_task(load.run())
        struck_s = await _strike(killer, takeover, plan)
        await load.stop()
        await asking
        drain_s = await drain(world)
        await takeover.settle()
        # Whoever was killed last may have begun anew a moment ago: it has swept what it left once it is up.
        await asyncio.gather(*(member.is_up() for member in world.members))
        verdict.rows += [
            ("kills", f"{len(killer.kills)} in {struck_s:.0f} s"),
            *((f"  of {what}", str(n)) for what, n in Counter(k.what for k in killer.kills).most_common()),
            ("drained after the last", f"{drain_s:.1f} s"),
            ("starts given up for a Cog server that was killed", str(sum(m.gave_up for m in world.members))),
            *takeover.rows(),
        ]
        await judge(world, load, verdict, deaths=len(killer.kills))
        await stop(world, verdict)
        if plan.keep:
            verdict.rows.append(("kept", str(world.folder)))
    return verdict


async def _strike(killer: Killer, takeover: Takeover, plan: Plan) -> float:
    """Kill until there were enough, the time is over or a member ended by itself; how long it took."""
    dice = random.Random(plan.seed + 2)
    began = said = due = time.monotonic()
    while len(killer.kills) < plan.kills and not killer.world.faults:
        due += dice.expovariate(plan.per_minute / 60)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if (kill := await killer.kill()) is not None and kill.owners:
            takeover.follow(kill)
        now = time.monotonic()
        if now - said > SAY_EVERY_S:
            said = now
            left = await waiting(killer.world)
            sys.stderr.write(f"{now - began:6.0f} s  {len(killer.kills)} kills, {left} waiting\n")
        if plan.stop_after_s and now - began > plan.stop_after_s:
            break
    return time.monotonic() - began


async def capacity(load: Load, *, for_s: float, warm_up_s: float = 5.0) -> float:
    """Jobs a second until they are stored, while the callers keep the queue from running empty."""
    asking = asyncio.create_task(load.run())
    await asyncio.sleep(warm_up_s)
    began, before = time.monotonic(), len(load.accepted) - await waiting(load.world)
    await asyncio.sleep(for_s)
    ended = len(load.accepted) - await waiting(load.world) - before
    rate = ended / (time.monotonic() - began)
    await load.stop()
    await asking
    await drain(load.world)
    return rate


async def drain(world: World, limit_s: float = DRAIN_LIMIT_S) -> float:
    """Wait until every job has ended and every delivery is settled, or for the limit; how long it was."""
    began = time.monotonic()
    while time.monotonic() - began < limit_s:
        if await waiting(world) == 0 and await law.unsettled(world) == 0:
            break
        await asyncio.sleep(0.2)
    return time.monotonic() - began


async def judge(
    world: World,
    load: Load,
    verdict: Verdict,
    *,
    deaths: int,
    in_hand: int = 1,
    cancels: int = 0,
    may_fail_with: Sequence[str] = (),
) -> None:
    """Hold everything that is left against the law.

    A death may cost `in_hand` attempts, and like a cancel at the last moment leave an object that no row
    names.
    """
    rows = await law.read_rows(world)
    book = (await world.provider.get("/lab/book")).json()
    broken, orphans = await law.objects_whole(world, rows)
    verdict.broken += world.faults + load.refusals + broken
    accepted = list(load.accepted.values())
    verdict.broken += law.jobs_ended(rows, accepted, may_fail_with=frozenset(may_fail_with))
    verdict.broken += law.ended_in_time(rows)
    verdict.broken += events_told_once(rows)
    verdict.broken += law.no_second_effect(rows, book, in_hand * deaths, book["failed"])
    verdict.broken += law.callbacks_stored_once(rows, book) + costs_booked(rows)
    verdict.broken += law.only_living_folders(world) + law.no_orphan_process(world)
    verdict.broken += law.no_secret_told(world)
    if orphans > ORPHANS_PER_CUT * (deaths + cancels):
        verdict.broken.append(
            f"{orphans} objects that no row names, after {deaths} deaths, {cancels} cancels"
        )
    states = Counter(job["state"] for job in rows.jobs)
    outcomes = Counter(each["outcome"] for each in rows.deliveries)
    verdict.rows += [
        ("jobs accepted", str(len(accepted))),
        ("jobs ended", ", ".join(f"{count} {state}" for state, count in sorted(states.items()))),
        ("requests that were repeated", str(load.repeated)),
        ("attempts beyond a job's first", str(law.extra_attempts(rows))),
        ("predictions at the hosted provider", str(len(book["predictions"]))),
        ("callbacks it sent, acknowledged", f"{book['sent']}, {len(book['acknowledged'])}"),
        ("deliveries", ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items(), key=str))),
        ("objects that no row names", str(orphans)),
    ]


async def stop(world: World, verdict: Verdict) -> None:
    """End every member as an operator does, and look at what is left."""
    before = len(world.faults)
    for member in world.members:
        await member.end()
    verdict.broken += world.faults[before:] + law.nothing_temporary(world) + law.no_process(world)
