"""What every notifier promises: hints reach who came before them, are merged, and nobody is left behind.

The one of a single process over SQLite, and the one of many over a real PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from app.notify import InProcessNotifier, Notifier
from app.notify.postgres import CHANNEL, MOST_TOPICS, PostgresHints
from db.session import Database, DatabaseUnavailable
from tests.conftest import PostgresServer, becomes

pytestmark = pytest.mark.real

only_postgres = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@asynccontextmanager
async def listening(database: Database) -> AsyncIterator[PostgresHints]:
    """The notifier of one process; several on one database are several processes."""
    hints = PostgresHints(database.url)
    await hints.start()
    try:
        yield hints
    finally:
        await hints.aclose()


@pytest.fixture
async def notifier(database: Database) -> AsyncIterator[Notifier]:
    if not database.is_shared:
        yield InProcessNotifier()
        return
    async with listening(database) as hints:
        yield hints


async def announce(database: Database, notifier: Notifier, *topics: str) -> None:
    async with database.transaction() as tx:
        await tx.execute(text("SELECT 1"))
        notifier.announce(tx, *topics)


async def listeners(database: Database) -> list[int]:
    """The server's processes that listen for hints, seen from outside."""
    async with database.reading() as tx:
        query = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = ''"
        )
        return list((await tx.execute(text(query))).scalars())


async def test_a_subscriber_hears_its_topic_and_no_other(notifier: Notifier) -> None:
    with notifier.subscribe("job:a") as a, notifier.subscribe("job:b") as b:
        notifier.publish("job:a")
        assert await a.wait(1) is True
        assert await b.wait(0) is False


async def test_a_hint_between_subscribing_and_waiting_is_heard(notifier: Notifier) -> None:
    with notifier.subscribe("t") as subscription:
        notifier.publish("t")
        await asyncio.sleep(0)
        assert await subscription.wait(0) is True


async def test_hints_between_two_waits_are_merged_and_never_lost(notifier: Notifier) -> None:
    with notifier.subscribe("t") as subscription:
        for _ in range(5):
            notifier.publish("t")
        assert await subscription.wait(1) is True
        assert await subscription.wait(0) is False
        notifier.publish("t")
        assert await subscription.wait(1) is True


async def test_a_hint_wakes_everyone_who_waits(notifier: Notifier) -> None:
    async def wait() -> bool:
        with notifier.subscribe("t") as subscription:
            return await subscription.wait(10)

    waiters = [asyncio.create_task(wait()) for _ in range(1000)]
    await asyncio.sleep(0)
    assert notifier.count_subscriptions() == 1000
    notifier.publish("t")
    assert all(await asyncio.gather(*waiters))
    assert notifier.count_subscriptions() == 0


async def test_who_comes_after_the_hint_does_not_hear_it(notifier: Notifier) -> None:
    notifier.publish("t")
    with notifier.subscribe("t") as subscription:
        assert await subscription.wait(0) is False


@pytest.mark.parametrize("leaving", ["timeout", "cancel", "error"])
async def test_a_waiter_that_leaves_leaves_nothing_behind(notifier: Notifier, leaving: str) -> None:
    async def wait() -> None:
        with notifier.subscribe("t") as subscription:
            if leaving == "error":
                raise RuntimeError
            await subscription.wait(0 if leaving == "timeout" else None)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    if leaving == "cancel":
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert notifier.count_subscriptions() == 0
    notifier.publish("t")


async def test_leaving_does_not_take_the_neighbours_along(notifier: Notifier) -> None:
    with notifier.subscribe("t") as stays:
        with notifier.subscribe("t"):
            assert notifier.count_subscriptions() == 2
        assert notifier.count_subscriptions() == 1
        notifier.publish("t")
        assert await stays.wait(1) is True


async def test_a_subscriber_may_leave_while_the_hint_goes_round(notifier: Notifier) -> None:
    async def once() -> None:
        with notifier.subscribe("t") as subscription:
            await subscription.wait(10)

    tasks = [asyncio.create_task(once()) for _ in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    notifier.publish("t")
    tasks[7].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 2
    assert notifier.count_subscriptions() == 0


# ── announcing within a transaction ─────────────────────────────────────────────────────────────────────


async def test_what_is_announced_is_heard_after_the_commit_and_not_before(
    database: Database, notifier: Notifier
) -> None:
    with notifier.subscribe("t") as subscription, notifier.subscribe("other") as other:
        async with database.transaction() as tx:
            await tx.execute(text("SELECT 1"))
            notifier.announce(tx, "t")
            assert await subscription.wait(0.05) is False
        assert await subscription.wait(5) is True
        assert await other.wait(0) is False


async def test_what_is_announced_and_rolled_back_is_never_heard(
    database: Database, notifier: Notifier
) -> None:
    with notifier.subscribe("never") as never, notifier.subscribe("after") as after:
        with pytest.raises(RuntimeError):  # noqa: PT012 - the whole block is the call
            async with database.transaction() as tx:
                await tx.execute(text("SELECT 1"))
                notifier.announce(tx, "never")
                raise RuntimeError
        await announce(database, notifier, "after")
        assert await after.wait(5) is True
        assert await never.wait(0) is False


async def test_topics_announced_twice_in_one_transaction_make_one_hint(
    database: Database, notifier: Notifier
) -> None:
    with notifier.subscribe("t") as subscription:
        async with database.transaction() as tx:
            await tx.execute(text("SELECT 1"))
            for _ in range(5):
                notifier.announce(tx, "t", "t")
        assert await subscription.wait(5) is True
        assert await subscription.wait(0) is False


async def test_a_thousand_topics_of_one_transaction_are_all_heard(
    database: Database, notifier: Notifier
) -> None:
    """More than one NOTIFY can carry, which is 8000 bytes."""
    topics = [f"job:{'x' * 60}{number:04}" for number in range(1000)]
    assert len("".join(topics[:MOST_TOPICS])) > 6000

    async def hear(topic: str) -> bool:
        with notifier.subscribe(topic) as subscription:
            return await subscription.wait(10)

    waiters = [asyncio.create_task(hear(topic)) for topic in topics]
    await becomes(lambda: notifier.count_subscriptions() == 1000)
    await announce(database, notifier, *topics)
    assert all(await asyncio.gather(*waiters))


async def test_publishing_with_nobody_there_is_harmless(database: Database, notifier: Notifier) -> None:
    notifier.publish("nobody")
    await announce(database, notifier, "nobody")
    assert notifier.count_subscriptions() == 0


# ── PostgreSQL alone: many processes, and a server that goes away ───────────────────────────────────────


@only_postgres
async def test_postgres_every_process_hears_what_any_announces(database: Database) -> None:
    async with listening(database) as one, listening(database) as two:
        for speaker in (one, two):
            with one.subscribe("t") as here, two.subscribe("t") as there:
                await announce(database, speaker, "t")
                assert await here.wait(5) is True
                assert await there.wait(5) is True


@only_postgres
async def test_postgres_publishing_is_for_this_process_alone(database: Database) -> None:
    async with listening(database) as one, listening(database) as two:
        with one.subscribe("t") as here, two.subscribe("t") as there, two.subscribe("end") as end:
            one.publish("t")
            assert await here.wait(0) is True
            await announce(database, one, "end")
            assert await end.wait(5) is True
            assert await there.wait(0) is False


@only_postgres
async def test_postgres_a_lost_connection_is_replaced_and_everybody_looks_once(database: Database) -> None:
    async with listening(database) as hints:
        for _ in range(2):
            (pid,) = await listeners(database)
            with hints.subscribe("a") as a, hints.subscribe("b") as b:
                async with database.transaction() as tx:
                    await tx.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
                assert await a.wait(10) is True, "somebody may have missed something"
                assert await b.wait(10) is True
                await announce(database, hints, "a")
                assert await a.wait(10) is True
                assert await b.wait(0) is False


@only_postgres
async def test_postgres_a_start_without_a_server_is_no_failure(database: Database) -> None:
    hints = PostgresHints("postgresql+asyncpg://postgres@127.0.0.1:1/none")
    starting = asyncio.create_task(hints.start())
    with hints.subscribe("t") as subscription:
        hints.publish("t")
        assert await subscription.wait(1) is True
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await hints.aclose()


@only_postgres
async def test_postgres_a_connection_that_dies_before_the_hint_is_told_as_such(database: Database) -> None:
    async with listening(database) as hints:
        with pytest.raises(DatabaseUnavailable):  # noqa: PT012 - the whole block is the call
            async with database.transaction() as tx:
                pid = (await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one()
                hints.announce(tx, "t")
                async with database.transaction() as killer:
                    await killer.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with hints.subscribe("t") as subscription:
            await announce(database, hints, "t")
            assert await subscription.wait(5) is True


@only_postgres
async def test_postgres_what_others_say_on_the_channel_does_not_deafen_it(database: Database) -> None:
    async with listening(database) as hints:
        with hints.subscribe("t") as subscription:
            for noise in ("", "no json", "3", "null", '{"a": 1}', "[1, null, [2]]"):
                async with database.transaction() as tx:
                    await tx.execute(text("SELECT pg_notify(:c, :p)"), {"c": CHANNEL, "p": noise})
            await announce(database, hints, "t")
            assert await subscription.wait(5) is True
        assert len(await listeners(database)) == 1


@only_postgres
async def test_postgres_closing_leaves_no_connection(database: Database) -> None:
    async with listening(database), listening(database):
        assert len(await listeners(database)) == 2
    assert await listeners(database) == []


async def test_postgres_closing_before_the_start_is_harmless() -> None:
    await PostgresHints("postgresql+asyncpg://postgres@127.0.0.1:1/none").aclose()


async def test_hints_that_do_not_arrive_are_told_of_and_those_that_do_are_not(
    postgres: PostgresServer,
) -> None:
    away = PostgresHints("postgresql+asyncpg://nobody@127.0.0.1:9/nothing")
    starting = asyncio.create_task(away.start())
    await becomes(lambda: (away.trouble() or "").startswith("reconnecting after"))
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await away.aclose()
    there = PostgresHints(postgres.url("postgres"))
    await there.start()
    assert there.trouble() is None
    await there.aclose()
    assert InProcessNotifier().trouble() is None
