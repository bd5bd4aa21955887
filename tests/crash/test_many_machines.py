"""Several processes on one PostgreSQL: a web without stations, workers without a web, and kills among them.

Each "machine" is a process of `reprise` itself with a folder of its own for temporary files; the database
and a bucket behind S3's protocol are all that they share.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import BUCKET, Bucket
from tests.crash.child import END_LIMIT_S, ROOT, START_LIMIT_S, free_port

TERMINAL = {"job.succeeded", "job.failed", "job.canceled"}


class Cluster:
    """One database, one store, one web, any number of workers."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._folder = folder
        self._machines: list[asyncio.subprocess.Process] = []
        self._started = 0
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.AsyncClient(base_url=self.url, timeout=70, trust_env=False)
        self._environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "STORAGE_URL": f"s3://{BUCKET}",
            "PUBLIC_URL": self.url,
            "RECOVERY_INTERVAL_S": "1",
            "LEASE_S": "3",
        }

    async def start(self, *command: str) -> asyncio.subprocess.Process:
        """One more machine, once it says that it is up."""
        self._started += 1
        name = f"machine-{self._started}"
        with (self._folder / f"{name}.log").open("wb") as log:
            machine = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "app", *command,
                cwd=ROOT, env={**self._environment, "VAR_DIR": str(self._folder / name)},
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self._machines.append(machine)
        async with asyncio.timeout(START_LIMIT_S):
            said = await machine.stdout.readline()  # type: ignore[union-attr]
        assert said, (self._folder / f"{name}.log").read_text()[-3000:]
        return machine

    async def web(self) -> asyncio.subprocess.Process:
        return await self.start("serve", "--port", str(self.port), "--no-worker")

    async def worker(self) -> asyncio.subprocess.Process:
        return await self.start("worker", "--gpu-worker")

    async def submit(self, seed: int, duration_s: float = 1.0) -> str:
        asked = {"prompt": "rain on a tin roof", "duration_s": duration_s, "seed": seed}
        reply = await self.client.post("/v1/jobs", json={"kind": "sound_effect", "input": asked})
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    async def ended(self, job_id: str) -> dict[str, object]:
        async with asyncio.timeout(END_LIMIT_S):
            while True:
                job = (await self.client.get(f"/v1/jobs/{job_id}", params={"wait": 10})).json()
                if job["finished_at"]:
                    return dict(job)

    async def assert_ended_once(self, job: dict[str, object]) -> None:
        """One end, and the web can read what the worker stored."""
        for output in job["outputs"].values():  # type: ignore[attr-defined]
            content = (await self.client.get(output["url"])).content
            assert hashlib.sha256(content).hexdigest() == output["sha256"]
        events = (await self.client.get(f"/v1/jobs/{job['id']}/events")).json()["items"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert [event["type"] for event in events if event["type"] in TERMINAL] == ["job.succeeded"]

    async def aclose(self) -> None:
        await self.client.aclose()
        for machine in self._machines:
            if machine.returncode is None:
                machine.terminate()
        for machine in self._machines:
            try:
                async with asyncio.timeout(15):
                    await machine.wait()
            except TimeoutError:
                machine.kill()
                await machine.wait()


@pytest.fixture
async def cluster(
    tmp_path: Path, database_url: str, bucket: Bucket, children: object
) -> AsyncIterator[Cluster]:
    async with _cluster(tmp_path, database_url) as cluster:
        yield cluster


@asynccontextmanager
async def _cluster(folder: Path, database_url: str) -> AsyncIterator[Cluster]:
    cluster = Cluster(folder, database_url)
    try:
        yield cluster
    finally:
        await cluster.aclose()


pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


async def test_a_web_without_stations_and_two_workers_share_the_work(cluster: Cluster) -> None:
    await cluster.web()
    await asyncio.gather(cluster.worker(), cluster.worker())
    ids = [await cluster.submit(seed) for seed in range(12)]
    jobs = await asyncio.gather(*(cluster.ended(job_id) for job_id in ids))
    assert {job["state"] for job in jobs} == {"succeeded"}
    for job in jobs:
        await cluster.assert_ended_once(job)
        assert len(job["attempts"]) == 1  # type: ignore[arg-type]


async def test_a_worker_without_engines_leaves_predictions_to_those_that_have_some(cluster: Cluster) -> None:
    await cluster.web()
    await asyncio.gather(cluster.start("worker"), cluster.worker())
    ids = [await cluster.submit(seed, 0.5) for seed in range(6)]
    jobs = await asyncio.gather(*(cluster.ended(job_id) for job_id in ids))
    for job in jobs:
        await cluster.assert_ended_once(job)
        events = (await cluster.client.get(f"/v1/jobs/{job['id']}/events")).json()["items"]
        waits = [event["data"]["reason"] for event in events if event["type"] == "job.waiting"]
        # A server that is just ending a prediction may say that its slot is taken. What may not be is a
        # worker that asked although it knows of no server.
        assert not any("no Cog server" in reason for reason in waits), waits


async def test_a_waiter_at_the_web_wakes_for_the_end_at_a_worker(cluster: Cluster) -> None:
    await cluster.web()
    await cluster.worker()
    warm = await cluster.ended(await cluster.submit(1))
    assert warm["state"] == "succeeded"
    began = time.monotonic()
    job = await cluster.ended(await cluster.submit(2, 0.5))
    # Far below the sweep's and the wait's own pauses: it was the hint that came.
    assert job["state"] == "succeeded"
    assert time.monotonic() - began < 20


async def test_the_work_of_a_killed_worker_goes_on_at_another(cluster: Cluster) -> None:
    """Fault 52, Fault 62: a whole machine dies with work in hand."""
    await cluster.web()
    victim = await cluster.worker()
    ids = [await cluster.submit(seed, 20.0) for seed in range(6)]
    # It has begun something, so something dies with it.
    async with asyncio.timeout(END_LIMIT_S):
        while not await _running(cluster):
            await asyncio.sleep(0.02)
    _kill_tree(victim.pid)
    await victim.wait()
    killed_at = time.monotonic()
    await cluster.worker()
    jobs = await asyncio.gather(*(cluster.ended(job_id) for job_id in ids))
    took_s = time.monotonic() - killed_at
    assert {job["state"] for job in jobs} == {"succeeded"}, took_s
    for job in jobs:
        await cluster.assert_ended_once(job)


async def _running(cluster: Cluster) -> bool:
    listed = (await cluster.client.get("/v1/jobs", params={"state": "running"})).json()["items"]
    return any(job["attempts"] for job in listed)


def _kill_tree(pid: int) -> None:
    """As a machine dies: everything at once."""
    victims = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in victims:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(victims[1:], timeout=30)


@pytest.fixture
def children() -> None:
    """The processes here are the cluster's to end."""
