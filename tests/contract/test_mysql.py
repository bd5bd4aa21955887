"""What is MySQL's own: exact values, packets, a server that goes away, and one process that works at a time.

A real MariaDB; the suites over every database (`test_database`, `test_ingress`, the flows) hold the rest.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from app.errors import StartupError
from app.ownership import sole_use
from app.serve import running_service, running_worker
from db import schema
from db.engines import PoolLimits
from db.events import append_event
from db.group_commit import GroupCommit
from db.ingress import open_ingress
from db.jobs import advance_job, find_job, find_jobs, insert_jobs, renew_lease
from db.keys import insert_idempotency_key
from db.mysql.server import find_weaknesses
from db.session import Conflicted, ConnectionLost, Database, DatabaseUnavailable, Transaction
from db.tables import Delivery, IdempotencyKey, Job
from tests.conftest import TEMPLATE, MariadbServer, becomes, make_settings
from tests.contract.test_ingress import delivery

pytestmark = pytest.mark.real

AT = datetime(2026, 1, 1, 12, 30, 15, 999_999, tzinfo=UTC)


@pytest.fixture
def database_url(mariadb: MariadbServer) -> Iterator[str]:
    """An empty, migrated database on MariaDB."""
    name = f"test_{secrets.token_hex(6)}"
    mariadb.create(name, TEMPLATE)
    yield mariadb.url(name)
    mariadb.drop(name)


def job(**values: object) -> Job:
    given: dict[str, object] = {
        "id": "job_1",
        "kind": "sound_effect",
        "state": "running",
        "input": {"prompt": "rain"},
        "caller_metadata": {},
        "provider": "auto",
        "created_at": AT,
        "turn_at": AT,
        "deadline_at": AT,
        "run_after": AT,
        **values,
    }
    return Job(**given)


async def stored(database: Database) -> Job:
    async with database.reading() as tx:
        found = await find_job(tx, "job_1")
    assert found is not None
    return found


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_row_is_read_back_to_the_last_microsecond_bit_and_character(database: Database) -> None:
    wild = {"prompt": "🌧 \x00 \\ ' \" ünïcode \u2028", "n": 0.1 + 0.2}
    given = job(input=wild, progress=0.1, waiting_reason="🌧" * 20_000, lease_until=AT)
    async with database.transaction() as tx:
        await insert_jobs(tx, [given])
    assert (await stored(database)).model_dump() == given.model_dump()


async def test_progress_is_compared_as_it_was_given(database: Database) -> None:
    async with database.transaction() as tx:
        await insert_jobs(tx, [job(progress=0.1, stage="begun")])
        assert await advance_job(tx, "job_1", progress=0.1, stage="more"), "0.1 is not less than 0.1"


async def test_a_move_that_changes_no_value_is_still_a_move(database: Database) -> None:
    async with database.transaction() as tx:
        await insert_jobs(tx, [job(lease="mine", lease_until=AT)])
        assert await renew_lease(tx, "job_1", lease="mine", now=AT, lease_s=0.0)
        assert not await renew_lease(tx, "job_1", lease="another's", now=AT, lease_s=0.0)


async def test_keys_differ_by_case_and_accent(database: Database) -> None:
    async with database.transaction() as tx:
        for number, key in enumerate(("key", "KEY", "kéy")):
            mine = IdempotencyKey(key=key, fingerprint="f", job_id=f"job_{number}", created_at=AT)
            assert (await insert_idempotency_key(tx, mine)).job_id == f"job_{number}"


async def test_what_does_not_fit_is_refused_and_never_cut(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match="too long"):
        async with database.transaction() as tx:
            await tx.insert_new(Job, job(kind="k" * 65).model_dump())
    async with database.reading() as tx:
        assert (await tx.execute(select(col(Job.id)))).all() == []


async def test_every_table_compares_bytes_whatever_the_databases_default(database: Database) -> None:
    query = (
        "SELECT DISTINCT engine, table_collation FROM information_schema.tables WHERE table_schema=database()"
    )
    await schema.downgrade(database, "base")
    await schema.upgrade(database)
    async with database.reading() as tx:
        assert (await tx.execute(text(query))).all() == [("InnoDB", "utf8mb4_bin")]


async def test_the_databases_clock_is_utc_and_finer_than_a_second(database: Database) -> None:
    async with database.transaction() as tx:
        nows = [await tx.now() for _ in range(3)]
    assert abs(nows[0] - datetime.now(UTC)) < timedelta(seconds=30)
    assert any(now.microsecond for now in nows)


async def test_a_downgrade_works_with_rows_present(database: Database) -> None:
    async with database.transaction() as tx:
        await insert_jobs(tx, [job()])
        await append_event(tx, "job_1", "job.created", at=AT, status="running")
    await schema.downgrade(database, "base")
    await schema.upgrade(database)
    assert await schema.differences(database) == []


async def test_the_mariadb_dialect_is_the_same(mariadb: MariadbServer, database_url: str) -> None:
    database = Database(mariadb.url(database_url.rpartition("/")[2], "mariadb"))
    assert database.is_mysql
    async with database.transaction() as tx:
        await insert_jobs(tx, [job()])
        assert await tx.insert_new(Job, job().model_dump()) == 0
    assert (await stored(database)).created_at == AT
    await schema.downgrade(database, "base")
    await schema.upgrade(database)
    assert await schema.differences(database) == []
    await database.aclose()


# ── conflicts and limits ────────────────────────────────────────────────────────────────────────────────


async def test_of_two_that_wait_for_each_other_one_is_run_again_and_both_commit(database: Database) -> None:
    async with database.transaction() as tx:
        await insert_jobs(tx, [job()])
        await insert_jobs(tx, [job(id="job_2")])
    both, tries = asyncio.Barrier(2), 0

    async def swap(tx: Transaction, first: str, second: str) -> None:
        nonlocal tries
        tries += 1
        await tx.execute(update(Job).where(col(Job.id) == first).values(stage=first))
        if tries <= 2:
            await both.wait()
        await tx.execute(update(Job).where(col(Job.id) == second).values(crashes=col(Job.crashes) + 1))

    await asyncio.gather(
        database.transact(lambda tx: swap(tx, "job_1", "job_2")),
        database.transact(lambda tx: swap(tx, "job_2", "job_1")),
    )
    assert tries == 3
    assert database.pool_figures()["again"] == 1
    async with database.reading() as tx:
        assert [(found.stage, found.crashes) for found in await find_jobs(tx, ["job_1", "job_2"])] == [
            ("job_1", 1),
            ("job_2", 1),
        ]


async def test_a_lock_that_the_server_waited_for_in_vain_is_a_conflict(database: Database) -> None:
    async with database.transaction() as tx:
        await insert_jobs(tx, [job()])
    async with database.transaction() as tx:
        await find_job(tx, "job_1", lock=True)
        with pytest.raises(Conflicted, match="Lock wait"):  # noqa: PT012 - the whole block is the call
            async with database.transaction() as second:
                await second.execute(text("SET innodb_lock_wait_timeout=1"))
                await find_job(second, "job_1", lock=True)


async def test_a_server_that_turned_read_only_is_not_healthy_and_stores_nothing(
    database: Database, mariadb: MariadbServer
) -> None:
    assert (await database.health()).ok
    await mariadb.execute("SET GLOBAL read_only=ON")
    try:
        with pytest.raises(ConnectionLost):
            async with database.transaction() as tx:
                await insert_jobs(tx, [job()])
        health = await database.health()
        assert (health.ok, health.detail) == (False, "the server is read-only")
    finally:
        await mariadb.execute("SET GLOBAL read_only=OFF")
    assert (await database.health()).ok


async def test_a_lock_that_is_not_given_back_is_unavailable_within_the_limit(database_url: str) -> None:
    database = Database(database_url, PoolLimits(statement_timeout_s=1))
    async with database.transaction() as tx:
        await insert_jobs(tx, [job()])
    async with database.transaction() as tx:
        await find_job(tx, "job_1", lock=True)
        with pytest.raises(DatabaseUnavailable, match=r"Lock wait|max_statement_time"):
            async with database.transaction() as second:
                await find_job(second, "job_1", lock=True)
    await database.aclose()


async def test_a_statement_past_its_limit_is_ended_by_the_server(database_url: str) -> None:
    database = Database(database_url, PoolLimits(statement_timeout_s=0.2))
    with pytest.raises(DatabaseUnavailable, match="max_statement_time"):
        async with database.reading() as tx:
            await tx.execute(text("SELECT SLEEP(20)"))
    assert (await database.health()).ok
    await database.aclose()


async def test_connections_that_the_server_ended_are_replaced(
    database: Database, mariadb: MariadbServer
) -> None:
    ingress = open_ingress(database)
    await ingress.write([delivery(1)])
    assert (await database.health()).ok
    await mariadb.execute("KILL USER reprise")
    assert (await database.health()).ok
    assert await ingress.write([delivery(2)]) == [True]
    await ingress.aclose()


async def test_no_server_is_unavailable_and_not_an_exception_of_the_driver() -> None:
    away = Database("mysql+asyncmy://nobody@127.0.0.1:1/none", PoolLimits(timeout_s=1))
    ingress = open_ingress(away)
    with pytest.raises(DatabaseUnavailable):
        await ingress.write([delivery(1)])
    assert not (await away.health()).ok
    await ingress.aclose()
    await away.aclose()


# ── packets ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_bodies_beyond_one_packet_are_stored_together(database: Database) -> None:
    ingress = open_ingress(database)
    # 5 of these, escaped, are more than the 16 MiB that the server takes in one statement.
    bodies = [bytes([number, 0, 39, 92]) * 1_000_000 for number in range(5)]
    group = [delivery(number, body=body) for number, body in enumerate(bodies)]
    assert await ingress.write(group) == [True] * 5
    again = [delivery(number + 10, key=number, body=body) for number, body in enumerate(bodies)]
    assert await ingress.write([*again, delivery(5)]) == [False] * 5 + [True]
    async with database.reading() as tx:
        found = (await tx.execute(select(col(Delivery.body)).order_by(col(Delivery.id)))).scalars().all()
    assert found == [*bodies, delivery(5).body]
    await ingress.aclose()


async def test_a_body_that_no_packet_holds_is_refused_alone(database: Database) -> None:
    ingress = open_ingress(database)
    group = GroupCommit(ingress.write)
    results = await asyncio.gather(
        group.submit(delivery(1)),
        group.submit(delivery(2, body=bytes(9_000_000))),
        group.submit(delivery(3)),
        return_exceptions=True,
    )
    assert (results[0], results[2]) == (True, True)
    assert isinstance(results[1], DatabaseUnavailable)
    assert "max_allowed_packet" in str(results[1])
    await group.aclose()
    await ingress.aclose()


async def test_what_is_wrong_with_a_server_is_told_in_words(database: Database) -> None:
    found = await find_weaknesses(database.engine, largest_bytes=100_000_000)
    assert [fault.split(":")[0] for fault in found] == [
        "commits are not synced to the disk",
        "a body over 16777216 bytes cannot be stored",
    ]
    assert len(await find_weaknesses(database.engine, largest_bytes=1000)) == 1


# ── one process ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Losses:
    """Counts how often an owner was told that it is none any more."""

    count: int = field(default=0)

    def __call__(self) -> None:
        self.count += 1


async def test_a_database_has_one_owner_also_from_another_machine(database_url: str, tmp_path: Path) -> None:
    here = make_settings(tmp_path / "here", database_url=database_url)
    there = make_settings(tmp_path / "there", database_url=database_url)
    async with sole_use(here, on_loss=Losses()):
        with pytest.raises(StartupError, match="serves this database already"):
            async with sole_use(there, on_loss=Losses()):
                pass
    async with sole_use(there, on_loss=Losses()):
        pass


async def test_an_owner_whose_connection_is_cut_takes_the_lock_again(
    database_url: str, tmp_path: Path, mariadb: MariadbServer
) -> None:
    settings, lost = make_settings(tmp_path, database_url=database_url), Losses()
    async with sole_use(settings, on_loss=lost, look_every_s=0.02):
        before = await _holders(mariadb)
        await mariadb.execute("KILL USER reprise")
        async with asyncio.timeout(15):
            while (now := await _holders(mariadb)) == before or not now:
                pass
        assert lost.count == 0


async def test_an_owner_whose_place_was_taken_is_told_once(
    database_url: str, tmp_path: Path, mariadb: MariadbServer
) -> None:
    mine, other = Losses(), Losses()
    settings = make_settings(tmp_path, database_url=database_url)
    async with AsyncExitStack() as stack:
        # It looks so rarely that the other one is there first.
        await stack.enter_async_context(sole_use(settings, on_loss=mine, look_every_s=1))
        await mariadb.execute("KILL USER reprise")
        await stack.enter_async_context(sole_use(settings, on_loss=other))
        await becomes(lambda: mine.count)
        assert (mine.count, other.count) == (1, 0)


async def _holders(server: MariadbServer) -> list[tuple[object, ...]]:
    """The sessions of the role: here, the one that has the lock."""
    return await server.execute("SELECT id FROM information_schema.processlist WHERE user = 'reprise'")


async def test_workers_and_a_web_of_their_own_are_refused(database_url: str, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, database_url=database_url, public_url="https://reprise.test")
    with pytest.raises(StartupError, match="need PostgreSQL"):
        async with running_worker(settings):
            pass
    with pytest.raises(StartupError, match="needs PostgreSQL"):
        async with running_service(settings, worker=False):
            pass


async def test_a_schema_that_is_not_migrated_stops_the_start(mariadb: MariadbServer, tmp_path: Path) -> None:
    name = f"test_{secrets.token_hex(6)}"
    await asyncio.to_thread(mariadb.create, name)
    settings = make_settings(tmp_path, database_url=mariadb.url(name))
    with pytest.raises(StartupError, match="reprise migrate"):
        async with running_service(settings, gpu_worker=False):
            pass
    await asyncio.to_thread(mariadb.drop, name)


async def test_a_wrong_password_is_told_in_one_line_without_it(mariadb: MariadbServer) -> None:
    database = Database(mariadb.url(TEMPLATE).replace("pass%2Fword", "canary"), PoolLimits())
    with pytest.raises(DatabaseUnavailable) as caught:
        async with database.reading() as tx:
            await tx.execute(text("SELECT 1"))
    assert "denied" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert isinstance(caught.value.__cause__, DBAPIError)
    await database.aclose()
