"""What every attempt cost: booked with its end, once, however it ended; and the report over all of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert

from app.costs.books import Books
from app.costs.prices import to_usd
from app.lifecycle import Silence
from db.costs import ESTIMATES, GROUPS, CostBasis, Sums
from db.session import Database
from db.tables import Attempt, Job, PastCost
from tests.fakes.provider import invalid, throttled
from tests.flow.conftest import TONE, OpenStage, Stage
from tests.flow.test_cli import answer, reprise

BY_TIME = {"replicate": {"stability-ai/stable-audio-2.5": {"second": "0.01"}}}
"""The fake says that a prediction took 1.25 s."""


async def report(line: Stage, group_by: str = "provider", **wanted: str) -> dict[str, Any]:
    reply = await line.client.get("/v1/costs", params={"group_by": group_by, **wanted})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def items(line: Stage, job_id: str) -> list[tuple[int, float | None, str]]:
    """Number, dollars and basis of each of the job's attempts that has ended."""
    cost = (await line.read(job_id))["cost"]
    return [(each["attempt"], each["usd"], each["basis"]) for each in cost["items"]]


async def give_up(line: Stage, job_id: str, number: int = 1) -> None:
    """Let an attempt be lost, and the next one begin."""
    attempt = next(each for each in await line.attempts() if each.number == number)
    await line.runtime.inbox.receive_silence(Silence("silent"), job_id=job_id, attempt=attempt)
    await line.drain()
    await line.hurry()
    await line.drain()


def spend_counter(line: Stage) -> float:
    """What the metric has come to, over all labels."""
    found = [
        sample.value
        for metric in line.runtime.line.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "reprise_spend_usd_total"
    ]
    return round(sum(found), 6)


async def test_a_success_is_booked_with_what_it_took_and_the_price_that_was_applied(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    assert (await line.read(job_id))["cost"] == {"usd": None, "items": []}
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    assert (await line.read(job_id))["cost"] == {
        "usd": 0.2,
        "items": [
            {
                "attempt": 1,
                "job_id": job_id,
                "provider": "replicate",
                "model": "stability-ai/stable-audio-2.5",
                "usd": 0.2,
                "price": "0.20 per file",
                "basis": "metered",
                "seconds": 1.25,
                "characters": None,
                "output_seconds": 1.0,
            }
        ],
    }
    assert spend_counter(line) == 0.2


async def test_the_statement_that_ends_an_attempt_books_its_cost_too(line: Stage) -> None:
    """Books cost the hot path no statement."""
    _, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    updates: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE attempts"):
            updates.append(statement)

    engine = line.runtime.line.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    await line.drain()
    event.remove(engine, "before_cursor_execute", note)
    assert len(updates) == 1
    assert "cost_micros" in updates[0]


async def test_every_try_is_booked_and_the_job_costs_their_sum(stage_on: OpenStage) -> None:
    async with stage_on(prices=BY_TIME) as line:
        job_id, first = await line.start()
        await line.fake.finish(first, error="CUDA out of memory")
        await line.drain()
        await line.hurry()
        await line.drain()
        await line.fake.finish(list(line.fake.predictions)[-1], output=TONE)
        await line.drain()
        assert await line.state(job_id) == "succeeded"
        assert await items(line, job_id) == [(1, 0.0125, "metered"), (2, 0.0125, "metered")]
        assert (await line.read(job_id))["cost"]["usd"] == 0.025
        total = (await report(line))["total"]
        assert (total["usd"], total["attempts"], total["jobs"], total["seconds"]) == (0.025, 2, 1, 2.5)


async def test_fault_58_a_late_success_of_an_attempt_that_was_given_up_changes_nothing_but_the_cost(
    stage_on: OpenStage,
) -> None:
    """Fault 58."""
    async with stage_on(prices=BY_TIME) as line:
        job_id, first = await line.start()
        await give_up(line, job_id)
        [(number, guess, basis)] = await items(line, job_id)
        assert (number, basis) == (1, "clock"), "nobody said how long it ran"
        assert guess is not None
        before, billed_at = await line.read(job_id), (await line.attempts())[0].billed_at
        await line.fake.finish(first, output=TONE)
        await line.drain()
        assert (await line.ledger())[-1]["outcome"] == "late_result"
        assert await items(line, job_id) == [(1, 0.0125, "metered")]
        after = await line.read(job_id)
        # The metrics are where the cost comes from.
        for job in (before, after):
            job.pop("cost")
            job["attempts"][0].pop("metrics")
        assert after == before
        assert (await line.attempts())[0].billed_at == billed_at, "the money stays in its period"
        await line.fake.finish(list(line.fake.predictions)[-1], output=TONE)
        await line.drain()
        assert (await line.read(job_id))["cost"]["usd"] == 0.025


async def test_an_attempt_whose_end_was_never_heard_is_taken_as_delivered_until_the_truth_comes(
    line: Stage,
) -> None:
    job_id, first = await line.start()
    await give_up(line, job_id)
    assert await items(line, job_id) == [(1, 0.2, "assumed")]
    assert (await report(line))["total"]["estimated"] == 1
    await line.fake.finish(first, status="canceled")
    await line.drain()
    assert await items(line, job_id) == [(1, 0.0, "metered")]
    total = (await report(line))["total"]
    assert (total["usd"], total["estimated"]) == (0.0, 0)
    # A counter never falls.
    assert spend_counter(line) == 0.2


async def test_a_canceled_prediction_is_billed_for_the_time_that_it_ran(stage_on: OpenStage) -> None:
    async with stage_on(prices=BY_TIME) as line:
        job_id, _ = await line.start()
        await line.client.post(f"/v1/jobs/{job_id}/cancel")
        await line.runtime.recovery.check()
        await line.drain()
        assert await items(line, job_id) == [(1, 0.0125, "metered")]


async def test_a_success_after_a_cancel_is_paid_for(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    await line.client.post(f"/v1/jobs/{job_id}/cancel")
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    assert await line.state(job_id) == "canceled"
    assert await items(line, job_id) == [(1, 0.2, "metered")]


async def test_what_the_provider_never_made_costs_nothing(stage_on: OpenStage) -> None:
    async with stage_on(max_attempts=1) as line:
        line.fake.script("create", throttled(1.0))
        job_id = await line.ask()
        await line.drain()
        assert (await line.read(job_id))["cost"] == {"usd": None, "items": []}, "it was withdrawn"
        line.fake.script("create", invalid("prompt", "is too long"))
        await line.hurry()
        await line.drain()
        assert await line.state(job_id) == "failed"
        assert await items(line, job_id) == [(1, 0.0, "nothing")]


async def test_news_that_comes_twice_is_paid_for_once(line: Stage) -> None:
    line.fake.double_hooks = True
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    for delivery in await line.ledger():
        await line.client.post(f"/v1/deliveries/{delivery['id']}/replay")
    await line.drain()
    assert await items(line, job_id) == [(1, 0.2, "metered")]
    assert (await report(line))["total"]["usd"] == spend_counter(line) == 0.2


async def test_a_worker_of_ones_own_is_paid_by_the_hour(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",), prices={"cog": {"*": {"hour": "3.6"}}}) as line:
        job_id = await line.ask()
        await line.drain()
        await line.cog.finish(line.cog.asked[0], output=TONE)
        await line.drain()
        assert await items(line, job_id) == [(1, 0.0005, "metered")]


async def test_a_model_without_a_price_is_counted_and_not_guessed(stage_on: OpenStage) -> None:
    async with stage_on(replicate_models={"sound_effect": "someone/new"}) as line:
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=TONE)
        await line.drain()
        assert await items(line, job_id) == [(1, None, "unpriced")]
        assert (await line.read(job_id))["cost"]["usd"] is None
        total = (await report(line))["total"]
        assert (total["usd"], total["attempts"], total["unpriced"], total["seconds"]) == (0.0, 1, 1, 1.25)


async def test_costs_are_reported_by_whatever_a_job_has_to_tell(line: Stage) -> None:
    for tag in ({"customer": "a"}, {"customer": "b"}, {"customer": "a"}, {}):
        _, prediction_id = await line.start(metadata=tag)
        await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    found = await report(line, "metadata.customer")
    assert [(each["key"], each["usd"], each["jobs"]) for each in found["items"]] == [
        (None, 0.2, 1),
        ("a", 0.4, 2),
        ("b", 0.2, 1),
    ]
    assert [each["key"] for each in (await report(line, "kind"))["items"]] == ["sound_effect"]
    assert len((await report(line, "job"))["items"]) == 4
    first = await report(line, "job", limit="3")
    rest = await report(line, "job", limit="3", cursor=first["next_cursor"])
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (3, 1, None)
    assert first["total"] == rest["total"] == found["total"]
    # Of a time in which nothing ended there is nothing.
    empty = await report(line, "day", since="2020-01-01T00:00:00Z", until="2020-02-01T00:00:00Z")
    assert (empty["items"], empty["total"]["attempts"]) == ([], 0)


@pytest.mark.breaks("I1")
async def test_the_books_outlive_the_jobs(stage_on: OpenStage) -> None:
    async with stage_on(retention_s=3600.0) as line:
        for _ in range(3):
            job_id, prediction_id = await line.start(metadata={"customer": "a"})
            await line.fake.finish(prediction_id, output=TONE)
            await line.drain()
            await line.change(Job, job_id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        now = datetime.now(UTC)
        span = {
            "since": (now - timedelta(days=3)).isoformat(),
            "until": (now + timedelta(days=3)).isoformat(),
        }
        before = {group: await report(line, group, **span) for group in ("provider", "kind", "model", "day")}
        assert await line.runtime.housekeeper.expire() == 3
        assert await line.count(Job) == 0
        for group, told in before.items():
            assert await report(line, group, **span) == told
        # Whose they were is not known any more.
        for group in ("job", "metadata.customer"):
            found = await report(line, group, **span)
            assert [(each["key"], each["usd"]) for each in found["items"]] == [(None, 0.6)]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"group_by": "colour"}, "group_by"),
        ({"group_by": ""}, "group_by"),
        ({"group_by": "metadata."}, "group_by"),
        ({"group_by": 'metadata.a"b'}, "group_by"),
        ({"group_by": "metadata." + "x" * 65}, "group_by"),
        ({"group_by": "x" * 81}, "group_by"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-01-01"}, "since"),
        ({"until": "2026-01-01T00:00:00"}, "until"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "until"),
        ({"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "until"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "all"}, "limit"),
    ],
)
async def test_nonsense_is_refused_and_the_parameter_named(
    sqlite_line: Stage, wanted: dict[str, str], field: str
) -> None:
    reply = await sqlite_line.client.get("/v1/costs", params=wanted)
    assert (reply.status_code, reply.json()["field"]) == (422, field)


@pytest.mark.parametrize("cursor", ["!", "cHJvdmlkZXI", "a2luZD1h", "cHJvdmlkZXI9AA"])
async def test_a_cursor_of_another_list_is_refused(sqlite_line: Stage, cursor: str) -> None:
    reply = await sqlite_line.client.get("/v1/costs", params={"group_by": "provider", "cursor": cursor})
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_cursor")


async def test_a_time_at_the_edge_of_the_calendar_is_no_fault_of_ours(line: Stage) -> None:
    for wanted in (
        {"since": "0001-01-01T00:00:00Z"},
        {"until": "9999-12-31T23:59:59.999999Z"},
        {"until": "0001-01-01T00:00:01Z"},
    ):
        reply = await line.client.get("/v1/costs", params=wanted)
        assert reply.status_code in (200, 422), reply.text


KINDS = ["sound_effect", "speech", "Speech", "music"]
TAGS: list[dict[str, Any]] = [{}, {"team": "a"}, {"team": "A"}, {"team": "ä b"}, {"team": ""}, {"other": "a"}]
WINDOWS_H = [(0, 100), (7, 50), (24, 72), (30, 31), (99, 100)]
FIRST = datetime(2026, 2, 27, tzinfo=UTC)
GROUPINGS = [*GROUPS, "metadata.team"]


async def _fill(database: Database, dice: random.Random) -> list[tuple[datetime, Attempt]]:
    """A hundred jobs with attempts that ended in a hundred hours, with every kind of cost."""
    made: list[tuple[datetime, Attempt]] = []
    jobs: list[Job] = []
    for number in range(100):
        job = Job(
            id=f"job_{number:03}", kind=dice.choice(KINDS), tenant=dice.choice(["a", "default"]),
            state="succeeded", input={}, caller_metadata=dice.choice(TAGS), provider="auto",
            turn_at=FIRST, created_at=FIRST, deadline_at=FIRST, run_after=FIRST,
        )  # fmt: skip
        jobs.append(job)
        for attempt in range(1, dice.randint(1, 4)):
            basis = dice.choice(list(CostBasis))
            at = FIRST + timedelta(hours=dice.randint(0, 100), microseconds=dice.choice([0, 0, 1, 999_999]))
            row = Attempt(
                id=f"att_{number:03}_{attempt}", job_id=job.id, number=attempt, tenant=job.tenant,
                model=dice.choice(["m", "M", "o/n:v"]), provider=dice.choice(["replicate", "cog"]),
                status="succeeded", created_at=FIRST, check_at=FIRST, billed_at=at, cost_basis=basis,
                run_ms=dice.choice([None, 0, dice.randrange(10**7)]),
                characters=dice.choice([None, dice.randrange(10**4)]),
                cost_micros=None if basis is CostBasis.UNPRICED else dice.randrange(10**7),
            )  # fmt: skip
            made.append((at, row))
    async with database.transaction() as tx:
        await tx.execute(insert(Job), [job.model_dump() for job in jobs])
        await tx.execute(insert(Attempt), [attempt.model_dump() for _, attempt in made])
    return made


def _added_up(attempts: list[Attempt]) -> Sums:
    return Sums(
        attempts=len(attempts),
        jobs=len({each.job_id for each in attempts}),
        unpriced=sum(each.cost_basis == CostBasis.UNPRICED for each in attempts),
        estimated=sum(each.cost_basis in ESTIMATES for each in attempts),
        run_ms=sum(each.run_ms or 0 for each in attempts),
        characters=sum(each.characters or 0 for each in attempts),
        cost_micros=sum(each.cost_micros or 0 for each in attempts),
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_for_any_grouping_and_any_time_the_parts_add_up_to_the_whole(
    database_url: str, seed: int
) -> None:
    dice = random.Random(seed)
    database = Database(database_url)
    made = await _fill(database, dice)
    past = PastCost(
        day="2026-02-28", tenant="a", provider="cog", kind="gone", model="m", attempts=5, jobs=2, unpriced=1,
        estimated=1, run_ms=7, characters=3, output_ms=1, cost_micros=dice.randrange(10**7),
    )  # fmt: skip
    async with database.transaction() as tx:
        await tx.insert_new(PastCost, past.model_dump())
    books = Books(database)
    for group_by in GROUPINGS:
        for begin_h, end_h in WINDOWS_H:
            since, until = FIRST + timedelta(hours=begin_h), FIRST + timedelta(hours=end_h)
            groups: list[tuple[str, Sums]] = []
            after: str | None = None
            while True:
                limit = dice.randint(1, 40)
                page = await books.report(group_by, since=since, until=until, after=after, limit=limit)
                groups += page.groups
                after = page.after
                if after is None:
                    break
            assert len({key for key, _ in groups}) == len(groups), "a group is on one page"
            inside = _added_up([attempt for at, attempt in made if since <= at < until])
            deleted = 1 if since <= datetime(2026, 2, 28, tzinfo=UTC) < until else 0
            for name in ("attempts", "unpriced", "estimated", "run_ms", "characters", "cost_micros"):
                parts = sum(getattr(sums, name) for _, sums in groups)
                assert parts == getattr(page.total, name)
                assert parts == getattr(inside, name) + deleted * getattr(past, name)
            assert page.total.jobs == inside.jobs + deleted * past.jobs
    await database.aclose()


async def test_the_books_of_the_tenants_add_up_to_those_of_all(database_url: str) -> None:
    database = Database(database_url)
    made = await _fill(database, random.Random(5))
    books, until = Books(database), FIRST + timedelta(days=30)
    for group in ("provider", "kind", "job", "metadata.customer"):
        for tenant in ("a", "default", "nobody"):
            page = await books.report(group, tenant=tenant, since=FIRST, until=until, limit=1000)
            own = _added_up([attempt for _, attempt in made if attempt.tenant == tenant])
            assert page.total.cost_micros == own.cost_micros
            assert sum(sums.attempts for _, sums in page.groups) == own.attempts == page.total.attempts
    await database.aclose()


async def test_each_group_holds_what_is_its_own(database_url: str) -> None:
    database = Database(database_url)
    made = await _fill(database, random.Random(7))
    own: dict[str, Counter[str]] = {group: Counter() for group in ("provider", "model", "day", "job")}
    for at, attempt in made:
        micros = attempt.cost_micros or 0
        own["provider"][attempt.provider] += micros
        own["model"][attempt.model] += micros
        own["day"][at.date().isoformat()] += micros
        own["job"][attempt.job_id] += micros
    books = Books(database)
    for group, expected in own.items():
        page = await books.report(group, since=FIRST, until=FIRST + timedelta(days=30), limit=1000)
        assert {key: sums.cost_micros for key, sums in page.groups} == dict(expected)
    since = FIRST + timedelta(hours=50)
    used = await books.used("cog", since=since)
    theirs = [attempt for at, attempt in made if attempt.provider == "cog" and at >= since]
    assert (used.cost_micros, used.characters, used.run_ms, used.attempts) == (
        sum(each.cost_micros or 0 for each in theirs),
        sum(each.characters or 0 for each in theirs),
        sum(each.run_ms or 0 for each in theirs),
        len(theirs),
    )
    await database.aclose()


async def test_the_command_prints_a_table_and_json(tmp_path: Path, sqlite_url: str) -> None:
    database = Database(sqlite_url)
    made = await _fill(database, random.Random(1))
    await database.aclose()
    made = [(at, attempt) for at, attempt in made if attempt.tenant == "default"]
    span = ("--since", "2026-01-01T00:00:00Z", "--until", "2026-12-31T00:00:00Z")
    found = await asyncio.to_thread(answer, tmp_path, "costs", "--by", "kind", *span)
    assert [each["key"] for each in found["items"]] == sorted(KINDS)
    assert found["total"]["usd"] == to_usd(_added_up([attempt for _, attempt in made]).cost_micros)
    printed = await asyncio.to_thread(reprise, tmp_path, "costs", "--by", "kind", *span)
    assert printed.returncode == 0, printed.stderr
    lines = [line.split() for line in printed.stdout.splitlines() if line.strip()]
    assert lines[0][:3] == ["kind", "usd", "attempts"]
    assert lines[-1][:3] == ["in", "all", f"{found['total']['usd']:.6f}"]
    job_id = made[0][1].job_id
    shown = await asyncio.to_thread(reprise, tmp_path, "jobs", "show", job_id)
    theirs = _added_up([attempt for _, attempt in made if attempt.job_id == job_id]).cost_micros
    assert f"{to_usd(theirs):.6f} dollars" in shown.stdout, shown.stderr
    wrong = await asyncio.to_thread(reprise, tmp_path, "costs", "--by", "colour")
    assert (wrong.returncode, "group_by" in wrong.stderr) == (2, True), wrong.stderr


async def test_many_that_end_at_once_are_all_booked(line: Stage) -> None:
    job_ids = [await line.ask(f"rain {number}") for number in range(20)]
    await line.drain()
    await asyncio.gather(*(line.fake.finish(each, output=TONE) for each in list(line.fake.predictions)))
    await line.drain()
    assert {(await line.read(job_id))["cost"]["usd"] for job_id in job_ids} == {0.2}
    total = (await report(line))["total"]
    assert (total["usd"], total["attempts"], total["jobs"]) == (to_usd(20 * 200_000), 20, 20)
