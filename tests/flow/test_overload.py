"""The story "overload": what is refused, what is counted, and whose turn it is."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlmodel import col

from app.dispatch import Route
from app.errors import Overloaded
from app.jobs import JobRequest
from app.provider.cog import Cog
from app.work import Station
from db.jobs import find_next_job, turn_of, wake_waiting
from db.states import JobState
from db.tables import Job
from tests.conftest import becomes
from tests.flow.conftest import TONE, OpenStage, Stage

RAIN = {"kind": "sound_effect", "input": {"prompt": "rain"}}


def asked(tenant: str = "default", **more: Any) -> JobRequest:
    return JobRequest("sound_effect", {"prompt": "rain"}, {}, tenant=tenant, **more)


async def submitted(line: Stage, tenant: str = "default", **more: Any) -> str:
    return (await line.runtime.jobs.submit(asked(tenant, **more))).job.id


async def started(line: Stage) -> list[Job]:
    """Those that were given to a provider, in that order."""
    jobs = [job for job in await line.rows(Job) if job.started_at]
    return sorted(jobs, key=lambda job: job.started_at or job.created_at)


async def test_the_live_limit_is_exact_in_one_process_and_room_is_seen_again(
    stage_on_sqlite: OpenStage,
) -> None:
    async with stage_on_sqlite(max_queued_jobs=5) as line:
        replies = await asyncio.gather(*(line.client.post("/v1/jobs", json=RAIN) for _ in range(20)))
        assert Counter(reply.status_code for reply in replies) == {202: 5, 503: 15}
        refused = next(reply for reply in replies if reply.status_code == 503)
        assert (refused.json()["code"], int(refused.headers["retry-after"]) >= 1) == ("overloaded", True)
        first = next(job.id for job in await line.rows(Job))
        await line.runtime.jobs.cancel(first)
        line.runtime.jobs._intake._admission._count.at_s -= 2  # the count is a second old
        assert (await line.client.post("/v1/jobs", json=RAIN)).status_code == 202


async def test_live_jobs_are_not_counted_for_each_new_one(sqlite_line: Stage) -> None:
    counts: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "count(*) AS live" in statement:
            counts.append(statement)

    event.listen(sqlite_line.runtime.line.database.engine.sync_engine, "before_cursor_execute", note)
    for _ in range(90):
        await submitted(sqlite_line)
    # One a second, or one in a hundred of the limit; 90 take less than some seconds.
    assert 1 <= len(counts) <= 10


async def test_a_repeated_request_is_answered_also_when_there_is_no_room(stage_on: OpenStage) -> None:
    async with stage_on(max_queued_jobs=1) as line:
        headers = {"idempotency-key": "k"}
        first = await line.client.post("/v1/jobs", json=RAIN, headers=headers)
        again = await line.client.post("/v1/jobs", json=RAIN, headers=headers)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


async def test_a_queue_too_old_for_a_jobs_deadline_refuses_that_job_and_no_other(stage_on: OpenStage) -> None:
    async with stage_on(queue_age_s=60) as line:
        ids = [await submitted(line) for _ in range(40)]
        long_ago = datetime.now(UTC) - timedelta(seconds=100)
        async with line.runtime.line.database.transaction() as tx:
            await tx.execute(update(Job).values(created_at=long_ago, turn_at=long_ago))
            # Ten began since the oldest came: one in ten seconds, for thirty before the next.
            began = update(Job).where(col(Job.id).in_(ids[:10]))
            await tx.execute(began.values(started_at=datetime.now(UTC), state=JobState.RUNNING))
        line.runtime.jobs._intake._admission._count.at_s -= 2
        with pytest.raises(Overloaded, match="30 jobs are waiting"):
            await submitted(line, deadline_s=60)
        await submitted(line, deadline_s=3600)
        # Of another tenant, thirty stand in nobody's way but their own.
        await submitted(line, "other", deadline_s=60)


async def test_one_tenants_many_jobs_delay_anothers_only_one_by_one_turn(line: Stage) -> None:
    """Fault 27: the other tenant's job was the last to come, and is the second or third to begin."""
    for _ in range(40):
        await submitted(line, "heavy")
    light = await submitted(line, "light")
    heavy = [job.id for job in await line.rows(Job) if job.tenant == "heavy"]
    for job_id in heavy[:3]:
        # The items in the engine are in the order of coming: none of these names the light one.
        await line.runtime.dispatcher.step(job_id)
    assert light in [job.id for job in (await started(line))[:2]]
    await line.drain()
    assert len(await started(line)) == 41, "each item took one job, so all are taken"


async def test_tenants_take_turns_for_a_slot_that_comes_free(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        for _ in range(6):
            await submitted(line, "heavy")
        await line.drain()
        for _ in range(2):
            await submitted(line, "light")
        await line.drain()
        for _ in range(4):
            [prediction] = list(line.cog.running)
            await line.cog.finish(prediction, output=TONE)
            await line.drain()
        tenants = [job.tenant for job in await started(line)]
        assert tenants == ["heavy", "light", "heavy", "light", "heavy"]


async def test_within_a_tenant_priority_goes_first_and_age_overtakes_it_in_the_end(line: Stage) -> None:
    now = datetime.now(UTC)
    old = await submitted(line, priority=0)
    low, high = await submitted(line, priority=-5), await submitted(line, priority=5)
    hour_ago = now - timedelta(hours=1)
    await line.change(Job, old, created_at=hour_ago, turn_at=turn_of(hour_ago, 0))
    await line.drain()
    assert [job.id for job in await started(line)] == [old, high, low]


async def test_a_job_that_only_others_can_begin_does_not_stand_before_ours(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        theirs, ours = await submitted(line), await submitted(line)
        await line.change(Job, theirs, provider="cog")
        async with line.runtime.line.database.transaction() as tx:
            found = await find_next_job(
                tx, JobState.QUEUED, now=datetime.now(UTC), providers=["auto", "replicate"]
            )
        assert found is not None
        assert found.id == ours


async def test_fault_61_rows_whose_items_were_all_lost_are_found_by_the_sweep(line: Stage) -> None:
    """Fault 61: the rows are the truth. Rule 7 of the engine: it is also how a restart finds its work."""
    ids = {await submitted(line) for _ in range(5)}
    database = line.runtime.line.database
    if database.is_shared:
        # In memory there is none yet: nobody worked when the jobs came.
        async with database.transaction() as tx:
            await tx.execute(text("DELETE FROM pgqueuer"))
    working = asyncio.create_task(line.runtime.worker.run())
    await becomes(lambda: len(line.fake.predictions) == 5)
    line.runtime.worker.stop()
    await working
    assert {job.id for job in await started(line)} == ids


async def test_a_worker_that_can_ask_nobody_takes_no_dispatch_items_from_those_that_can(
    stage_on: OpenStage,
) -> None:
    cog = Cog(urls={})
    async with stage_on(ports={"routes": {"cog": Route(cog, is_asked=False)}}) as line:
        stations = line.runtime.worker.stations
        # Alone on its database it must tell the job's caller why nothing begins.
        assert (Station.DISPATCH in stations) != line.runtime.line.database.is_shared
        assert {Station.APPLY, Station.FINISH} <= set(stations)


async def test_two_dispatchers_take_two_jobs(line: Stage) -> None:
    ids = [await submitted(line) for _ in range(8)]
    await asyncio.gather(*(line.runtime.dispatcher.step(ids[0]) for _ in range(8)))
    assert {job.id for job in await started(line)} == set(ids)
    assert len(line.fake.predictions) == 8


@pytest.mark.parametrize("tenants", [1, 20])
async def test_the_next_job_is_found_by_looks_into_indexes_alone(sqlite_line: Stage, tenants: int) -> None:
    database = sqlite_line.runtime.line.database
    asked_for: list[tuple[str, Any]] = []
    for number in range(tenants):
        await submitted(sqlite_line, f"tenant{number}")
    now = datetime.now(UTC)

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "SELECT" in statement and "jobs" in statement:
            asked_for.append((statement, values))

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    async with database.transaction() as tx:
        await find_next_job(tx, JobState.QUEUED, now=now)
        await wake_waiting(tx, "cog", now=now)
    event.remove(engine, "before_cursor_execute", note)
    async with database.engine.connect() as connection:
        for statement, values in asked_for:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            steps = [str(row[-1]) for row in plan]
            assert not [step for step in steps if step.startswith("SCAN jobs")], steps
            if "ORDER BY jobs.turn_at" in statement:
                assert "USE TEMP B-TREE FOR ORDER BY" not in steps, steps
    assert len(asked_for) <= 3
