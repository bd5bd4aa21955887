"""The parts that tests are built from: real databases, a real runtime, and the drain that replaces sleeping.

PostgreSQL is a real server, from a wheel's binaries, started once a run under an unprivileged user; each
test has a database of its own, copied from a migrated template. `drain` runs the stations until nothing is
due, so no test waits for a clock.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import psutil
import pytest

from app.settings import Settings, load_settings
from app.wiring import Runtime
from app.work import Station
from db import schema
from db.session import Database
from tests.postgres import running_postgres

TEMPLATE = "reprise_template"
STATIONS = (Station.APPLY, Station.DISPATCH, Station.FINISH)


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A PostgreSQL on a free loopback port, with a migrated template database."""

    port: int

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, template: str = "template1") -> None:
        asyncio.run(self._execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"'))

    def drop(self, database: str) -> None:
        asyncio.run(self._execute(f'DROP DATABASE "{database}" WITH (FORCE)'))

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.port, user="postgres", database="postgres"
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server. Skips, with the reason, where its wheel has no binaries for this machine."""
    with running_postgres() as port:
        server = PostgresServer(port)
        server.create(TEMPLATE)
        asyncio.run(migrate(server.url(TEMPLATE)))
        yield server


async def migrate(url: str) -> None:
    database = Database(url)
    await schema.upgrade(database)
    await database.aclose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty, migrated database of each kind."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/reprise.db"
        asyncio.run(migrate(url))
        yield url
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"test_{secrets.token_hex(6)}"
    server.create(name, TEMPLATE)
    yield server.url(name)
    server.drop(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.aclose()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that touch nothing outside the test's folder, on SQLite."""
    return make_settings(tmp_path)


def make_settings(folder: Path, **overrides: object) -> Settings:
    """Settings for a service that lives in `folder`, whatever the environment says."""
    values: dict[str, object] = {
        "database_url": f"sqlite+aiosqlite:///{folder}/reprise.db",
        "storage_url": f"file://{folder}/assets",
        "var_dir": folder / "var",
        **overrides,
    }
    return load_settings(_env_file=None, **values)


async def drain(runtime: Runtime, *, rounds: int = 200) -> int:
    """Run every station on what is due until nothing is; how many steps that took.

    Rows that are due only later stay: a test that wants them moves the row's `run_after`, not the clock.
    """
    rooms = {
        Station.APPLY: runtime.inbox,
        Station.DISPATCH: runtime.dispatcher,
        Station.FINISH: runtime.finisher,
    }
    steps = 0
    for _ in range(rounds):
        worked = 0
        for station in STATIONS:
            async with runtime.line.database.reading() as tx:
                due = await rooms[station].due(tx, datetime.now(UTC), 100)
            for row_id in due:
                await rooms[station].step(row_id)
            worked += len(due)
        if not worked:
            return steps
        steps += worked
    raise AssertionError("the stations never came to rest")


@pytest.fixture
def children() -> Iterator[Callable[[], list[psutil.Process]]]:
    """The processes begun under this test, and the promise that it leaves none behind."""
    me = psutil.Process()
    before = {process.pid for process in me.children(recursive=True)}

    def living() -> list[psutil.Process]:
        return [process for process in me.children(recursive=True) if process.pid not in before]

    yield living
    _, alive = psutil.wait_procs(living(), timeout=5)
    assert not alive, f"left running: {[process.cmdline() for process in alive]}"
