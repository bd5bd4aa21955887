"""A spoiled network between us and each neighbour: PostgreSQL, the bucket, the provider; toxic after toxic.

Under each toxic callers are answered within the limits, by what was asked for or by an honest 503; when it is
over, every accepted job ends once, and every acknowledged webhook has had its effect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url

from app import dispatch
from app.dispatch import Route
from app.errors import AppError
from app.provider.replicate import Replicate
from db.session import DatabaseUnavailable
from tests.conftest import BUCKET, Bucket, drain
from tests.fakes.provider import SECRET, TOKEN
from tests.fakes.proxy import FaultProxy, proxied
from tests.flow.conftest import TONE, OpenStage, Stage, open_stage

TERMINAL = {"job.succeeded", "job.failed", "job.canceled"}
ANSWER_LIMIT_S = 25.0
"""Many times the limits of these tests: a slow machine keeps it, and a hang would be for ever."""
SHORT = {"db_pool_timeout": 1.0, "db_statement_timeout": 1.0, "db_pool_size": 4, "db_max_overflow": 0}
LONG = SHORT | {"db_pool_timeout": 30.0, "db_statement_timeout": 30.0}
"""For a network that is only slow: every call comes through, however slow the machine is as well."""

Spoil = Callable[[FaultProxy], Awaitable[object]]


async def latency(proxy: FaultProxy) -> None:
    proxy.spoil(latency_s=0.005, jitter_s=0.01)


async def bandwidth(proxy: FaultProxy) -> None:
    proxy.spoil(bandwidth_bytes_s=400_000)


async def slicer(proxy: FaultProxy) -> None:
    proxy.spoil(slice_bytes=100)


async def limit_data(proxy: FaultProxy) -> None:
    proxy.spoil(limit_bytes=2500)


async def half_open(proxy: FaultProxy) -> None:
    proxy.spoil(half_open=True)


async def silenced(proxy: FaultProxy) -> None:
    proxy.silence()


async def reset(proxy: FaultProxy) -> None:
    proxy.reset()


async def down(proxy: FaultProxy) -> None:
    await proxy.down()


SLOW = (latency, bandwidth, slicer)
BROKEN = (limit_data, half_open, silenced, reset, down)
each_toxic = pytest.mark.parametrize("spoil", [*SLOW, *BROKEN], ids=lambda spoil: spoil.__name__)


# ── between us and PostgreSQL ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@each_toxic
async def test_whatever_the_network_to_the_database_does_answers_are_honest_and_nothing_is_lost(
    tmp_path: Path, database_url: str, spoil: Spoil
) -> None:
    """Faults 14, 49 and 50: the database behind a spoiled network."""
    async with proxied(make_url(database_url).port or 0) as proxy:
        behind = make_url(database_url).set(port=proxy.port).render_as_string(hide_password=False)
        async with open_stage(tmp_path, behind, **(LONG if spoil in SLOW else SHORT)) as stage:
            first = [(await stage.start())[0] for _ in range(2)]
            stage.fake.hook_tries = 1
            await spoil(proxy)
            answers = await asyncio.gather(
                *(submit(stage, f"key-{number}") for number in range(4)),
                *(call(stage.client.get(f"/v1/jobs/{job_id}")) for job_id in first),
                call(stage.client.get("/readyz")),
            )
            for prediction_id in list(stage.fake.predictions):
                async with asyncio.timeout(ANSWER_LIMIT_S):
                    await stage.fake.finish(prediction_id, output=TONE)
            await let_work(stage)
            for reply in answers:
                assert_honest(reply)
            if spoil in SLOW:
                assert {reply.status_code for reply in answers} <= {200, 202}
            await proxy.up()
            proxy.heal()
            # Whoever was told to come again does so, under the same key.
            accepted = [(await submit(stage, f"key-{number}")).json()["id"] for number in range(4)]
            assert {reply.json()["id"] for reply in answers[:4] if reply.status_code == 202} <= set(accepted)
            await all_ends(stage, [*first, *accepted])


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("key", [None, "a-key"])
async def test_a_job_whose_commit_was_never_answered_is_one_job_and_its_caller_hears_of_it(
    tmp_path: Path, database_url: str, key: str | None
) -> None:
    """Fault 50: dropped after COMMIT was sent, where a caller waits for the answer."""
    async with proxied(make_url(database_url).port or 0) as proxy:
        behind = make_url(database_url).set(port=proxy.port).render_as_string(hide_password=False)
        async with open_stage(tmp_path, behind, **SHORT) as stage:
            lost = LosesOneAnswer(proxy)
            notifier = stage.runtime.line.notifier
            notifier.announce = lost.announcing(notifier.announce)  # type: ignore[method-assign]
            reply = await submit(stage, key)
            assert reply.status_code == 202, reply.text
            assert lost.is_lost
            listed = (await stage.client.get("/v1/jobs")).json()["items"]
            assert [job["id"] for job in listed] == [reply.json()["id"]]
            assert await stage.events(reply.json()["id"]) == ["job.created"]


class LosesOneAnswer:
    """The last thing a transaction does before its COMMIT; from there on no answer comes back, once."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self.is_lost = False

    def announcing(self, announce: Callable[..., None]) -> Callable[..., None]:
        def announce_and_lose(tx: Any, *topics: str) -> None:
            announce(tx, *topics)
            tx.before_commit("zz-lost", ["once"], self._lose)

        return announce_and_lose

    async def _lose(self, _tx: Any, _once: list[str]) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._proxy.lose_answers()


# ── between us and the bucket ───────────────────────────────────────────────────────────────────────────


@each_toxic
async def test_whatever_the_network_to_the_bucket_does_no_job_succeeds_without_its_bytes(
    stage_on_sqlite: OpenStage, bucket: Bucket, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 44: the store behind a spoiled network."""
    async with proxied(int(bucket.url.rpartition(":")[2])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        async with stage_on_sqlite(storage_url=f"s3://{BUCKET}", finish_limit_s=1.5) as stage:
            jobs = [await stage.start() for _ in range(2)]
            await spoil(proxy)
            for _, prediction_id in jobs:
                await stage.fake.finish(prediction_id, output=TONE)
            await let_work(stage)
            for job_id, _ in jobs:
                job = await stage.read(job_id)
                assert job["state"] in ("succeeded", "finishing"), job
                assert job["state"] == "succeeded" or job["waiting_reason"], "it says why it waits"
            await proxy.up()
            proxy.heal()
            await all_ends(stage, [job_id for job_id, _ in jobs])
            kept = set(bucket.objects())
            for job_id, _ in jobs:
                [output] = (await stage.read(job_id))["outputs"].values()
                assert any(output["sha256"] in key for key in kept)


# ── between us and the provider ─────────────────────────────────────────────────────────────────────────


@each_toxic
async def test_whatever_the_network_to_the_provider_does_each_job_ends_with_one_prediction_more_at_most(
    stage_on_sqlite: OpenStage, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults 57 and 60: the provider behind a spoiled network."""
    monkeypatch.setattr(dispatch, "CREATE_LIMIT_S", 1.0)
    async with provider_behind_a_proxy(stage_on_sqlite) as (stage, proxy):
        warm, _ = await stage.start()
        await spoil(proxy)
        jobs = [await stage.ask() for _ in range(2)]
        await let_work(stage)
        await proxy.up()
        proxy.heal()
        for job_id in jobs:
            assert await stage.state(job_id) in ("queued", "running")
        for _ in range(6):
            await stage.age(40)
            await stage.look()
            for prediction_id in stage.fake.live():
                await stage.fake.finish(prediction_id, output=TONE)
            await stage.drain()
        await all_ends(stage, [warm, *jobs])
        assert len(stage.fake.predictions) <= 3 + len(jobs), "at most one more for each that was cut off"


@asynccontextmanager
async def provider_behind_a_proxy(stage_on: OpenStage) -> AsyncIterator[tuple[Stage, FaultProxy]]:
    async with proxied(0) as proxy:
        replicate = Replicate(token=TOKEN, base_url=f"http://127.0.0.1:{proxy.port}", secrets=[SECRET])
        async with stage_on(serve=True, ports={"routes": {"replicate": Route(replicate)}}) as stage:
            proxy.target = ("127.0.0.1", make_url(stage.fake.base_url).port or 0)
            yield stage, proxy


# ── what every story has in common ──────────────────────────────────────────────────────────────────────


async def submit(stage: Stage, key: str | None) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    wanted = {"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}
    return await call(stage.client.post("/v1/jobs", json=wanted, headers=headers))


async def call(asked: Awaitable[httpx.Response]) -> httpx.Response:
    async with asyncio.timeout(ANSWER_LIMIT_S):
        return await asked


def assert_honest(reply: httpx.Response) -> None:
    """What was asked for, or a 503 that says when to come again."""
    if reply.status_code in (200, 202):
        return
    assert reply.status_code == 503, (reply.status_code, reply.text)
    if "checks" not in reply.json():
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.json()["code"] == "storage_unavailable"


async def let_work(stage: Stage) -> None:
    """The stations under the toxic: a step may fail, none may hang, and none may fail unexpectedly."""
    began = time.monotonic()
    with suppress(DatabaseUnavailable, AppError):
        await drain(stage.runtime)
    assert time.monotonic() - began < 4 * ANSWER_LIMIT_S


async def all_ends(stage: Stage, jobs: list[str]) -> None:
    """With the network well again, recovery and the sweep bring every job to its one end."""
    for _ in range(4):
        await stage.look()
        for prediction_id in stage.fake.live():
            await stage.fake.finish(prediction_id, output=TONE)
        await stage.drain()
    acknowledged = {hook.prediction_id for hook in stage.fake.sent if hook.status == 200}
    listed = (await stage.client.get("/v1/jobs", params={"limit": 200})).json()["items"]
    assert sorted(job["id"] for job in listed) == sorted(jobs), "no job more, and none less"
    for job_id in jobs:
        job = await stage.read(job_id)
        assert job["state"] == "succeeded", job
        events = await stage.events(job_id)
        assert [event for event in events if event in TERMINAL] == ["job.succeeded"]
    stored = {item["attempt_id"] for item in await stage.ledger() if item["source"] == "webhook"}
    for attempt in await stage.attempts():
        assert attempt.prediction_id not in acknowledged or attempt.id in stored
