"""The laboratory of fault 49: a service under load whose PostgreSQL dies by SIGKILL again and again.

A whole service in this process (web, stations, PgQueuer, LISTEN) on a server of its own with `fsync` on; a
provider that sends signed webhooks; callers that ask again under their key until they are answered. `Report`
says what became of everything that had been promised. Seeded: the same seed makes the same choices, though
not the same races.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy import func, select

from db.attempts import list_attempts
from db.events import list_events
from db.jobs import count_crowds, find_jobs
from db.session import DatabaseUnavailable
from db.tables import Delivery
from tests.conftest import migrate
from tests.flow.conftest import TONE, Stage, open_stage
from tests.postgres import KillablePostgres, killable_postgres

TERMINAL = {"job.succeeded", "job.failed", "job.canceled"}
CALLERS = 4
MOST_LIVE = 24
"""Jobs that the load keeps alive at once."""
END_LIMIT_S = 120.0
QUICK = {
    "silence_s": 0.5,
    "recovery_interval_s": 0.5,
    "sweep_interval_s": 0.5,
    "max_attempts": 10,
    "max_crashes": 10,
    "db_pool_timeout": 2.0,
    "db_statement_timeout": 5.0,
}


@dataclass
class Report:
    """What happened, and what became of what was promised."""

    kills: int = 0
    accepted: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """Answers other than the one that was asked for, by status and code."""
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unended: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    predictions: int = 0
    slowest_answer_s: float = 0.0
    recovery_s: list[float] = field(default_factory=list)
    """From a server that takes connections to an accepted job."""

    def table(self) -> str:
        """The figures, for people."""
        recovery = sorted(self.recovery_s) or [0.0]
        rows = {
            "kills": self.kills,
            "jobs accepted": len(self.accepted),
            "webhooks acknowledged": self.acknowledged,
            "lost": len(self.lost),
            "doubled": len(self.doubled),
            "not ended": len(self.unended),
            "jobs by state": dict(self.states),
            "predictions made": self.predictions,
            "refusals": dict(self.refused),
            "slowest answer": f"{self.slowest_answer_s:.2f} s",
            "server up to a job accepted": f"median {statistics.median(recovery):.2f} s, "
            f"worst {recovery[-1]:.2f} s",
        }
        return "\n".join(f"{name:32} {value}" for name, value in rows.items())


class Laboratory:
    """A service, its load, and its server."""

    def __init__(self, stage: Stage, server: KillablePostgres, seed: int) -> None:
        self.stage = stage
        self.report = Report()
        self._server = server
        self._dice = random.Random(seed)
        self._asked = 0
        self._live = 0
        self._stopping = asyncio.Event()
        self._accepting = asyncio.Condition()

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Callers ask, the provider answers, the stations work, until the block ends."""
        working = asyncio.create_task(self.stage.runtime.worker.run())
        providing = asyncio.create_task(self._provide())
        counting = asyncio.create_task(self._count())
        callers = [asyncio.create_task(self._call()) for _ in range(CALLERS)]
        try:
            yield
            self._stopping.set()
            await asyncio.gather(*callers)
            await self._come_to_rest()
        finally:
            for task in (*callers, providing, counting):
                task.cancel()
            self.stage.runtime.worker.stop()
            await asyncio.gather(working, providing, counting, *callers, return_exceptions=True)

    async def accepted(self, more: int) -> None:
        """Wait until so many more jobs have been accepted."""
        wanted = len(self.report.accepted) + more
        async with asyncio.timeout(END_LIMIT_S), self._accepting:
            await self._accepting.wait_for(lambda: len(self.report.accepted) >= wanted)

    async def kill(self, down_s: float) -> None:
        """Kill the server, leave it down for a while, start it again."""
        await asyncio.to_thread(self._server.kill)
        self.report.kills += 1
        await asyncio.sleep(down_s)
        await asyncio.to_thread(self._server.start)
        up_at = time.monotonic()
        await self._ask_until_accepted(f"after-kill-{self.report.kills}")
        self.report.recovery_s.append(time.monotonic() - up_at)

    async def judge(self) -> Report:
        """What the rows say of what was promised."""
        report, database = self.report, self.stage.runtime.line.database
        acknowledged = {
            hook.headers["webhook-id"]
            for hook in self.stage.fake.sent
            if hook.status == httpx.codes.OK  # a 2xx after the commit
        }
        report.acknowledged = len(acknowledged)
        report.predictions = len(self.stage.fake.predictions)
        async with database.reading() as tx:
            stored = await tx.execute(
                select(Delivery.message_id, func.count()).where(Delivery.source == "webhook")
                .group_by(Delivery.message_id)
            )  # fmt: skip
            counts = {row[0]: row[1] for row in stored}
            jobs = {job.id: job for job in await find_jobs(tx, report.accepted)}
            report.lost = [f"webhook {key}" for key in acknowledged - counts.keys()]
            report.doubled = [f"webhook {key}" for key, count in counts.items() if count > 1]
            for job_id in report.accepted:
                if job_id not in jobs:
                    report.lost.append(job_id)
                    continue
                job = jobs[job_id]
                report.states[f"{job.state} {job.error_code or ''}".strip()] += 1
                ends = [e for e in await list_events(tx, job_id, limit=1000) if e.type in TERMINAL]
                if not ends:
                    report.unended.append(job_id)
                if len(ends) > 1:
                    report.doubled.append(job_id)
                attempts = await list_attempts(tx, job_id)
                if sum(attempt.status == "succeeded" for attempt in attempts) > 1:
                    report.doubled.append(f"attempts of {job_id}")
        if len(set(report.accepted)) != len(report.accepted):
            report.doubled.append("a key that made two jobs")
        return report

    async def _call(self) -> None:
        """A caller who asks again, under the same key, until told that it is accepted."""
        while not self._stopping.is_set():
            if self._live >= MOST_LIVE:
                await asyncio.sleep(0.02)
                continue
            self._asked += 1
            await self._ask_until_accepted(f"key-{self._asked}")

    async def _ask_until_accepted(self, key: str) -> None:
        wanted = {"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}
        while True:
            began = time.monotonic()
            reply = await self.stage.client.post("/v1/jobs", json=wanted, headers={"Idempotency-Key": key})
            self.report.slowest_answer_s = max(self.report.slowest_answer_s, time.monotonic() - began)
            if reply.status_code == httpx.codes.ACCEPTED:
                break
            self.report.refused[f"{reply.status_code} {reply.json().get('code')}"] += 1
            await asyncio.sleep(self._dice.uniform(0.01, 0.1))
        async with self._accepting:
            self.report.accepted.append(str(reply.json()["id"]))
            self._live += 1
            self._accepting.notify_all()

    async def _provide(self) -> None:
        """The provider works on what it has, and tells of each step."""
        fake = self.stage.fake
        while True:
            for prediction_id in fake.live()[:8]:
                await fake.begin(prediction_id)
                await fake.finish(prediction_id, output=TONE)
                refused = {hook.status for hook in fake.sent[-fake.hook_tries - 1 :]} - {200}
                self.report.refused.update(f"webhook {status}" for status in refused)
            await asyncio.sleep(0.01)

    async def _count(self) -> None:
        """Keep the number of live jobs at hand: the load is bounded by it."""
        while True:
            with suppress(DatabaseUnavailable):
                async with self.stage.runtime.line.database.reading() as tx:
                    self._live = sum(crowd.live for crowd in await count_crowds(tx))
            await asyncio.sleep(0.05)

    async def _come_to_rest(self) -> None:
        """Wait until no job is alive. What is not by then is in the report."""
        database = self.stage.runtime.line.database
        until = time.monotonic() + END_LIMIT_S
        while time.monotonic() < until:
            with suppress(DatabaseUnavailable):
                async with database.reading() as tx:
                    if not await count_crowds(tx):
                        return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def laboratory(folder: Path, *, seed: int) -> AsyncIterator[Laboratory]:
    """A service on a killable server, not under load yet."""
    with killable_postgres() as server:
        await asyncio.to_thread(server.start)
        url = f"postgresql+asyncpg://postgres@127.0.0.1:{server.port}/postgres"
        await migrate(url)
        async with open_stage(folder, url, **QUICK) as stage:
            yield Laboratory(stage, server, seed)
