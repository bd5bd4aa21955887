"""Machines for the benches: processes of `reprise` itself, a file server, jobs that wait for their
webhook.

Each machine is `reprise serve` or `reprise worker` with a folder of its own, in a process group of its own.
The jobs are at Replicate, as far as their rows say: the news that ends them comes as a signed webhook.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ground import HERE, ROOT, clips_folder, end, make_clips
from webhooks import SECRET, service_settings

CLIPS = 256


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job whose prediction is about to be done: the path its webhook is posted to, and that webhook."""

    job_id: str
    attempt_id: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Machine:
    """A process of ours, and the port of its web if it has one."""

    process: subprocess.Popen[bytes]
    pid: int
    port: int


class Machines:
    """Processes of `reprise` on one database and one store."""

    def __init__(self, folder: Path, url: str, clips_port: int) -> None:
        self.folder = folder
        self.url = url
        self._running: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": url,
            "STORAGE_URL": f"file://{folder}/assets",
            "PUBLIC_URL": "https://bench.test",
            "REPLICATE_API_TOKEN": "r8_bench",
            # Outputs may come from a provider's own address, if that is a fake on this machine.
            "REPLICATE_BASE_URL": f"http://127.0.0.1:{clips_port}",
            "REPLICATE_WEBHOOK_SECRET": SECRET,
            "LOG_LEVEL": "error",
            "RATE_LIMITS": "none",
        }

    def start(self, *command: str, **settings: str) -> Machine:
        """One more machine, once it says that it is up."""
        name = f"machine-{len(self._running)}"
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.log").open("wb") as log:
            machine = subprocess.Popen(
                [sys.executable, "-m", "app", *command],
                cwd=place, env={**self._environment, "VAR_DIR": str(place), **settings},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._running.append(machine)
        assert machine.stdout is not None
        said = machine.stdout.readline().decode()
        if not said:
            raise RuntimeError(f"{' '.join(command)}: {(self.folder / f'{name}.log').read_text()[-2000:]}")
        port = re.search(r"http://127\.0\.0\.1:(\d+)", said)
        return Machine(machine, machine.pid, int(port[1]) if port else 0)

    def close(self) -> None:
        for machine in self._running:
            end(machine, kill=True)


@contextmanager
def machines(folder: Path, url: str, clips_port: int) -> Iterator[Machines]:
    made = Machines(folder, url, clips_port)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def clip_server() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The file server's process and port."""
    make_clips(CLIPS)
    process = subprocess.Popen(
        [sys.executable, HERE / "clip_server.py", clips_folder()],
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        end(process, kill=True)


async def make_waiting(
    url: str, folder: Path, count: int, clips_port: int, *, kind: str = "clip", received: bool = False
) -> list[Waiting]:
    """Jobs with a live attempt each; with `received` their webhooks are stored already."""
    from app.incoming import Incoming
    from app.jobs import JobRequest
    from app.wiring import open_runtime
    from db.attempts import insert_attempt
    from db.ids import make_id
    from db.jobs import move_job
    from db.states import AttemptStatus, DeliverySource, JobState
    from db.tables import Attempt

    made: list[Waiting] = []
    settings = service_settings(str(folder), url, max_queued_jobs=1_000_000)
    async with open_runtime(settings) as runtime:
        for number in range(count):
            view = await runtime.jobs.submit(JobRequest("sound_effect", {"prompt": "tone"}, {}))
            now = datetime.now(UTC)
            attempt = Attempt(
                id=make_id("att"), job_id=view.job.id, number=1, provider="replicate", model="bench/bench",
                status=AttemptStatus.STARTING, prediction_id=f"bench{view.job.id[-20:]}", created_at=now,
                check_at=datetime.fromtimestamp(now.timestamp() + 3600, UTC),
            )  # fmt: skip
            async with runtime.line.database.transaction() as tx:
                await move_job(tx, view.job.id, JobState.RUNNING, values={})
                await insert_attempt(tx, attempt)
            output = f"http://127.0.0.1:{clips_port}/{kind}/{number}"
            body = {"id": attempt.prediction_id, "status": "succeeded", "output": output}
            path = runtime.callbacks.url("replicate", attempt.id).removeprefix("https://bench.test")
            made.append(Waiting(view.job.id, attempt.id, path, json.dumps(body).encode()))
            if received:
                news = Incoming(
                    DeliverySource.WEBHOOK, "replicate", attempt.id, made[-1].body, message_id=attempt.id
                )
                await runtime.inbox.receive(news)
    return made


async def ended_at(url: str) -> dict[str, list[float]]:
    """Unix times at which jobs ended, ascending, by state."""
    from sqlalchemy import text

    from db.session import Database

    database = Database(url)
    try:
        async with database.reading() as tx:
            rows = (await tx.execute(text("SELECT state, finished_at FROM jobs"))).all()
    finally:
        await database.aclose()
    ends: dict[str, list[float]] = {}
    for state, at in rows:
        ends.setdefault(state, []).append(_unix(at) if at is not None else 0.0)
    return {state: sorted(times) for state, times in ends.items()}


def _unix(at: Any) -> float:
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return float((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


async def await_ended(url: str, count: int, *, within_s: float = 120.0) -> dict[str, list[float]]:
    """As `ended_at`, once so many have succeeded. Raises RuntimeError when they do not."""
    import asyncio

    until = time.monotonic() + within_s
    ends: dict[str, list[float]] = {}
    while time.monotonic() < until:
        ends = await ended_at(url)
        if len(ends.get("succeeded", ())) >= count:
            return ends
        await asyncio.sleep(0.5)
        if ends.get("failed"):
            break
    raise RuntimeError(f"not all succeeded: { {state: len(times) for state, times in ends.items()} }")


def steady_rate(times: Sequence[float]) -> float:
    """Ends a second between the first and the last tenth: without the start and the tail."""
    low, high = len(times) // 10, len(times) - 1 - len(times) // 10
    return (high - low) / (times[high] - times[low])
