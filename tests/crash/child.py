"""A service in a process of its own, and the law that every crash test holds it to.

Owns starting it again and again on one folder and one port, knowing every process that belongs to that
folder (also those that lost their parent), and `assert_*`: what must be true of a job, of the folder and of
the machine, whatever died before. Waits are bounded looks at real state.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.crash_points import CrashPoint
from tests.laws import TERMINAL_EVENTS

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 40.0
END_LIMIT_S = 40.0
STOP_LIMIT_S = 15.0
GONE_LIMIT_S = 40.0
EFFECT = {"kind": "sound_effect", "input": {"prompt": "rain on a tin roof", "duration_s": 1, "seed": 7}}


class Child:
    """One folder, one port, and the service that lives there in one life after another."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.AsyncClient(base_url=self.url, timeout=70, trust_env=False)
        self.process: asyncio.subprocess.Process | None = None
        self._armed = folder / "armed"
        self._environment = {
            **os.environ,
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/reprise.db",
            "STORAGE_URL": f"file://{folder}/assets",
            "VAR_DIR": str(folder / "var"),
            "SILENCE_S": "0.3",
            "RECOVERY_INTERVAL_S": "0.3",
            "SWEEP_INTERVAL_S": "0.3",
            "PUBLIC_URL": self.url,
            "RATE_LIMITS": "none",
            **environment,
        }

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def log(self) -> str:
        return (self.folder / "service.log").read_text(errors="replace")

    def set(self, **environment: str) -> None:
        """Let its next lives have these settings."""
        self._environment.update(environment)

    async def spawn(self) -> None:
        """Begin a life without waiting until it serves."""
        with (self.folder / "service.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.crash.service", "--port", str(self.port), "--armed", self._armed,
                cwd=ROOT, env=self._environment, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip

    async def start(self) -> None:
        """Begin a life and wait until it serves."""
        await self.spawn()
        async with asyncio.timeout(START_LIMIT_S):
            line = await self._process.stdout.readline()  # type: ignore[union-attr]
        assert line, f"it did not start:\n{self.log[-3000:]}"

    def arm(self, point: CrashPoint, passes: int = 1, *, block_s: float = 0) -> None:
        """Let it die when it passes this point for the `passes`-th time, or block its loop for a while."""
        self._armed.write_text(f"{point} {passes} {block_s}")

    async def dies(self) -> None:
        """Wait until it has killed itself."""
        async with asyncio.timeout(END_LIMIT_S):
            code = await self._process.wait()
        assert code == -signal.SIGKILL, self.log[-3000:]
        await self.leaves_no_process()

    async def kill(self) -> None:
        self._process.kill()
        await self.dies()

    async def stop(self) -> float:
        """End it as an operator does; how long that took."""
        began = time.monotonic()
        self._process.terminate()
        async with asyncio.timeout(STOP_LIMIT_S):
            assert await self._process.wait() == 0, self.log[-3000:]
        took_s = time.monotonic() - began
        await self.leaves_no_process()
        return took_s

    async def submit(self, asked: dict[str, Any] = EFFECT, *, key: str | None = None) -> str | None:
        """The accepted job's id; None when the reply never came."""
        headers = {"Idempotency-Key": key} if key else {}
        try:
            reply = await self.client.post("/v1/jobs", json=asked, headers=headers)
        except httpx.TransportError:
            return None
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    async def ended(self, job_id: str) -> dict[str, Any]:
        """Wait until the job has ended; the job."""
        async with asyncio.timeout(END_LIMIT_S):
            job: dict[str, Any] = {"finished_at": None}
            while not job["finished_at"]:
                reply = await self.client.get(f"/v1/jobs/{job_id}", params={"wait": 5})
                assert reply.status_code == 200, reply.text
                job = reply.json()
        return job

    async def assert_ended_once(self, job: dict[str, Any]) -> None:
        """One terminal event, the last of a `seq` without gaps."""
        events = (await self.client.get(f"/v1/jobs/{job['id']}/events")).json()["items"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        ends = [event["seq"] for event in events if event["type"] in TERMINAL_EVENTS]
        assert ends == [len(events)], [event["type"] for event in events]

    async def assert_succeeded_once(self, job: dict[str, Any]) -> None:
        """The same, and every output can be read and is what its hash says."""
        assert job["state"] == "succeeded", (job["error"], self.log[-3000:])
        await self.assert_ended_once(job)
        assert job["outputs"]
        for output in job["outputs"].values():
            content = (await self.client.get(output["url"])).content
            assert len(content) == output["size_bytes"]
            assert hashlib.sha256(content).hexdigest() == output["sha256"]

    def assert_only_living_folders(self) -> None:
        """Of temporary folders there is the living process' own, and in it nothing of a step."""
        folders = list((self.folder / "var" / "tmp").iterdir())
        assert [folder.name.partition("-")[0] for folder in folders] == [str(self._process.pid)]
        assert {path.name for path in folders[0].iterdir()} <= {"lock", "worker"}

    def assert_nothing_temporary(self) -> None:
        """After the end: no temporary folder, and no half-written object."""
        assert list((self.folder / "var" / "tmp").iterdir()) == []
        objects = [path for path in (self.folder / "assets").rglob("*") if path.is_file()]
        assert [path.name for path in objects if "#" in path.name] == []

    async def sweep(self) -> None:
        """Take what a writer killed between two bytes left beside the objects, as an operator does."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "sweep",
            cwd=ROOT, env={**self._environment, "ORPHAN_AGE_S": "0"}, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(END_LIMIT_S):
            said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()

    def kin(self) -> list[psutil.Process]:
        """Every living process that belongs to this folder, whoever its parent is by now."""
        return kin_of(self.folder)

    def worker(self) -> list[psutil.Process]:
        """The Cog server's process first, then what it started."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        server = next(child for child in children if "cog.server.http" in child.cmdline())
        return [server, *server.children(recursive=True)]

    async def leaves_no_process(self) -> None:
        """The kernel ends what is tied to a dead process at once; the rest is given a moment."""
        try:
            await until(lambda: not self.kin(), GONE_LIMIT_S)
        except TimeoutError:
            raise AssertionError(f"left running: {[kin.cmdline() for kin in self.kin()]}") from None

    async def aclose(self) -> None:
        """Leave nothing behind, also when the test failed."""
        await self.client.aclose()
        if self.is_alive:
            self._process.kill()
            await self._process.wait()
        for process in self.kin():
            process.kill()

    @property
    def _process(self) -> asyncio.subprocess.Process:
        assert self.process is not None
        return self.process


def kin_of(folder: Path) -> list[psutil.Process]:
    """Every living process that names this folder in its arguments or as its `VAR_DIR`."""

    def is_kin(process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            marks = [process.environ().get("VAR_DIR", ""), *process.cmdline()]
            return any(str(folder) in mark for mark in marks)
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if is_kin(process)]


async def until(holds: Callable[[], Any], limit_s: float) -> None:
    """Look again and again, until it holds. Raises TimeoutError."""
    async with asyncio.timeout(limit_s):
        while not holds():
            await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
