"""The public JavaScript client of Socket.IO, as it is on npm, against the service: each event once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.callers import DEFAULT_TENANT, Caller, Scope
from tests.conftest import migrate
from tests.flow.conftest import TONE, Stage, open_stage
from tests.flow.sockets import LIMIT_S, served

CLIENT = Path(__file__).parents[2] / "app/web/static/vendor/socket.io.esm.min.js"
DRIVER = Path(__file__).with_name("socket_client.mjs")
NODE = shutil.which("node")
JOB_EVENTS = ("job_created", "job_updated", "job_completed", "job_failed", "job_cancelled")

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(NODE is None, reason="node is not on PATH: the JavaScript client cannot run"),
]


class Page:
    """A program that uses the public client, and what it heard."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._changed = asyncio.Condition()
        self.heard: list[tuple[str, Any]] = []

    async def say(self, event: str, payload: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([event, payload]).encode() + b"\n")
        await self._process.stdin.drain()

    async def wait_for(self, event: str, count: int = 1) -> Any:
        async with asyncio.timeout(LIMIT_S), self._changed:
            await self._changed.wait_for(lambda: len(self.named(event)) >= count)
        return self.named(event)[count - 1]

    async def wait_until_told(self, seq: int) -> None:
        async with asyncio.timeout(LIMIT_S), self._changed:
            await self._changed.wait_for(lambda: any(each["seq"] >= seq for each in self.named(*JOB_EVENTS)))

    def named(self, *events: str) -> list[Any]:
        return [payload for event, payload in self.heard if event in events]

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            async with self._changed:
                self.heard.append((said["event"], said["payload"]))
                self._changed.notify_all()


@asynccontextmanager
async def page(url: str, transport: str, token: str = "") -> AsyncIterator[Page]:
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, "--experimental-websocket", "--no-warnings", str(DRIVER), str(CLIENT), url, transport, token,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**22,
    )  # fmt: skip
    made = Page(process)
    listening = asyncio.create_task(made.listen())
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def work(stage: Stage, prefix: str) -> None:
    """One job that is canceled, one that succeeds, one that fails: each event that there is for jobs."""
    job_id = await stage.ask(f"{prefix} canceled")
    await stage.client.post(f"/v1/jobs/{job_id}/cancel")
    _, prediction = await stage.start(prompt=f"{prefix} done")
    await stage.fake.begin(prediction)
    await stage.drain()
    await stage.fake.finish(prediction, output=TONE)
    await stage.drain()
    await stage.ask(f"{prefix} failed", deadline_s=30)
    await stage.age(60)
    await stage.look()


async def feed(client: httpx.AsyncClient) -> list[tuple[int, str]]:
    items = (await client.get("/v1/events", params={"limit": 500})).json()["items"]
    return [(item["position"], item["job_id"]) for item in items]


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_the_public_client_hears_every_event_once_across_restarts(
    tmp_path: Path, transport: str
) -> None:
    """Fault 63: two restarts with events before, between and after them."""
    database_url, port = f"sqlite+aiosqlite:///{tmp_path}/reprise.db", free_port()
    await migrate(database_url)
    opened = partial(open_stage, tmp_path, database_url)
    async with page(f"http://127.0.0.1:{port}", transport) as client:
        for number in range(3):
            async with opened() as stage:
                # While nobody is connected: the client tries again and again.
                await work(stage, f"away {number}")
                async with served(stage.runtime, port=port):
                    await client.wait_for("subscribed", number + 1)
                    await work(stage, f"here {number}")
                    expected = await feed(stage.client)
                    await client.wait_until_told(expected[-1][0])
                await client.wait_for("disconnect", number + 1)
        told = [(each["seq"], each["job_id"]) for each in client.named(*JOB_EVENTS)]
        begun = client.named("subscribed")[0]["seq"]
        assert told == [each for each in expected if each[0] > begun]
        assert {event for event, _ in client.heard} >= {*JOB_EVENTS, "subscribed"}
        if transport == "websocket":
            # Who polls may be between two polls as the service goes.
            assert [each["reason"] for each in client.named("closed")] == ["stopping"] * 3
        assert client.named("connect")[0]["transport"] == transport


async def test_the_public_client_shows_a_key_gets_a_list_and_a_typed_refusal(tmp_path: Path) -> None:
    database_url = f"sqlite+aiosqlite:///{tmp_path}/reprise.db"
    await migrate(database_url)
    async with open_stage(tmp_path, database_url) as stage, served(stage.runtime) as (url, _):
        job_id = await stage.ask()
        admin = Caller(DEFAULT_TENANT, frozenset(Scope))
        issued = await stage.runtime.key_desk.create(admin, name="page", scopes=[Scope.JOBS_READ])
        stage.runtime.keyring.close_house()
        async with page(url, "websocket") as stranger:
            refusal = await stranger.wait_for("connect_error")
            assert refusal["data"]["code"] == "unauthenticated"
            assert refusal["message"] == refusal["data"]["message"]
            assert not stranger.named("connect")
        async with page(url, "websocket", issued.text) as client:
            assert (await client.wait_for("subscribed"))["job_id"] is None
            await client.say("request_jobs_list", {"limit": 10})
            assert [job["id"] for job in (await client.wait_for("jobs_list"))["jobs"]] == [job_id]
            await client.say("request_jobs_list", {"limit": 0})
            refused = await client.wait_for("error")
            assert (refused["code"], refused["field"]) == ("invalid_input", "limit")
