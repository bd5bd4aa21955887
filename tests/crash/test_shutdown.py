"""SIGTERM: nothing new comes in, nobody is kept waiting, what was begun ends in time or is handed back.

Real processes: the whole service on SQLite, and workers beside each other on PostgreSQL.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.crash.child import END_LIMIT_S, ROOT, START_LIMIT_S, Child, until
from tests.crash.test_many_machines import Cluster, cluster  # noqa: F401 - a fixture
from tests.crash.test_worker_death import in_hand

pytestmark = pytest.mark.real

HASTY = {"SHUTDOWN_S": "0.3"}
"""Too short for a prediction of some seconds."""
STOP_S = 15.0
"""Cog's grace of 3 s, and what the rest needs on a slow machine; less than the ordinary limit of 20 s."""
LONG = {"kind": "background_music", "input": {"prompt": "calm piano", "duration_s": 60, "seed": 7}}


async def test_fault_53_a_prediction_that_ends_within_the_limit_is_not_made_again(child: Child) -> None:
    """Fault 53: its webhook comes in while the service stops, and the next one has only to finish it."""
    await child.start()
    job_id = await in_hand(child)
    await child.stop()
    child.assert_nothing_temporary()
    await child.start()
    job = await child.ended(job_id)
    await child.assert_succeeded_once(job)
    assert [attempt["status"] for attempt in job["attempts"]] == ["succeeded"]
    await child.stop()


async def test_fault_53_a_prediction_that_does_not_is_handed_back_and_costs_no_attempt(
    tmp_path: Path,
) -> None:
    """Fault 53: the stop is quick, the job is due again with the reason, and its one attempt is still its."""
    child = Child(tmp_path, MAX_ATTEMPTS="1", **HASTY)
    try:
        await child.start()
        job_id = await in_hand(child)
        assert await child.stop() < STOP_S
        child.assert_nothing_temporary()
        await child.start()
        job = await child.ended(job_id)
        await child.assert_succeeded_once(job)
        first, second = job["attempts"]
        assert (first["status"], first["error"]) == ("lost", "handed back: its worker stopped")
        assert second["status"] == "succeeded"
        await child.stop()
        child.assert_nothing_temporary()
    finally:
        await child.aclose()


async def subscriptions(child: Child) -> float:
    shown = (await child.client.get("/metrics")).text
    return float(next(line.split()[1] for line in shown.splitlines() if line.startswith("reprise_waiters ")))


async def test_fault_53_while_it_stops_new_work_is_refused_and_news_is_taken(child: Child) -> None:
    """Fault 53: 503 with Retry-After for what would begin something; waiters hear how it stands."""
    await child.start()
    job_id = await in_hand(child)
    before = await subscriptions(child)
    waiter = asyncio.create_task(child.client.get(f"/v1/jobs/{job_id}", params={"wait": 60}))
    follower = asyncio.create_task(
        child.client.get(f"/v1/jobs/{job_id}/events", headers={"accept": "text/event-stream"})
    )
    attempt_id = (await child.client.get(f"/v1/jobs/{job_id}")).json()["attempts"][0]["id"]
    async with asyncio.timeout(END_LIMIT_S):
        # Both wait: they hold a subscription each, beside those of the worker.
        while await subscriptions(child) < before + 2:
            await asyncio.sleep(0.01)
    assert child.process is not None
    child.process.terminate()
    waited = await waiter
    assert (waited.status_code, waited.json()["state"]) == (200, "running")
    assert (await follower).status_code == 200
    refused = await child.client.post("/v1/jobs", json=LONG)
    assert (refused.status_code, refused.json()["code"]) == (503, "stopping")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["connection"] == "close"
    assert (await child.client.get("/readyz")).status_code == 503
    news = await child.client.post(f"/v1/webhooks/cog/{attempt_id}", json={"status": "processing"})
    assert news.status_code == 401, "the door is open, and as careful as ever"
    async with asyncio.timeout(END_LIMIT_S):
        assert await child.process.wait() == 0
    await child.leaves_no_process()
    await child.start()
    await child.assert_succeeded_once(await child.ended(job_id))
    await child.stop()


async def test_fault_53_the_second_signal_ends_it_at_once_and_loses_nothing(tmp_path: Path) -> None:
    """Fault 53: the command itself; its children die with it, and the next life ends the job."""
    child = Child(tmp_path)
    try:
        service = await _command(child)
        job_id = await in_hand(child)
        family = psutil.Process(service.pid).children(recursive=True)
        assert family
        service.send_signal(signal.SIGTERM)
        await until(lambda: b"Stopping" in (tmp_path / "command.log").read_bytes(), END_LIMIT_S)
        began = time.monotonic()
        service.send_signal(signal.SIGTERM)
        async with asyncio.timeout(END_LIMIT_S):
            assert await service.wait() == 128 + signal.SIGTERM
        assert time.monotonic() - began < 10, "not the ordinary limit of 20 s"
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive
        await child.start()
        await child.assert_succeeded_once(await child.ended(job_id))
        await child.stop()
        child.assert_nothing_temporary()
    finally:
        await child.aclose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_fault_53_what_a_stopped_worker_hands_back_goes_on_at_another_at_once(
    cluster: Cluster,  # noqa: F811
) -> None:
    """Fault 53: nobody waits for a lease or a silence to pass."""
    cluster._environment |= HASTY
    await cluster.web()
    first = await cluster.worker()
    job_id = (await cluster.client.post("/v1/jobs", json=LONG)).json()["id"]
    async with asyncio.timeout(END_LIMIT_S):
        while not await _predicting(cluster.client, job_id):
            await asyncio.sleep(0.02)
    # It stands still while the other worker starts beside it, however long that takes on a busy machine.
    _freeze_prediction(first.pid)
    await cluster.worker()
    first.terminate()
    async with asyncio.timeout(END_LIMIT_S):
        assert await first.wait() == 0
    gone_at = datetime.now(UTC)
    job = await cluster.ended(job_id)
    await cluster.assert_ended_once(job)
    handed, made = job["attempts"]  # type: ignore[misc]
    assert handed["error"] == "handed back: its worker stopped"  # type: ignore[index]
    assert made["status"] == "succeeded"  # type: ignore[index]
    began_at = datetime.fromisoformat(made["created_at"])  # type: ignore[index]
    print(f"another began it {(began_at - gone_at).total_seconds():+.2f} s after the exit")


def _freeze_prediction(worker_pid: int) -> None:
    """Stop what computes: of the Cog server's processes without children, the one that has used the
    most processor time. On a busy machine the server may have used more, for its start."""
    family = psutil.Process(worker_pid).children(recursive=True)
    leaves = [process for process in family if not process.children()]
    max(leaves, key=lambda process: sum(process.cpu_times()[:2])).suspend()


async def _predicting(client: httpx.AsyncClient, job_id: str) -> bool:
    job: dict[str, Any] = (await client.get(f"/v1/jobs/{job_id}")).json()
    return [attempt["status"] for attempt in job["attempts"]] == ["processing"]


async def _command(child: Child) -> asyncio.subprocess.Process:
    """`reprise serve` on the child's folder and port, once it is up."""
    with (child.folder / "command.log").open("wb") as log:
        service = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "serve", "--port", str(child.port),
            cwd=ROOT, env=child._environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    async with asyncio.timeout(START_LIMIT_S):
        assert await service.stdout.readline()  # type: ignore[union-attr]
    return service
