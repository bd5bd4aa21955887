"""What the database promises, on each kind: all or nothing, effects after the commit, typed ends, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import schema
from db.engines import PoolLimits
from db.group_commit import GroupCommit, GroupCommitFull
from db.ingress import NewDelivery, open_ingress
from db.session import Database, DatabaseUnavailable
from db.tables import Delivery, Secret
from tests.conftest import PostgresServer

HALF_A_SECRET = "INSERT INTO secrets (name, value, created_at) VALUES ('half', NULL, NULL)"
AT = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)


def secret(name: str, value: str = "v") -> dict[str, object]:
    return {"name": name, "value": value, "created_at": AT}


async def names(database: Database) -> list[str]:
    async with database.reading() as tx:
        return list((await tx.execute(select(Secret.name).order_by("name"))).scalars())


class Boom(Exception):
    pass


async def test_a_block_that_ends_is_committed_and_one_that_raises_is_not(database: Database) -> None:
    async with database.transaction() as tx:
        assert await tx.insert_new(Secret, secret("a"), secret("b")) == 2
    with pytest.raises(Boom):  # noqa: PT012 - the whole block is the call
        async with database.transaction() as tx:
            await tx.insert_new(Secret, secret("c"))
            raise Boom
    assert await names(database) == ["a", "b"]


async def test_effects_follow_the_commit_in_order_and_are_dropped_with_a_rollback(database: Database) -> None:
    effects: list[str] = []
    async with database.transaction() as tx:
        tx.after_commit(lambda: effects.append("first"))
        await tx.insert_new(Secret, secret("a"))
        tx.after_commit(lambda: effects.append("second"))
        assert effects == []
    assert effects == ["first", "second"]
    with pytest.raises(Boom):  # noqa: PT012 - the whole block is the call
        async with database.transaction() as tx:
            tx.after_commit(lambda: effects.append("never"))
            raise Boom
    with pytest.raises(IntegrityError):  # noqa: PT012 - the whole block is the call
        async with database.transaction() as tx:
            tx.after_commit(lambda: effects.append("never"))
            await tx.execute(text(HALF_A_SECRET))
    assert effects == ["first", "second"]


async def test_a_canceled_transaction_is_rolled_back_and_gives_its_connection_back(
    database: Database,
) -> None:
    begun = asyncio.Event()

    async def write() -> None:
        async with database.transaction() as tx:
            await tx.insert_new(Secret, secret("a"))
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with database.transaction() as tx:
        await tx.insert_new(Secret, secret("b"))
    assert await names(database) == ["b"]
    assert database.pool_figures()["in_use"] == 0


async def test_insert_new_counts_only_what_was_new(database: Database) -> None:
    async with database.transaction() as tx:
        assert await tx.insert_new(Secret, secret("a", "1"), secret("a", "2"), secret("b")) == 2
    async with database.transaction() as tx:
        assert await tx.insert_new(Secret, secret("a", "3"), secret("c")) == 1
        row = (await tx.execute(select(Secret.value).where(Secret.name == "a"))).scalar_one()
    assert row == "1"
    assert await names(database) == ["a", "b", "c"]


async def test_of_many_writers_of_one_key_exactly_one_is_new(database: Database) -> None:
    async def write(number: int) -> int:
        async with database.transaction() as tx:
            return await tx.insert_new(Secret, secret("one", str(number)))

    assert sum(await asyncio.gather(*(write(number) for number in range(30)))) == 1


async def test_a_fault_of_ours_keeps_its_own_exception(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.transaction() as tx:
            await tx.execute(text(HALF_A_SECRET))
    wrong = ProgrammingError if not database.is_sqlite else DatabaseUnavailable
    with pytest.raises(wrong):
        async with database.reading() as tx:
            await tx.execute(text("SELECT nothing FROM nowhere"))


async def test_readers_do_not_wait_for_a_writer_and_see_only_what_is_committed(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.insert_new(Secret, secret("a"))
        async with asyncio.timeout(60):
            assert await names(database) == []
    assert await names(database) == ["a"]


async def test_a_database_that_cannot_be_reached_is_unavailable_with_a_word_for_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("away")
    (folder / "dir.db").mkdir()
    urls = [f"sqlite+aiosqlite:///{folder}/dir.db", "postgresql+asyncpg://nobody@127.0.0.1:1/none"]
    for url in urls:
        database = Database(url, PoolLimits(timeout_s=1))
        for opened in (database.transaction, database.reading):
            with pytest.raises(DatabaseUnavailable) as caught:
                async with opened() as tx:
                    await tx.execute(text("SELECT 1"))
            assert str(caught.value)
        health = await database.health()
        assert not health.ok
        assert health.detail
        await database.aclose()


async def test_a_server_that_lets_nobody_in_is_unavailable(postgres_away: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with postgres_away.transaction() as tx:
            await tx.execute(text("SELECT 1"))
    assert not (await postgres_away.health()).ok


@pytest.fixture
async def postgres_away(postgres: PostgresServer) -> AsyncIterator[Database]:
    database = Database(postgres.url("no_such_database"), PoolLimits(timeout_s=2))
    yield database
    await database.aclose()


async def test_an_exhausted_pool_is_unavailable_within_its_limit_and_recovers(database_url: str) -> None:
    limits = PoolLimits(size=1, max_overflow=0, timeout_s=0.5)
    database = Database(database_url, limits)
    async with database.reading() as tx:
        await tx.execute(text("SELECT 1"))
        assert database.pool_figures()["in_use"] == 1
        with pytest.raises(DatabaseUnavailable):
            async with database.reading() as second:
                await second.execute(text("SELECT 1"))
        assert not (await database.health()).ok
    assert (await database.health()).ok
    await database.aclose()


async def test_health_tells_the_latency_and_the_pool(database: Database) -> None:
    health = await database.health()
    assert health.ok
    assert 0 <= health.latency_ms < 5000
    assert {"size", "in_use", "idle", "overflow", "waited", "timeouts", "recycled", "leaked"} <= set(
        health.pool
    )


async def test_sqlite_commits_are_synced(tmp_path_factory: pytest.TempPathFactory) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('db')}/a.db")
    engines: list[AsyncEngine] = [database.engine, database._reader]
    for engine in engines:
        async with engine.begin() as connection:
            assert (await connection.exec_driver_sql("PRAGMA synchronous")).scalar() == 2
            assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() == "wal"
            assert (await connection.exec_driver_sql("PRAGMA foreign_keys")).scalar() == 1
    await database.aclose()


def delivery(number: int, key: int | None = None, **values: object) -> NewDelivery:
    given: dict[str, object] = {
        "id": f"dlv_{number:032x}",
        "source": "webhook",
        "provider": "replicate",
        "attempt_id": "att_1",
        "job_id": None,
        "message_id": f"msg_{number}",
        "dedupe_key": (number if key is None else key).to_bytes(16, "big"),
        "headers": {"user-agent": "ü"},
        "body": b"\x00\xff" * 10,
        "received_at": AT,
        **values,
    }
    return NewDelivery(**given)  # type: ignore[arg-type]


async def stored(database: Database) -> int:
    async with database.reading() as tx:
        return int((await tx.execute(select(func.count()).select_from(Delivery))).scalar_one())


async def test_ingress_tells_new_from_known_within_and_across_groups(database: Database) -> None:
    ingress = open_ingress(database)
    assert await ingress.write([delivery(1), delivery(2), delivery(3, key=1)]) == [True, True, False]
    assert await ingress.write([delivery(4, key=2), delivery(5)]) == [False, True]
    assert await stored(database) == 3
    async with database.reading() as tx:
        row = (await tx.execute(select(Delivery.__table__).order_by("id"))).mappings().first()  # type: ignore[attr-defined]
    assert row
    assert (row["headers"], row["body"], row["received_at"]) == ({"user-agent": "ü"}, b"\x00\xff" * 10, AT)
    assert (row["run_after"], row["tries"], row["settled_at"]) == (AT, 0, None)
    await ingress.aclose()


async def test_ingress_and_other_writers_take_turns(database: Database) -> None:
    ingress = open_ingress(database)

    async def other(number: int) -> None:
        async with database.transaction() as tx:
            await tx.insert_new(Secret, secret(f"s{number}"))

    writes = [ingress.write([delivery(number)]) for number in range(30)] if database.is_sqlite else []
    await asyncio.gather(*writes, *(other(number) for number in range(30)))
    assert len(await names(database)) == 30
    assert await stored(database) == len(writes)
    await ingress.aclose()


class Committer:
    """A committing function whose groups are seen, held and spoiled by a test."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.away = False

    async def __call__(self, items: Sequence[str]) -> list[str]:
        self.groups.append(list(items))
        await self.hold.wait()
        if self.away:
            raise DatabaseUnavailable("away")
        if "bad" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]


async def test_what_arrives_during_a_commit_shares_the_next_one() -> None:
    committer = Committer()
    group = GroupCommit(committer, most_together=10)
    committer.hold.clear()
    tasks = [asyncio.create_task(group.submit(f"i{number}")) for number in range(25)]
    await asyncio.sleep(0)
    committer.hold.set()
    assert await asyncio.gather(*tasks) == [f"I{number}" for number in range(25)]
    assert [len(each) for each in committer.groups] == [10, 10, 5]
    await group.aclose()


async def test_one_bad_row_does_not_fail_its_neighbours() -> None:
    committer = Committer()
    group = GroupCommit(committer)
    items = ["a", "bad", "b"]
    results = await asyncio.gather(*(group.submit(item) for item in items), return_exceptions=True)
    assert results[0] == "A"
    assert isinstance(results[1], ValueError)
    assert results[2] == "B"
    await group.aclose()


async def test_when_the_database_is_away_all_are_told_at_once_and_the_next_is_tried() -> None:
    committer = Committer()
    committer.away = True
    group = GroupCommit(committer)
    results = await asyncio.gather(*(group.submit(str(n)) for n in range(50)), return_exceptions=True)
    assert all(isinstance(result, DatabaseUnavailable) for result in results)
    assert len(committer.groups) == 1, "not one by one"
    committer.away = False
    assert await group.submit("x") == "X"
    await group.aclose()


async def test_the_queue_is_bounded_and_a_full_one_refuses_at_once() -> None:
    committer = Committer()
    group = GroupCommit(committer, most_queued=3, most_together=1)
    committer.hold.clear()
    tasks = [asyncio.create_task(group.submit(str(number))) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(GroupCommitFull):  # noqa: PT012 - the whole block is the call
        for _ in range(4):
            tasks.append(asyncio.create_task(group.submit("more")))
            await asyncio.sleep(0)
            if tasks[-1].done():
                await tasks.pop()
    committer.hold.set()
    await asyncio.gather(*tasks)
    await group.aclose()


async def test_a_caller_that_hangs_up_does_not_fail_its_row_nor_its_neighbours() -> None:
    committer = Committer()
    group = GroupCommit(committer)
    committer.hold.clear()
    tasks = [asyncio.create_task(group.submit(item)) for item in ("a", "b", "c")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    committer.hold.set()
    assert await tasks[0] == "A"
    assert await tasks[2] == "C"
    assert committer.groups == [["a", "b", "c"]], "it was accepted: it is stored all the same"
    await group.aclose()
    assert tasks[1].cancelled()


async def test_closing_waits_for_what_was_accepted() -> None:
    committer = Committer()
    group = GroupCommit(committer)
    task = asyncio.create_task(group.submit("a"))
    await asyncio.sleep(0)
    await group.aclose()
    assert await task == "A"
    assert committer.groups == [["a"]]


async def test_a_server_that_hangs_while_it_is_connected_to_is_told_of_in_words() -> None:
    """Its address takes connections and never says a word: the driver's error has no text at all."""
    callers: list[asyncio.StreamWriter] = []
    listener = await asyncio.start_server(lambda _, writer: callers.append(writer), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    database = Database(f"postgresql+asyncpg://x@127.0.0.1:{port}/x", PoolLimits(timeout_s=0.2))
    try:
        with pytest.raises(DatabaseUnavailable, match=r"Timeout|no answer"):
            async with database.reading() as tx:
                await tx.now()
        with pytest.raises(DatabaseUnavailable, match=r"\w+"):
            await schema.current_revision(database)
    finally:
        await database.aclose()
        for caller in callers:
            caller.close()
        listener.close()


async def test_whoever_is_canceled_at_whatever_moment_leaves_a_connection_that_works(
    database: Database,
) -> None:
    """What was begun on the driver's thread goes on there; no part of it may be left in the next one."""

    async def write(name: str) -> None:
        async with database.transaction() as tx:
            await tx.insert_new(Secret, secret(name), secret(f"{name}-too"))
            await tx.execute(select(Secret.name))

    canceled = 0
    for turn in range(80):
        writing = asyncio.create_task(write(f"w{turn:03}"))
        for _ in range(turn):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        canceled += writing.cancelled()
        await write(f"after{turn:03}")
    assert canceled
    there = await names(database)
    assert [name for name in there if name.startswith("after") and not name.endswith("too")] == [
        f"after{turn:03}" for turn in range(80)
    ]
    assert all(f"{name}-too" in there for name in there if not name.endswith("too")), "both or none"
