"""Another program holds the SQLite file: callers wait within a limit and hear an honest 503."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from sqlalchemy.engine import make_url

from tests.flow.conftest import TONE, OpenStage, Stage

CALLERS = 8
LIMIT_S = 5.0
BUSY_S = 0.3


@contextmanager
def held(url: str) -> Iterator[None]:
    """The write lock of the file, in the hands of somebody who has nothing to do with us."""
    other = sqlite3.connect(make_url(url).database or "", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_while_another_writer_holds_the_file_everybody_gets_an_honest_503_and_then_all_is_well(
    stage_on_sqlite: OpenStage, sqlite_url: str
) -> None:
    """Fault 47: BUSY for longer than the limit; bounded waits, no lost update, and it heals by itself."""
    async with stage_on_sqlite(db_pool_timeout=BUSY_S) as stage:
        job_id, prediction_id = await stage.start()
        row = stage.fake.predictions[prediction_id]
        ended = row | {"status": "succeeded", "output": TONE}
        with held(sqlite_url):
            async with asyncio.timeout(LIMIT_S):
                answers = await asyncio.gather(
                    *(_ask(stage, f"key-{n}") for n in range(CALLERS)),
                    *(_tell(stage, f"msg-{n}", ended) for n in range(CALLERS)),
                    stage.client.get(f"/v1/jobs/{job_id}"),
                )
            *refused, read = answers
            assert read.status_code == 200, "readers do not wait for a writer"
            assert {reply.status_code for reply in refused} == {503}
            assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
        again = await asyncio.gather(
            *(_ask(stage, f"key-{n}") for n in range(CALLERS)), *(_tell(stage, "msg-0", ended) for _ in "ab")
        )
        assert [reply.status_code for reply in again] == [202] * CALLERS + [200] * 2
        await stage.drain()
        assert await stage.state(job_id) == "succeeded"
        assert len((await stage.client.get("/v1/jobs")).json()["items"]) == 1 + CALLERS
        assert len(await stage.ledger(source="webhook")) == 1


async def test_a_writer_that_lets_go_within_the_limit_is_only_waited_for(
    stage_on_sqlite: OpenStage, sqlite_url: str
) -> None:
    """Fault 47: BUSY for less than the limit is no error at all."""
    async with stage_on_sqlite() as stage:
        with held(sqlite_url):
            asking = asyncio.create_task(_ask(stage, "key"))
            await asyncio.sleep(0.05)
            assert not asking.done()
        assert (await asking).status_code == 202


async def _ask(stage: Stage, key: str) -> httpx.Response:
    wanted = {"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}
    return await stage.client.post("/v1/jobs", json=wanted, headers={"Idempotency-Key": key})


async def _tell(stage: Stage, message_id: str, row: dict[str, Any]) -> httpx.Response:
    [attempt] = await stage.attempts()
    body = json.dumps(row).encode()
    return await stage.post(attempt.id, body, stage.fake.signed(message_id, body))
