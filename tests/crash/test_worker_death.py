"""The Cog server dies and the service does not."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest

from app.dispatch import Route
from app.engines.supervisor import _tied, _with_parent
from app.incoming import Incoming
from app.jobs import JobRequest
from app.provider.base import Order, Prediction
from app.provider.cog import Cog
from app.serve import _give_up
from app.settings import Settings
from app.views import JobView
from app.wiring import Runtime, open_runtime
from db.attempts import note_attempt
from db.inbox import list_deliveries
from db.states import DeliverySource
from tests.conftest import drain
from tests.crash.child import START_LIMIT_S, Child

pytestmark = pytest.mark.real

LONG = {"kind": "background_music", "input": {"prompt": "calm piano", "duration_s": 60, "seed": 7}}
"""A prediction of some seconds: long enough to be met in the middle."""


async def in_hand(child: Child) -> str:
    """A job whose prediction has begun."""
    job_id = await child.submit(LONG)
    assert job_id is not None
    job: dict[str, Any] = {"attempts": []}
    while [attempt["status"] for attempt in job["attempts"]] != ["processing"]:
        job = (await child.client.get(f"/v1/jobs/{job_id}")).json()
        assert job["state"] in ("queued", "running"), "it was over before it could be met"
    return job_id


@pytest.mark.parametrize(("number", "what"), [(0, "server"), (-1, "worker")], ids=["server", "worker"])
async def test_a_job_ends_and_tells_its_story_when_only_the_cog_process_is_killed(
    child: Child, number: int, what: str
) -> None:
    """Fault 52, Fault 68: the engine dies, the service does not."""
    await child.start()
    service = child.process
    job_id = await in_hand(child)
    child.worker()[number].kill()
    job = await child.ended(job_id)
    await child.assert_succeeded_once(job)
    first, second = job["attempts"]
    print(f"{what}: {first['status']} ({first['error']}), then {second['status']}")
    assert first["status"] in ("lost", "failed")
    assert first["error"]
    assert second["status"] == "succeeded"
    assert child.process is service
    assert child.is_alive
    ready = (await child.client.get("/readyz")).json()
    assert ready["checks"]["providers"]["cog"]["ok"]
    await child.stop()
    child.assert_nothing_temporary()


async def test_news_that_was_stored_before_the_worker_died_is_not_lost_with_it(settings: Settings) -> None:
    routes = {"cog": Route(Silent())}
    async with open_runtime(settings, routes=routes) as runtime:
        told, untold = [await _begun(runtime, number) for number in (1, 2)]
        body = json.dumps({"status": "succeeded", "output": "data:audio/wav;base64,"}).encode()
        await runtime.inbox.receive(Incoming(DeliverySource.WEBHOOK, "cog", told.attempts[0].id, body))
        await _give_up(runtime, datetime.now(UTC))
        await drain(runtime)
        news = {view.job.id: await _sources(runtime, view.job.id) for view in (told, untold)}
        told, untold = [await runtime.jobs.get(view.job.id) for view in (told, untold)]
    assert news == {told.job.id: ["webhook"], untold.job.id: ["deadline"]}
    assert [attempt.status for attempt in told.attempts] == ["succeeded"]
    assert [attempt.status for attempt in untold.attempts] == ["lost"]


class Silent(Cog):
    """A worker that begins everything and says nothing more."""

    def __init__(self) -> None:
        super().__init__(urls={"*": "http://127.0.0.1:9"})

    async def create(self, order: Order) -> Prediction:
        return Prediction(order.attempt_id, "starting")


async def _sources(runtime: Runtime, job_id: str) -> list[str]:
    async with runtime.line.database.reading() as tx:
        return [delivery.source for delivery in await list_deliveries(tx, job_id=job_id, limit=10)]


async def _begun(runtime: Runtime, seed: int) -> JobView:
    runtime.callbacks.listen_at("http://127.0.0.1:9")
    asked = JobRequest("sound_effect", {"prompt": "rain", "seed": seed}, {})
    view = await runtime.jobs.submit(asked)
    await runtime.dispatcher.step(view.job.id)
    view = await runtime.jobs.get(view.job.id)
    async with runtime.line.database.transaction() as tx:
        await note_attempt(tx, view.attempts[0].id, owner=runtime.process_id)
    return view


def test_a_server_whose_parent_is_dead_before_it_starts_does_not_start() -> None:
    argv = _tied(_with_parent(["/bin/echo", "started"]))
    ours = subprocess.run(argv, capture_output=True, text=True, timeout=START_LIMIT_S, check=True)
    assert ours.stdout == "started\n"
    orphan = ["/bin/sh", "-c", '"$@"; :', "sh", *argv]
    theirs = subprocess.run(orphan, capture_output=True, text=True, timeout=START_LIMIT_S, check=True)
    assert theirs.stdout == ""
