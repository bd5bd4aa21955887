"""The stage of the flow tests: a whole service in one process, with a Replicate of our own on the other side.

Owns `open_stage` and the fixtures on it: a real database of each kind, real stations driven by `drain`, the
real web app, and a `FakeReplicate` whose signed webhooks come in through that app. Nothing here sleeps; what
is due later is made due by moving its row (`Stage.hurry`, `Stage.age`), never the clock.
"""

from __future__ import annotations

import asyncio
import base64
import io
import math
import secrets
import shutil
import struct
import wave
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from sqlalchemy import func, select, update
from sqlmodel import SQLModel, col

from app.dispatch import Route
from app.main import create_app
from app.outbound import Outbound
from app.provider.cog import Cog
from app.provider.replicate import Replicate
from app.wiring import Runtime, open_runtime
from db.tables import Announcement, Attempt, Circuit, Delivery, Endpoint, Job
from tests.conftest import SERVERS, TEMPLATE, MariadbServer, PostgresServer, drain, make_settings, migrate
from tests.fakes.cog import FakeCog
from tests.fakes.provider import SECRET, TOKEN, FakeReplicate, served
from tests.flow.witness import Witness

PUBLIC_URL = "https://reprise.test"
AT_THE_EDGE = {"test_bad_input", "test_forgeries", "test_slow_callers"}
COG_URL = "http://cog.test:5000"


def tone(seconds: float = 0.6, *, volume: float = 0.4, pad_s: float = 0.0, hz: float = 440.0) -> bytes:
    """A WAV file: a tone between two stretches of silence."""
    rate = 8000
    sine = [round(32767 * volume * math.sin(2 * math.pi * hz * n / rate)) for n in range(int(seconds * rate))]
    quiet = [0] * int(pad_s * rate)
    frames = [*quiet, *sine, *quiet]
    target = io.BytesIO()
    with wave.open(target, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(struct.pack(f"<{len(frames)}h", *frames))
    return target.getvalue()


def as_data_uri(content: bytes, media_type: str = "audio/wav") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


TONE = as_data_uri(tone())


@dataclass(frozen=True, slots=True)
class Stage:
    """A service, its caller, and its provider."""

    runtime: Runtime
    client: httpx.AsyncClient
    """The caller, speaking to the app without a socket."""
    fake: FakeReplicate
    cog: FakeCog
    witness: Witness

    async def drain(self) -> int:
        return await drain(self.runtime)

    async def ask(self, prompt: str = "rain", **body: Any) -> str:
        """Ask for a sound effect; the job's id."""
        wanted = {"kind": "sound_effect", "input": {"prompt": prompt, "duration_s": 1}, **body}
        reply = await self.client.post("/v1/jobs", json=wanted)
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    async def start(self, **body: Any) -> tuple[str, str]:
        """Ask, and let it be dispatched to Replicate; the job's id and the prediction's."""
        job_id = await self.ask(**body)
        await self.drain()
        return job_id, list(self.fake.predictions)[-1]

    async def read(self, job_id: str) -> dict[str, Any]:
        reply = await self.client.get(f"/v1/jobs/{job_id}")
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def state(self, job_id: str) -> str:
        return str((await self.read(job_id))["state"])

    async def events(self, job_id: str) -> list[str]:
        """The types of the job's events; their numbers have no gap."""
        items = (await self.client.get(f"/v1/jobs/{job_id}/events")).json()["items"]
        assert [item["seq"] for item in items] == list(range(1, len(items) + 1))
        return [item["type"] for item in items]

    async def ledger(self, **wanted: str) -> list[dict[str, Any]]:
        """Deliveries, oldest first."""
        reply = await self.client.get("/v1/deliveries", params={"limit": "200", **wanted})
        return list(reply.json()["items"][::-1])

    async def outcomes(self, **wanted: str) -> list[str | None]:
        return [item["outcome"] for item in await self.ledger(**wanted)]

    async def post(
        self, attempt_id: str, body: bytes, headers: Mapping[str, str], *, token: str | None = None
    ) -> httpx.Response:
        """Post to an attempt's callback URL, as Replicate would."""
        token = self.runtime.callbacks.token(attempt_id) if token is None else token
        return await self.client.post(
            f"/v1/webhooks/replicate/{attempt_id}?token={token}", content=body, headers=dict(headers)
        )

    async def count(self, table: type[SQLModel]) -> int:
        async with self.runtime.line.database.reading() as tx:
            return int((await tx.execute(select(func.count()).select_from(table))).scalar_one())

    async def rows(self, table: type[SQLModel]) -> list[Any]:
        """Every row of a table, oldest first."""
        async with self.runtime.line.database.reading() as tx:
            found = await tx.execute(select(table.__table__).order_by("id"))  # type: ignore[attr-defined]
            return [table(**row) for row in found.mappings()]

    async def attempts(self) -> list[Attempt]:
        return await self.rows(Attempt)

    async def hurry(self) -> None:
        """Make everything that waits for a later time due now."""
        past = datetime.now(UTC) - timedelta(seconds=1)
        async with self.runtime.line.database.transaction() as tx:
            await tx.execute(update(Job).values(run_after=past))
            await tx.execute(update(Attempt).values(check_at=past))
            await tx.execute(update(Delivery).values(run_after=past))
            await tx.execute(update(Announcement).values(run_after=past))
            await tx.execute(update(Endpoint).values(paused_until=None))
            open_ones = update(Circuit).where(col(Circuit.open_until).is_not(None))
            await tx.execute(open_ones.values(open_until=past, probe_until=None))

    async def change(self, table: type[SQLModel], row_id: str, **values: Any) -> None:
        """Write values into a row, behind everybody's back."""
        async with self.runtime.line.database.transaction() as tx:
            await tx.execute(update(table).where(col(table.id) == row_id).values(**values))  # type: ignore[attr-defined]

    async def age(self, seconds: float) -> None:
        """Let every live job and attempt be older by so much, its deadline nearer."""
        for attempt in await self.attempts():
            created_at = attempt.created_at - timedelta(seconds=seconds)
            check_at = attempt.check_at - timedelta(seconds=seconds)
            limits = {
                name: getattr(attempt, name) - timedelta(seconds=seconds)
                for name in ("limit_at", "start_by")
                if getattr(attempt, name) is not None
            }
            await self.change(Attempt, attempt.id, created_at=created_at, check_at=check_at, **limits)
        for job in await self.rows(Job):
            deadline_at = job.deadline_at - timedelta(seconds=seconds)
            run_after = job.run_after - timedelta(seconds=seconds)
            created_at = job.created_at - timedelta(seconds=seconds)
            await self.change(
                Job, job.id, created_at=created_at, deadline_at=deadline_at, run_after=run_after
            )

    async def look(self) -> None:
        """What recovery does on its schedule, with everything silent long enough; then all that follows."""
        await self.hurry()
        await self.runtime.recovery.check()
        await self.drain()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is decided at the edge is decided alike over every server: there one of them is enough."""
    spared = [item for item in items if item.path.stem in AT_THE_EDGE and "[mysql" in item.name]
    if spared:
        config.hook.pytest_deselected(items=spared)
        items[:] = [item for item in items if item not in spared]


class OpenStage(Protocol):
    """`open_stage` with the test's folder and database filled in."""

    def __call__(
        self, *, routes: tuple[str, ...] = ..., serve: bool = ..., ports: Any = ..., **settings: object
    ) -> AbstractAsyncContextManager[Stage]: ...


@asynccontextmanager
async def open_stage(
    folder: Path,
    database_url: str,
    *,
    routes: tuple[str, ...] = ("replicate",),
    serve: bool = False,
    ports: Mapping[str, Any] | None = None,
    excused: frozenset[str] = frozenset(),
    **settings: object,
) -> AsyncIterator[Stage]:
    """Build it. `serve` puts the fake on loopback, so that outputs can be fetched from it; `ports` go to
    `open_runtime`, the rest into the settings. What `tests/flow/witness.py` holds is checked at its end, but
    for the laws that are `excused`."""
    async with AsyncExitStack() as stack:
        fake = FakeReplicate()
        if serve:
            await stack.enter_async_context(served(fake))
        cog = FakeCog()
        providers = {
            "replicate": Route(
                Replicate(
                    token=TOKEN,
                    base_url=fake.base_url,
                    secrets=[SECRET],
                    transport=httpx.ASGITransport(app=fake),
                )
            ),
            "cog": Route(Cog(urls={"*": COG_URL}, transport=httpx.ASGITransport(app=cog)), slots=1),
        }
        values = {"database_url": database_url, "public_url": PUBLIC_URL, **settings}
        replaced: dict[str, Any] = {
            "routes": {name: providers[name] for name in routes},
            "outbound": Outbound(idle_timeout_s=20, connect_timeout_s=20),
            **(ports or {}),
        }
        runtime = await stack.enter_async_context(open_runtime(make_settings(folder, **values), **replaced))
        for name in providers.keys() - set(routes):
            stack.push_async_callback(providers[name].provider.aclose)
        app = create_app(runtime)
        witness = Witness(excused=excused)
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app, raise_app_exceptions=False),
                base_url=PUBLIC_URL,
                event_hooks={"response": [witness.see]},
            )
        )
        fake.hooks = cog.hooks = client
        yield Stage(runtime, client, fake, cog, witness)
        if broken := await witness.verdict(runtime.line.database):
            pytest.fail("\n".join(broken[:20]), pytrace=False)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file: copied for each test, because migrating takes longer than the test."""
    path = tmp_path_factory.mktemp("template") / "reprise.db"
    asyncio.run(migrate(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "reprise.db")
    return f"sqlite+aiosqlite:///{tmp_path}/reprise.db"


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty, migrated database of each kind."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    server: PostgresServer | MariadbServer = request.getfixturevalue(SERVERS[request.param])
    name = f"test_{secrets.token_hex(6)}"
    server.create(name, TEMPLATE)
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def excused(request: pytest.FixtureRequest) -> frozenset[str]:
    """The laws that this test's marks say it breaks."""
    return frozenset(law for mark in request.node.iter_markers("breaks") for law in mark.args)


@pytest.fixture
def stage_on(tmp_path: Path, database_url: str, excused: frozenset[str]) -> OpenStage:
    """Opens a stage on a database of each kind, with settings and ports of the test's own."""
    return partial(open_stage, tmp_path, database_url, excused=excused)


@pytest.fixture
def stage_on_sqlite(tmp_path: Path, sqlite_url: str, excused: frozenset[str]) -> OpenStage:
    """The same on SQLite alone: for promises that no row's lock can break."""
    return partial(open_stage, tmp_path, sqlite_url, excused=excused)


@pytest.fixture
async def line(stage_on: OpenStage) -> AsyncIterator[Stage]:
    """A stage with the default settings on a database of each kind."""
    async with stage_on() as stage:
        yield stage


@pytest.fixture
async def sqlite_line(stage_on_sqlite: OpenStage) -> AsyncIterator[Stage]:
    async with stage_on_sqlite() as stage:
        yield stage
