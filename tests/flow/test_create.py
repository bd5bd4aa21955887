"""The story "create": what a caller asks for is stored once, with its event and work item, and answered."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from app.work import Station
from db.session import Transaction
from db.tables import Event, IdempotencyKey, Job
from tests.flow.conftest import TONE, OpenStage, Stage

RAIN = {"kind": "sound_effect", "input": {"prompt": "rain"}}


class CountingEngine:
    """A work engine that only remembers what it was told."""

    items_for = None

    def __init__(self) -> None:
        self.items: list[tuple[Station, str]] = []

    def enqueue(self, tx: Transaction, station: Station, *row_ids: str) -> None:
        tx.after_commit(lambda: self.hint(station, *row_ids))

    def hint(self, station: Station, *row_ids: str) -> None:
        self.items += [(station, row_id) for row_id in row_ids]

    async def run(self, steps: Any) -> None:
        raise AssertionError("no station runs in these tests")

    def stop(self) -> None:
        """Nothing runs."""


async def test_a_job_is_answered_with_its_place_and_stored_with_its_event_and_its_work_item(
    stage_on: OpenStage,
) -> None:
    engine = CountingEngine()
    async with stage_on(ports={"engine": engine}) as line:
        reply = await line.client.post("/v1/jobs", json={**RAIN, "metadata": {"mine": [1, "two"]}})
        assert reply.status_code == 202
        job = reply.json()
        assert reply.headers["location"] == f"/v1/jobs/{job['id']}"
        assert (job["state"], job["metadata"], job["provider"]) == ("queued", {"mine": [1, "two"]}, "auto")
        assert job["input"]["duration_s"] == 5.0
        assert job == await line.read(job["id"])
        assert await line.events(job["id"]) == ["job.created"]
        assert engine.items == [(Station.DISPATCH, job["id"])]


async def test_a_job_that_cannot_be_stored_leaves_no_work_item(stage_on_sqlite: OpenStage) -> None:
    engine = CountingEngine()
    async with stage_on_sqlite(ports={"engine": engine}, max_queued_jobs=1) as line:
        await line.ask()
        reply = await line.client.post("/v1/jobs", json=RAIN, headers={"idempotency-key": "k"})
        assert (reply.status_code, reply.json()["code"]) == (503, "overloaded")
        assert int(reply.headers["retry-after"]) == reply.json()["retry_after_s"] >= 1
        assert len(engine.items) == await line.count(Job) == await line.count(Event) == 1
        # A refusal takes no key with it: the same request may come again.
        assert await line.count(IdempotencyKey) == 0


async def test_prefer_wait_answers_with_the_ended_job(line: Stage) -> None:
    async def provide() -> None:
        while not await line.count(Job):
            await asyncio.sleep(0)
        await line.drain()
        await line.fake.finish(line.fake.live()[0], output=TONE)
        await line.drain()

    asked = line.client.post("/v1/jobs", json=RAIN, headers={"prefer": "respond-async, wait=20"})
    reply, _ = await asyncio.gather(asked, provide())
    assert reply.status_code == 201
    assert reply.json()["state"] == "succeeded"
    assert reply.headers["preference-applied"] == "wait=20"
    assert reply.headers["location"] == f"/v1/jobs/{reply.json()['id']}"


async def test_prefer_wait_answers_202_when_the_job_goes_on(sqlite_line: Stage) -> None:
    reply = await sqlite_line.client.post("/v1/jobs", json=RAIN, headers={"prefer": "wait=1"})
    assert (reply.status_code, reply.json()["state"]) == (202, "queued")
    assert sqlite_line.runtime.line.notifier.count_subscriptions() == 0


@pytest.mark.parametrize("prefer", ["wait=0", "wait=61", "wait=-1", "wait=", "wait=1e3", "wait=999999"])
async def test_a_wait_outside_1_to_60_is_refused_and_nothing_stored(sqlite_line: Stage, prefer: str) -> None:
    reply = await sqlite_line.client.post("/v1/jobs", json=RAIN, headers={"prefer": prefer})
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_header")
    assert await sqlite_line.count(Job) == 0


async def test_one_key_and_one_body_make_one_job_however_many_ask_at_once(line: Stage) -> None:
    """Fault 19."""

    async def ask() -> Any:
        return await line.client.post("/v1/jobs", json=RAIN, headers={"idempotency-key": "k-1"})

    replies = await asyncio.gather(*(ask() for _ in range(50)))
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert await line.count(Job) == await line.count(IdempotencyKey) == await line.count(Event) == 1
    await line.drain()
    assert len(line.fake.predictions) == 1


async def test_a_key_answers_with_its_job_as_it_stands_now(line: Stage) -> None:
    """Fault 19."""
    first = await line.client.post("/v1/jobs", json=RAIN, headers={"idempotency-key": "k"})
    await line.drain()
    await line.fake.finish(line.fake.live()[0], output=TONE)
    await line.drain()
    # Another spelling of the same request: a default written out, keys in another order.
    again = await line.client.post("/v1/jobs", json={"priority": 0, **RAIN}, headers={"idempotency-key": "k"})
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["state"] == "succeeded"


@pytest.mark.parametrize(
    "other",
    [
        {**RAIN, "input": {"prompt": "snow"}},
        {**RAIN, "kind": "background_music"},
        {**RAIN, "metadata": {"a": 1}},
        {**RAIN, "priority": 1},
        {**RAIN, "deadline_s": 60},
        {**RAIN, "provider": "replicate"},
    ],
)
async def test_a_key_is_refused_for_another_request(sqlite_line: Stage, other: dict[str, Any]) -> None:
    """Fault 19."""
    await sqlite_line.client.post("/v1/jobs", json=RAIN, headers={"idempotency-key": "k"})
    reply = await sqlite_line.client.post("/v1/jobs", json=other, headers={"idempotency-key": "k"})
    assert (reply.status_code, reply.json()["field"]) == (422, "Idempotency-Key")
    assert await sqlite_line.count(Job) == 1


@pytest.mark.parametrize("key", [b"", b"k" * 256, b"two words", b"\x01", "schlüssel".encode(), b"\x7f"])
async def test_a_malformed_key_is_refused(sqlite_line: Stage, key: bytes) -> None:
    """Fault 19."""
    reply = await sqlite_line.client.post("/v1/jobs", json=RAIN, headers=[(b"idempotency-key", key)])
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_header")
    twice = [(b"idempotency-key", b"a"), (b"idempotency-key", b"b")]
    assert (await sqlite_line.client.post("/v1/jobs", json=RAIN, headers=twice)).status_code == 400
    assert await sqlite_line.count(Job) == 0


async def test_a_key_is_forgotten_after_its_time_and_not_before(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(idempotency_s=3600) as line:
        first = await line.client.post("/v1/jobs", json=RAIN, headers={"idempotency-key": "k"})
        await line.runtime.worker.sweep()
        assert await line.count(IdempotencyKey) == 1
        async with line.runtime.line.database.transaction() as tx:
            old = datetime(2020, 1, 1, tzinfo=UTC)
            await tx.execute(IdempotencyKey.__table__.update().values(created_at=old))  # type: ignore[attr-defined]
        await line.runtime.worker._forget_old_keys(datetime.now(UTC))  # the sweep does it every ten minutes
        again = await line.client.post("/v1/jobs", json=RAIN, headers={"idempotency-key": "k"})
        assert again.json()["id"] != first.json()["id"]
