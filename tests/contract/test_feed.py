"""The feed's promises on every database: one order, nothing missed, nothing twice, no tear unnoticed.

Two `Database` objects on one PostgreSQL are two processes, as far as rows go.
"""

from __future__ import annotations

import asyncio
import importlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update
from sqlmodel import col

from db import schema
from db.events import append_event, insert_first_events
from db.feed import FeedRow, raise_floors, read_feed, read_head, read_start, settle_feed
from db.jobs import insert_jobs
from db.session import Database, Transaction
from db.tables import Event, FeedMark, Job

pytestmark = pytest.mark.real

AT = datetime(2026, 3, 1, tzinfo=UTC)
only_postgres = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
LIMIT_S = 60.0


def job_of(job_id: str, tenant: str = "default") -> Job:
    return Job(
        id=job_id, kind="speech", tenant=tenant, state="queued", input={}, caller_metadata={},
        provider="auto", turn_at=AT, created_at=AT, deadline_at=AT, run_after=AT, seq=1,
    )  # fmt: skip


async def submit(database: Database, *job_ids: str, tenant: str = "default") -> None:
    """Jobs with their first events."""
    jobs = [job_of(job_id, tenant) for job_id in job_ids]
    async with database.transaction() as tx:
        await insert_jobs(tx, jobs)
        await insert_first_events(tx, jobs, "job.created", lambda _job: {"status": "queued"})


async def append(tx: Transaction, job_id: str, at: datetime = AT) -> None:
    await tx.execute(update(Job).where(col(Job.id) == job_id).values(seq=col(Job.seq) + 1))
    await append_event(tx, job_id, "job.progress", at=at, status="running")


async def page(
    database: Database, tenant: str = "default", *, after: int = 0, limit: int = 1000
) -> list[FeedRow]:
    async with database.reading() as tx:
        return list((await read_feed(tx, tenant, after=after, limit=limit)).rows)


def names(rows: list[FeedRow]) -> list[tuple[str, int]]:
    return [(row.job_id, row.seq) for row in rows]


@asynccontextmanager
async def beside(database: Database) -> AsyncIterator[Database]:
    """Another process on the same database."""
    other = Database(database.url)
    try:
        yield other
    finally:
        await other.aclose()


async def test_events_of_one_transaction_come_in_the_order_of_their_jobs_numbers(database: Database) -> None:
    await submit(database, "job_a", "job_b")
    async with database.transaction() as tx:
        for job_id in ("job_b", "job_a", "job_b", "job_b"):
            await append(tx, job_id)
    rows = await page(database)
    assert [row.seq for row in rows if row.job_id == "job_b"] == [1, 2, 3, 4]
    assert [row.seq for row in rows if row.job_id == "job_a"] == [1, 2]
    positions = [row.position for row in rows]
    assert positions == sorted(set(positions))
    assert {(row.kind, row.type) for row in rows} == {("speech", "job.created"), ("speech", "job.progress")}


async def test_a_reader_beside_many_writers_gets_every_event_once_and_in_one_order(
    database: Database,
) -> None:
    """Transactions that end in another order than they began, that roll back, that touch several jobs."""
    job_ids = [f"job_{number}" for number in range(8)]
    await submit(database, *job_ids)
    dice = random.Random(5)
    read: list[FeedRow] = []
    done = asyncio.Event()

    async with beside(database) as other, asyncio.timeout(LIMIT_S):
        following = asyncio.create_task(_follow(database, read, done))
        writers = []
        for number in range(4):
            plan = [(dice.randint(1, 4), dice.random() > 0.2) for _ in range(15)]
            # Two of a kind of their own: SQLite's and MySQL's other process is this one.
            writer = other if database.is_shared and number % 2 else database
            writers.append(_write(writer, job_ids[2 * number : 2 * number + 2], plan))
        await asyncio.gather(*writers)
        done.set()
        await following
    async with database.reading() as tx:
        statement = select(col(Event.job_id), col(Event.seq))
        stored = {(row.job_id, row.seq) for row in await tx.execute(statement)}
    assert len(read) == len(stored)
    assert set(names(read)) == stored
    assert [row.position for row in read] == sorted({row.position for row in read})
    for job_id in job_ids:
        seqs = [row.seq for row in read if row.job_id == job_id]
        assert seqs == list(range(1, len(seqs) + 1))


async def _write(writer: Database, own: list[str], plan: list[tuple[int, bool]]) -> None:
    """A transaction for each of the plan: with so many events, kept or taken back."""
    for events, is_kept in plan:

        async def work(tx: Transaction, events: int = events, is_kept: bool = is_kept) -> None:
            for number in range(events):
                await append(tx, own[number % len(own)])
                await asyncio.sleep(0)
            if not is_kept:
                raise _TakenBack

        with suppress(_TakenBack):
            await writer.transact(work)


async def _follow(database: Database, read: list[FeedRow], done: asyncio.Event) -> None:
    """Read page by page until there is nothing more after it is done."""
    while True:
        is_last = done.is_set()
        rows = await page(database, after=read[-1].position if read else 0, limit=7)
        read.extend(rows)
        if is_last and not rows:
            return
        await asyncio.sleep(0)


class _TakenBack(Exception):
    """Rolls a transaction back."""


@only_postgres
async def test_nothing_is_shown_while_a_transaction_under_way_could_put_something_before_it(
    database: Database,
) -> None:
    await submit(database, "job_slow", "job_fast")
    head = (await page(database))[-1].position
    async with beside(database) as other:
        async with other.transaction() as slow:
            # It has its number now, and the event only later.
            await slow.execute(update(Job).where(col(Job.id) == "job_slow").values(priority=1))
            async with database.transaction() as fast:
                await append(fast, "job_fast")
            async with database.reading() as tx:
                held = await read_feed(tx, "default", after=head, limit=10)
                assert await read_head(tx, "default") == head
            assert (list(held.rows), held.is_held) == ([], True)
            await append(slow, "job_slow")
        rows = await page(database, after=head)
    assert names(rows) == [("job_slow", 2), ("job_fast", 2)]


@only_postgres
async def test_a_transaction_that_is_rolled_back_holds_nobody_up(database: Database) -> None:
    await submit(database, "job_slow", "job_fast")
    head = (await page(database))[-1].position
    async with beside(database) as other:
        with suppress(_TakenBack):
            async with other.transaction() as slow:
                await append(slow, "job_slow")
                async with database.transaction() as fast:
                    await append(fast, "job_fast")
                raise _TakenBack
    assert names(await page(database, after=head)) == [("job_fast", 2)]


async def test_a_tenant_reads_its_own_events_and_no_others(database: Database) -> None:
    await submit(database, "job_a", tenant="a")
    await submit(database, "job_b", tenant="b")
    assert names(await page(database, "a")) == [("job_a", 1)]
    assert names(await page(database, "b")) == [("job_b", 1)]
    assert await page(database, "c") == []
    async with database.reading() as tx:
        found = await read_feed(tx, "a", after=0, limit=10, job_id="job_b")
    assert list(found.rows) == []


async def test_pages_follow_each_other_without_gap_or_double(database: Database) -> None:
    await submit(database, "job_a", "job_b")
    for _ in range(5):
        async with database.transaction() as tx:
            await append(tx, "job_a")
            await append(tx, "job_b")
    whole = await page(database)
    parts: list[FeedRow] = []
    while rows := await page(database, after=parts[-1].position if parts else 0, limit=5):
        parts += rows
    assert parts == whole
    assert len(whole) == 12


async def test_events_that_an_older_release_appends_are_in_the_feed(database: Database) -> None:
    """Fault 51: its statements know nothing of tenants and positions of events."""
    await submit(database, "job_a", tenant="a")
    old = text(
        "INSERT INTO events (job_id, seq, type, data, at) VALUES ('job_a', :seq, 'job.progress', '{}', :at)"
    )
    async with database.transaction() as tx:
        for seq in (2, 3):
            await tx.execute(
                old.bindparams(seq=seq, at=AT if database.is_shared else AT.replace(tzinfo=None))
            )
    if not database.is_shared:
        # One process: the next one to start is of this release.
        await settle_feed(database)
    rows = await page(database, "a")
    assert names(rows) == [("job_a", 1), ("job_a", 2), ("job_a", 3)]
    await submit(database, "job_b", tenant="a")
    assert names(await page(database, "a", after=rows[-1].position)) == [("job_b", 1)]


async def test_events_from_before_the_feed_are_in_none_and_stay_with_their_job(database: Database) -> None:
    await submit(database, "job_a")
    before = importlib.import_module("db.migrations.versions.0014_feed").down_revision
    await schema.downgrade(database, before)
    await schema.upgrade(database)
    await settle_feed(database)
    assert await page(database) == []
    async with database.transaction() as tx:
        await append(tx, "job_a")
    assert names(await page(database)) == [("job_a", 2)]


async def test_deleted_events_raise_the_floor_of_their_own_tenant(database: Database) -> None:
    await submit(database, "job_old", "job_new", tenant="a")
    await submit(database, "job_other", tenant="b")
    rows = await page(database, "a")
    by_job = {row.job_id: row.position for row in rows}
    async with database.transaction() as tx:
        await raise_floors(tx, ["job_old"])
        await tx.execute(delete(Event).where(col(Event.job_id) == "job_old"))
    async with database.reading() as tx:
        found = await read_feed(tx, "a", after=0, limit=10)
        assert (names(list(found.rows)), found.floor) == ([("job_new", 1)], by_job["job_old"])
        assert (await read_feed(tx, "b", after=0, limit=10)).floor == 0
    async with database.transaction() as tx:
        await raise_floors(tx, ["job_new"])
        await tx.execute(delete(Event).where(col(Event.job_id) == "job_new"))
    async with database.reading() as tx:
        assert await read_head(tx, "a") == max(by_job.values()), "the head does not fall with what is deleted"
    await submit(database, "job_next", tenant="a")
    assert (await page(database, "a"))[0].position > max(by_job.values()), "no number is given twice"


async def test_a_time_is_found_in_the_feed(database: Database) -> None:
    await submit(database, "job_a")
    for minute in range(1, 30):
        async with database.transaction() as tx:
            await append(tx, "job_a", AT + timedelta(minutes=minute))
    for minute, first in ((-5, 1), (0, 1), (1, 2), (20, 21), (29, 30)):
        async with database.reading() as tx:
            start = await read_start(tx, "default", since=AT + timedelta(minutes=minute))
        assert (await page(database, after=start))[0].seq == first
    async with database.reading() as tx:
        assert await read_start(tx, "default", since=AT + timedelta(days=1)) == await read_head(tx, "default")


@only_postgres
async def test_rows_that_were_brought_from_another_server_leave_the_feed_and_block_nothing(
    database: Database,
) -> None:
    """A dump of a server whose transactions counted higher, restored on this one."""
    await submit(database, "job_a")
    async with database.transaction() as tx:
        await tx.execute(update(Event).values(position=2**52))
        await tx.execute(FeedMark.__table__.insert(), {"tenant": "default", "position": 2**51})  # type: ignore[attr-defined]
    await settle_feed(database)
    await submit(database, "job_b")
    async with database.reading() as tx:
        found = await read_feed(tx, "default", after=0, limit=10)
        assert (names(list(found.rows)), found.floor) == ([("job_b", 1)], 0)
        assert await read_head(tx, "default") < 2**51


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_a_page_is_read_by_its_index_and_never_sorted(database: Database) -> None:
    """However long the feed is: a reader that is up to date looks at what is new to it."""
    for number in range(20):
        await submit(database, *(f"job_{number}_{each}" for each in range(50)), tenant=f"t{number % 4}")
    plan: list[str] = []

    async with database.reading() as tx:
        if database.is_shared:
            await tx.execute(text("ANALYZE events"))
        reading = tx.execute

        async def explained(statement: Any, values: Any = None) -> Any:
            compiled = statement.compile(
                dialect=database.engine.dialect, compile_kwargs={"literal_binds": True}
            )
            word = "EXPLAIN" if database.is_shared else "EXPLAIN QUERY PLAN"
            plan.extend(
                str(row) for row in await reading(text(f"{word} {str(compiled).replace(':', chr(92) + ':')}"))
            )
            return await reading(statement, values)

        tx.execute = explained  # type: ignore[method-assign]
        found = await read_feed(tx, "t1", after=0, limit=10)
    assert len(found.rows) == 10
    assert any("ix_events_feed" in line for line in plan), plan
    assert not any("TEMP B-TREE" in line or "Sort" in line for line in plan), plan
