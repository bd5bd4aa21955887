"""Callers: a steady stream of short jobs, each asked for under its key until the answer comes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from sqlalchemy import func, select
from sqlmodel import col

from db.tables import Job
from tests.crash.laboratory.world import World

PAUSE_S = 0.05
LONGEST_S = 8.0
"""An effect of this length keeps an engine of ours busy for about half a second: long enough to die in."""
MOST_WAITING = 16
"""Callers hold back while so many jobs are unfinished: what is under test is death, not overload."""
ANSWERED = (200, 202)
LATER = (429, 502, 503)


@dataclass
class Load:
    """Asks, and remembers what was accepted."""

    world: World
    dice: random.Random
    per_s: float
    most_waiting: int = MOST_WAITING
    providers: Sequence[str] = ("replicate", "cog")
    accepted: dict[str, str] = field(default_factory=dict)
    """Job id by key."""
    refusals: list[str] = field(default_factory=list)
    """Answers that are no answer to a good request."""
    repeated: int = 0
    count: int = 0
    _asking: set[asyncio.Task[None]] = field(default_factory=set)
    _stopping: bool = False

    async def run(self) -> None:
        """Ask at `per_s` a second, until `stop`."""
        while not self._stopping:
            if await waiting(self.world) < self.most_waiting:
                self.count += 1
                asking = asyncio.create_task(self._ask(f"key-{self.count}"))
                self._asking.add(asking)
                asking.add_done_callback(self._asking.discard)
            await asyncio.sleep(self.dice.expovariate(self.per_s))

    async def stop(self) -> None:
        """Ask for nothing more; every key that was begun gets its answer."""
        self._stopping = True
        await asyncio.gather(*self._asking)

    def wish(self) -> dict[str, Any]:
        """A short effect, at either provider."""
        asked = {
            "prompt": "a wooden door knock",
            "duration_s": round(self.dice.uniform(0.5, LONGEST_S), 1),
            "seed": self.dice.randrange(2**31),
        }
        provider = self.dice.choice(self.providers)
        return {"kind": "sound_effect", "input": asked, "provider": provider}

    async def _ask(self, key: str) -> None:
        wish = self.wish()
        while True:
            try:
                reply = await self.world.client.post("/v1/jobs", json=wish, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                self.repeated += 1
                await asyncio.sleep(PAUSE_S)
                continue
            if reply.status_code in ANSWERED:
                self.accepted[key] = reply.json()["id"]
                return
            if reply.status_code not in LATER:
                self.refusals.append(f"{reply.status_code}: {reply.text[:200]}")
                return
            self.repeated += 1
            await asyncio.sleep(PAUSE_S)


async def waiting(world: World) -> int:
    """Jobs that have not ended, by the rows."""
    statement = select(func.count()).select_from(Job).where(col(Job.finished_at).is_(None))
    async with world.engine.connect() as connection:
        return int((await connection.execute(statement)).scalar_one())
