"""Budgets: past one new jobs are refused until its period is over; those that were accepted go on."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, update
from sqlmodel import col

from app.errors import BudgetExceeded
from app.intake.spending import MOST_TENANTS, Spending
from app.jobs import JobRequest
from app.routing.router import Router
from app.settings import Settings
from db.ids import make_id
from db.session import Database
from db.tables import Attempt, Job, PastCost
from tests.flow.conftest import TONE, OpenStage, Stage

NOON = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)
"""Well inside an hour, a day and a month."""
ASKED = {"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}
"""0.20 dollars at Replicate."""


def forget_looks(spending: Spending) -> None:
    """What was read is old now."""
    spending._looked_s.clear()
    spending._reserved_s = -math.inf


def purse_of(line: Stage) -> Spending:
    return line.runtime.jobs._intake._admission._spending


async def ask(line: Stage, **body: Any) -> httpx.Response:
    return await line.client.post("/v1/jobs", json={**ASKED, **body})


async def test_past_the_budget_a_new_job_is_refused_with_what_was_spent_and_when_it_begins_anew(
    stage_on: OpenStage,
) -> None:
    async with stage_on(budgets={"default": {"month": "0.5"}}) as line:
        assert [(await ask(line)).status_code for _ in range(2)] == [202, 202]
        await line.drain()
        await line.fake.finish(next(iter(line.fake.predictions)), output=TONE)
        await line.drain()
        forget_looks(purse_of(line))
        before = await line.count(Job)
        reply = await ask(line)
        assert (reply.status_code, reply.json()["code"]) == (402, "budget_exceeded")
        assert reply.headers["content-type"] == "application/problem+json"
        budget = reply.json()["budget"]
        told = [budget[name] for name in ("usd", "per", "spent_usd", "reserved_usd")]
        assert told == [0.5, "month", 0.2, 0.2]
        resets_at = datetime.fromisoformat(budget["resets_at"])
        assert (resets_at.day, resets_at.hour, resets_at.minute) == (1, 0, 0)
        assert resets_at > datetime.now(UTC)
        assert int(reply.headers["retry-after"]) >= 1
        assert await line.count(Job) == before, "a refused job leaves nothing behind"


async def test_jobs_that_were_accepted_go_on_past_the_budget(stage_on: OpenStage) -> None:
    async with stage_on(budgets={"default": {"month": "0.2"}}) as line:
        job_id = (await ask(line)).json()["id"]
        await line.drain()
        [first] = line.fake.predictions
        attempt = (await line.attempts())[0]
        # Its first attempt has eaten the budget: it has another one all the same.
        await line.change(Attempt, attempt.id, prediction_id=first)
        await line.fake.finish(first, error="CUDA out of memory")
        await line.drain()
        await line.hurry()
        await line.drain()
        assert (await ask(line)).status_code == 402
        await line.fake.finish(list(line.fake.predictions)[-1], output=TONE)
        await line.drain()
        assert await line.state(job_id) == "succeeded"


async def test_of_many_that_come_at_once_no_more_are_accepted_than_there_is_money_for(
    stage_on: OpenStage,
) -> None:
    async with stage_on(budgets={"default": {"month": "1"}}) as line:
        replies = await asyncio.gather(*(ask(line) for _ in range(30)))
        assert Counter(reply.status_code for reply in replies) == {202: 5, 402: 25}


async def test_two_processes_on_one_database_see_what_each_other_has_accepted(stage_on: OpenStage) -> None:
    async with stage_on(budgets={"default": {"month": "0.4"}}) as one:
        other = Spending(settings=one.runtime.settings, router=one.runtime.line.router)
        assert [(await ask(one)).status_code for _ in range(2)] == [202, 202]
        now = one.runtime.line.clock.now()
        async with one.runtime.line.database.reading() as tx:
            await other.look(tx, ["default"], now)
        with pytest.raises(BudgetExceeded):
            other.admit(make_job(), now)


async def test_an_idempotency_key_is_answered_also_when_the_money_is_gone(stage_on: OpenStage) -> None:
    async with stage_on(budgets={"default": {"month": "0.2"}}) as line:
        key = {"Idempotency-Key": "once"}
        first = await line.client.post("/v1/jobs", json=ASKED, headers=key)
        again = await line.client.post("/v1/jobs", json=ASKED, headers=key)
        assert first.status_code == again.status_code == 202
        assert first.json()["id"] == again.json()["id"]
        assert (await ask(line)).status_code == 402


async def test_what_a_job_held_is_free_once_it_has_ended_for_less(stage_on: OpenStage) -> None:
    async with stage_on(budgets={"default": {"month": "0.2"}}) as line:
        job_id = (await ask(line)).json()["id"]
        assert (await ask(line)).status_code == 402
        await line.client.post(f"/v1/jobs/{job_id}/cancel")
        forget_looks(purse_of(line))
        assert (await ask(line)).status_code == 202


async def test_a_retry_needs_money_too(stage_on: OpenStage) -> None:
    async with stage_on(budgets={"default": {"month": "0.3"}}) as line:
        job_id = (await ask(line)).json()["id"]
        await line.client.post(f"/v1/jobs/{job_id}/cancel")
        forget_looks(purse_of(line))
        assert (await ask(line)).status_code == 202
        assert (await line.client.post(f"/v1/jobs/{job_id}/retry")).status_code == 402


async def test_what_is_known_to_cost_nothing_is_never_refused(stage_on: OpenStage) -> None:
    """The embedded worker runs on a machine that is there anyway; but `auto` may fall back from it."""
    async with stage_on(routes=("replicate", "cog"), budgets={"default": {"month": "0"}}) as line:
        assert (await ask(line)).status_code == 402
        assert (await ask(line, provider="replicate")).status_code == 402
        assert (await ask(line, provider="cog")).status_code == 202
    route = {"sound_effect": [{"provider": "cog"}, {"provider": "replicate"}]}
    broke = {"budgets": {"default": {"month": "0"}}}
    async with stage_on(routes=("replicate", "cog"), routing=route, **broke) as line:
        assert (await ask(line)).status_code == 402
    async with stage_on(routes=("cog",), **broke) as line:
        assert (await ask(line)).status_code == 202


async def test_a_model_without_a_price_is_refused_once_nothing_is_left(stage_on: OpenStage) -> None:
    models = {"replicate_models": {"sound_effect": "someone/new"}}
    async with stage_on(budgets={"default": {"month": "0.000001"}}, **models) as line:
        assert (await ask(line)).status_code == 202
    async with stage_on(budgets={"default": {"month": "0"}}, **models) as line:
        assert (await ask(line)).status_code == 402


async def test_each_tenant_has_a_purse_of_its_own(stage_on: OpenStage) -> None:
    budgets = {"acme": {"month": "0.2"}, "*": {"month": "0.4"}, "free": {}}
    async with stage_on(budgets=budgets) as line:
        accepted = Counter[str]()
        for tenant in ("acme", "other", "free"):
            for _ in range(4):
                request = JobRequest("sound_effect", {"prompt": "rain"}, {}, tenant=tenant)
                try:
                    await line.runtime.jobs.submit(request)
                except BudgetExceeded:
                    continue
                accepted[tenant] += 1
        assert accepted == {"acme": 1, "other": 2, "free": 4}


# The purse alone, with times of our own.


def make_job(tenant: str = "default") -> Job:
    return Job(id=make_id("job"), kind="sound_effect", tenant=tenant, provider="replicate", input={})


async def spend(database: Database, micros: int, at: datetime, *, tenant: str = "default") -> str:
    """Book a cost at this time; the attempt's id."""
    job = Job(
        id=make_id("job"), kind="speech", tenant=tenant, state="failed", input={}, caller_metadata={},
        provider="auto", turn_at=at, created_at=at, deadline_at=at, run_after=at,
    )  # fmt: skip
    attempt = Attempt(
        id=make_id("att"), job_id=job.id, number=1, provider="replicate", model="m", status="failed",
        created_at=at, check_at=at, billed_at=at, tenant=tenant, cost_micros=micros, cost_basis="metered",
    )  # fmt: skip
    async with database.transaction() as tx:
        await tx.execute(insert(Job), job.model_dump())
        await tx.execute(insert(Attempt), attempt.model_dump())
    return attempt.id


async def has_money(spending: Spending, database: Database, now: datetime, tenant: str = "default") -> bool:
    """Whether a job of 0.20 dollars is accepted; nothing stays held."""
    forget_looks(spending)
    async with database.reading() as tx:
        await spending.look(tx, [tenant], now)
    try:
        spending.admit(make_job(tenant), now)
    except BudgetExceeded:
        return False
    return True


def purse(settings: Settings, **budgets: str) -> Spending:
    changed = settings.model_copy(update={"budgets": {"default": budgets}})
    return Spending(settings=changed, router=Router(changed, ["replicate"]))


@pytest.mark.parametrize(
    ("per", "resets_at"),
    [
        ("hour", datetime(2026, 3, 10, 13, tzinfo=UTC)),
        ("day", datetime(2026, 3, 11, tzinfo=UTC)),
        ("month", datetime(2026, 4, 1, tzinfo=UTC)),
    ],
)
async def test_a_budget_begins_anew_with_its_period(
    database_url: str, settings: Settings, per: str, resets_at: datetime
) -> None:
    database = Database(database_url)
    spending = purse(settings, **{per: "0.3"})
    assert await has_money(spending, database, NOON)
    await spend(database, 200_000, NOON)
    assert not await has_money(spending, database, NOON + timedelta(seconds=1))
    assert not await has_money(spending, database, resets_at - timedelta(microseconds=1))
    assert await has_money(spending, database, resets_at)
    await database.aclose()


async def test_the_running_sum_is_what_a_new_process_counts(database_url: str, settings: Settings) -> None:
    """Costs come in over an hour, at their time and a little late; the sum that is kept misses none."""
    database = Database(database_url)
    kept = purse(settings, day="1000")
    for minute in range(0, 60, 5):
        now = NOON + timedelta(minutes=minute)
        await spend(database, 1 + minute, now)
        await has_money(kept, database, now)
        # Dated before the last look, by a transaction that was open during it.
        await spend(database, 1000, now - timedelta(seconds=30))
        await spend(database, 5, now, tenant="other")
        fresh = purse(settings, day="1000")
        for spending in (kept, fresh):
            await has_money(spending, database, now + timedelta(seconds=1))
        account, counted = (next(iter(each._accounts.values())) for each in (kept, fresh))
        assert account.spent == counted.spent
        assert account.counted_to > NOON - timedelta(minutes=2)
    assert account.spent == sum(1 + minute for minute in range(0, 60, 5)) + 12 * 1000
    await database.aclose()


async def test_a_bill_that_is_corrected_late_counts_from_the_next_recount_on(
    database_url: str, settings: Settings
) -> None:
    database = Database(database_url)
    spending = purse(settings, day="0.3")
    attempt_id = await spend(database, 200_000, NOON)
    later = NOON + timedelta(minutes=10)
    assert not await has_money(spending, database, later)
    async with database.transaction() as tx:
        await tx.execute(update(Attempt).where(col(Attempt.id) == attempt_id).values(cost_micros=0))
    for account in spending._accounts.values():
        account.recounted_s = -math.inf
    assert await has_money(spending, database, later)
    await database.aclose()


async def test_what_deleted_jobs_had_cost_is_still_spent(database_url: str, settings: Settings) -> None:
    database = Database(database_url)
    sums = dict.fromkeys(
        ("attempts", "jobs", "unpriced", "estimated", "run_ms", "characters", "output_ms"), 0
    )
    async with database.transaction() as tx:
        for day in ("2026-02-28", "2026-03-01", "2026-03-10"):
            past = PastCost(
                day=day,
                tenant="default",
                provider="replicate",
                kind="k",
                model="m",
                cost_micros=200_000,
                **sums,
            )
            await tx.insert_new(PastCost, past.model_dump())
    assert not await has_money(purse(settings, month="0.5"), database, NOON)
    assert await has_money(purse(settings, month="0.6"), database, NOON)
    assert await has_money(purse(settings, day="0.4"), database, NOON)
    assert not await has_money(purse(settings, day="0.3"), database, NOON)
    await database.aclose()


async def test_the_tighter_of_two_budgets_holds(database_url: str, settings: Settings) -> None:
    database = Database(database_url)
    await spend(database, 500_000, NOON - timedelta(days=1))
    spending = purse(settings, day="0.3", month="0.6")
    async with database.reading() as tx:
        await spending.look(tx, ["default"], NOON)
    with pytest.raises(BudgetExceeded) as refused:
        spending.admit(make_job(), NOON)
    assert refused.value.facts["per"] == "month"
    await database.aclose()


async def test_without_budgets_nothing_is_read(settings: Settings) -> None:
    spending = Spending(settings=settings, router=Router(settings, ["replicate"]))
    await spending.look(None, ["default"], NOON)  # type: ignore[arg-type]
    job = make_job()
    spending.admit(job, NOON)
    assert job.reserved_micros is None


async def test_what_is_remembered_of_tenants_is_bounded(database_url: str, settings: Settings) -> None:
    database = Database(database_url)
    changed = settings.model_copy(update={"budgets": {"*": {"day": "1"}}})
    spending = Spending(settings=changed, router=Router(changed, ["replicate"]))
    spending._looked_s = {f"t{number}": math.inf for number in range(MOST_TENANTS)}
    async with database.reading() as tx:
        await spending.look(tx, ["new"], NOON)
    assert list(spending._looked_s) == ["new"]
    await database.aclose()
