"""Load beyond what the machine can do, with every fault now and then: and then it stops.

The one question afterwards: does the queue drain to nothing without help, and was the law kept meanwhile?
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass

import psutil

from tests.crash.laboratory.kills import Killer
from tests.crash.laboratory.load import Load, waiting
from tests.crash.laboratory.mischief import Mischief
from tests.crash.laboratory.verdict import Verdict, drain, judge, stop
from tests.crash.laboratory.world import World, opened

MOST_RSS_MB = 600
"""I6: of any one process, at any time."""
FAILURES = (
    "audio_rejected",
    "output_rejected",
    "prediction_failed",
    "provider_bad_response",
    "output_expired",
    "deadline_exceeded",
)
"""How a job may fail when its provider does harm: each names what the provider did."""
IN_HAND = 16
"""Attempts that one death may cost under a storm: what two processes' dispatch may have begun at once."""
SAY_EVERY_S = 15.0
MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Storm:
    """What a run does; the same seed rolls the same dice."""

    database: str
    seed: int
    for_s: float
    jobs_per_s: float
    faults: float = 0.01
    """How often each thing that can go wrong does."""
    kills_per_minute: float = 6.0
    crashes: int = 1
    """Of PostgreSQL, evenly spread."""
    most_queued: int = 500
    drain_limit_s: float = 600.0
    keep: bool = False


async def weather(plan: Storm) -> Verdict:
    """The storm, the calm after it, and the judgement."""
    verdict = Verdict([("database", plan.database), ("seed", str(plan.seed))])
    chances = {"trouble": plan.faults, "malice": plan.faults}
    limits = {"MAX_QUEUED_JOBS": str(plan.most_queued)}
    async with opened(plan.database, seed=plan.seed, keep=plan.keep, **chances, **limits) as world:  # type: ignore[arg-type]
        load = Load(world, random.Random(plan.seed + 1), plan.jobs_per_s, None, gives_up=True)
        killer = Killer(world, random.Random(plan.seed))
        mischief = Mischief(world, load, random.Random(plan.seed + 2), 10 * plan.faults * plan.jobs_per_s)
        most_waiting, most_rss = await _storm(plan, world, load, killer, mischief)
        left = await waiting(world)
        drain_s = await drain(world, plan.drain_limit_s)
        verdict.rows += [
            ("load", f"{plan.jobs_per_s:g} jobs / s for {plan.for_s:.0f} s"),
            ("kills", ", ".join(f"{n} {what}" for what, n in Counter(k.what for k in killer.kills).items())),
            ("mischief", ", ".join(f"{n} × {what}" for what, n in sorted(mischief.done.items()))),
            ("callers told that too many wait", str(load.given_up)),
            ("most jobs unfinished", str(most_waiting)),
            ("largest process", f"{most_rss:.0f} MB"),
            ("drained to nothing", f"{left} in {drain_s:.1f} s"),
        ]
        if most_rss > MOST_RSS_MB:
            verdict.broken.append(f"a process took {most_rss:.0f} MB, and at most {MOST_RSS_MB} was to be")
        verdict.broken += mischief.broken
        deaths = len(killer.kills) + mischief.done["PostgreSQL crashed"]
        cancels = mischief.done["cancel"]
        await judge(
            world, load, verdict, deaths=deaths, in_hand=IN_HAND, cancels=cancels, may_fail_with=FAILURES
        )
        await stop(world, verdict)
        if plan.keep:
            verdict.rows.append(("kept", str(world.folder)))
    return verdict


async def _storm(
    plan: Storm, world: World, load: Load, killer: Killer, mischief: Mischief
) -> tuple[int, float]:
    """Everything at once; the most jobs unfinished and the largest process, in MB."""
    storm = [asyncio.create_task(each) for each in (mischief.run(), _kill(killer, plan))]
    asking = asyncio.create_task(load.run())
    began = said = time.monotonic()
    crashes = [began + plan.for_s * (n + 1) / (plan.crashes + 1) for n in range(plan.crashes)]
    most_waiting, most_rss = 0, 0.0
    while time.monotonic() - began < plan.for_s:
        await asyncio.sleep(1)
        most_waiting = max(most_waiting, await waiting(world))
        most_rss = max(most_rss, _largest(world))
        if crashes and time.monotonic() > crashes[0] and plan.database != "sqlite":
            crashes.pop(0)
            await mischief.crash_postgres()
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            sys.stderr.write(f"{said - began:6.0f} s  {await waiting(world)} waiting\n")
    for task in storm:
        task.cancel()
    await asyncio.gather(*storm, return_exceptions=True)
    # The load first: on a slow machine the others' last deeds take long, and the storm is over by its clock.
    await load.stop()
    await asking
    await mischief.rest()
    return most_waiting, most_rss


async def _kill(killer: Killer, plan: Storm) -> None:
    dice = random.Random(plan.seed + 3)
    while True:
        await asyncio.sleep(dice.expovariate(plan.kills_per_minute / 60))
        await killer.kill()


def _largest(world: World) -> float:
    sizes = [0.0]
    for member in world.members:
        for process in member.tree():
            try:
                sizes.append(process.memory_info().rss / MB)
            except psutil.Error:
                continue
    return max(sizes)
