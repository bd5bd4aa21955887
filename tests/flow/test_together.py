"""Deliveries that are applied in one transaction: each has the effect that it has alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from db.tables import Asset, Attempt, Delivery
from tests.flow.conftest import TONE, Stage


async def bring(line: Stage, attempt: Attempt, *changes: dict[str, Any] | bytes) -> list[str]:
    """Store news of an attempt as webhooks, one after the other; the ids of the deliveries."""
    known = {each.id for each in await line.rows(Delivery)}
    for change in changes:
        row = line.fake.predictions[attempt.prediction_id or ""]
        body = change if isinstance(change, bytes) else json.dumps(row | change).encode()
        headers = line.fake.signed(f"msg_{attempt.id}_{len(await line.rows(Delivery))}", body)
        assert (await line.post(attempt.id, body, headers)).status_code == 200
    return sorted({each.id for each in await line.rows(Delivery)} - known)


async def outcomes(line: Stage, ids: list[str]) -> list[str | None]:
    by_id = {each.id: each.outcome for each in await line.rows(Delivery)}
    return [by_id[each] for each in ids]


async def test_the_news_of_many_attempts_is_applied_each_to_its_own_job(line: Stage) -> None:
    jobs = [(await line.start())[0] for _ in range(5)]
    attempts = {attempt.job_id: attempt for attempt in await line.attempts()}
    ids = [(await bring(line, attempts[job], {"status": "succeeded", "output": TONE}))[0] for job in jobs[:4]]
    ids += await bring(line, attempts[jobs[4]], {"status": "processing"})
    await line.runtime.inbox.step(*ids)
    assert await outcomes(line, ids) == ["applied"] * 5
    assert [await line.state(job) for job in jobs] == ["finishing"] * 4 + ["running"]
    await line.drain()
    assert [await line.state(job) for job in jobs] == ["succeeded"] * 4 + ["running"]


async def test_several_news_of_one_attempt_are_applied_in_the_order_in_which_they_came(line: Stage) -> None:
    job_id, _ = await line.start()
    [attempt] = await line.attempts()
    succeeded = {"status": "succeeded", "output": TONE}
    ids = await bring(line, attempt, {"status": "processing"}, succeeded, {"status": "failed", "error": "no"})
    await line.runtime.inbox.step(*ids)
    assert (await outcomes(line, ids))[:2] == ["applied", "applied"]
    assert (await outcomes(line, ids))[2] != "applied", "its end had been told already"
    assert await line.state(job_id) == "finishing"
    events = await line.events(job_id)
    assert events.index("job.progress") < events.index("job.finishing")


async def test_one_that_is_not_understood_does_not_hold_up_those_it_came_with(line: Stage) -> None:
    good, _ = await line.start()
    bad, _ = await line.start()
    attempts = {attempt.job_id: attempt for attempt in await line.attempts()}
    ids = await bring(line, attempts[bad], b'{"status": 7}')
    ids += await bring(line, attempts[good], {"status": "succeeded", "output": TONE})
    await line.runtime.inbox.step(*ids)
    assert await outcomes(line, ids) == ["quarantined", "applied"]
    assert (await line.state(bad), await line.state(good)) == ("running", "finishing")


async def test_one_that_breaks_the_transaction_is_parted_from_those_it_came_with(line: Stage) -> None:
    good, _ = await line.start()
    bad, _ = await line.start()
    attempts = {attempt.job_id: attempt for attempt in await line.attempts()}
    moves = line.runtime.inbox._moves
    carry_out = moves.carry_out

    async def stumble(tx: Any, decision: Any, job: Any, *rest: Any) -> bool:
        if job.id == bad:
            raise ZeroDivisionError
        return await carry_out(tx, decision, job, *rest)

    moves.carry_out = stumble  # type: ignore[method-assign]
    ids = await bring(line, attempts[bad], {"status": "processing"})
    ids += await bring(line, attempts[good], {"status": "succeeded", "output": TONE})
    await line.runtime.inbox.step(*ids)
    assert await outcomes(line, ids) == [None, "applied"]
    [waits] = [each for each in await line.rows(Delivery) if each.id == ids[0]]
    assert (waits.tries, waits.detail) == (1, "ZeroDivisionError")


async def test_workers_whose_items_overlap_have_one_effect(line: Stage) -> None:
    jobs = [(await line.start())[0] for _ in range(6)]
    attempts = {attempt.job_id: attempt for attempt in await line.attempts()}
    ids = [(await bring(line, attempts[job], {"status": "succeeded", "output": TONE}))[0] for job in jobs]
    step = line.runtime.inbox.step
    await asyncio.gather(step(*ids), step(*reversed(ids)), step(*ids[2:]), *(step(each) for each in ids))
    assert await outcomes(line, ids) == ["applied"] * 6
    await line.drain()
    for job in jobs:
        assert (await line.events(job)).count("job.finishing") == 1
    assert await line.count(Asset) == 1, "the same bytes"
