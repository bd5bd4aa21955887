"""Callers: a steady stream of short jobs, each asked for under its key until the answer comes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from sqlalchemy import func, select
from sqlmodel import col

from db.tables import Job
from tests.crash.laboratory.world import World

PAUSE_S = 0.2
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
    most_waiting: int | None = MOST_WAITING
    """None for callers who never hold back."""
    providers: Sequence[str] = ("replicate", "cog")
    accepted: dict[str, str] = field(default_factory=dict)
    """Job id by key."""
    refusals: list[str] = field(default_factory=list)
    """Answers that are no answer to a good request."""
    repeated: int = 0
    gives_up: bool = False
    """Whether a caller who is told that too many jobs wait goes away; otherwise it asks again."""
    given_up: int = 0
    count: int = 0
    _asking: set[asyncio.Task[None]] = field(default_factory=set)
    _stopping: bool = False

    async def run(self) -> None:
        """Ask at `per_s` a second, until `stop`; returns when every key that was begun has its answer."""
        due = time.monotonic()
        while not self._stopping:
            due += self.dice.expovariate(self.per_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self.most_waiting is None or await waiting(self.world) < self.most_waiting:
                self.count += 1
                asking = asyncio.create_task(self.ask(f"key-{self.count}", self.wish()))
                self._asking.add(asking)
                asking.add_done_callback(self._asking.discard)
        # The last of them may have been begun after the word to stop.
        await asyncio.gather(*self._asking)

    async def stop(self) -> None:
        """Ask for nothing more; `run` returns with the last answer."""
        self._stopping = True

    def wish(self) -> dict[str, Any]:
        """A short effect, at either provider."""
        asked = {
            "prompt": "a wooden door knock",
            "duration_s": round(self.dice.uniform(0.5, LONGEST_S), 1),
            "seed": self.dice.randrange(2**31),
        }
        provider = self.dice.choice(self.providers)
        return {"kind": "sound_effect", "input": asked, "provider": provider}

    async def ask(self, key: str, wish: dict[str, Any]) -> None:
        """Until it is accepted; or given up because too many others wait, where that is allowed."""
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
            if self.gives_up and reply.json()["code"] == "overloaded":
                # Nothing was stored under this key: an earlier try that was would have been found again.
                self.given_up += 1
                return
            self.repeated += 1
            await asyncio.sleep(PAUSE_S)


async def waiting(world: World) -> int:
    """Jobs that have not ended, by the rows."""
    statement = select(func.count()).select_from(Job).where(col(Job.finished_at).is_(None))
    return int((await world.ask(statement))[0][0])
