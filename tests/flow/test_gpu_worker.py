"""The whole service with a GPU worker elsewhere: the real engines, the real front, one queue between them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.engines.inputs import KINDS
from app.engines.supervisor import OUR_PREDICTOR
from app.gpu.groups import Group
from app.gpu.running import GpuWorker
from app.serve import running_service
from app.settings import load_settings
from tests.conftest import becomes
from tests.contract.gpu_ground import gpu_worker

pytestmark = pytest.mark.real
BOUND_S = 120.0
EMBEDDED = Group("embedded", tuple(KINDS), OUR_PREDICTOR)
LONG = {"kind": "speech", "input": {"text": "It was the best of times. " * 180}}
SHORT = {"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}


@asynccontextmanager
async def service_with(worker: GpuWorker, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = load_settings(
        _env_file=None,
        database_url=f"sqlite+aiosqlite:///{folder}/reprise.db",
        storage_url=f"file://{folder}/assets",
        var_dir=folder / "var",
        cog_urls=(worker.url,),
        gpu_worker_slots=4,
        min_free_bytes=0,
        shutdown_s=1,
    )
    async with (
        running_service(settings) as service,
        httpx.AsyncClient(base_url=service.url, timeout=90, trust_env=False) as client,
    ):
        yield client


async def asked(client: httpx.AsyncClient, wanted: dict[str, Any]) -> str:
    return str((await client.post("/v1/jobs", json=wanted)).raise_for_status().json()["id"])


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(BOUND_S):
        while True:
            job: dict[str, Any] = (await client.get(f"/v1/jobs/{job_id}?wait=30")).json()
            if job["state"] in {"succeeded", "failed", "canceled"}:
                return job


async def test_jobs_wait_their_turn_at_the_worker_and_none_is_refused(tmp_path: Path) -> None:
    async with (
        gpu_worker(tmp_path, [EMBEDDED]) as worker,
        service_with(worker, tmp_path) as client,
    ):
        jobs = [await asked(client, wanted) for wanted in (LONG, SHORT, SHORT)]
        await becomes(lambda: len(worker.front.live) == 3, within_s=60)
        done = [await ended(client, job_id) for job_id in jobs]
    assert [job["state"] for job in done] == ["succeeded"] * 3
    assert [len(job["attempts"]) for job in done] == [1, 1, 1]


async def test_a_killed_engine_costs_the_job_no_attempt(tmp_path: Path) -> None:
    """Fault 68: the service is told nothing of it but a sound."""
    async with (
        gpu_worker(tmp_path, [EMBEDDED]) as worker,
        service_with(worker, tmp_path) as client,
    ):
        job_id = await asked(client, LONG)
        await becomes(lambda: any(ticket.phase == "running" for ticket in worker.front.live), within_s=60)
        supervisor = worker.garage.bays["embedded"].supervisor
        assert supervisor is not None
        assert supervisor.pid is not None
        os.killpg(supervisor.pid, signal.SIGKILL)
        job = await ended(client, job_id)
    assert (job["state"], len(job["attempts"])) == ("succeeded", 1)


async def test_a_worker_that_stops_hands_its_jobs_to_the_next_one(tmp_path: Path) -> None:
    async with AsyncExitStack() as running:
        first = await running.enter_async_context(gpu_worker(tmp_path, [EMBEDDED]))
        port = int(first.url.rpartition(":")[2])
        async with service_with(first, tmp_path) as client:
            job_id = await asked(client, LONG)
            await becomes(lambda: any(ticket.phase == "running" for ticket in first.front.live), within_s=60)
            await running.aclose()
            async with gpu_worker(tmp_path, [EMBEDDED], port=port):
                job = await ended(client, job_id)
    assert job["state"] == "succeeded"
    stopped = job["attempts"][0]
    assert stopped["error"] == "the worker was stopped before it ended"
    assert (stopped["trouble"], stopped["action"]) == ("handed_back", "retry_same"), "no fault of the job's"
