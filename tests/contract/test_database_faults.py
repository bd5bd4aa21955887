"""What is done about a server that fails in the middle: run again where nothing was committed, else said so.

On a real PostgreSQL, at chosen points: its own serialization failures and deadlocks, connections ended by
`pg_terminate_backend`, tables changed under prepared statements, a primary that turned read-only, and
answers that never arrive, through a fault proxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import make_url

from db.engines import PoolLimits
from db.ingress import open_ingress
from db.session import (
    CommitUnknown,
    Conflicted,
    ConnectionLost,
    Database,
    DatabaseUnavailable,
    Transaction,
    dsn_of,
)
from db.tables import Secret
from tests.contract.test_database import delivery, names, secret, stored
from tests.fakes.proxy import FaultProxy, proxied

pytestmark = [
    pytest.mark.real,
    pytest.mark.parametrize("database_url", ["postgresql"], indirect=True),
]

SHORT = PoolLimits(size=2, max_overflow=2, timeout_s=1.0, statement_timeout_s=0.5)
DIE = "SELECT pg_terminate_backend(pg_backend_pid())"


class Work:
    """An insert that counts how often it was begun."""

    def __init__(self, name: str = "a") -> None:
        self.begun = 0
        self.name = name

    async def __call__(self, tx: Transaction) -> int:
        self.begun += 1
        await self.meet(tx)
        return await tx.insert_new(Secret, secret(self.name))

    async def meet(self, tx: Transaction) -> None:
        """What happens on the way."""


class DyingOnce(Work):
    async def meet(self, tx: Transaction) -> None:
        if self.begun == 1:
            await tx.execute(text(DIE))


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[FaultProxy]:
    async with proxied(make_url(database_url).port or 0) as proxy:
        yield proxy


@pytest.fixture
async def behind(database_url: str, proxy: FaultProxy) -> AsyncIterator[Database]:
    """The same database, through the proxy, with short limits."""
    url = make_url(database_url).set(port=proxy.port)
    database = Database(url.render_as_string(hide_password=False), SHORT)
    yield database
    await database.aclose()


# ── the connection is lost ──────────────────────────────────────────────────────────────────────────────


async def test_work_whose_connection_died_before_the_commit_is_run_again_and_done_once(
    database: Database,
) -> None:
    """Fault 50: dropped in mid-transaction, nothing was committed."""
    work = DyingOnce()
    assert await database.transact(work) == 1
    assert work.begun == 2
    assert await names(database) == ["a"]
    assert database.pool_figures()["again"] == 1


async def test_a_plain_transaction_says_that_nothing_was_committed(database: Database) -> None:
    with pytest.raises(ConnectionLost):
        async with database.transaction() as tx:
            await DyingOnce()(tx)
    assert await names(database) == []
    async with database.transaction() as tx:
        await tx.insert_new(Secret, secret("b"))
    assert await names(database) == ["b"]


async def test_work_is_not_run_again_for_ever(database: Database) -> None:
    class Dying(Work):
        async def meet(self, tx: Transaction) -> None:
            await tx.execute(text(DIE))

    work = Dying()
    with pytest.raises(ConnectionLost):
        await database.transact(work)
    assert work.begun == 3
    assert await names(database) == []


async def test_a_commit_whose_answer_never_came_is_unknown_and_not_run_again(
    database: Database, behind: Database, proxy: FaultProxy
) -> None:
    """Fault 50: the connection dropped after COMMIT was sent. Here it had been committed."""
    work = Unanswered(proxy)
    with pytest.raises(CommitUnknown):
        await behind.transact(work)
    assert work.begun == 1
    assert await names(database) == ["a"], "which is what nobody here can know"


async def test_idempotent_work_whose_commit_was_never_answered_is_run_again_and_has_one_effect(
    database: Database, behind: Database, proxy: FaultProxy
) -> None:
    """Fault 50: the same, with work that may be run twice."""
    work = Unanswered(proxy)
    assert await behind.transact(work, is_idempotent=True) == 0, "it was there already"
    assert work.begun == 2
    assert await names(database) == ["a"]


async def test_a_commit_that_the_server_died_in_is_unknown_too(database: Database) -> None:
    """Fault 50: the connection dropped after COMMIT was sent. Here it had not been committed."""
    await _die_at_commits(database)
    work = Work("fatal")
    with pytest.raises(CommitUnknown):
        await database.transact(work)
    assert work.begun == 1
    assert await names(database) == []
    harmless = Work("fatal-once")
    assert await database.transact(harmless, is_idempotent=True) == 1
    assert harmless.begun == 2
    assert await names(database) == ["fatal-once"]


class Unanswered(Work):
    """The answer to the first COMMIT is lost: everything before it had been answered."""

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__()
        self._proxy = proxy

    async def meet(self, tx: Transaction) -> None:
        if self.begun == 1:
            tx.before_commit("silence", ["once"], self._lose_the_answer)

    async def _lose_the_answer(self, tx: Transaction, _: list[str]) -> None:
        self._proxy.lose_answers()


async def _die_at_commits(database: Database) -> None:
    """A deferred trigger runs in COMMIT: there it ends its own server process; once only, for one name."""
    async with database.transaction() as tx:
        for statement in (
            "CREATE SEQUENCE deaths",
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF NEW.name = 'fatal' OR nextval('deaths') = 1 THEN"
            " PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); END IF;"
            " RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER deadly AFTER INSERT ON secrets DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION die()",
        ):
            await tx.execute(text(statement))


# ── the server takes it back ────────────────────────────────────────────────────────────────────────────


async def test_a_serialization_failure_is_run_again_until_both_have_counted(database: Database) -> None:
    """Fault 50: two that read and write the same row at SERIALIZABLE; one of them must go again."""
    await database.transact(Work("count"))
    async with database.transaction() as tx:
        await tx.execute(text("UPDATE secrets SET value = '0'"))
    met = asyncio.Barrier(2)
    begun = 0

    async def count(tx: Transaction) -> None:
        nonlocal begun
        begun += 1
        await tx.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        seen = int((await tx.execute(select(Secret.value))).scalar_one())
        if begun <= 2:
            await met.wait()
        await tx.execute(text("UPDATE secrets SET value = :seen"), {"seen": str(seen + 1)})

    await asyncio.gather(database.transact(count), database.transact(count))
    assert begun == 3
    async with database.reading() as tx:
        assert (await tx.execute(select(Secret.value))).scalar_one() == "2"


async def test_a_plain_transaction_says_that_it_was_taken_back(database: Database) -> None:
    await database.transact(Work("a"))
    with pytest.raises(Conflicted):  # noqa: PT012 - the whole block is the call
        async with database.transaction() as tx:
            await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            await tx.execute(select(Secret.value))
            async with database.transaction() as other:
                await other.execute(text("UPDATE secrets SET value = 'theirs'"))
            await tx.execute(text("UPDATE secrets SET value = 'ours'"))


async def test_of_two_in_a_deadlock_both_are_done(database: Database) -> None:
    """Fault 50: each holds what the other wants; the server ends one, which is run again."""
    async with database.transaction() as tx:
        await tx.insert_new(Secret, secret("a", ""), secret("b", ""))
    met = asyncio.Barrier(2)
    begun = 0

    async def write(tx: Transaction, first: str, second: str) -> None:
        nonlocal begun
        begun += 1
        is_early = begun <= 2
        await tx.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
        add = text("UPDATE secrets SET value = value || :mark WHERE name = :name")
        await tx.execute(add, {"mark": "x", "name": first})
        if is_early:
            await met.wait()
        await tx.execute(add, {"mark": "x", "name": second})

    await asyncio.gather(
        database.transact(lambda tx: write(tx, "a", "b")), database.transact(lambda tx: write(tx, "b", "a"))
    )
    assert begun == 3
    async with database.reading() as tx:
        assert list((await tx.execute(select(Secret.value))).scalars()) == ["xx", "xx"]


async def test_a_statement_prepared_before_a_migration_is_prepared_again(database: Database) -> None:
    """Fault 50: stale prepared statement."""

    async def read(tx: Transaction) -> list[str]:
        return [row[0] for row in await tx.execute(text("SELECT * FROM secrets"))]

    await database.transact(Work("a"))
    assert await database.transact(read) == ["a"]
    async with database.transaction() as tx:
        await tx.execute(text("ALTER TABLE secrets ADD COLUMN more text"))
    assert await database.transact(read) == ["a"]
    assert database.pool_figures()["again"] == 1, "it was stale"


async def test_webhooks_are_stored_though_a_migration_changed_their_statement(database: Database) -> None:
    """Fault 50: stale prepared statement, on the hot path."""
    ingress = open_ingress(database)
    assert await ingress.write([delivery(1)]) == [True]
    async with database.transaction() as tx:
        await tx.execute(text("ALTER TABLE deliveries ALTER COLUMN id TYPE text"))
    assert await ingress.write([delivery(2)]) == [True]
    assert await stored(database) == 2
    await ingress.aclose()


# ── the server is not the primary any more ──────────────────────────────────────────────────────────────


async def test_a_primary_that_turned_read_only_is_left_and_its_successor_is_found(
    database: Database,
) -> None:
    """Fault 50: failover. Connections made before it lead to a server that only reads."""
    base = make_url(database.url).database
    await _set_read_only(database, base, "on")
    held = [database.reading() for _ in range(3)]
    for each in held:
        await each.__aenter__()
    for each in held:
        await each.__aexit__(None, None, None)
    assert database.pool_figures()["idle"] >= 3
    with pytest.raises(DatabaseUnavailable, match="read-only"):
        async with database.transaction() as tx:
            await tx.insert_new(Secret, secret("a"))
    health = await database.health()
    assert not health.ok
    assert "read-only" in health.detail
    # The new primary: whoever connects from now on may write; the old connections never could.
    await _set_read_only(database, base, "off")
    async with database.transaction() as tx:
        await tx.insert_new(Secret, secret("b"))
    assert await names(database) == ["b"]
    assert (await database.health()).ok


async def test_the_ingress_leaves_a_primary_that_turned_read_only(database: Database) -> None:
    """Fault 50: failover, on the hot path."""
    base = make_url(database.url).database
    ingress = open_ingress(database)
    await _set_read_only(database, base, "on")
    with pytest.raises(DatabaseUnavailable):
        await ingress.write([delivery(1)])
    await _set_read_only(database, base, "off")
    assert await ingress.write([delivery(1)]) == [True]
    await ingress.aclose()


async def test_of_several_hosts_the_one_that_can_write_is_taken(database: Database) -> None:
    """Fault 50: failover, with every host in the URL; the first of them refuses."""
    url = make_url(database.url)
    several = (
        f"postgresql+asyncpg://{url.username}@/{url.database}?host=127.0.0.1:1&host={url.host}:{url.port}"
    )
    both = Database(several, SHORT)
    ingress = open_ingress(both)
    assert await both.transact(Work()) == 1
    assert await ingress.write([delivery(1)]) == [True]
    assert (await both.health()).ok
    await _set_read_only(database, url.database, "on")
    await ingress.aclose()
    await both.aclose()
    for opened in (both.transaction, both.reading):
        with pytest.raises(DatabaseUnavailable):
            async with opened() as tx:
                await tx.execute(text("SELECT 1"))
    assert dsn_of(several).endswith(
        f"@127.0.0.1:1,{url.host}:{url.port}/{url.database}?target_session_attrs=read-write"
    )
    await both.aclose()


async def _set_read_only(database: Database, name: str | None, value: str) -> None:
    """For connections that are made from now on."""
    apart = Database(make_url(database.url).set(database="postgres").render_as_string(hide_password=False))
    async with apart.transaction() as tx:
        await tx.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}'))
    await apart.aclose()


async def test_closing_does_not_wait_for_a_server_that_vanished(behind: Database, proxy: FaultProxy) -> None:
    ingress = open_ingress(behind)
    await ingress.write([delivery(1)])
    await behind.transact(Work())
    proxy.silence()
    async with asyncio.timeout(10):
        await ingress.aclose()
        await behind.aclose()


class ComingUp:
    """A server that refuses so many connections as PostgreSQL does while it recovers, and then is one."""

    def __init__(self, refusals: int, port: int) -> None:
        self.refusals = refusals
        self._port = port

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.refusals:
            back, forth = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.gather(self._pump(reader, forth), self._pump(back, writer))
            return
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size == 8:  # asks for TLS
            await reader.readexactly(4)
            writer.write(b"N")
            size = int.from_bytes(await reader.readexactly(4), "big")
        await reader.readexactly(size - 4)
        self.refusals -= 1
        told = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is in recovery mode\0\0"
        writer.write(b"E" + (4 + len(told)).to_bytes(4, "big") + told)
        writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while got := await reader.read(65_536):
            writer.write(got)
        writer.close()


async def test_a_start_waits_for_a_server_that_is_coming_up_and_for_no_other_trouble(
    database_url: str,
) -> None:
    """Fault 49: whoever is started beside a server that crashed finds it again."""
    coming_up = ComingUp(3, make_url(database_url).port or 0)
    async with await asyncio.start_server(coming_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        database = Database(make_url(database_url).set(port=port).render_as_string(hide_password=False))
        await database.wait_until_up(60)
        assert coming_up.refusals == 0
        await database.aclose()
        coming_up.refusals = 1
        with pytest.raises(DatabaseUnavailable, match="recovery mode"):
            await database.wait_until_up(-1)
        await database.aclose()
    nobody = Database(make_url(database_url).set(port=port).render_as_string(hide_password=False))
    with pytest.raises(DatabaseUnavailable):
        await nobody.wait_until_up(60)
    await nobody.aclose()
