"""The parts that tests are built from: real databases, a real runtime, and the drain that replaces sleeping.

PostgreSQL is a real server, from a wheel's binaries, MariaDB one that the machine has; each is started once
a run under an unprivileged user, and each test has a database of its own, copied from a migrated template.
`drain` runs the stations until nothing is due, so no test waits for a clock.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import asyncmy
import asyncpg
import psutil
import pytest

from app.settings import Settings, load_settings
from app.wiring import Runtime
from app.work import Station, pack, unpack
from db import schema
from db.session import Database
from tests.mariadb import running_mariadb
from tests.postgres import running_postgres
from tests.second_s3 import URL_VARIABLE, emptied_bucket, forwarding_to

TEMPLATE = "reprise_template"
BUCKET = "assets"
SERVERS = {"postgresql": "postgres", "mysql": "mariadb"}
"""The fixture that has the server, by the kind of database."""
ITS_DATABASES = ("test\\_%", "crash\\_%", TEMPLATE)
PATIENCE_S = 300
"""How long an awaiting test may take. The longest takes a minute and a half on two idle cores."""
STATIONS = (Station.APPLY, Station.DISPATCH, Station.FINISH, Station.ANNOUNCE)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End an awaiting test that hangs as a failure that says which `await` hung. What hangs beside the event
    loop is ended by pytest's faulthandler (pyproject.toml), with its whole process."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _impatient(item.obj)


def _impatient(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    async def within(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await test(*args, **kwargs)

    return within


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


@dataclass(frozen=True, slots=True)
class MariadbServer:
    """A MariaDB on a free loopback port, with a migrated template database and a role like an operator's."""

    port: int

    def url(self, database: str, scheme: str = "mysql") -> str:
        return f"{scheme}+asyncmy://reprise:pass%2Fword@127.0.0.1:{self.port}/{database}"

    def let_in(self) -> None:
        """Make the role: it owns its databases, and nothing of the server."""
        asyncio.run(
            self.execute(
                "CREATE USER reprise@'%' IDENTIFIED BY 'pass/word'",
                *(f"GRANT ALL ON `{name}`.* TO reprise@'%'" for name in ITS_DATABASES),
            )
        )

    def create(self, database: str, template: str = "") -> None:
        """Make a database with the tables of the template and what says which revision they are of."""
        asyncio.run(self._create(database, template))

    def drop(self, database: str) -> None:
        asyncio.run(self.execute(f"DROP DATABASE `{database}`"))

    async def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run these as root; the rows of the last."""
        connection = await asyncmy.connect(host="127.0.0.1", port=self.port, user="root", autocommit=True)
        try:
            async with connection.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
                return list(await cursor.fetchall()) if cursor.description else []
        finally:
            await connection.ensure_closed()

    async def _create(self, database: str, template: str) -> None:
        # Not utf8mb4 and not case-sensitive: the tables must be so by themselves.
        made = f"CREATE DATABASE `{database}` CHARACTER SET latin1 COLLATE latin1_swedish_ci"
        if not template:
            await self.execute(made)
            return
        tables = [row[0] for row in await self.execute(f"SHOW TABLES IN `{template}`")]
        definitions = [
            (await self.execute(f"SHOW CREATE TABLE `{template}`.`{table}`"))[0][1] for table in tables
        ]
        await self.execute(
            made,
            f"USE `{database}`",
            "SET foreign_key_checks=0",  # in whatever order
            *definitions,
            f"INSERT INTO alembic_version SELECT * FROM `{template}`.alembic_version",
        )


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariadbServer]:
    """The server. Skips, with the reason, where this machine has none."""
    with running_mariadb() as port:
        server = MariadbServer(port)
        server.let_in()
        server.create(TEMPLATE)
        asyncio.run(migrate(server.url(TEMPLATE)))
        yield server


async def migrate(url: str) -> None:
    database = Database(url)
    await schema.upgrade(database)
    await database.aclose()


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty, migrated database of each kind."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/reprise.db"
        asyncio.run(migrate(url))
        yield url
        return
    server: PostgresServer | MariadbServer = request.getfixturevalue(SERVERS[request.param])
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
    """Settings for a service that lives in `folder`, whatever the environment says.

    Its database may take long: a machine that stalls for seconds is no matter of the test's.
    """
    values: dict[str, object] = {
        "database_url": f"sqlite+aiosqlite:///{folder}/reprise.db",
        "storage_url": f"file://{folder}/assets",
        "var_dir": folder / "var",
        "db_pool_timeout": 30.0,
        # The tests' load is no caller's; those of the limits set their own.
        "rate_limits": "none",
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
        Station.ANNOUNCE: runtime.announcer,
    }
    steps = 0
    for _ in range(rounds):
        worked = 0
        for station in STATIONS:
            async with runtime.line.database.reading() as tx:
                due = await rooms[station].due(tx, datetime.now(UTC), 100)
            for item in pack(station, due):
                await rooms[station].step(*unpack(item))
            worked += len(due)
        if not worked:
            return steps
        steps += worked
    raise AssertionError("the stations never came to rest")


async def becomes(condition: Callable[[], object], *, within_s: float = 15.0) -> None:
    """Wait for something that is about to be so, and fail where it never is."""
    try:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail("it never came about")


@pytest.fixture
def children() -> Iterator[Callable[[], list[psutil.Process]]]:
    """The processes begun under this test, and the promise that it leaves none behind."""
    me = psutil.Process()
    before = {process.pid for process in me.children(recursive=True)}

    def living() -> list[psutil.Process]:
        return [process for process in me.children(recursive=True) if process.pid not in before]

    yield living
    _, alive = psutil.wait_procs(living(), timeout=30)
    assert not alive, f"left running: {[process.cmdline() for process in alive]}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the bucket, as it came in."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    size_bytes: int


class Bucket:
    """A bucket that speaks S3: moto on a free loopback port, watched, and spoiled by `refuse` on the way.

    With REPRISE_TEST_S3_URL the bucket is that server's, and only the way to it is ours.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        other = os.environ.get(URL_VARIABLE)
        self._inner = forwarding_to(other) if other else DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.asked: list[Asked] = []
        self.refuse: Callable[[Asked], bool] | None = None
        self.status = 500
        self.code: str | None = None
        """The word in the body of a refusal, as S3 gives one."""
        self.hang: threading.Event | None = None
        """Refusals are answered only once it is set."""
        self._other: Any = None
        if other:
            key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
            self._other = emptied_bucket(other, BUCKET, key=key, secret=secret)
            return
        # Its state is the process's: every test begins with an empty one.
        self._call("POST", "/moto-api/reset")
        self._call("PUT", f"/{BUCKET}")
        self.asked.clear()

    def uploads(self) -> list[Asked]:
        """The requests that carried bytes of objects."""
        return [each for each in self.asked if each.method == "PUT"]

    def objects(self) -> list[str]:
        """The keys that are in the bucket."""
        if self._other is not None:
            return [each["Key"] for each in self._other.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
        listing = ElementTree.fromstring(self._call("GET", f"/{BUCKET}?list-type=2"))
        return [str(each.text) for each in listing.iter() if each.tag.endswith("}Key")]

    def close(self) -> None:
        """Stop; may be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        asked = Asked(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            environ["QUERY_STRING"],
            {
                name.removeprefix("HTTP_").replace("_", "-").lower(): value
                for name, value in environ.items()
                if name.startswith("HTTP_")
            },
            int(environ.get("CONTENT_LENGTH") or 0),
        )
        self.asked.append(asked)
        if self.refuse is None or not self.refuse(asked):
            return self._inner(environ, start)  # type: ignore[no-any-return]
        environ["wsgi.input"].read(asked.size_bytes)
        if self.hang is not None:
            self.hang.wait(30)
        body = f"<Error><Code>{self.code}</Code><Message>{self.code}</Message></Error>" if self.code else ""
        start(f"{self.status} Refused", [("Content-Length", str(len(body)))])
        return [b"" if asked.method == "HEAD" else body.encode()]

    def _call(self, method: str, path: str) -> bytes:
        connection = HTTPConnection("127.0.0.1", self._server.port, timeout=10)
        try:
            connection.request(method, path)
            return connection.getresponse().read()
        finally:
            connection.close()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, and the environment that an operator would set for it."""
    bucket = Bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
    if URL_VARIABLE not in os.environ:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    yield bucket
    bucket.close()
