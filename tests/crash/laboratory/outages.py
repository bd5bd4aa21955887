"""A provider that goes through an outage of every kind in turn, while callers keep asking.

The hosted one plays its outages itself; our own worker's Cog server really is killed, stopped or full.

Owns the kinds, the run and its verdict: every job ends well and in time, at whichever provider, and what was
paid for twice is listed with the reason. Shared by the quick test and the long run.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from tests.crash.laboratory import law
from tests.crash.laboratory.load import Load
from tests.crash.laboratory.verdict import Verdict, drain, stop
from tests.crash.laboratory.world import World, opened
from tests.laws import Rows, costs_booked, events_told_once

OUTAGES = {
    "no_credit": "402 to every create",
    "no_access": "401 to every call",
    "throttled": "429 with a wait of 2 s to every create",
    "broken": "502 to every call, as HTML",
    "hung_up": "every connection is closed before an answer, nothing is done",
    "unanswered": "every create is carried out and its answer lost",
    "nonsense": "every create is answered by what is no prediction",
    "cold": "predictions are taken and not begun",
    "silent": "predictions run, no callback ever comes",
    "forgetful": "predictions are taken and forgotten",
    "failing": "predictions fail",
    "empty": "predictions succeed with nothing",
}
WORKER_OUTAGES = {
    "killed": "the Cog server is killed, again and again",
    "hung": "the engine's process is stopped in the middle of its work",
    "full": "more is asked than its one slot can take",
}
SETTINGS = {
    "MAX_ATTEMPTS": "4",
    "SILENCE_S": "2",
    "RECOVERY_INTERVAL_S": "1",
    "STARTING_LIMIT_S": "3",
    "FALL_BACK_AFTER_S": "5",
    "CIRCUIT_S": "0.1",
}
FIRST_AT_WORKER = {
    "ROUTING": '{"*": [{"provider": "cog", "most_waiting": 4}, "replicate"]}',
    # A prediction of a second that takes ten hangs.
    "REPLICATE_SOUND_EFFECTS_TIMEOUT": "10",
}
DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A run: so many jobs, spread over the outages; the same seed rolls the same dice."""

    seed: int
    jobs: int
    each_s: float
    """How long an outage lasts; half of that is the pause after it."""
    outages: tuple[str, ...] = tuple(OUTAGES)
    keep: bool = False


class Steady(Load):
    """Callers who leave the choice of the provider to the service."""

    def wish(self) -> dict[str, Any]:
        asked = {
            "prompt": "a wooden door knock",
            "duration_s": round(self.dice.uniform(0.5, 1.5), 1),
            "seed": self.dice.randrange(2**31),
        }
        return {"kind": "sound_effect", "input": asked, "deadline_s": DEADLINE_S}


async def suffer(plan: Plan) -> Verdict:
    """The outages in turn under load, drain, judgement, an ordinary stop."""
    verdict = Verdict([("seed", str(plan.seed))])
    settings = SETTINGS | (FIRST_AT_WORKER if set(plan.outages) & set(WORKER_OUTAGES) else {})
    async with opened("sqlite", seed=plan.seed, trouble=0.0, keep=plan.keep, **settings) as world:
        whole_s = len(plan.outages) * plan.each_s * 1.5
        load = Steady(world, random.Random(plan.seed), plan.jobs / whole_s, most_waiting=None)
        asking = asyncio.create_task(load.run())
        for outage in plan.outages:
            await _play(world, load, outage, plan.each_s)
            await asyncio.sleep(plan.each_s / 2)
        while len(load.accepted) < plan.jobs:
            await asyncio.sleep(0.1)
        await load.stop()
        await asking
        verdict.rows.append(("drained after the last", f"{await drain(world):.1f} s"))
        await _judge(world, load, verdict)
        await stop(world, verdict)
    return verdict


async def _play(world: World, load: Load, outage: str, for_s: float) -> None:
    """One outage, from its beginning to its end."""
    until = time.monotonic() + for_s
    match outage:
        case "killed":
            while time.monotonic() < until:
                for process in _engines(world):
                    process.kill()
                await asyncio.sleep(for_s / 4)
        case "hung":
            while not (
                hung := [each for each in _engines(world) if "_run_worker" in " ".join(each.cmdline())]
            ):
                await asyncio.sleep(0.1)
            for process in hung:
                process.suspend()
            await asyncio.sleep(for_s)
        case "full":
            for number in range(20):
                await load.ask(f"burst-{number}", load.wish())
            await asyncio.sleep(for_s)
        case _:
            (await world.provider.post(f"/lab/outage/{outage}")).raise_for_status()
            await asyncio.sleep(for_s)
            (await world.provider.post("/lab/outage/none")).raise_for_status()


def _engines(world: World, word: str = "cog") -> list[psutil.Process]:
    """The Cog servers of our workers, and what they run; or those of them whose command has the word."""
    found = []
    for process in world.kin():
        with suppress(psutil.Error):
            if word in " ".join(process.cmdline()):
                found.append(process)
    return found


async def _judge(world: World, load: Load, verdict: Verdict) -> None:
    rows = await law.read_rows(world)
    book = (await world.provider.get("/lab/book")).json()
    verdict.broken += world.faults + load.refusals
    verdict.broken += law.jobs_ended(rows, list(load.accepted.values()), may_fail_with=frozenset())
    verdict.broken += law.ended_in_time(rows)
    verdict.broken += events_told_once(rows) + costs_booked(rows)
    verdict.broken += law.no_secret_told(world)
    states = Counter(job["state"] for job in rows.jobs)
    ends = Counter((each["trouble"], each["action"]) for each in rows.attempts if each["trouble"])
    waits = [(job["finished_at"] - job["created_at"]).total_seconds() for job in rows.jobs]
    twice, ambiguous = paid_twice(rows, book), _ambiguous(rows, book)
    verdict.rows += [
        ("jobs accepted", str(len(load.accepted))),
        ("jobs ended", ", ".join(f"{count} {state}" for state, count in sorted(states.items()))),
        ("longest of them", f"{max(waits):.1f} s of {DEADLINE_S:g} s"),
        ("ended by", ", ".join(f"{n} {name}" for name, n in sorted(_winners(rows).items()))),
        *((f"  {trouble}: {action}", str(count)) for (trouble, action), count in ends.most_common()),
        ("creates whose answer was lost", str(ambiguous)),
        ("paid for twice", str(len(twice))),
        *((f"  {job_id}", why) for job_id, why in twice.items()),
    ]
    if len(twice) > ambiguous:
        verdict.broken.append(f"{len(twice)} jobs were paid for twice, {ambiguous} creates were ambiguous")


def paid_twice(rows: Rows, book: Mapping[str, Any]) -> dict[str, str]:
    """Jobs with more than one result that somebody was paid for, and how that came about."""
    attempts = {each["id"]: each for each in rows.attempts}
    paid: dict[str, set[str]] = defaultdict(set)
    for each in book["predictions"].values():
        attempt = attempts.get(each["attempt_id"])
        if attempt is not None and each["status"] == "succeeded" and each["has_output"]:
            paid[attempt["job_id"]].add(attempt["id"])
    for attempt in rows.attempts:
        if attempt["status"] == "succeeded":
            paid[attempt["job_id"]].add(attempt["id"])
    return {
        job_id: ", ".join(
            f"{attempts[each]['provider']} ({attempts[each]['trouble'] or 'won'})" for each in ids
        )
        for job_id, ids in paid.items()
        if len(ids) > 1
    }


def _ambiguous(rows: Rows, book: Mapping[str, Any]) -> int:
    """Attempts whose prediction exists although its create never had a good answer."""
    return len(set(book["unanswered"]) & {each["id"] for each in rows.attempts})


def _winners(rows: Rows) -> Counter[str]:
    return Counter(each["provider"] for each in rows.attempts if each["status"] == "succeeded")
