"""Upgrading: two who migrate at once, one killed in the middle, an old release on a newer schema."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from app.errors import StartupError
from app.jobs import JobRequest
from app.wiring import Runtime, open_runtime
from db import schema
from db.engines import PoolLimits
from db.mysql.owner import take_turn
from db.search.pages import JobFilter
from db.session import Database, DatabaseUnavailable
from tests.conftest import SERVERS, MariadbServer, PostgresServer, make_settings

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0
KILLED_IN_THE_MIDDLE = """
import asyncio, os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from db import schema
from db.session import Database
left = int(sys.argv[2])

@event.listens_for(Engine, "after_cursor_execute")
def count(_connection, _cursor, statement, *_):
    global left
    left -= statement.lstrip().upper().startswith(("CREATE", "INSERT", "UPDATE", "ALTER"))
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(schema.upgrade(Database(sys.argv[1])))
"""


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind that nobody has migrated."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/reprise.db"
        return
    server: PostgresServer | MariadbServer = request.getfixturevalue(SERVERS[request.param])
    name = f"test_{secrets.token_hex(6)}"
    server.create(name)
    yield server.url(name)
    server.drop(name)


async def test_of_two_that_migrate_at_once_one_does_and_the_other_finds_it_done(
    empty_url: str, tmp_path: Path
) -> None:
    """Fault 51: two replicas run `reprise migrate` at the same moment."""
    async with _gate(empty_url) as waiting:
        both = [await _migrate(empty_url, tmp_path) for _ in range(2)]
        # Both stand before the lock: neither has read the revision yet.
        async with asyncio.timeout(LIMIT_S):
            while await waiting() < 2:
                await asyncio.sleep(0.01)
    async with asyncio.timeout(LIMIT_S):
        said = [(await process.communicate())[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    head = schema.head_revision()
    assert (
        sorted(said) == [f"The schema is at {head}.\n", f"The schema went from base to {head}.\n"]
        or said == [f"The schema went from base to {head}.\n"] * 2
    ), "both had asked before either had its turn"
    database = Database(empty_url)
    assert await schema.differences(database) == []
    await database.aclose()


@pytest.mark.parametrize("statements", [1, 9, 22])
@pytest.mark.parametrize("empty_url", ["sqlite", "postgresql"], indirect=True)
async def test_a_migration_killed_in_the_middle_leaves_the_database_where_it_was(
    empty_url: str, statements: int
) -> None:
    """Fault 51: killed in mid-migration; the next one begins where this one began, and ends it.

    Not on MySQL, which commits each statement that changes a table (docs/how-to/run-on-mysql.md).
    """
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED_IN_THE_MIDDLE, empty_url, str(statements), cwd=ROOT
    )
    async with asyncio.timeout(LIMIT_S):
        assert await killed.wait() == -signal.SIGKILL
    database = Database(empty_url)
    assert await schema.current_revision(database) is None
    assert await schema.standing(database) == schema.Standing.OLDER
    await schema.upgrade(database)
    assert await schema.differences(database) == []
    assert await schema.standing(database) == schema.Standing.CURRENT
    await database.aclose()


LATER = '''"""A later release's."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"
serves_code_of = "{serves}"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("of_a_later_release", sa.String(length=8), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("of_a_later_release")
'''


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The migrations of a later release, which expands a table that this one writes."""
    return _later(tmp_path / "later", serves=schema.head_revision())


def _later(folder: Path, *, serves: str) -> Path:
    shutil.copytree(schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = LATER.format(head=schema.head_revision(), serves=serves)
    (folder / "versions" / "9999_later.py").write_text(text)
    return folder


async def test_a_release_works_on_through_and_after_the_migration_of_the_next_one(
    database_url: str, tmp_path: Path, later: Path
) -> None:
    """Fault 51: `migrate` while the old version runs, and old code that starts on the new schema."""
    settings = make_settings(tmp_path, database_url=database_url, cog_urls="http://127.0.0.1:1")
    operator = Database(database_url)
    async with open_runtime(settings) as runtime:
        before = await runtime.jobs.submit(_asked())
        assert len(await _listed(runtime)) == 1
        await schema.upgrade(operator, migrations=later)
        after = await runtime.jobs.submit(_asked())
        assert await _listed(runtime) == [after.job.id, before.job.id]
        assert (await runtime.jobs.cancel(before.job.id)).job.state == "canceled"
    assert await schema.current_revision(operator) == "9999"
    assert await schema.standing(operator) == schema.Standing.NEWER
    async with open_runtime(settings) as runtime:
        again = await runtime.jobs.submit(_asked())
        assert (await _listed(runtime))[0] == again.job.id
        await schema.downgrade(operator, schema.head_revision(), migrations=later)
        assert len(await _listed(runtime)) == 3, "rolled back while it runs"
    assert await schema.standing(operator) == schema.Standing.CURRENT
    assert await schema.differences(operator) == []
    await operator.aclose()


async def test_a_schema_that_this_release_cannot_work_with_is_refused_at_the_start(
    database_url: str, tmp_path: Path
) -> None:
    """Fault 51: the later release has contracted the schema, or says nothing."""
    operator = Database(database_url)
    for number, serves in enumerate(("9999", "0001")):
        folder = _later(tmp_path / f"later-{number}", serves=serves)
        if number:
            # One migration that suits us does not mend another that does not.
            (folder / "versions" / "9998_between.py").write_text(
                (folder / "versions" / "9999_later.py").read_text().replace("9999", "9998")
                .replace('serves_code_of = "0001"', "").replace("of_a_later", "of_a_less_late")
            )  # fmt: skip
            path = folder / "versions" / "9999_later.py"
            path.write_text(path.read_text().replace(f'"{schema.head_revision()}"', '"9998"', 1))
        await schema.upgrade(operator, migrations=folder)
        assert await schema.standing(operator) == schema.Standing.FOREIGN
        with pytest.raises(StartupError, match="9999, which this release"):
            async with open_runtime(make_settings(tmp_path, database_url=database_url)):
                pass
        await schema.downgrade(operator, schema.head_revision(), migrations=folder)
    await operator.aclose()


@pytest.mark.parametrize("database_url", ["postgresql", "mysql"], indirect=True)
async def test_a_migration_that_meets_a_long_transaction_gives_up_and_changes_nothing(
    database_url: str, later: Path
) -> None:
    """Fault 51: who waits for a table's lock would stop every request behind him."""
    operator, running = Database(database_url, PoolLimits(timeout_s=0.5)), Database(database_url)
    async with running.reading() as tx:
        await tx.execute(text("SELECT * FROM jobs"))
        with pytest.raises(DatabaseUnavailable, match=r"lock timeout|Lock wait timeout"):
            await schema.upgrade(operator, migrations=later)
    assert await schema.current_revision(operator) == schema.head_revision()
    await schema.upgrade(operator, migrations=later)
    await asyncio.gather(operator.aclose(), running.aclose())


def _asked() -> JobRequest:
    return JobRequest("sound_effect", {"prompt": "rain", "duration_s": 1}, {})


async def _listed(runtime: Runtime) -> list[str]:
    views, _ = await runtime.jobs.list_jobs(JobFilter(tenant="default"), limit=10)
    return [view.job.id for view in views]


async def _migrate(url: str, folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "migrate", cwd=ROOT, stdout=subprocess.PIPE,
        env={**os.environ, "DATABASE_URL": url, "VAR_DIR": str(folder / "var")},
    )  # fmt: skip


_WAITING = (
    "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database"
    " WHERE locktype = 'advisory' AND NOT granted AND d.datname = current_database()"
)
_WAITING_ON_MYSQL = (
    "SELECT count(*) FROM information_schema.processlist WHERE db = database() AND state = 'User lock'"
)


@asynccontextmanager
async def _gate(url: str) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """On a server: the lock in the hands of a third, so that both are sure to meet. How many wait for it."""
    database = Database(url)
    if database.is_sqlite:
        yield _both
        return
    async with database.engine.connect() as gate:
        if database.is_mysql:
            await gate.run_sync(take_turn, limit_s=0)
        else:
            await gate.execute(select(func.pg_advisory_lock(schema._LOCK)))

        async def waiting() -> int:
            question = text(_WAITING_ON_MYSQL if database.is_mysql else _WAITING)
            return int((await gate.execute(question)).scalar_one())

        yield waiting
        # A lock of the session: it is given back with the connection.
        await gate.invalidate()
    await database.aclose()


async def _both() -> int:
    return 2
