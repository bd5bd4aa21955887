"""Cog's own traps, against a real Cog server (cog 0.23.1) that runs a small predictor of this file.

Also the home of `CogServer` and `Receiver`, which the common suite in `test_provider.py` borrows. Nothing
sleeps: the server's log lines and the hooks that arrive are what is waited for, each with a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.errors import PredictionUnknown, ProviderBusy, ProviderRejected, ProviderUnavailable
from app.provider.base import Order, Prediction
from app.provider.cog import Cog
from tests.fakes.provider import TERMINAL, served

pytestmark = pytest.mark.real

BOUND_S = 20.0
PREDICTOR = """
import os, signal, time
from cog import BaseRunner, Input

class Predictor(BaseRunner):
    def setup(self):
        if os.environ.get("BAD_SETUP"):
            raise RuntimeError("no model file")

    def run(self, mode: str = Input(default="succeed"), text: str = Input(default="hi")) -> str:
        print("progress 0.50 " + mode, flush=True)
        if mode == "raise":
            raise ValueError("boom")
        if mode == "exit":
            os._exit(3)
        # A cancel is an exception thrown between bytecodes: one sleep(60) would not notice it.
        # Log hooks closer than 0.5 s are dropped, not delayed: a line said once may never be heard.
        while mode == "sleep":
            time.sleep(0.05)
            print("progress 0.50 " + mode, flush=True)
        return text
"""
SCHEMA = {
    "openapi": "3.0.2",
    "info": {"title": "Cog", "version": "0.1.0"},
    "paths": {},
    "components": {
        "schemas": {
            "Input": {
                "type": "object",
                "title": "Input",
                "properties": {
                    "mode": {"type": "string", "default": "succeed", "x-order": 0},
                    "text": {"type": "string", "default": "hi", "x-order": 1},
                },
            },
            "Output": {"type": "string", "title": "Output"},
        }
    },
}


class Receiver:
    """Where hooks arrive: keeps each, answers 200 or, to terminal ones, what `refusals` says first."""

    def __init__(self) -> None:
        self.hooks: asyncio.Queue[tuple[str, dict[str, str], bytes, int]] = asyncio.Queue()
        self.refusals: deque[int] = deque()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        terminal = json.loads(body)["status"] in TERMINAL
        status = self.refusals.popleft() if terminal and self.refusals else 200
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        self.hooks.put_nowait((scope["path"], headers, body, status))
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def news(self) -> tuple[str, dict[str, str], bytes, int]:
        async with asyncio.timeout(BOUND_S):
            return await self.hooks.get()

    async def terminal(self) -> tuple[str, dict[str, str], bytes, int]:
        while True:
            hook = await self.news()
            if json.loads(hook[2])["status"] in TERMINAL:
                return hook


class CogServer:
    """A real Cog server in its own process group; `lines` is its log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, folder: Path, *, schema: bool = False, **env: str) -> CogServer:
        (folder / "predict.py").write_text(PREDICTOR)
        if schema:
            (folder / ".cog").mkdir()
            (folder / ".cog" / "openapi_schema.json").write_text(json.dumps(SCHEMA))
        settings = {
            # It starts its worker as a bare `python`.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
            "PORT": "0",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1",
            cwd=folder, env={**os.environ, **settings, **env}, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        server = cls(process)
        line = await server.logged("Starting coglet server on ")
        server.url = "http://" + line.split("Starting coglet server on ")[1].split('"')[0]
        return server

    async def logged(self, text: str) -> str:
        """The first log line that holds `text`, now or within the bound."""
        async with asyncio.timeout(BOUND_S), self._changed:
            while not (found := [line for line in self.lines if text in line]):
                assert not self._reading.done(), f"{text!r} was never logged: {self.lines[-5:]}"
                await self._changed.wait()
        return found[0]

    async def ready(self) -> CogServer:
        await self.logged("now accepting requests")
        return self

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        async with asyncio.timeout(BOUND_S):
            await self._reading
            await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._changed:
                self.lines.append(line.decode(errors="replace"))
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    app = Receiver()
    async with served(app) as url:
        yield app, url


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[CogServer]:
    running = await CogServer.start(tmp_path)
    try:
        yield await running.ready()
    finally:
        await running.kill()


@pytest.fixture
async def cog(server: CogServer) -> AsyncIterator[Cog]:
    provider = Cog(urls={"*": server.url})
    yield provider
    await provider.aclose()


def order(receiver: tuple[Receiver, str], mode: str, attempt_id: str = "att_1") -> Order:
    return Order(
        attempt_id=attempt_id,
        kind="music",
        model="music",
        input={"mode": mode},
        callback_url=f"{receiver[1]}/v1/webhooks/cog/{attempt_id}?token=t0k",
    )


async def ended(cog: Cog, receiver: tuple[Receiver, str]) -> Prediction:
    return cog.parse((await receiver[0].terminal())[2])


async def test_the_hook_comes_to_our_own_url_under_our_own_id(
    cog: Cog, receiver: tuple[Receiver, str]
) -> None:
    made = await cog.create(order(receiver, "succeed", "att_own"))
    path, headers, body, _ = await receiver[0].terminal()
    assert path == "/v1/webhooks/cog/att_own"
    assert made.id == cog.parse(body).id == "att_own"
    assert cog.verify(headers, body, now=datetime.now(UTC)).message_id is None


async def test_a_crashed_worker_is_unavailable_and_not_busy(cog: Cog, receiver: tuple[Receiver, str]) -> None:
    await cog.create(order(receiver, "exit"))
    news = await ended(cog, receiver)
    assert (news.status, news.error) == ("failed", "Worker crashed")
    with pytest.raises(ProviderUnavailable, match="UNHEALTHY") as caught:
        await cog.create(order(receiver, "succeed", "att_2"))
    assert not caught.value.ambiguous
    assert (await cog.health()).state == "down"


async def test_a_refused_terminal_hook_comes_again_unchanged(
    cog: Cog, receiver: tuple[Receiver, str]
) -> None:
    receiver[0].refusals.extend([500, 503])
    await cog.create(order(receiver, "succeed"))
    tries = [await receiver[0].terminal() for _ in range(3)]
    assert [status for *_, status in tries] == [500, 503, 200]
    assert len({body for _, _, body, _ in tries}) == 1


async def test_two_at_once_are_busy_and_nothing_is_created(cog: Cog, receiver: tuple[Receiver, str]) -> None:
    await cog.create(order(receiver, "sleep"))
    with pytest.raises(ProviderBusy):
        await cog.create(order(receiver, "succeed", "att_2"))
    assert (await cog.health()).state == "busy"
    await cog.cancel("att_1")
    assert (await ended(cog, receiver)).status == "canceled"


async def test_a_repeated_create_while_in_flight_is_the_same_prediction(
    cog: Cog, receiver: tuple[Receiver, str]
) -> None:
    await cog.create(order(receiver, "sleep"))
    again = await cog.create(order(receiver, "sleep"))
    assert again.id == "att_1"
    assert again.status in ("starting", "processing")
    await cog.cancel("att_1")
    assert (await ended(cog, receiver)).status == "canceled"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_stopped_server_loses_its_hook_and_says_nothing(
    cog: Cog, server: CogServer, receiver: tuple[Receiver, str], number: signal.Signals
) -> None:
    await cog.create(order(receiver, "sleep"))
    await receiver[0].news()  # it runs
    server.process.send_signal(number)
    if number == signal.SIGTERM:
        await server.logged("Server shutdown complete")
    await server.kill()
    while not receiver[0].hooks.empty():
        assert cog.parse(receiver[0].hooks.get_nowait()[2]).status not in TERMINAL
    with pytest.raises(ProviderUnavailable) as caught:
        await cog.create(order(receiver, "sleep"))
    assert not caught.value.ambiguous
    with pytest.raises(PredictionUnknown):
        await cog.get("att_1")


async def test_a_failed_setup_is_final(tmp_path: Path, receiver: tuple[Receiver, str]) -> None:
    server = await CogServer.start(tmp_path, BAD_SETUP="1")
    cog = Cog(urls={"*": server.url})
    try:
        await server.logged("no model file")
        await server.logged("Setup failed")
        with pytest.raises(ProviderRejected, match="setup failed"):
            await cog.create(order(receiver, "succeed"))
        assert (await cog.health()).state == "down"
    finally:
        await cog.aclose()
        await server.kill()


async def test_the_bearer_token_of_the_server_is_what_verify_asks_for(
    tmp_path: Path, receiver: tuple[Receiver, str]
) -> None:
    server = await CogServer.start(tmp_path, WEBHOOK_AUTH_TOKEN="s3cret")
    cog = Cog(urls={"*": server.url}, webhook_auth_token="s3cret")
    try:
        await server.ready()
        await cog.create(order(receiver, "succeed"))
        _, headers, body, _ = await receiver[0].terminal()
        assert cog.verify(headers, body, now=datetime.now(UTC)).message_id is None
    finally:
        await cog.aclose()
        await server.kill()


async def test_a_validated_input_is_rejected_with_its_field(
    tmp_path: Path, receiver: tuple[Receiver, str]
) -> None:
    server = await CogServer.start(tmp_path, schema=True)
    cog = Cog(urls={"*": server.url})
    try:
        await server.ready()
        wrong = order(receiver, "succeed")
        wrong = Order(wrong.attempt_id, wrong.kind, wrong.model, {"mode": 5}, wrong.callback_url)
        with pytest.raises(ProviderRejected) as caught:
            await cog.create(wrong)
        assert caught.value.status == 422
        assert "mode" in caught.value.invalid_fields[0]["field"]
    finally:
        await cog.aclose()
        await server.kill()
