#!/usr/bin/env python
"""Run at a share of the measured capacity for long, and see whether anything grows that should not.

    scripts/lab/soak.py --minutes 30 --load 0.7 [--database postgresql|sqlite]

First a short burst measures what this machine can do: jobs end to end until they are stored, then signed
callbacks until they are acknowledged, as fast as this one client sends them. Then both go on at once, at
shares of those figures that add up to `--load`. On PostgreSQL: a web, a worker, a bucket, a server with fsync
on, a hosted provider. Exit code 1 when memory, descriptors, threads, connections, temporary files or the
write-ahead log grew beyond the bounds in `tests/crash/laboratory/gauges.py`, or a law was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx

from tests.crash.laboratory.gauges import Gauges
from tests.crash.laboratory.load import Load, waiting
from tests.crash.laboratory.verdict import Verdict, capacity, drain, judge, stop
from tests.crash.laboratory.world import World, opened
from tests.fakes.provider import FakeReplicate

BURST_S = 20.0
BURST_WAITING = 24
HOOKS_AT_ONCE = 16
HOOKS_SHARE = 0.3
"""Of the load; the rest is jobs, which bring callbacks of their own."""
PROVIDERS = ("replicate",) * 4 + ("cog",)
SAMPLE_S = 10.0
MOST_TRIES = 3
SIGNER = FakeReplicate()


@dataclass
class Hooks:
    """Signed callbacks for nothing of ours: verified, stored, acknowledged, settled as orphans."""

    world: World
    sent: int = 0
    refused: int = 0
    broken: int = 0
    """Connections that broke, each repeated."""

    async def send(self) -> None:
        """One, repeated as providers do when the connection breaks."""
        self.sent += 1
        body = json.dumps({"id": f"soak{self.sent}", "status": "processing", "logs": "x" * 1500}).encode()
        headers = SIGNER.signed(f"msg_soak_{self.sent}", body)
        for _ in range(MOST_TRIES):
            try:
                reply = await self.world.client.post(
                    "/v1/webhooks/replicate/soak", content=body, headers=headers
                )
            except httpx.TransportError:
                self.broken += 1
                continue
            self.refused += reply.status_code != 200
            return
        self.refused += 1

    async def run(self, per_s: float) -> None:
        """At a rate, never more than some at once."""
        turns, due = asyncio.Semaphore(HOOKS_AT_ONCE), time.monotonic()
        async with asyncio.TaskGroup() as group:
            while True:
                due += 1 / per_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await turns.acquire()
                group.create_task(self.send()).add_done_callback(lambda _: turns.release())

    async def burst(self, for_s: float) -> float:
        """As many as go; a second."""
        until = time.monotonic() + for_s
        before = self.sent

        async def one_after_the_other() -> None:
            while time.monotonic() < until:
                await self.send()

        await asyncio.gather(*(one_after_the_other() for _ in range(HOOKS_AT_ONCE)))
        return (self.sent - before) / for_s


async def run(given: argparse.Namespace) -> tuple[Verdict, Gauges]:
    verdict = Verdict([("database", given.database), ("seed", str(given.seed))])
    dice = random.Random(given.seed)
    async with opened(given.database, seed=given.seed, trouble=0.0, machines=1, keep=given.keep) as world:
        hooks = Hooks(world)
        burst = Load(world, dice, 200.0, BURST_WAITING, PROVIDERS)
        most_jobs = await capacity(burst, for_s=BURST_S)
        most_hooks = await hooks.burst(BURST_S)
        await drain(world)
        per_s = most_jobs * given.load * (1 - HOOKS_SHARE)
        hooks_per_s = most_hooks * given.load * HOOKS_SHARE
        verdict.rows += [
            ("capacity, jobs until stored", f"{most_jobs:.2f} / s"),
            ("capacity, callbacks of this client", f"{most_hooks:.0f} / s"),
            ("load", f"{per_s:.2f} jobs / s and {hooks_per_s:.0f} callbacks / s"),
        ]
        sys.stderr.write("".join(f"{name}: {value}\n" for name, value in verdict.rows))
        load = Load(world, dice, per_s, None, PROVIDERS, accepted=burst.accepted, count=burst.count)
        gauges = Gauges(world, every_s=SAMPLE_S)
        most_waiting = await soak(world, load, hooks, gauges, hooks_per_s, given.minutes * 60)
        verdict.rows += [
            ("soaked for", f"{given.minutes:g} min"),
            ("most jobs unfinished at once", str(most_waiting)),
            ("callbacks of this client", f"{hooks.sent}, {hooks.broken} repeated, {hooks.refused} refused"),
            ("drained after the last", f"{await drain(world):.1f} s"),
        ]
        await gauges.look()
        verdict.broken += gauges.leaks()
        if hooks.refused:
            verdict.broken.append(f"{hooks.refused} callbacks were refused below the capacity")
        await judge(world, load, verdict, deaths=0)
        await stop(world, verdict)
    return verdict, gauges


async def soak(
    world: World, load: Load, hooks: Hooks, gauges: Gauges, hooks_per_s: float, for_s: float
) -> int:
    """Both loads, watched; the most jobs that were unfinished at once."""
    asking = asyncio.create_task(load.run())
    background = [asyncio.create_task(hooks.run(hooks_per_s)), asyncio.create_task(gauges.run())]
    until, most = time.monotonic() + for_s, 0
    while time.monotonic() < until and not world.faults:
        await asyncio.sleep(5)
        now = await waiting(world)
        most = max(most, now)
        sys.stderr.write(f"\r{until - time.monotonic():6.0f} s left, {now} waiting   ")
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await load.stop()
    await asking
    sys.stderr.write("\n")
    return most


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--load", type=float, default=0.7, help="share of the measured capacity")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="postgresql")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--keep", action="store_true", help="keep the folder with rows and logs")
    verdict, gauges = asyncio.run(run(parser.parse_args()))
    gauges.print()
    verdict.print()
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
