"""What both work engines promise: what is committed is run, what is rolled back is not, within the limits.

The embedded engine runs over SQLite, the other over a real PostgreSQL; each test has a database of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from app.work import Station, Step, WorkEngine
from app.work.embedded import MOST_WAITING, EmbeddedEngine
from app.work.postgres import PostgresEngine
from db.engines import PoolLimits
from db.session import Database, DatabaseUnavailable
from tests.conftest import becomes

pytestmark = pytest.mark.real

LIMIT_S = 20.0


class Rows:
    """A station's room that only takes notes: which rows were run, how many at once; held at will."""

    def __init__(self, *, concurrency: int = 4, held: bool = False) -> None:
        self.concurrency = concurrency
        self.runs: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.broken: set[str] = set()
        self.open = asyncio.Event()
        self.now = self.most = 0
        if not held:
            self.open.set()

    async def step(self, row_id: str) -> None:
        self.runs[row_id] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.open.wait()
            await asyncio.sleep(0)
            if row_id in self.broken:
                raise RuntimeError(row_id)
            self.ended[row_id] += 1
        finally:
            self.now -= 1


Start = Callable[[Mapping[Station, Rows]], Awaitable[WorkEngine]]


def make_engine(database: Database) -> EmbeddedEngine | PostgresEngine:
    return EmbeddedEngine() if not database.is_shared else PostgresEngine(database.url)


@asynccontextmanager
async def running(database: Database, rooms: Mapping[Station, Rows]) -> AsyncIterator[WorkEngine]:
    """An engine at work; at the end it is stopped, with whatever was held let go."""
    engine = make_engine(database)
    run = asyncio.create_task(engine.run({s: Step(r.step, r.concurrency) for s, r in rooms.items()}))
    await becomes(lambda: run.done() or is_up(engine))
    try:
        yield engine
    finally:
        engine.stop()
        for room in rooms.values():
            room.open.set()
        async with asyncio.timeout(LIMIT_S):
            await run


def is_up(engine: EmbeddedEngine | PostgresEngine) -> bool:
    return bool(engine._queues)


async def enqueue(
    database: Database, engine: WorkEngine, *row_ids: str, station: Station = Station.APPLY
) -> None:
    async with database.transaction() as tx:
        await tx.execute(text("SELECT 1"))
        engine.enqueue(tx, station, *row_ids)


async def test_what_is_committed_is_run_and_what_is_rolled_back_never(database: Database) -> None:
    rows = Rows()
    async with running(database, {Station.APPLY: rows}) as engine:
        with pytest.raises(RuntimeError):  # noqa: PT012 - the whole block is the call
            async with database.transaction() as tx:
                await tx.execute(text("SELECT 1"))
                engine.enqueue(tx, Station.APPLY, "never")
                raise RuntimeError
        async with database.transaction() as tx:
            await tx.execute(text("SELECT 1"))
            engine.enqueue(tx, Station.APPLY, "a", "b")
            assert not rows.runs
        await becomes(lambda: rows.ended.total() == 2)
    assert set(rows.runs) == {"a", "b"}


async def test_each_station_is_given_its_own_rows(database: Database) -> None:
    rooms = {station: Rows() for station in Station}
    async with running(database, rooms) as engine:
        async with database.transaction() as tx:
            await tx.execute(text("SELECT 1"))
            for station in Station:
                engine.enqueue(tx, station, f"{station}-row")
        await becomes(lambda: all(room.ended for room in rooms.values()))
    assert {station: list(room.runs) for station, room in rooms.items()} == {
        station: [f"{station}-row"] for station in Station
    }


async def test_a_thousand_items_all_run_and_never_more_at_once_than_allowed(database: Database) -> None:
    rows = Rows(concurrency=3)
    ids = [str(number) for number in range(1000)]
    async with running(database, {Station.APPLY: rows}) as engine:
        await enqueue(database, engine, *ids)
        await becomes(lambda: rows.ended.total() >= 1000)
    assert rows.ended == Counter(ids)
    assert rows.most == 3


async def test_a_station_with_long_steps_does_not_hold_up_the_others(database: Database) -> None:
    rooms = {Station.FINISH: Rows(concurrency=2, held=True), Station.APPLY: Rows()}
    async with running(database, rooms) as engine:
        await enqueue(database, engine, *(f"long{n}" for n in range(100)), station=Station.FINISH)
        await becomes(lambda: rooms[Station.FINISH].now == 2)
        await enqueue(database, engine, "short")
        await becomes(lambda: rooms[Station.APPLY].ended["short"])
        assert rooms[Station.FINISH].most == 2
        assert not rooms[Station.FINISH].ended


async def test_a_failing_step_does_not_stop_the_station(database: Database) -> None:
    rows = Rows(concurrency=1)
    rows.broken.add("bad")
    async with running(database, {Station.APPLY: rows}) as engine:
        await enqueue(database, engine, "bad")
        await becomes(lambda: rows.runs["bad"])
        await enqueue(database, engine, "good")
        await becomes(lambda: rows.ended["good"])
        rows.broken.clear()
        engine.hint(Station.APPLY, "bad")
        await becomes(lambda: rows.ended["bad"])


async def test_a_row_hinted_while_it_is_worked_on_is_run_again(database: Database) -> None:
    rows = Rows(held=True)
    async with running(database, {Station.APPLY: rows}) as engine:
        await enqueue(database, engine, "a")
        await becomes(lambda: rows.now == 1)
        engine.hint(Station.APPLY, "a")
        rows.open.set()
        await becomes(lambda: rows.ended["a"] >= 2)


async def test_the_sweeps_hints_of_a_waiting_row_are_merged(database: Database) -> None:
    rows = Rows(concurrency=1, held=True)
    async with running(database, {Station.APPLY: rows}) as engine:
        await enqueue(database, engine, "first")
        await becomes(lambda: rows.now == 1)
        for _ in range(5):
            engine.hint(Station.APPLY, "a")
            await asyncio.sleep(0)
        rows.open.set()
        await becomes(lambda: rows.ended["a"])
        await enqueue(database, engine, "last")
        await becomes(lambda: rows.ended["last"])
    assert rows.ended == Counter(["first", "a", "last"])


async def test_stop_lets_begun_steps_end_and_begins_no_other(database: Database) -> None:
    rows = Rows(concurrency=2, held=True)
    engine = make_engine(database)
    run = asyncio.create_task(engine.run({Station.APPLY: Step(rows.step, 2)}))
    await becomes(lambda: is_up(engine))
    await enqueue(database, engine, *(str(number) for number in range(20)))
    await becomes(lambda: rows.now == 2)
    engine.stop()
    await asyncio.sleep(0)
    assert not run.done()
    rows.open.set()
    async with asyncio.timeout(LIMIT_S):
        await run
    assert rows.ended.total() == rows.runs.total() == 2


async def test_stop_before_run_runs_nothing_and_returns(database: Database) -> None:
    engine = make_engine(database)
    engine.stop()
    async with asyncio.timeout(LIMIT_S):
        await engine.run({Station.APPLY: Step(Rows().step, 1)})


# ── the embedded engine alone ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_embedded_the_waiting_are_bounded_and_the_rest_is_left_to_the_sweep(database: Database) -> None:
    rows = Rows(concurrency=1, held=True)
    async with running(database, {Station.APPLY: rows}) as engine:
        assert isinstance(engine, EmbeddedEngine)
        engine.hint(Station.APPLY, *(str(number) for number in range(MOST_WAITING)))
        engine.hint(Station.APPLY, "one too many")
        assert len(engine._waiting) == MOST_WAITING
        await becomes(lambda: rows.now == 1)
        engine.hint(Station.APPLY, "there is room again")
        assert len(engine._waiting) == MOST_WAITING


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_embedded_what_has_ended_is_not_remembered(database: Database) -> None:
    rows = Rows()
    async with running(database, {Station.APPLY: rows}) as engine:
        assert isinstance(engine, EmbeddedEngine)
        for number in range(100):
            await enqueue(database, engine, str(number))
            await becomes(lambda: rows.ended.total() == number + 1)  # noqa: B023
        queries = engine._queues[Station.APPLY].queries
        assert queries is not None
        assert len(await queries.queue_log()) < 100, "of the 300 that were written"
        assert not engine._waiting


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_embedded_hints_before_the_start_are_dropped_and_harmless(database: Database) -> None:
    engine = EmbeddedEngine()
    engine.hint(Station.APPLY, "early")
    assert not engine._waiting


# ── the PostgreSQL engine alone ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgres_two_processes_share_the_work_and_each_item_runs_once(database: Database) -> None:
    one, two = Rows(concurrency=4), Rows(concurrency=4)
    ids = [str(number) for number in range(400)]
    async with running(database, {Station.APPLY: one}) as engine, running(database, {Station.APPLY: two}):
        one.open.clear()
        two.open.clear()
        await enqueue(database, engine, *ids)
        await becomes(lambda: one.now == 4 and two.now == 4)
        one.open.set()
        two.open.set()
        await becomes(lambda: one.ended.total() + two.ended.total() >= 400)
    assert one.ended + two.ended == Counter(ids)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgres_what_a_stopped_engine_had_not_begun_is_run_by_another(database: Database) -> None:
    one, two = Rows(concurrency=1, held=True), Rows(concurrency=4)
    ids = [str(number) for number in range(10)]
    async with running(database, {Station.APPLY: one}) as engine:
        await enqueue(database, engine, *ids)
        await becomes(lambda: one.now == 1)
    assert one.ended.total() == 1
    async with running(database, {Station.APPLY: two}):
        await becomes(lambda: two.ended.total() == 9)
    assert one.ended + two.ended == Counter(ids)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgres_an_engine_whose_connections_are_ended_goes_on(database: Database) -> None:
    rows = Rows()
    async with running(database, {Station.APPLY: rows}) as engine:
        await enqueue(database, engine, "before")
        await becomes(lambda: rows.ended["before"])
        async with database.transaction() as tx:
            others = "pid <> pg_backend_pid() AND datname = current_database()"
            ended = await tx.execute(
                text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
            )
            assert len(ended.all()) >= 2
        await enqueue(database, engine, "after")
        await becomes(lambda: rows.ended["after"])


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgres_a_connection_that_dies_before_the_items_are_written_is_told_as_such(
    database: Database,
) -> None:
    engine = make_engine(database)
    with pytest.raises(DatabaseUnavailable):  # noqa: PT012 - the whole block is the call
        async with database.transaction() as tx:
            pid = (await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            engine.enqueue(tx, Station.APPLY, "never")
            async with database.transaction() as killer:
                await killer.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    async with database.reading() as tx:
        assert (await tx.execute(text("SELECT count(*) FROM pgqueuer"))).scalar_one() == 0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgres_items_that_cannot_be_written_in_time_take_the_transaction_back(
    database: Database,
) -> None:
    hurried = Database(database.url, PoolLimits(statement_timeout_s=0.2))
    engine = make_engine(hurried)
    async with database.transaction() as tx:
        await tx.execute(text("LOCK TABLE pgqueuer IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(DatabaseUnavailable):
            await enqueue(hurried, engine, "never")
    await enqueue(hurried, engine, "later")
    async with hurried.reading() as tx:
        found = await tx.execute(text("SELECT payload FROM pgqueuer"))
        assert [bytes(row.payload) for row in found] == [b"later"]
    await hurried.aclose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgres_the_log_of_what_has_ended_is_dropped_in_time(database: Database) -> None:
    async def logged() -> int:
        async with database.reading() as tx:
            return int((await tx.execute(text("SELECT count(*) FROM pgqueuer_log"))).scalar_one())

    rows = Rows()
    async with running(database, {Station.APPLY: rows}) as engine:
        await enqueue(database, engine, *(str(number) for number in range(50)))
        await becomes(lambda: rows.ended.total() == 50)
    assert await logged() > 0
    async with running(database, {Station.APPLY: rows}), asyncio.timeout(LIMIT_S):
        while await logged():
            await asyncio.sleep(0.01)
