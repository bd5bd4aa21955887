"""What both ingresses promise: new or known for each row, durable when told, work items or nothing.

SqliteIngress and PostgresIngress each over a real database; a group commit stands in front of them where a
test is about many callers.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import make_url

from app.work import Station
from app.work.postgres import PostgresEngine
from db.engines import PoolLimits
from db.group_commit import GroupCommit
from db.ingress import Ingress, NewDelivery, Statement, open_ingress
from db.ingress.postgres import PostgresIngress
from db.ingress.sqlite import SqliteIngress
from db.mysql.connections import connect_mysql
from db.session import Database, DatabaseUnavailable, dsn_of
from db.tables import Delivery, Secret

pytestmark = pytest.mark.real

AT = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
only_mysql = pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
only_postgres = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def delivery(number: int, key: int | None = None, **values: object) -> NewDelivery:
    given: dict[str, object] = {
        "id": f"dlv_{number:04}",
        "source": "webhook",
        "provider": "replicate",
        "attempt_id": "att_1",
        "job_id": None,
        "message_id": f"msg_{number}",
        "dedupe_key": (number if key is None else key).to_bytes(16, "big"),
        "headers": {"webhook-id": "ü\x01"},
        "body": b"\x00\xff" * 10,
        "received_at": AT,
        **values,
    }
    return NewDelivery(**given)  # type: ignore[arg-type]


@pytest.fixture
async def ingress(database: Database) -> AsyncIterator[Ingress]:
    ingress = open_ingress(database)
    yield ingress
    await ingress.aclose()


async def ids(database: Database) -> list[str]:
    async with database.reading() as tx:
        return list((await tx.execute(select(Delivery.id).order_by("id"))).scalars())


async def ids_by_another_process(database: Database) -> list[str]:
    """As a connection sees them that has nothing to do with ours."""
    query = "SELECT id FROM deliveries ORDER BY id"
    if database.is_sqlite:
        connection = sqlite3.connect(make_url(database.url).database or "")
        try:
            return [row[0] for row in connection.execute(query)]
        finally:
            connection.close()
    if database.is_mysql:
        async with (await connect_mysql(database.url, PoolLimits())).cursor() as cursor:
            await cursor.execute(query)
            found = [row[0] for row in await cursor.fetchall()]
            await cursor.connection.ensure_closed()
            return found
    other = await asyncpg.connect(dsn_of(database.url))
    try:
        return [row[0] for row in await other.fetch(query)]
    finally:
        await other.close()


async def terminate(database: Database, application: str) -> int:
    """End the server's side of these connections; returns once they are gone."""
    async with database.transaction() as tx:
        ended = await tx.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = :name AND datname = current_database()"
            ),
            {"name": application},
        )
        return len(ended.all())


async def test_each_row_is_told_whether_it_was_new_in_the_order_given(
    database: Database, ingress: Ingress
) -> None:
    assert await ingress.write([delivery(5), delivery(1), delivery(2, key=5), delivery(3)]) == [
        True,
        True,
        False,
        True,
    ]
    assert await ingress.write([delivery(6, key=1), delivery(4), delivery(7, key=3), delivery(8, key=4)]) == [
        False,
        True,
        False,
        False,
    ]
    assert await ids(database) == ["dlv_0001", "dlv_0003", "dlv_0004", "dlv_0005"]


async def test_a_group_of_nothing_new_stores_nothing(database: Database, ingress: Ingress) -> None:
    await ingress.write([delivery(1)])
    assert await ingress.write([delivery(2, key=1), delivery(3, key=1)]) == [False, False]
    assert await ids(database) == ["dlv_0001"]


async def test_the_first_that_came_is_the_one_that_is_kept(database: Database, ingress: Ingress) -> None:
    await ingress.write([delivery(1, body=b"first"), delivery(2, key=1, body=b"second")])
    await ingress.write([delivery(3, key=1, body=b"third")])
    async with database.reading() as tx:
        assert list((await tx.execute(select(Delivery.body))).scalars()) == [b"first"]


async def test_what_was_given_is_read_back_as_it_was(database: Database, ingress: Ingress) -> None:
    elsewhere = datetime(2026, 1, 1, 14, 30, 15, 123456, tzinfo=AT.tzinfo) - timedelta(hours=2)
    await ingress.write([delivery(1, job_id="job_1", message_id=None, body=b"", received_at=elsewhere)])
    async with database.reading() as tx:
        row = (await tx.execute(select(Delivery.__table__))).mappings().one()  # type: ignore[attr-defined]
    given = delivery(1)
    assert (row["job_id"], row["message_id"], row["body"]) == ("job_1", None, b"")
    assert (row["headers"], row["dedupe_key"]) == (given.headers, given.dedupe_key)
    assert (row["received_at"], row["run_after"], row["tries"]) == (AT, AT, 0)
    assert (row["settled_at"], row["outcome"]) == (None, None)


async def test_what_was_told_is_seen_by_every_other_connection(database: Database, ingress: Ingress) -> None:
    for number in range(5):
        await ingress.write([delivery(number)])
        assert len(await ids_by_another_process(database)) == number + 1


async def test_many_callers_share_commits_and_each_hears_of_its_own_row(
    database: Database, ingress: Ingress
) -> None:
    group = GroupCommit(ingress.write)
    news = await asyncio.gather(*(group.submit(delivery(n, key=n % 250)) for n in range(500)))
    assert news == [True] * 250 + [False] * 250
    assert len(await ids(database)) == 250
    await group.aclose()


async def test_groups_and_other_writers_do_not_fight(database: Database, ingress: Ingress) -> None:
    group = GroupCommit(ingress.write, most_together=8)

    async def other(number: int) -> None:
        async with database.transaction() as tx:
            await tx.insert_new(Secret, {"name": f"s{number}", "value": "v", "created_at": AT})
            await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await asyncio.gather(
            *(group.submit(delivery(number)) for number in range(200)), *(other(n) for n in range(60))
        )
    async with database.reading() as tx:
        assert len((await tx.execute(select(Secret.name))).all()) == 60
    assert len(await ids(database)) == 200
    await group.aclose()


async def test_a_row_that_cannot_be_stored_fails_alone(database: Database, ingress: Ingress) -> None:
    group = GroupCommit(ingress.write)
    spoiled = delivery(2, provider=None)
    results = await asyncio.gather(
        *(group.submit(each) for each in (delivery(1), spoiled, delivery(3))), return_exceptions=True
    )
    assert (results[0], results[2]) == (True, True)
    assert isinstance(results[1], Exception)
    assert not isinstance(results[1], DatabaseUnavailable), "asking again would not help"
    assert await ids(database) == ["dlv_0001", "dlv_0003"]
    assert await ingress.write([delivery(4)]) == [True]
    await group.aclose()


async def test_a_canceled_caller_leaves_the_ingress_usable(database: Database, ingress: Ingress) -> None:
    await ingress.write([delivery(1)])
    task = asyncio.create_task(ingress.write([delivery(2)]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await ingress.write([delivery(3)]) == [True]
    assert {"dlv_0001", "dlv_0003"} <= set(await ids(database))


# ── SQLite alone ────────────────────────────────────────────────────────────────────────────────────────


@only_sqlite
async def test_sqlite_a_lock_held_past_the_limit_is_told_and_passes(database: Database) -> None:
    ingress = open_ingress(database)
    await ingress.write([delivery(1)])
    assert ingress._connection is not None  # type: ignore[attr-defined]
    await asyncio.get_running_loop().run_in_executor(
        ingress._thread,  # type: ignore[attr-defined]
        lambda: ingress._connection.execute("PRAGMA busy_timeout=50"),  # type: ignore[attr-defined]
    )
    other = sqlite3.connect(make_url(database.url).database or "", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable):
        await ingress.write([delivery(2)])
    other.execute("ROLLBACK")
    other.close()
    assert await ingress.write([delivery(2)]) == [True]
    await ingress.aclose()


@only_sqlite
async def test_sqlite_a_database_without_our_tables_is_unavailable(
    database: Database, tmp_path: Path
) -> None:
    empty = Database(f"sqlite+aiosqlite:///{tmp_path}/empty.db")
    ingress = open_ingress(empty)
    with pytest.raises(DatabaseUnavailable):
        await ingress.write([delivery(1)])
    await ingress.aclose()
    await empty.aclose()


@only_sqlite
async def test_sqlite_the_log_is_copied_back_while_writing_goes_on(database: Database) -> None:
    ingress = open_ingress(database)
    body = b"x" * 600_000
    for number in range(50):
        await ingress.write([delivery(number, body=body)])
    await ingress.aclose()
    assert ingress._checkpointing is not None  # type: ignore[attr-defined]
    assert ingress._checkpointing.exception() is None  # type: ignore[attr-defined]
    assert len(await ids_by_another_process(database)) == 50


@only_sqlite
async def test_sqlite_a_log_that_writers_never_leave_alone_is_begun_anew(database: Database) -> None:
    path = make_url(database.url).database or ""
    ingress = SqliteIngress(database)
    body = b"x" * 600_000
    await ingress.write([delivery(number, body=body) for number in range(3)])
    # Whoever reads holds the log back, as writers do who never pause.
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM deliveries").fetchone()
    await ingress.write([delivery(3, body=body)])
    ingress._checkpoint()
    reader.execute("COMMIT")
    reader.close()
    length = Path(f"{path}-wal").stat().st_size
    await ingress.write([delivery(number, body=body) for number in range(4, 6)])
    assert Path(f"{path}-wal").stat().st_size == length
    await ingress.aclose()
    assert len(await ids_by_another_process(database)) == 6


# ── PostgreSQL alone ────────────────────────────────────────────────────────────────────────────────────


@only_postgres
async def test_postgres_a_dead_connection_is_replaced(database: Database, ingress: Ingress) -> None:
    await ingress.write([delivery(1)])
    for number in (2, 3):
        assert await terminate(database, "reprise-ingress") == 1
        try:
            new = await ingress.write([delivery(number)])
        except DatabaseUnavailable:
            new = await ingress.write([delivery(number)])
        assert new == [True]
    assert len(await ids(database)) == 3


async def test_postgres_no_server_is_unavailable_and_not_an_exception_of_the_driver() -> None:
    away = Database("postgresql+asyncpg://postgres@127.0.0.1:1/none", PoolLimits())
    ingress = open_ingress(away)
    with pytest.raises(DatabaseUnavailable):
        await ingress.write([delivery(1)])
    await ingress.aclose()
    await away.aclose()


@pytest.fixture(params=["together", "apart"])
async def with_items(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[ItemsIngress]:
    """An ingress that writes items: in the rows' own statement, and as a role that may make no function."""
    ingress = ItemsIngress(database)
    if request.param == "apart":
        role = f"plain_{uuid4().hex}"
        async with database.transaction() as tx:
            name = (await tx.execute(text("SELECT current_database()"))).scalar_one()
            await tx.execute(text(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC"))
            await tx.execute(text(f"CREATE ROLE {role} LOGIN"))
            await tx.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"))
            await tx.execute(text(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"))
        plain = Database(str(make_url(database.url).set(username=role).render_as_string(False)), PoolLimits())
        ingress = ItemsIngress(plain)
    yield ingress
    await ingress.aclose()
    if request.param == "apart":
        await plain.aclose()
        async with database.transaction() as tx:
            await tx.execute(text(f"DROP OWNED BY {role}"))
            await tx.execute(text(f"DROP ROLE {role}"))


class ItemsIngress(PostgresIngress):
    """With PgQueuer's statement for the items, which a test may put another in the place of."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, self.items)
        self._engine = PostgresEngine(database.url)
        self.before: Callable[[], Awaitable[None]] | None = None
        self.instead: Statement | None = None

    async def items(self, row_ids: Sequence[str]) -> Statement:
        if self.before is not None:
            await self.before()
        return self.instead or await self._engine.items_for(Station.APPLY, row_ids)


async def items(database: Database) -> list[tuple[str, bytes]]:
    async with database.reading() as tx:
        found = (await tx.execute(text("SELECT entrypoint, payload FROM pgqueuer ORDER BY id"))).all()
    return [(row.entrypoint, bytes(row.payload)) for row in found]


@only_postgres
async def test_postgres_an_item_is_written_for_each_group_that_brings_something_new(
    database: Database, with_items: ItemsIngress
) -> None:
    assert await with_items.write([delivery(1), delivery(2, key=1), delivery(3)]) == [True, False, True]
    assert await with_items.write([delivery(4, key=1), delivery(5, key=3)]) == [False, False]
    assert await with_items.write([delivery(6)]) == [True]
    # What was known has no row, and its step nothing to do.
    assert await items(database) == [("apply", b"dlv_0001 dlv_0002 dlv_0003"), ("apply", b"dlv_0006")]
    assert await ids(database) == ["dlv_0001", "dlv_0003", "dlv_0006"]


@only_postgres
async def test_postgres_items_that_cannot_be_written_take_the_rows_back(
    database: Database, with_items: ItemsIngress
) -> None:
    with_items.instead = Statement("WITH none AS (SELECT 1 / $1::int AS one) SELECT one FROM none", (0,))
    with pytest.raises(asyncpg.DivisionByZeroError):
        await with_items.write([delivery(1), delivery(2)])
    assert await ids(database) == []
    with_items.instead = None
    assert await with_items.write([delivery(1), delivery(2)]) == [True, True]
    assert await items(database) == [("apply", b"dlv_0001 dlv_0002")]


@only_postgres
async def test_postgres_items_are_written_over_the_connection_that_comes_after_a_dead_one(
    database: Database, with_items: ItemsIngress
) -> None:
    async def end_it() -> None:
        with_items.before = None
        assert await terminate(database, "reprise-ingress") == 1

    assert await with_items.write([delivery(1)]) == [True]
    with_items.before = end_it
    try:
        new = await with_items.write([delivery(2)])
    except DatabaseUnavailable:
        new = await with_items.write([delivery(2)])
    assert new == [True]
    assert await ids(database) == ["dlv_0001", "dlv_0002"]
    assert await items(database) == [("apply", b"dlv_0001"), ("apply", b"dlv_0002")]


@only_postgres
async def test_postgres_a_connection_that_dies_within_the_items_stores_nothing(
    database: Database, with_items: ItemsIngress
) -> None:
    with_items.instead = Statement("SELECT pg_terminate_backend(pg_backend_pid()), $1::int", (1,))
    with pytest.raises(DatabaseUnavailable):
        await with_items.write([delivery(1)])
    assert await ids(database) == []


@only_postgres
async def test_postgres_a_value_too_long_for_its_column_does_not_fail_its_neighbours(
    database: Database, ingress: Ingress
) -> None:
    group = GroupCommit(ingress.write)
    results = await asyncio.gather(
        group.submit(delivery(1)),
        group.submit(delivery(2, message_id="m" * 300)),
        group.submit(delivery(3, attempt_id="nul\x00")),
        group.submit(delivery(4)),
        return_exceptions=True,
    )
    assert (results[0], results[3]) == (True, True)
    assert await ids(database) == ["dlv_0001", "dlv_0004"]
    assert all(isinstance(result, asyncpg.DataError) for result in results[1:3])
    await group.aclose()
