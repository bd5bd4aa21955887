"""Finding jobs: the database says what plain Python says, pages hold still, and an index leads to them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import col

from app.search.language import parse, spell
from db.ids import make_id
from db.jobs import insert_jobs
from db.search import pages
from db.search.index import insert_words, read_words, write_missing_words
from db.search.pages import JobFilter, Place, list_jobs
from db.search.terms import Both, Edge, Either, Field, Has, Made, Node, Said, Tagged, Without
from db.search.words import words_of
from db.session import Database
from db.states import JobState
from db.tables import Attempt, Job, JobWord
from tests.flow.conftest import OpenStage, Stage

pytestmark = pytest.mark.breaks("I1", "I3", "bill")
"""Rows are planted and taken away."""

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROMPTS = ("Rain on a tin roof", "heavy RAIN", "snow", "rainy day", "Straße im Regen", "雨の音",
           "tin soldier", "", "100% rain_again", "roof, tin roof", "rain " * 150 + "end")  # fmt: skip
WORDS = ("rain", "tin", "roof", "snow", "ra", "strasse", "雨", "音", "nothing", "end", "100")
TAGS: tuple[dict[str, Any], ...] = (
    {}, {"album": "blue"}, {"album": "Blue"}, {"take": 3}, {"take": "3"}, {"take": 1.5, "album": None},
    {"done": True}, {"album": "é\"'\\"}, {"album": {"name": "blue"}}, {"album": ["blue"]},
)  # fmt: skip
TAG_VALUES = ("blue", "3", "1.5", "true", "é\"'\\", "null", "")


def made(number: int, pick: random.Random, **values: Any) -> Job:
    at = NOW - timedelta(minutes=number)
    given = {
        "id": make_id("job"), "kind": pick.choice(("speech", "sound_effect")),
        "state": pick.choice(list(JobState)),
        "tenant": pick.choice(("default", "other")), "input": {"prompt": pick.choice(PROMPTS)},
        "caller_metadata": pick.choice(TAGS), "provider": pick.choice(("auto", "cog")), "turn_at": at,
        "created_at": at, "deadline_at": at, "run_after": at,
        "error_code": pick.choice((None, "poisoned", "deadline_exceeded")), **values,
    }  # fmt: skip
    return Job(**given)


async def stored(database: Database, jobs: Sequence[Job]) -> None:
    read_words(jobs)
    async with database.transaction() as tx:
        await insert_jobs(tx, jobs)
        await insert_words(tx, jobs)


@dataclass(frozen=True)
class Row:
    job: Job
    tried: frozenset[str]


def is_so(node: Node, row: Row) -> bool:  # noqa: C901 - one arm for each thing that can be said
    """What the language means, in plain Python."""
    job = row.job
    match node:
        case Both(parts):
            return all(is_so(part, row) for part in parts)
        case Either(parts):
            return any(is_so(part, row) for part in parts)
        case Without(part):
            return not is_so(part, row)
        case Said(wanted, is_open):
            said, length = words_of(str(job.input.get("prompt", ""))), len(wanted)
            there = [tuple(said[at : at + length]) for at in range(len(said) - length + 1)]
            if is_open:
                return any(each[:-1] == wanted[:-1] and each[-1].startswith(wanted[-1]) for each in there)
            return wanted in there
        case Has(Field.PROVIDER, value):
            return value == job.provider or value in row.tried
        case Has(Field.ERROR, value):
            return job.error_code == value
        case Has(field, value):
            return bool(getattr(job, field.value) == value)
        case Tagged(name, value):
            tag = job.caller_metadata.get(name)
            is_plain = isinstance(tag, (int, float)) and json.dumps(tag) == value
            return is_plain or (isinstance(tag, str) and tag == value)
        case Made(edge, at):
            return job.created_at >= at if edge is Edge.SINCE else job.created_at < at


def some_node(pick: random.Random, jobs: Sequence[Job], depth: int = 3) -> Node:
    leaves = [
        lambda: Said(tuple(pick.choices(WORDS, k=pick.choice((1, 1, 1, 2)))), pick.random() < 0.2),
        lambda: Has(Field.STATE, pick.choice(list(JobState)).value),
        lambda: Has(Field.KIND, pick.choice(("speech", "sound_effect", "none"))),
        lambda: Has(Field.PROVIDER, pick.choice(("cog", "replicate"))),
        lambda: Has(Field.ERROR, "poisoned"),
        lambda: Has(Field.ID, pick.choice(jobs).id),
        lambda: Tagged(pick.choice(("album", "take", "done")), pick.choice(TAG_VALUES)),
        lambda: Made(pick.choice(list(Edge)), NOW - timedelta(minutes=pick.randrange(70))),
    ]
    if depth == 0 or pick.random() < 0.4:
        return pick.choice(leaves)()
    parts = [some_node(pick, jobs, depth - 1) for _ in range(pick.choice((2, 2, 3)))]
    return pick.choice(
        (lambda: Both(tuple(parts)), lambda: Either(tuple(parts)), lambda: Without(parts[0]))
    )()


async def test_the_database_finds_what_plain_python_finds(line: Stage) -> None:
    pick, database = random.Random(7), line.runtime.line.database
    jobs = [made(number, pick) for number in range(60)]
    await stored(database, jobs)
    tried = {job.id: frozenset({"replicate"} if number % 3 == 0 else ()) for number, job in enumerate(jobs)}
    async with database.transaction() as tx:
        attempts = [
            Attempt(id=make_id("att"), job_id=job_id, number=1, provider="replicate", model="m",
                    status="lost", created_at=NOW, check_at=NOW).model_dump()
            for job_id, names in tried.items() if names
        ]  # fmt: skip
        await tx.execute(Attempt.__table__.insert(), attempts)  # type: ignore[attr-defined]
    rows = [Row(job, tried[job.id]) for job in jobs if job.tenant == "default"]
    found_any = 0
    for _ in range(250):
        node = parse(spell(some_node(pick, jobs)).replace('""', '"x"'), now=NOW)
        async with database.reading() as tx:
            found, more = await list_jobs(tx, JobFilter(tenant="default", asked=node), limit=100)
        assert [job.id for job in found] == [row.job.id for row in rows if is_so(node, row)], spell(node)
        assert more is None
        found_any += bool(found)
    assert found_any > 100, "the searches are about these jobs"


async def test_a_search_is_asked_over_http_and_nonsense_is_a_400_that_names_the_place(line: Stage) -> None:
    rain = await line.ask("Rain on a tin roof", metadata={"album": "blue"})
    await line.ask("snow", metadata={"album": "red"})
    reply = await line.client.get("/v1/jobs", params={"q": 'state:queued "tin roof" tag.album:blue -snow'})
    assert [job["id"] for job in reply.json()["items"]] == [rain]
    blank = await line.client.get("/v1/jobs", params={"q": "  "})
    assert len(blank.json()["items"]) == 2
    reply = await line.client.get("/v1/jobs", params={"q": "rain state:failled"})
    assert reply.status_code == 400
    problem = reply.json()
    assert (problem["code"], problem["field"], problem["column"]) == ("invalid_query", "q", 12)
    assert "failed" in problem["expected"]


async def test_nobody_finds_another_tenants_jobs(line: Stage) -> None:
    pick, database = random.Random(1), line.runtime.line.database
    await stored(database, [made(n, pick, tenant="other", input={"prompt": "rain"}) for n in range(3)])
    mine = await line.ask("rain")
    for q in ("rain", "rain OR snow", "-snow", "since:2020-01-01"):
        reply = await line.client.get("/v1/jobs", params={"q": q})
        assert [job["id"] for job in reply.json()["items"]] == [mine], q


async def all_pages(database: Database, wanted: JobFilter, *, limit: int = 5) -> list[list[str]]:
    found: list[list[str]] = []
    place: Place | None = None
    while True:
        async with database.reading() as tx:
            jobs, place = await list_jobs(tx, _from(wanted, place), limit=limit)
        found.append([job.id for job in jobs])
        if place is None:
            return found
        place = Place.read(str(place))


def _from(wanted: JobFilter, place: Place | None) -> JobFilter:
    return JobFilter(
        tenant=wanted.tenant, asked=wanted.asked, state=wanted.state, kind=wanted.kind, before=place
    )


@pytest.mark.parametrize("q", ["rain", "rain -end", "rain OR snow", "rain state:failed", "-snow", "ra*",
                               "tag.album:blue", "rain tin"])  # fmt: skip
async def test_a_search_looks_through_a_share_at_a_time_and_finds_all(
    line: Stage, monkeypatch: pytest.MonkeyPatch, q: str
) -> None:
    monkeypatch.setattr(pages, "LOOKED_THROUGH", 4)
    pick, database = random.Random(3), line.runtime.line.database
    jobs = [made(number, pick, tenant="default") for number in range(40)]
    # Several were made in the same moment: their ids decide.
    for at in range(0, 40, 4):
        jobs[at + 1].created_at = jobs[at].created_at
    await stored(database, jobs)
    node = parse(q, now=NOW)
    wanted = sorted(
        (job for job in jobs if is_so(node, Row(job, frozenset()))), key=lambda job: (job.created_at, job.id)
    )
    found = await all_pages(database, JobFilter(tenant="default", asked=node))
    assert [job_id for page in found for job_id in page] == [job.id for job in wanted[::-1]]
    assert all(len(page) <= 4 for page in found), "no page looked at more than its share"


@pytest.mark.parametrize("q", [None, "rain", "rain OR snow"])
async def test_pages_neither_skip_nor_double_while_others_write_and_delete(
    line: Stage, q: str | None
) -> None:
    """Fault 20: also where the last job of a page is deleted before the next one is asked for."""
    pick, database = random.Random(5), line.runtime.line.database
    jobs = [made(number, pick, tenant="default", input={"prompt": "rain"}) for number in range(60)]
    await stored(database, jobs)
    staying = [job.id for number, job in enumerate(jobs) if number % 3]
    doomed = [job.id for number, job in enumerate(jobs) if number % 3 == 0]
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            # In front of all, and in the very moments of those that are being paged through.
            at = NOW + timedelta(minutes=number) if number % 2 else jobs[number % 60].created_at
            await stored(database, [made(0, pick, tenant="default", input={"prompt": "rain"}, created_at=at)])

    async def remove() -> None:
        for job_id in doomed:
            async with database.transaction() as tx:
                await tx.execute(delete(Job).where(col(Job.id) == job_id))

    async def walk(limit: int) -> list[str]:
        node = parse(q, now=NOW) if q else None
        found = await all_pages(database, JobFilter(tenant="default", asked=node), limit=limit)
        return [job_id for page in found for job_id in page]

    async with asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(write()) for _ in range(2)]
        remover = tasks.create_task(remove())
        walks = await asyncio.gather(*(walk(limit) for limit in (1, 2, 3, 7)))
        stop.set()
    assert all(writer.done() for writer in (remover, *writers))
    for found in walks:
        assert len(found) == len(set(found)), "doubled"
        assert [job_id for job_id in found if job_id in set(staying)] == staying, "skipped or out of order"


async def test_a_page_goes_on_from_a_job_that_is_gone(line: Stage) -> None:
    """Fault 20."""
    pick, database = random.Random(5), line.runtime.line.database
    # All in one millisecond, by their microseconds: an id alone could not tell where the page ended.
    jobs = [made(0, pick, tenant="default", created_at=NOW - timedelta(microseconds=n)) for n in range(6)]
    await stored(database, jobs)
    first = (await line.client.get("/v1/jobs", params={"limit": 2})).json()
    async with database.transaction() as tx:
        await tx.execute(delete(Job).where(col(Job.id) == jobs[1].id))
    params = {"limit": 10, "cursor": first["next_cursor"]}
    rest = (await line.client.get("/v1/jobs", params=params)).json()
    assert [job["id"] for job in rest["items"]] == [job.id for job in jobs[2:]]


async def test_jobs_that_came_without_words_are_read_for_them_in_batches(line: Stage) -> None:
    pick, database = random.Random(2), line.runtime.line.database
    old = [made(n, pick, tenant="default", input={"prompt": "rain rain tin"}) for n in range(7)]
    async with database.transaction() as tx:
        await insert_jobs(tx, old)
    node = parse("rain", now=NOW)
    async with database.reading() as tx:
        assert await list_jobs(tx, JobFilter(tenant="default", asked=node), limit=10) == ([], None)
    async with database.transaction() as tx:
        assert await write_missing_words(tx, limit=5) == 5
    assert await line.runtime.housekeeper.index() == 2
    assert await line.runtime.housekeeper.index() == 0
    assert await line.count(JobWord) == 14
    async with database.reading() as tx:
        found, _ = await list_jobs(tx, JobFilter(tenant="default", asked=node), limit=10)
    assert [job.id for job in found] == [job.id for job in old]


async def test_a_jobs_words_go_with_it(stage_on: OpenStage) -> None:
    async with stage_on(retention_s=1.0) as line:
        job_id = await line.ask("rain on tin")
        await line.client.post(f"/v1/jobs/{job_id}/cancel")
        assert await line.count(JobWord) == 3
        await line.change(Job, job_id, expires_at=NOW)
        assert await line.runtime.housekeeper.expire() == 1
        assert await line.count(JobWord) == 0


PLANS = {
    None: "ix_jobs_listed",
    "state:failed": "ix_jobs_listed_state",
    "kind:speech": "ix_jobs_listed_kind",
    "kind:speech state:failed": "ix_jobs_listed_kind_state",
    "since:2026-01-01": "ix_jobs_listed",
    "rain": "job_words",
    "rain tin": "job_words",
    "rain state:failed": "job_words",
    "rain OR snow": "job_words",
    '"tin roof" -snow since:2025-01-01': "job_words",
    "tag.album:blue": "ix_jobs_listed",
    "id:job_1": "jobs",
}


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_an_index_leads_to_every_page(line: Stage) -> None:
    """No statement of a page reads a whole table; on SQLite none sorts what it has read, but for a union."""
    pick, database = random.Random(4), line.runtime.line.database
    jobs = [made(n, pick, input={"prompt": pick.choice(PROMPTS) + f" {n}"}) for n in range(600)]
    for at in range(0, len(jobs), 100):
        await stored(database, jobs[at : at + 100])
    async with database.engine.connect() as connection:
        await connection.exec_driver_sql("ANALYZE")
        await connection.commit()
    middle = Place(NOW - timedelta(minutes=300), jobs[300].id)
    for q, index in PLANS.items():
        for before in (None, middle):
            node = parse(q, now=NOW) if q else None
            wanted = JobFilter(tenant="default", asked=node, before=before)
            for plan in await plans(database, wanted):
                assert_led_by(plan, index, sqlite_=database.is_sqlite)


async def plans(database: Database, wanted: JobFilter) -> list[str]:
    """How the database would go about each statement of a page."""
    found: list[str] = []
    async with database.reading() as tx:
        execute = tx.execute

        async def explain(statement: Any, values: Any = None) -> Any:
            dialect = sqlite.dialect() if database.is_sqlite else postgresql.dialect()
            compiled = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
            how = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
            raw = (await tx.raw_connection()).driver_connection
            rows = (
                [row[3] for row in await (await raw.execute(how + compiled)).fetchall()]
                if database.is_sqlite
                else [row[0] for row in await raw.fetch(how + compiled)]
            )
            found.append("\n".join(rows))
            return await execute(statement, values)

        if not database.is_sqlite:
            # On a small table a scan may be cheaper than any index: what counts is that one can lead.
            for way in ("seqscan", "bitmapscan", "sort"):
                await tx.execute(text(f"SET LOCAL enable_{way} = off"))
        tx.execute = explain  # type: ignore[method-assign]
        await list_jobs(tx, wanted, limit=50)
    return found


def assert_led_by(plan: str, index: str, *, sqlite_: bool) -> None:
    assert index in plan, plan
    if sqlite_:
        assert not {"SCAN jobs", "SCAN job_words"} & set(plan.splitlines()), plan
        assert "TEMP B-TREE" not in plan or "UNION" in plan, plan
    else:
        assert "Seq Scan" not in plan, plan
