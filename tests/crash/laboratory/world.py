"""What a run in the laboratory stands on: the database, the store, the provider, the machines.

On SQLite one machine with one process tree; on PostgreSQL two machines with folders of their own and
nothing in common but the server (fsync on), a bucket behind S3's protocol and the address that callers use.
The provider and the bucket are processes of their own and are never killed here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import Executable

from tests.conftest import BUCKET, migrate
from tests.crash.child import ROOT, START_LIMIT_S, free_port, kin_of
from tests.crash.laboratory.balancer import balanced
from tests.crash.laboratory.members import Machine, Member
from tests.fakes.provider import SECRET, TOKEN
from tests.postgres import running_postgres

BUCKET_KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "eu-west-1",
}


@dataclass
class World:
    """Everything that a run needs, started."""

    folder: Path
    database_url: str
    storage_url: str
    bucket: Mapping[str, str]
    """How a bucket is reached, as environment variables; empty for a folder."""
    url: str
    """The address for callers and providers: whichever web answers."""
    machines: list[Machine]
    engine: AsyncEngine
    client: httpx.AsyncClient
    provider: httpx.AsyncClient
    outside: list[asyncio.subprocess.Process]
    """The provider and the bucket."""

    @property
    def members(self) -> list[Member]:
        return [member for machine in self.machines for member in machine.members]

    @property
    def faults(self) -> list[str]:
        return [fault for member in self.members for fault in member.faults]

    async def ask(self, statement: Executable) -> Sequence[Row[Any]]:
        """The rows of a query. A connection that was cut, or a server that recovers, is asked again."""
        async with asyncio.timeout(START_LIMIT_S):
            while True:
                try:
                    async with self.engine.connect() as connection:
                        return (await connection.execute(statement)).all()
                except (DBAPIError, OSError):
                    await asyncio.sleep(0.1)

    def kin(self) -> list[psutil.Process]:
        """Every living process that belongs to one of the machines, whoever its parent is."""
        return [process for machine in self.machines for process in kin_of(machine.var_dir.parent)]


@asynccontextmanager
async def opened(
    database: str,
    *,
    seed: int,
    trouble: float = 0.1,
    malice: float = 0.0,
    machines: int = 2,
    keep: bool = False,
    **settings: str,
) -> AsyncIterator[World]:
    """A world on `sqlite` or `postgresql`, its members alive, until the block ends.

    `machines` is for PostgreSQL: one is a web and a worker, the second a service that is all in one.
    `trouble` is how often the hosted provider stumbles, `malice` how often it does harm and the bucket
    refuses; `settings` are the service's own, over ours.
    """
    folder = Path(tempfile.mkdtemp(prefix="reprise-lab-"))
    async with AsyncExitStack() as stack:
        if not keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        outside: list[asyncio.subprocess.Process] = []
        provider_url = await _provider(stack, folder, outside, seed, (trouble, malice))
        shared = _settings(provider_url) | settings
        bucket: dict[str, str] = {}
        if database == "sqlite":
            shared |= {"DATABASE_URL": f"sqlite+aiosqlite:///{folder}/reprise.db"}
            shared |= {"STORAGE_URL": f"file://{folder}/assets"}
        else:
            shared |= {"DATABASE_URL": await _postgres(stack), "STORAGE_URL": f"s3://{BUCKET}"}
            bucket = await _bucket(stack, folder, outside, seed, malice)
        ports = [free_port()] if database == "sqlite" else [free_port(), free_port()]
        url = await stack.enter_async_context(balanced(ports))
        shared |= {"PUBLIC_URL": url, **bucket}
        plans = _plans(ports)[:1] if machines == 1 else _plans(ports)
        engine = create_async_engine(shared["DATABASE_URL"], poolclass=NullPool)
        stack.push_async_callback(engine.dispose)
        world = World(
            folder=folder,
            database_url=shared["DATABASE_URL"],
            storage_url=shared["STORAGE_URL"],
            bucket=bucket,
            url=url,
            machines=_machines(folder, plans, shared),
            engine=engine,
            client=await stack.enter_async_context(_client(url)),
            provider=await stack.enter_async_context(_client(provider_url)),
            outside=outside,
        )
        await stack.enter_async_context(_living(world))
        yield world


def _settings(provider_url: str) -> dict[str, str]:
    return {
        "REPLICATE_API_TOKEN": TOKEN,
        "REPLICATE_BASE_URL": provider_url,
        "REPLICATE_WEBHOOK_SECRET": SECRET,
        "OUTBOUND_ALLOW": "127.0.0.1",
        "LOG_FORMAT": "json",
        # A kill costs the job in hand an attempt; what is proven here is that nothing else is lost.
        "MAX_ATTEMPTS": "10",
        "MAX_CRASHES": "10",
        # A lost callback is looked for sooner than in production, so that a run need not wait for it.
        "SILENCE_S": "4",
        "RECOVERY_INTERVAL_S": "1",
        "RATE_LIMITS": "none",
    }


Plans = list[list[tuple[str, list[str]]]]


def _plans(ports: list[int]) -> Plans:
    """On SQLite all in one; on a server a web apart from its worker, and beside it a machine that is all."""
    service = [("service", ["serve", "--port", str(ports[-1])])]
    if len(ports) == 1:
        return [service]
    web = ("web", ["serve", "--no-worker", "--port", str(ports[0])])
    return [[web, ("worker", ["worker", "--gpu-worker"])], service]


def _machines(folder: Path, plans: Plans, shared: Mapping[str, str]) -> list[Machine]:
    machines = []
    for number, plan in enumerate(plans, 1):
        home = folder / f"machine-{number}"
        home.mkdir()
        environment = {**os.environ, **shared, "VAR_DIR": str(home / "var")}
        members = [
            Member(f"machine {number} {role}", command, environment, home / f"{role}.log", role != "web")
            for role, command in plan
        ]
        machines.append(Machine(f"machine {number}", home / "var", members))
    return machines


@asynccontextmanager
async def _living(world: World) -> AsyncIterator[None]:
    lives = [asyncio.create_task(member.live()) for member in world.members]
    try:
        await asyncio.gather(*(member.is_up() for member in world.members))
        yield
    finally:
        for member in world.members:
            member.ending = True
        for process in [process for machine in world.machines for process in machine.tree()]:
            process.kill()
        await asyncio.gather(*lives, return_exceptions=True)
        for process in world.kin():
            process.kill()


async def _postgres(stack: AsyncExitStack) -> str:
    # A server of the run's own, as safe as in production: what was committed is on the disk.
    server = running_postgres(fsync="on", full_page_writes="on")
    port = await asyncio.to_thread(server.__enter__)
    stack.callback(server.__exit__, None, None, None)
    url = f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
    await migrate(url)
    return url


async def _bucket(
    stack: AsyncExitStack,
    folder: Path,
    outside: list[asyncio.subprocess.Process],
    seed: int,
    trouble: float,
) -> dict[str, str]:
    port = free_port()
    moods = ("--seed", str(seed), "--trouble", str(trouble))
    await _beside(stack, folder, outside, "tests.crash.laboratory.bucket", "--port", str(port), *moods)
    url = f"http://127.0.0.1:{port}"
    async with _client(url) as client:
        await _answers(client, "/moto-api/")
        (await client.put(f"/{BUCKET}")).raise_for_status()
    return {"AWS_ENDPOINT_URL": url, **BUCKET_KEYS}


async def _provider(
    stack: AsyncExitStack,
    folder: Path,
    outside: list[asyncio.subprocess.Process],
    seed: int,
    chances: tuple[float, float],
) -> str:
    port = free_port()
    trouble, malice = map(str, chances)
    moods = ("--seed", str(seed), "--trouble", trouble, "--malice", malice)
    await _beside(stack, folder, outside, "tests.crash.laboratory.hosted", "--port", str(port), *moods)
    url = f"http://127.0.0.1:{port}"
    async with _client(url) as client:
        await _answers(client, "/lab/book")
    return url


async def _beside(
    stack: AsyncExitStack, folder: Path, outside: list[asyncio.subprocess.Process], module: str, *argv: str
) -> None:
    """A process of the world outside, until the run ends."""
    with (folder / f"{module}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *argv, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL,
            stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    outside.append(process)

    async def end() -> None:
        process.kill()
        await process.wait()

    stack.push_async_callback(end)


async def _answers(client: httpx.AsyncClient, path: str) -> None:
    async with asyncio.timeout(START_LIMIT_S):
        while True:
            try:
                await client.get(path)
                return
            except httpx.TransportError:
                await asyncio.sleep(0.05)


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=15, trust_env=False)
