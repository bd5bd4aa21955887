"""Clocks that are wrong or set, and machines that slept: one holder of a job, no burst, no standstill."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update
from starlette.types import Receive, Scope, Send

from app.crash_points import CrashPoint, Reach
from app.dispatch import Route
from app.families.joining import Joined
from app.incoming import Incoming
from app.provider.replicate import Replicate
from app.recovery import ASKED_AT_ONCE
from app.worker import LONGEST_WAIT
from db.jobs import claim_job, renew_lease
from db.session import Database
from db.states import DeliverySource, JobState
from db.tables import Attempt, Delivery, Job
from tests.fakes.clock import FakeClock
from tests.fakes.provider import SECRET, TOKEN, FakeReplicate
from tests.flow.conftest import TONE, OpenStage, Stage, open_stage

MINUTES = 60.0
on_a_server = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


class Frozen(Exception):
    """A step stops here, its lease still held: a process that sleeps."""


def freezing(point: CrashPoint, times: int = 1) -> Reach:
    left = [times]

    def reach(here: CrashPoint) -> None:
        if here is point and left[0]:
            left[0] -= 1
            raise Frozen

    return reach


async def row_of(line: Stage, job_id: str) -> Job:
    return next(job for job in await line.rows(Job) if job.id == job_id)


async def finishing(line: Stage) -> Job:
    """A job whose finisher froze with the lease in its hand."""
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    with pytest.raises(Frozen):
        await line.drain()
    row = await row_of(line, job_id)
    assert row.lease
    return row


@asynccontextmanager
async def two_hosts(folder: Path, url: str, apart_s: float) -> AsyncIterator[tuple[Stage, Stage]]:
    """One whose clock is behind and one whose clock is ahead; the first finishing step of each freezes."""
    behind = {"clock": FakeClock(-apart_s / 2), "reach": freezing(CrashPoint.OUTPUT_STORED)}
    ahead = {"clock": FakeClock(apart_s / 2), "reach": freezing(CrashPoint.OUTPUT_STORED)}
    async with (
        open_stage(folder / "behind", url, ports=behind) as slow,
        open_stage(folder / "ahead", url, ports=ahead) as fast,
    ):
        yield slow, fast


@on_a_server
@pytest.mark.parametrize("apart_s", [5 * MINUTES, -5 * MINUTES, 9 * MINUTES])
async def test_hosts_whose_clocks_differ_do_not_take_each_others_leases(
    tmp_path: Path, database_url: str, apart_s: float
) -> None:
    """Fault 55: two hosts 5 minutes apart, one lease holder; the fence holds when it is taken over."""
    async with two_hosts(tmp_path, database_url, apart_s) as (slow, fast):
        held = await finishing(slow)
        async with fast.runtime.line.database.reading() as tx:
            assert not await fast.runtime.finisher.due(tx, fast.runtime.line.clock.now(), 10)
        await fast.runtime.finisher.step(held.id)
        row = await row_of(fast, held.id)
        assert (row.state, row.lease, row.crashes) == ("finishing", held.lease, 1)
        # Its time is over by the clock that both share: now it is the other's, and the late one loses.
        await fast.change(Job, held.id, lease_until=datetime.now(UTC) - timedelta(seconds=1))
        with pytest.raises(Frozen):
            await fast.runtime.finisher.step(held.id)
        with pytest.raises(Exception, match="somebody else"):
            await slow.runtime.finisher._succeed(held, held.lease or "", Joined({}, None), {})
        row = await row_of(fast, held.id)
        assert (row.state, row.lease not in (None, held.lease)) == ("finishing", True)
        await fast.change(Job, held.id, lease_until=datetime.now(UTC) - timedelta(seconds=1))
        await fast.drain()
        assert await fast.state(held.id) == "succeeded"
        assert (await fast.events(held.id)).count("job.succeeded") == 1


@on_a_server
@pytest.mark.parametrize("apart_s", [9 * MINUTES, -9 * MINUTES])
async def test_what_one_host_says_is_due_is_due_at_the_other(
    tmp_path: Path, database_url: str, apart_s: float
) -> None:
    """Fault 55: a row dated by a host that is ahead waits for nobody, and its times are the true ones."""
    async with two_hosts(tmp_path, database_url, apart_s) as (slow, fast):
        job_id = await fast.ask()
        line = slow.runtime.line
        async with line.database.reading() as tx:
            assert await slow.runtime.dispatcher.due(tx, line.clock.now(), 10) == [job_id]
        await slow.runtime.dispatcher.step(job_id)
        await slow.fake.finish(slow.fake.live()[0], output=TONE)
        for delivery in await slow.ledger():
            await fast.runtime.inbox.step(delivery["id"])
        with pytest.raises(Frozen):
            await fast.runtime.finisher.step(job_id)
        await fast.change(Job, job_id, lease_until=datetime.now(UTC) - timedelta(seconds=1))
        await fast.runtime.finisher.step(job_id)
        job = await fast.read(job_id)
        assert job["state"] == "succeeded"
        times = [job["created_at"], job["started_at"], job["finished_at"]]
        assert times == sorted(times)
        assert abs((datetime.now(UTC) - datetime.fromisoformat(times[0])).total_seconds()) < 60
        for each in (slow, fast):
            ready = (await each.client.get("/readyz")).json()
            shift_s = each.runtime.line.clock.wall() - datetime.now(UTC)
            assert ready["clock"]["skew_s"] == pytest.approx(shift_s.total_seconds(), abs=1.0)


async def test_a_lease_begins_and_ends_by_the_databases_clock(database_url: str) -> None:
    """Fault 55: where there is a server, what the caller thinks the time is changes nothing."""
    database = Database(database_url)
    now = datetime.now(UTC)
    late, early = now + timedelta(minutes=10), now - timedelta(minutes=10)
    try:
        async with database.transaction() as tx:
            await tx.execute(Job.__table__.insert(), _finishing_row(now))  # type: ignore[attr-defined]

        async def claim(lease: str, at: datetime) -> bool:
            async with database.transaction() as tx:
                found = await claim_job(
                    tx, "job_1", JobState.FINISHING, lease=lease, by="proc_1", now=at, lease_s=60
                )
            return found is not None

        if not database.is_shared:
            # One process, whose clock is the database's.
            assert await claim("a", now)
            assert not await claim("b", now + timedelta(seconds=59))
            assert await claim("b", now + timedelta(seconds=61))
            return
        assert await claim("a", early)
        assert not await claim("b", late)
        async with database.transaction() as tx:
            assert await renew_lease(tx, "job_1", lease="a", now=early, lease_s=60)
        assert not await claim("b", late)
        async with database.transaction() as tx:
            assert await renew_lease(tx, "job_1", lease="a", now=late, lease_s=0)
        assert await claim("b", early)
    finally:
        await database.aclose()


def _finishing_row(now: datetime) -> dict[str, object]:
    row = Job(
        id="job_1", kind="speech", state="finishing", input={}, caller_metadata={}, provider="auto",
        created_at=now, deadline_at=now, run_after=now - timedelta(hours=1),
    )  # fmt: skip
    return row.model_dump()


@pytest.mark.parametrize("jump_s", [10 * MINUTES, -10 * MINUTES])
async def test_a_clock_that_is_set_in_mid_job_costs_no_attempt_and_asks_nobody(
    stage_on: OpenStage, jump_s: float
) -> None:
    """Fault 55: a jump of 10 minutes either way at every station: no lost attempt, no poll, no wait."""
    clock = FakeClock()
    async with stage_on(ports={"clock": clock}) as line:
        job_id = await line.ask()
        clock.shift_s = jump_s
        await line.drain()
        asked = len(line.fake.seen)
        clock.shift_s = 0.0
        await line.runtime.recovery.check()
        clock.shift_s = jump_s
        await line.runtime.recovery.check()
        assert (await line.ledger(), len(line.fake.seen)) == ([], asked)
        # A hook is only believed by a clock that is nearly right; what has been stored is applied by any.
        clock.shift_s = 0.0
        await line.fake.finish(line.fake.live()[0], output=TONE)
        clock.shift_s = -jump_s
        await line.drain()
        job = await line.read(job_id)
        assert (job["state"], len(job["attempts"])) == ("succeeded", 1)
        assert job["created_at"] <= job["started_at"] <= job["finished_at"]


@pytest.mark.parametrize("jump_s", [10 * MINUTES, -10 * MINUTES])
async def test_a_wait_is_as_long_as_it_was_meant_whatever_the_clock_says(
    stage_on_sqlite: OpenStage, jump_s: float
) -> None:
    """Fault 55: a job that was put off comes back when its time is over, not ten minutes sooner or later."""
    clock = FakeClock()
    async with stage_on_sqlite(ports={"clock": clock}) as line:
        job_id = await line.ask()
        now = line.runtime.line.clock.now()
        await line.change(Job, job_id, run_after=now + timedelta(seconds=60))
        clock.shift_s = jump_s
        assert await _due(line) == []
        clock.slept_s += 61
        assert await _due(line) == [job_id]


async def _due(line: Stage) -> list[str]:
    async with line.runtime.line.database.reading() as tx:
        return list(await line.runtime.dispatcher.due(tx, line.runtime.line.clock.now(), 10))


async def test_a_restart_after_the_clock_was_set_back_leaves_nothing_waiting_for_the_old_time(
    stage_on_sqlite: OpenStage,
) -> None:
    """Fault 55: rows that a clock ten minutes ahead has dated wait a minute at most."""
    async with stage_on_sqlite(ports={"clock": FakeClock(10 * MINUTES)}) as before:
        await before.runtime.dispatcher.step(await before.ask())
        await before.ask()
        attempt_id = (await before.attempts())[0].id
        await before.runtime.inbox.receive(Incoming(DeliverySource.POLL, "replicate", attempt_id, b"{}"))
    async with stage_on_sqlite() as after:
        assert await _due(after) == []
        assert len(await after.rows(Delivery)) == 1
        await after.runtime.worker.adopt()
        latest = after.runtime.line.clock.now() + LONGEST_WAIT
        assert all(job.run_after <= latest for job in await after.rows(Job) if job.state != "running")
        assert all(each.check_at <= latest for each in await after.rows(Attempt))
        assert all(each.run_after <= latest for each in await after.rows(Delivery) if not each.settled_at)


class Busiest:
    """Stands before the provider and counts how many calls of each sort are inside at once."""

    def __init__(self, app: FakeReplicate) -> None:
        self._app = app
        self._inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sort = str(scope["method"])
        self._inside[sort] += 1
        self.calls[sort] += 1
        self.most[sort] = max(self.most[sort], self._inside[sort])
        try:
            # Time for all the others that would come.
            for _ in range(50):
                await asyncio.sleep(0)
            await self._app(scope, receive, send)
        finally:
            self._inside[sort] -= 1


async def suspend(line: Stage, clock: FakeClock, seconds: float) -> None:
    """The machine sleeps and wakes: everything that waited for a time is due at once, every lease is over.

    A server's clock cannot be moved, so there the rows are.
    """
    if not line.runtime.line.database.is_shared:
        clock.slept_s += seconds
        return
    await line.age(seconds)
    past = datetime.now(UTC) - timedelta(seconds=seconds)
    async with line.runtime.line.database.transaction() as tx:
        await tx.execute(update(Job).where(Job.lease.is_not(None)).values(lease_until=past))  # type: ignore[union-attr]


async def test_a_machine_that_slept_for_an_hour_goes_on_with_one_holder_a_job_and_no_burst(
    stage_on: OpenStage,
) -> None:
    """Fault 55: suspend 1 h. All timers are due at once and are worked off by the usual number at a time."""
    fake, clock = FakeReplicate(), FakeClock()
    busiest = Busiest(fake)
    hosted = Replicate(
        token=TOKEN, base_url=fake.base_url, secrets=[SECRET], transport=httpx.ASGITransport(app=busiest)
    )
    ports = {
        "clock": clock, "routes": {"replicate": Route(hosted)}, "reach": freezing(CrashPoint.OUTPUT_STORED)
    }  # fmt: skip
    limits = {"job_deadline_s": 6 * 3600, "dispatch_concurrency": 2, "recovery_interval_s": 0.05}
    async with stage_on(ports=ports, sweep_interval_s=0.05, **limits) as line:
        fake.hooks = line.client
        held = await _held_by_a_frozen_finisher(line, fake)
        running = [await line.ask() for _ in range(10)]
        await line.drain()
        waiting = [await line.ask() for _ in range(10)]
        later = line.runtime.line.clock.now() + timedelta(seconds=50)
        for job_id in waiting:
            await line.change(Job, job_id, run_after=later)
        # Their ends are reached while we sleep, and the hooks about it come to nobody.
        fake.lose_hooks = frozenset({"completed"})
        for prediction_id in fake.live():
            await fake.finish(prediction_id, output=TONE)
        fake.lose_hooks, fake.early = frozenset(), TONE
        busiest.most.clear()

        await suspend(line, clock, 3600)
        await _work_until_all_have_ended(line, [held.id, *running, *waiting])

        with pytest.raises(Exception, match="somebody else"):
            await line.runtime.finisher._succeed(held, held.lease or "", Joined({}, None), {})
        for job_id in (held.id, *running, *waiting):
            job = await line.read(job_id)
            assert (job["state"], len(job["attempts"])) == ("succeeded", 1), job
            assert (await line.events(job_id)).count("job.succeeded") == 1
        assert len(fake.predictions) == 21
        assert busiest.most["POST"] <= 2
        assert busiest.most["GET"] <= ASKED_AT_ONCE


async def _held_by_a_frozen_finisher(line: Stage, fake: FakeReplicate) -> Job:
    job_id = await line.ask()
    await line.drain()
    await fake.finish(fake.live()[0], output=TONE)
    with pytest.raises(Frozen):
        await line.drain()
    return await row_of(line, job_id)


async def _work_until_all_have_ended(line: Stage, job_ids: list[str]) -> None:
    working = asyncio.create_task(line.runtime.worker.run())
    try:
        async with asyncio.timeout(60):
            for job_id in job_ids:
                await line.runtime.jobs.wait(job_id, timeout_s=60)
    finally:
        line.runtime.worker.stop()
        await working
