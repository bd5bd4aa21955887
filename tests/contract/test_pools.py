"""What the pool's monitor tells of the connections: who waited, what was replaced, who kept one too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from db.engines import PoolLimits
from db.ingress import open_ingress
from db.session import Database, DatabaseUnavailable
from db.tables import Secret
from tests.contract.test_database import delivery, secret

only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
only_postgres = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@asynccontextmanager
async def opened(url: str, **limits: float) -> AsyncIterator[Database]:
    database = Database(url, PoolLimits(**limits))  # type: ignore[arg-type]
    try:
        yield database
    finally:
        await database.aclose()


async def ask(database: Database) -> None:
    async with database.reading() as tx:
        await tx.execute(text("SELECT 1"))


async def test_a_wait_for_a_connection_is_counted_with_its_time(database_url: str) -> None:
    async with opened(database_url, size=1, max_overflow=0) as database:
        await ask(database)
        assert (database.pool_figures()["waited"], database.pool_figures()["waited_ms"]) == (0, 0)
        async with database.reading():
            waiting = asyncio.create_task(ask(database))
            await asyncio.sleep(0.02)
        await waiting
        figures = database.pool_figures()
        assert (figures["waited"], figures["timeouts"], figures["in_use"]) == (1, 0, 0)
        assert figures["waited_ms"] >= 15


async def test_a_wait_in_vain_is_bounded_and_counted(database_url: str) -> None:
    """Fault 49: an exhausted pool is an error within its limit, and nobody hangs."""
    async with opened(database_url, size=2, max_overflow=0, timeout_s=0.5) as database:
        await asyncio.gather(ask(database), ask(database))
        async with database.reading(), database.reading(), asyncio.timeout(60):
            asked = await asyncio.gather(*(ask(database) for _ in range(20)), return_exceptions=True)
        assert {type(each) for each in asked} == {DatabaseUnavailable}
        figures = database.pool_figures()
        assert (figures["waited"], figures["timeouts"]) == (20, 20)
        await ask(database)


async def test_whoever_keeps_a_connection_too_long_is_told_by_name_and_once(database_url: str) -> None:
    async with opened(database_url, held_limit_s=0) as database:
        with capture_logs() as logs:
            async with database.reading() as tx:
                await tx.execute(text("SELECT 1"))
                assert database.pool_figures()["leaked"] == 1, "seen while it is held"
                assert database.pool_figures()["leaked"] == 1
        [told] = [entry for entry in logs if entry["event"] == "pool.connection_held"]
        assert told["where"].startswith("contract/test_pools.py:")
        assert told["where"].endswith("test_whoever_keeps_a_connection_too_long_is_told_by_name_and_once")
    async with opened(database_url) as database:
        await ask(database)
        assert database.pool_figures()["leaked"] == 0


async def test_a_canceled_holder_is_forgotten(database_url: str) -> None:
    async with opened(database_url, size=1, max_overflow=0) as database:
        begun = asyncio.Event()

        async def hold() -> None:
            async with database.transaction():
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hold())
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not database._writers._held
        await ask(database)


@only_sqlite
async def test_waits_for_the_writers_turn_are_counted(database_url: str) -> None:
    async with opened(database_url) as database:
        async with database.transaction() as tx:
            await tx.insert_new(Secret, secret("a"))
            ingress = open_ingress(database)
            waiting = asyncio.create_task(ingress.write([delivery(1)]))
            await asyncio.sleep(0.02)
        assert await waiting == [True]
        figures = database.pool_figures()
        assert (figures["turn_waited"], figures["turn_timeouts"]) == (1, 0)
        assert figures["turn_waited_ms"] >= 15
        await ingress.aclose()


@only_sqlite
async def test_the_writers_turn_is_not_waited_for_longer_than_the_limit(database_url: str) -> None:
    async with opened(database_url, timeout_s=0.1) as database:
        async with database.transaction(), asyncio.timeout(60):
            with pytest.raises(DatabaseUnavailable, match="no turn to write"):
                async with database.transaction():
                    pass
        assert database.pool_figures()["turn_timeouts"] == 1
        async with database.transaction() as tx:
            await tx.insert_new(Secret, secret("a"))


@only_postgres
async def test_a_connection_past_its_age_is_replaced_and_counted(database_url: str) -> None:
    async with opened(database_url, size=1, max_overflow=0, recycle_s=0) as database:
        first, second = await backend(database), await backend(database)
        assert first != second
        assert database.pool_figures()["recycled"] >= 1
    async with opened(database_url, size=1, max_overflow=0) as database:
        assert await backend(database) == await backend(database)
        assert database.pool_figures()["recycled"] == 0


@only_postgres
async def test_a_connection_that_died_while_idle_is_replaced_before_anybody_meets_it(
    database_url: str,
) -> None:
    async with opened(database_url, size=1, max_overflow=0) as database, opened(database_url) as other:
        victim = await backend(database)
        async with other.transaction() as tx:
            await tx.execute(text(f"SELECT pg_terminate_backend({victim}, 5000)"))
        assert await backend(database) != victim
        assert database.pool_figures()["recycled"] == 1


@only_postgres
async def test_the_connection_of_the_webhooks_is_shown_beside_the_pool(database_url: str) -> None:
    async with opened(database_url) as database:
        ingress = open_ingress(database)
        assert database.pool_figures()["ingress"] == 0
        await ingress.write([delivery(1)])
        assert database.pool_figures()["ingress"] == 1
        await ingress.aclose()
        assert database.pool_figures()["ingress"] == 0


@only_postgres
async def test_a_statement_and_a_lock_are_waited_for_no_longer_than_the_limit(database_url: str) -> None:
    async with opened(database_url, statement_timeout_s=0.3) as database, asyncio.timeout(10):
        with pytest.raises(DatabaseUnavailable, match="timeout"):
            async with database.transaction() as tx:
                await tx.execute(text("SELECT pg_sleep(60)"))
        async with database.transaction() as holder:
            await holder.insert_new(Secret, secret("a"))
            with pytest.raises(DatabaseUnavailable, match="timeout"):
                async with database.transaction() as tx:
                    await tx.insert_new(Secret, secret("a"))
        assert database.pool_figures()["recycled"] == 0, "the connections are as good as they were"
        await ask(database)


async def backend(database: Database) -> int:
    async with database.reading() as tx:
        return int((await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one())
