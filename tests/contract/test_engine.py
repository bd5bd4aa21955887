"""What both work engines promise: what is committed is run, what is rolled back is not, within the limits.

The embedded engine runs over SQLite, the other over a real PostgreSQL; each test has a database of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.queries import Queries
from sqlalchemy import text

from app.work import MOST_TOGETHER, Station, Step, WorkEngine
from app.work.embedded import MOST_WAITING, EmbeddedEngine
from app.work.postgres import PostgresEngine, _forget_held
from db.engines import PoolLimits
from db.session import Database, DatabaseUnavailable, dsn_of
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
    database: Database, engine: WorkEngine, *row_ids: str, station: Station = Station.DISPATCH
) -> None:
    async with database.transaction() as tx:
        await tx.execute(text("SELECT 1"))
        engine.enqueue(tx, station, *row_ids)


async def test_a_station_that_gains_by_it_gets_several_rows_in_one_step_each_row_once(
    database: Database,
) -> None:
    groups: list[tuple[str, ...]] = []

    async def step(*row_ids: str) -> None:
        groups.append(row_ids)

    engine = make_engine(database)
    run = asyncio.create_task(engine.run({Station.APPLY: Step(step, 1)}))
    await becomes(lambda: is_up(engine))
    row_ids = [f"row_{number:02}" for number in range(2 * MOST_TOGETHER[Station.APPLY] + 1)]
    await enqueue(database, engine, *row_ids, station=Station.APPLY)
    await becomes(lambda: sum(map(len, groups)) == len(row_ids))
    engine.stop()
    await run
    assert sorted(row_id for group in groups for row_id in group) == row_ids
    assert 1 < max(map(len, groups)) <= MOST_TOGETHER[Station.APPLY]


async def test_what_is_committed_is_run_and_what_is_rolled_back_never(database: Database) -> None:
    rows = Rows()
    async with running(database, {Station.DISPATCH: rows}) as engine:
        with pytest.raises(RuntimeError):  # noqa: PT012 - the whole block is the call
            async with database.transaction() as tx:
                await tx.execute(text("SELECT 1"))
                engine.enqueue(tx, Station.DISPATCH, "never")
                raise RuntimeError
        async with database.transaction() as tx:
            await tx.execute(text("SELECT 1"))
            engine.enqueue(tx, Station.DISPATCH, "a", "b")
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
    async with running(database, {Station.DISPATCH: rows}) as engine:
        await enqueue(database, engine, *ids)
        await becomes(lambda: rows.ended.total() >= 1000)
    assert rows.ended == Counter(ids)
    assert rows.most == 3


async def test_a_station_with_long_steps_does_not_hold_up_the_others(database: Database) -> None:
    rooms = {Station.FINISH: Rows(concurrency=2, held=True), Station.DISPATCH: Rows()}
    async with running(database, rooms) as engine:
        await enqueue(database, engine, *(f"long{n}" for n in range(100)), station=Station.FINISH)
        await becomes(lambda: rooms[Station.FINISH].now == 2)
        await enqueue(database, engine, "short")
        await becomes(lambda: rooms[Station.DISPATCH].ended["short"])
        assert rooms[Station.FINISH].most == 2
        assert not rooms[Station.FINISH].ended


async def test_a_failing_step_does_not_stop_the_station(database: Database) -> None:
    rows = Rows(concurrency=1)
    rows.broken.add("bad")
    async with running(database, {Station.DISPATCH: rows}) as engine:
        await enqueue(database, engine, "bad")
        await becomes(lambda: rows.runs["bad"])
        await enqueue(database, engine, "good")
        await becomes(lambda: rows.ended["good"])
        rows.broken.clear()
        engine.hint(Station.DISPATCH, "bad")
        await becomes(lambda: rows.ended["bad"])


async def test_a_row_hinted_while_it_is_worked_on_is_run_again(database: Database) -> None:
    rows = Rows(held=True)
    async with running(database, {Station.DISPATCH: rows}) as engine:
        await enqueue(database, engine, "a")
        await becomes(lambda: rows.now == 1)
        engine.hint(Station.DISPATCH, "a")
        rows.open.set()
        await becomes(lambda: rows.ended["a"] >= 2)


async def test_the_sweeps_hints_of_a_waiting_row_are_merged(database: Database) -> None:
    rows = Rows(concurrency=1, held=True)
    async with running(database, {Station.DISPATCH: rows}) as engine:
        await enqueue(database, engine, "first")
        await becomes(lambda: rows.now == 1)
        for _ in range(5):
            engine.hint(Station.DISPATCH, "a")
            await asyncio.sleep(0)
        rows.open.set()
        await becomes(lambda: rows.ended["a"])
        await enqueue(database, engine, "last")
        await becomes(lambda: rows.ended["last"])
    assert rows.ended == Counter(["first", "a", "last"])


async def test_stop_lets_begun_steps_end_and_begins_no_other(database: Database) -> None:
    rows = Rows(concurrency=2, held=True)
    engine = make_engine(database)
    run = asyncio.create_task(engine.run({Station.DISPATCH: Step(rows.step, 2)}))
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
        await engine.run({Station.DISPATCH: Step(Rows().step, 1)})


# ── the embedded engine alone ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_embedded_the_waiting_are_bounded_and_the_rest_is_left_to_the_sweep(database: Database) -> None:
    rows = Rows(concurrency=1, held=True)
    async with running(database, {Station.DISPATCH: rows}) as engine:
        assert isinstance(engine, EmbeddedEngine)
        engine.hint(Station.DISPATCH, *(str(number) for number in range(MOST_WAITING)))
        engine.hint(Station.DISPATCH, "one too many")
        assert len(engine._waiting) == MOST_WAITING
        await becomes(lambda: rows.now == 1)
        engine.hint(Station.DISPATCH, "there is room again")
        assert len(engine._waiting) == MOST_WAITING


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_embedded_what_has_ended_is_not_remembered(database: Database) -> None:
    rows = Rows()
    async with running(database, {Station.DISPATCH: rows}) as engine:
        assert isinstance(engine, EmbeddedEngine)
        for number in range(100):
            await enqueue(database, engine, str(number))
            await becomes(lambda: rows.ended.total() == number + 1)  # noqa: B023
        queries = engine._queues[Station.DISPATCH].queries
        assert queries is not None
        assert len(await queries.queue_log()) < 100, "of the 300 that were written"
        assert not engine._waiting


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_embedded_hints_before_the_start_are_dropped_and_harmless(database: Database) -> None:
    engine = EmbeddedEngine()
    engine.hint(Station.DISPATCH, "early")
    assert not engine._waiting


# ── the PostgreSQL engine alone ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgres_two_processes_share_the_work_and_each_item_runs_once(database: Database) -> None:
    one, two = Rows(concurrency=4), Rows(concurrency=4)
    ids = [str(number) for number in range(400)]
    async with (
        running(database, {Station.DISPATCH: one}) as engine,
        running(database, {Station.DISPATCH: two}),
    ):
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
    async with running(database, {Station.DISPATCH: one}) as engine:
        await enqueue(database, engine, *ids)
        await becomes(lambda: one.now == 1)
    assert one.ended.total() == 1
    async with running(database, {Station.DISPATCH: two}):
        await becomes(lambda: two.ended.total() == 9)
    assert one.ended + two.ended == Counter(ids)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgres_an_engine_whose_connections_are_ended_goes_on(database: Database) -> None:
    rows = Rows()
    async with running(database, {Station.DISPATCH: rows}) as engine:
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
            engine.enqueue(tx, Station.DISPATCH, "never")
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
    async with running(database, {Station.DISPATCH: rows}) as engine:
        await enqueue(database, engine, *(str(number) for number in range(50)))
        await becomes(lambda: rows.ended.total() == 50)
    assert await logged() > 0
    async with running(database, {Station.DISPATCH: rows}), asyncio.timeout(LIMIT_S):
        while await logged():
            await asyncio.sleep(0.01)


async def count_items(database: Database, status: str) -> int:
    async with database.reading() as tx:
        found = await tx.execute(
            text("SELECT count(*) FROM pgqueuer WHERE status::text = :status"), {"status": status}
        )
        return int(found.scalar_one())


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgres_a_failed_item_is_tried_again_and_then_kept_for_a_while(database: Database) -> None:
    """Rule 4: the engine's own defaults would drop it at its first failure, and nobody would ever see it."""
    rows = Rows(concurrency=1)
    rows.broken.add("bad")
    async with running(database, {Station.DISPATCH: rows}) as engine:
        await enqueue(database, engine, "bad")
        async with asyncio.timeout(LIMIT_S):
            while not await count_items(database, "failed"):
                await asyncio.sleep(0.01)
        assert rows.runs["bad"] > 1
    pool = await asyncpg.create_pool(dsn_of(database.url), min_size=1, max_size=1)
    try:
        queries = Queries(AsyncpgPoolDriver(pool))
        assert await _forget_held(queries) == 0, "it is new"
        assert await _forget_held(queries, kept=timedelta(0)) == 1
        assert await count_items(database, "failed") == 0
    finally:
        await pool.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_fault_61_postgres_an_item_of_which_nobody_was_told_is_run(database: Database) -> None:
    """Fault 61, rule 5: with every notification lost, an idle engine looks by itself within seconds."""
    rows = Rows()
    async with running(database, {Station.DISPATCH: rows}) as engine:
        await enqueue(database, engine, "told")
        async with asyncio.timeout(LIMIT_S):
            # It has nothing to do, and all that it was told of this one is said.
            while not rows.ended["told"] or await count_items(database, "picked"):
                await asyncio.sleep(0.01)
        async with database.transaction() as tx:
            await tx.execute(text("ALTER TABLE pgqueuer DISABLE TRIGGER USER"))
        await enqueue(database, engine, "silent")
        await becomes(lambda: rows.ended["silent"], within_s=8)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgres_the_items_of_a_transaction_are_written_in_one_statement(database: Database) -> None:
    """Rule 6: each statement notifies, and NOTIFY holds a lock of the whole server through the commit."""
    engine = make_engine(database)
    said: list[str] = []

    def note(record: Any) -> None:
        if "INSERT INTO" in record.query and "pgqueuer" in record.query:
            said.append(record.query)

    async with database.transaction() as tx:
        await tx.execute(text("SELECT 1"))
        driver = (await tx.raw_connection()).driver_connection
        driver.add_query_logger(note)
        for station in Station:
            for number in range(50):
                engine.enqueue(tx, station, f"{station}-{number}")
    await becomes(lambda: said)
    driver.remove_query_logger(note)
    assert len(said) == 1
    assert await count_items(database, "queued") == 50 * len(Station)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_fault_62_postgres_a_long_step_of_a_living_engine_is_not_given_to_another(
    database: Database,
) -> None:
    """Fault 62: it is longer than the silence after which an item is another's, and its engine beats."""
    one, two = Rows(concurrency=1, held=True), Rows(concurrency=1)
    async with running(database, {Station.DISPATCH: one}) as engine:
        await enqueue(database, engine, "long")
        await becomes(lambda: one.now == 1)
        async with running(database, {Station.DISPATCH: two}) as other:
            async with database.reading() as tx:
                begun_at = (await tx.execute(text("SELECT updated FROM pgqueuer"))).scalar_one()
            async with asyncio.timeout(LIMIT_S):
                # The database's clock: past the heartbeat's patience and one more look of the other.
                past = False
                while not past:
                    await enqueue(database, other, "tick")
                    async with database.reading() as tx:
                        past = (await tx.now()) - begun_at > timedelta(seconds=8)
            assert not two.runs["long"]
        one.open.set()
        await becomes(lambda: one.ended["long"])
    assert one.runs["long"] == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_fault_61_postgres_an_engine_that_finds_no_server_at_its_start_works_once_there_is_one(
    database: Database,
) -> None:
    """Fault 61: down at boot. What is refused here is the connection, for as long as the test wants."""
    rows = Rows()
    async with database.transaction() as tx:
        name = (await tx.execute(text("SELECT current_database()"))).scalar_one()
    admin = await asyncpg.connect(dsn_of(database.url).replace(f"/{name}", "/postgres"))
    await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    engine = PostgresEngine(database.url)
    run = asyncio.create_task(engine.run({Station.DISPATCH: Step(rows.step, 1)}))
    try:
        async with asyncio.timeout(LIMIT_S):
            tried = None
            while tried is None:
                # One refusal at least: asked for by a connection of our own, after the engine's.
                try:
                    await (await asyncpg.connect(dsn_of(database.url))).close()
                except asyncpg.PostgresError as exc:
                    tried = exc
        assert not run.done()
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await becomes(lambda: is_up(engine))
        await enqueue(database, engine, "late")
        await becomes(lambda: rows.ended["late"])
    finally:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await admin.close()
        engine.stop()
        await run


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_postgres_a_sweep_over_a_long_queue_hints_only_the_oldest(database: Database) -> None:
    """Those that wait have their items; a copy of each, every two seconds, would outgrow the work."""
    rows = Rows(concurrency=1, held=True)

    async def step(*row_ids: str) -> None:
        await rows.step(row_ids[0])

    engine = PostgresEngine(database.url)
    run = asyncio.create_task(engine.run({Station.APPLY: Step(step, 1)}))
    await becomes(lambda: is_up(engine))
    row_ids = [f"row_{number:04}" for number in range(100 * MOST_TOGETHER[Station.APPLY])]
    await enqueue(database, engine, *row_ids, station=Station.APPLY)
    await becomes(lambda: rows.now)
    waiting = await count_items(database, "queued")
    engine.hint(Station.APPLY, *row_ids)
    await becomes(lambda: engine._hinting is not None and engine._hinting.done())
    assert await count_items(database, "queued") <= waiting + 1
    engine.stop()
    rows.open.set()
    await run


async def listens(database: Database) -> int:
    async with database.reading() as tx:
        found = await tx.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query ILIKE 'listen %pgqueuer%'"
            )
        )
        return int(found.scalar_one())


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_fault_61_postgres_an_engine_that_lost_its_listener_listens_again(database: Database) -> None:
    """Fault 61, rule 5: LISTEN ends with its connection, without a word to anybody but the driver."""
    rows = Rows()
    async with running(database, {Station.DISPATCH: rows}):
        async with asyncio.timeout(LIMIT_S):
            while not await listens(database):
                await asyncio.sleep(0.01)
        async with database.transaction() as tx:
            ended = await tx.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND query ILIKE 'listen %pgqueuer%'"
                )
            )
            assert len(ended.all()) == 1
        async with asyncio.timeout(LIMIT_S):
            while not await listens(database):
                await asyncio.sleep(0.01)
