"""The promises of `CogSupervisor`, kept against a real Cog server."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import soundfile
import structlog

from app.engines.supervisor import OUR_PREDICTOR, CogSupervisor
from app.errors import EngineUnavailable

Children = Callable[[], list[psutil.Process]]

pytestmark = pytest.mark.real

FRAGILE = """
import os, signal
from cog import BaseRunner

class Runner(BaseRunner):
    def run(self, mode: str = "") -> str:
        if mode == "exit":
            os._exit(3)
        while mode == "busy":
            pass
        return "well"
"""
SLOW = """
import os, time
from cog import BaseRunner

class Runner(BaseRunner):
    def setup(self):
        while os.path.exists(__file__ + ".slow"):
            time.sleep(0.01)
    def run(self) -> str:
        return ""
"""
BROKEN = """
from cog import BaseRunner

class Runner(BaseRunner):
    def setup(self):
        raise RuntimeError("no such weights")
    def run(self) -> str:
        return ""
"""


class Hooks:
    """A listener for webhooks on loopback that lets a test wait for one."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self.url = ""

    async def wait_for(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(20), self._news:
            while True:
                for hook in self.received:
                    if wanted(hook):
                        return hook
                await self._news.wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.split("content-length:")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(size))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with self._news:
            self.received.append(body)
            self._news.notify_all()


@pytest.fixture
async def hooks() -> AsyncIterator[Hooks]:
    listener = Hooks()
    server = await asyncio.start_server(listener._answer, "127.0.0.1", 0, limit=1 << 26)
    listener.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
    async with server:
        yield listener


@pytest.fixture
def fragile(tmp_path: Path) -> str:
    file = tmp_path / "fragile.py"
    file.write_text(FRAGILE)
    return f"{file}:Runner"


@asynccontextmanager
async def supervised(
    tmp_path: Path, predictor: str, on_restart: Callable[[datetime], Awaitable[None]] | None = None
) -> AsyncIterator[CogSupervisor]:
    async def ignore(_moment: datetime) -> None: ...

    supervisor = CogSupervisor(
        predictor=predictor,
        tmp=tmp_path / "engine",
        setup_timeout_s=30,
        on_restart=on_restart or ignore,
        log=structlog.get_logger(),
    )
    await supervisor.start()
    watch = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
    finally:
        await supervisor.stop()
        await asyncio.wait_for(watch, 10)


async def put(supervisor: CogSupervisor, prediction_id: str, hooks: Hooks | None, **inputs: Any) -> int:
    body: dict[str, Any] = {"input": inputs}
    if hooks is not None:
        body["webhook"] = hooks.url
    async with httpx.AsyncClient(base_url=supervisor.url, timeout=10, trust_env=False) as client:
        headers = {"prefer": "respond-async"}
        answer = await client.put(f"/predictions/{prediction_id}", json=body, headers=headers)
        return answer.status_code


def processes_of(supervisor: CogSupervisor) -> list[psutil.Process]:
    server = psutil.Process(supervisor.pid)
    return [server, *server.children(recursive=True)]


async def until_gone(processes: list[psutil.Process]) -> None:
    _gone, left = await asyncio.to_thread(psutil.wait_procs, processes, timeout=10)
    # An orphan that no init reaps stays as a zombie: dead all the same.
    assert [one for one in left if one.status() != psutil.STATUS_ZOMBIE] == []


async def test_speech_is_rendered_and_arrives_by_webhook(tmp_path: Path, hooks: Hooks) -> None:
    async with supervised(tmp_path, OUR_PREDICTOR) as supervisor:
        text = "It was the best of times, it was the worst of times. " * 90
        assert await put(supervisor, "spoken", hooks, kind="speech", text=text, seed=7) == 202
        logged = await hooks.wait_for(lambda hook: "progress" in hook.get("logs", ""))
        done = await hooks.wait_for(lambda hook: hook["status"] in {"succeeded", "failed"})
        scratch = list((tmp_path / "engine" / "worker").iterdir())

    assert "progress 0.00 speaking\n" in logged["logs"]
    assert done["status"] == "succeeded"
    output = done["output"]
    assert sorted(output) == ["audio", "details", "duration_s", "engine", "recipe", "seed"]
    media_type, _, encoded = output["audio"].partition(";base64,")
    assert media_type == "data:audio/flac"
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)))
    assert rate == 24_000
    assert len(sound) / rate == pytest.approx(output["duration_s"], abs=1e-3)
    assert output["seed"] == 7
    assert json.loads(output["details"])["sentences"] == 90
    assert len(scratch) == 1


async def test_a_running_rendering_can_be_canceled(tmp_path: Path, hooks: Hooks) -> None:
    async with supervised(tmp_path, OUR_PREDICTOR) as supervisor:
        await put(supervisor, "long", hooks, kind="speech", text="9" * 4900)
        await hooks.wait_for(lambda hook: "progress 0." in hook.get("logs", ""))
        async with httpx.AsyncClient(base_url=supervisor.url, trust_env=False) as client:
            assert (await client.post("/predictions/long/cancel")).status_code == 200
        await hooks.wait_for(lambda hook: hook["status"] == "canceled")
        await put(supervisor, "next", hooks, kind="speech", text="Still here.", language="fr")
        done = await hooks.wait_for(lambda hook: hook["id"] == "next" and "predict_time" in hook["metrics"])
    assert done["status"] == "succeeded"


async def test_a_refusal_says_why(tmp_path: Path, hooks: Hooks) -> None:
    async with supervised(tmp_path, OUR_PREDICTOR) as supervisor:
        await put(supervisor, "silent", hooks, kind="speech", text="...")
        failed = await hooks.wait_for(lambda hook: hook["status"] == "failed")
    assert failed["error"].endswith(
        "EngineError: there is nothing to speak: the text has no letters or digits"
    )


async def test_a_crashed_worker_is_replaced_and_its_end_announced(
    tmp_path: Path, hooks: Hooks, fragile: str
) -> None:
    restarts: asyncio.Queue[datetime] = asyncio.Queue()
    async with supervised(tmp_path, fragile, restarts.put) as supervisor:
        url, old = supervisor.url, processes_of(supervisor)
        before = datetime.now(UTC)
        assert await put(supervisor, "fatal", hooks, mode="exit") == 202
        await hooks.wait_for(lambda hook: hook.get("error") == "Worker crashed")
        gone_at = await asyncio.wait_for(restarts.get(), 20)

        assert before < gone_at < datetime.now(UTC)
        assert supervisor.url == url
        await until_gone(old)
        assert await put(supervisor, "after", hooks) == 202
        done = await hooks.wait_for(lambda hook: hook["id"] == "after" and hook["status"] == "succeeded")
    assert done["output"] == "well"


async def test_an_engine_that_hangs_is_replaced_once_it_is_condemned(tmp_path: Path, fragile: str) -> None:
    """Fault 68: a worker that is stopped in the middle hears no cancel, and looks busy for ever."""
    restarts: asyncio.Queue[datetime] = asyncio.Queue()
    async with supervised(tmp_path, fragile, restarts.put) as supervisor:
        await put(supervisor, "hung", None, mode="busy")
        old = processes_of(supervisor)
        old[-1].suspend()
        async with httpx.AsyncClient(base_url=supervisor.url, timeout=10, trust_env=False) as client:
            await client.post("/predictions/hung/cancel")
        assert await put(supervisor, "next", None) == 409
        supervisor.condemn("past its limit")
        await asyncio.wait_for(restarts.get(), 30)
        await until_gone(old)
        assert await put(supervisor, "after", None) == 202


async def test_a_killed_server_is_replaced_even_if_nobody_can_be_told(tmp_path: Path, fragile: str) -> None:
    told = asyncio.Event()

    async def fail(_moment: datetime) -> None:
        told.set()
        raise OSError("the database is away")

    async with supervised(tmp_path, fragile, fail) as supervisor:
        for _ in range(2):
            told.clear()
            assert supervisor.pid is not None
            os.kill(supervisor.pid, signal.SIGKILL)
            await asyncio.wait_for(told.wait(), 20)
        assert await put(supervisor, "after", None) == 202


async def test_stop_leaves_no_process_even_when_the_worker_is_busy(tmp_path: Path, fragile: str) -> None:
    async with supervised(tmp_path, fragile) as supervisor:
        await put(supervisor, "endless", None, mode="busy")
        processes = processes_of(supervisor)
        assert len(processes) == 2
    await until_gone(processes)
    assert supervisor.pid is None
    await supervisor.stop()


async def test_a_failed_setup_is_told_with_its_reason_and_leaves_nothing(
    tmp_path: Path, children: Children
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    with pytest.raises(EngineUnavailable, match="no such weights"):
        async with supervised(tmp_path, f"{tmp_path / 'broken.py'}:Runner"):
            pass
    assert children() == []


async def test_stop_interrupts_a_restart(tmp_path: Path) -> None:
    predictor = tmp_path / "slow.py"
    predictor.write_text(SLOW)
    async with supervised(tmp_path, f"{predictor}:Runner") as supervisor:
        (tmp_path / "slow.py.slow").touch()
        first = supervisor.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(20):
            while supervisor.pid in {first, None} or len(processes_of(supervisor)) < 2:
                await asyncio.sleep(0.01)
        restarting = processes_of(supervisor)
        stopped_at = time.monotonic()
    assert time.monotonic() - stopped_at < 8
    await until_gone(restarting)


async def test_a_setup_that_takes_too_long_is_ended(tmp_path: Path, children: Children) -> None:
    predictor = tmp_path / "slow.py"
    predictor.write_text(SLOW)
    (tmp_path / "slow.py.slow").touch()
    supervisor = CogSupervisor(
        predictor=f"{predictor}:Runner",
        tmp=tmp_path / "engine",
        setup_timeout_s=0.5,
        on_restart=asyncio.sleep,
        log=structlog.get_logger(),
    )
    with pytest.raises(EngineUnavailable):
        await supervisor.start()
    assert supervisor.pid is None
    assert children() == []


async def test_a_taken_port_is_told_and_not_mistaken_for_a_server_of_ours(
    tmp_path: Path, fragile: str
) -> None:
    async with supervised(tmp_path, fragile) as supervisor:
        port = int(supervisor.url.rpartition(":")[2])
        second = CogSupervisor(
            predictor=fragile,
            port=port,
            tmp=tmp_path / "2",
            on_restart=asyncio.sleep,
            log=structlog.get_logger(),
        )
        with pytest.raises(EngineUnavailable, match=f"port {port} cannot be used"):
            await second.start()
        assert await put(supervisor, "still", None) == 202


async def test_the_worker_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REPRISE_WEBHOOK_SECRET", "REPLICATE_API_TOKEN", "DATABASE_URL"):
        monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("WEBHOOK_AUTH_TOKEN", "cog's own")
    (tmp_path / "nosy.py").write_text(
        "import os\nfrom cog import BaseRunner\nclass Runner(BaseRunner):\n"
        "    def run(self) -> str:\n        return ' '.join(sorted(os.environ))\n"
    )
    async with (
        supervised(tmp_path, f"{tmp_path / 'nosy.py'}:Runner") as supervisor,
        httpx.AsyncClient(base_url=supervisor.url, trust_env=False) as client,
    ):
        seen = (await client.put("/predictions/nosy", json={"input": {}})).json()["output"].split()
    assert {"WEBHOOK_AUTH_TOKEN", "REPRISE_WORKER_TMP", "PATH"} <= set(seen)
    assert not {"REPRISE_WEBHOOK_SECRET", "REPLICATE_API_TOKEN", "DATABASE_URL"} & set(seen)


async def test_a_python_that_is_not_there_is_told(tmp_path: Path) -> None:
    supervisor = CogSupervisor(
        python=tmp_path / "no" / "python", tmp=tmp_path, on_restart=asyncio.sleep, log=structlog.get_logger()
    )
    with pytest.raises(EngineUnavailable):
        await supervisor.start()


PARENT = """
import asyncio, sys
from pathlib import Path
import structlog
from app.engines.supervisor import CogSupervisor

async def main() -> None:
    supervisor = CogSupervisor(
        predictor=sys.argv[1], tmp=Path(sys.argv[2]), on_restart=asyncio.sleep, log=structlog.get_logger()
    )
    await supervisor.start()
    print("pid", supervisor.pid, supervisor.url, flush=True)
    await supervisor.run()

asyncio.run(main())
"""


def test_a_killed_parent_takes_server_and_busy_worker_along(tmp_path: Path, fragile: str) -> None:
    command = [sys.executable, "-c", PARENT, fragile, str(tmp_path / "engine")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = next(line for line in parent.stdout if line.startswith("pid "))
        _, pid, url = started.split()
        server = psutil.Process(int(pid))
        family = [server, *server.children(recursive=True)]
        headers = {"prefer": "respond-async"}
        httpx.put(f"{url}/predictions/endless", json={"input": {"mode": "busy"}}, headers=headers)
        parent.kill()
    deadline = time.monotonic() + 10
    while left := [one for one in family if is_alive(one)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        with suppress(psutil.TimeoutExpired):
            left[0].wait(timeout=0.1)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
