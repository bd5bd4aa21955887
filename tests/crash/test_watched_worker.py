"""A worker without a web can be looked at: its own loop, pool and latencies are seen nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Bucket
from tests.crash.child import END_LIMIT_S, free_port, until
from tests.crash.test_many_machines import Cluster

pytestmark = [
    pytest.mark.real,
    pytest.mark.parametrize("database_url", ["postgresql"], indirect=True),
]


@pytest.fixture
async def cluster(tmp_path: Path, database_url: str, bucket: Bucket) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path, database_url)
    yield cluster
    await cluster.aclose()


async def test_a_worker_shows_its_own_figures_and_takes_nothing(cluster: Cluster) -> None:
    port = free_port()
    await cluster.web()
    worker = await cluster.start("worker", "--gpu-worker", "--watch-port", str(port))
    job = await cluster.ended(await cluster.submit(1, 0.5))
    assert job["state"] == "succeeded"
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["engine"]["ok"]) == (200, True)
        shown = (await client.get("/metrics")).text
        assert 'reprise_step_seconds_count{step="finish"} 1.0' in shown
        assert 'reprise_jobs_ended_total{kind="sound_effect",state="succeeded"} 1.0' in shown
        for path in ("/v1/jobs", "/openapi.json", "/docs", "/v1/webhooks/cog/x"):
            assert (await client.get(path)).status_code == 404
    # The web process worked on nothing, so it has nothing to tell of that.
    assert 'step="finish"' not in (await cluster.client.get("/metrics")).text
    worker.terminate()
    await until(lambda: worker.returncode is not None, END_LIMIT_S)
    assert worker.returncode == 0
