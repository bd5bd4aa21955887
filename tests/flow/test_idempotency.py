"""The same request twice makes one thing: a job, a retry, an upload; in the rows, for each tenant apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.access.callers import Caller, Scope
from app.errors import StorageUnavailable
from app.intake.once import CLAIM_S, UnderWay
from db.tables import Audit, IdempotencyKey, Job, Upload
from tests.flow.conftest import OpenStage, Stage, tone

RAIN = {"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}
KEY = {"idempotency-key": "k-1"}


async def ask(line: Stage, body: Any = RAIN, **headers: str) -> httpx.Response:
    return await line.client.post("/v1/jobs", json=body, headers=KEY | headers)


async def send(line: Stage, content: bytes, **headers: str) -> httpx.Response:
    files = {"file": ("talk.wav", content, "audio/wav")}
    return await line.client.post("/v1/uploads", files=files, headers=KEY | headers)


async def pieces(content: bytes, held: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    """The bytes of a file; the last of them once they are let go."""
    yield content[:100]
    if held is not None:
        await held.wait()
    yield content[100:]


async def bearer(line: Stage, tenant: str) -> dict[str, str]:
    by = Caller(tenant, frozenset(Scope))
    issued = await line.runtime.key_desk.create(by, name="test", scopes=[Scope.ADMIN])
    line.runtime.keyring.close_house()
    return {"authorization": f"Bearer {issued.text}"}


async def test_a_hundred_at_once_make_one_job(line: Stage) -> None:
    """Fault 19: each waits for the commit of the first and is answered with its job."""
    replies = await asyncio.gather(*(ask(line) for _ in range(100)))
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert await line.count(Job) == await line.count(IdempotencyKey) == 1


async def test_two_processes_make_one_job(stage_on: OpenStage) -> None:
    """Fault 19: the key is in the rows, not in a process."""
    async with stage_on() as line, stage_on() as other:
        replies = await asyncio.gather(*(ask(each) for each in (line, other) * 10))
        assert {reply.status_code for reply in replies} == {202}
        assert len({reply.json()["id"] for reply in replies}) == 1
        assert await line.count(Job) == 1


async def test_the_same_key_of_another_tenant_is_another_key(line: Stage) -> None:
    """Fault 19: jobs, and uploads."""
    acme, umbrella = await bearer(line, "acme"), await bearer(line, "umbrella")
    jobs = [(await ask(line, RAIN, **who)).json()["id"] for who in (acme, umbrella, acme, umbrella)]
    assert jobs[:2] == jobs[2:]
    assert len(set(jobs)) == 2
    other = await ask(line, {**RAIN, "priority": 1}, **umbrella)
    assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")
    again = {"idempotency-key": "k-2"}
    uploads = [
        (await send(line, tone(), **(who | again))).json()["upload_id"]
        for who in (acme, umbrella, acme, umbrella)
    ]
    assert uploads[:2] == uploads[2:]
    assert len(set(uploads)) == 2


async def test_a_retry_with_a_key_makes_one_job(line: Stage) -> None:
    """Fault 19: and the log says once that it was retried."""
    job_id = await line.ask()
    other_id = await line.ask()
    for each in (job_id, other_id):
        await line.client.post(f"/v1/jobs/{each}/cancel")
    replies = await asyncio.gather(
        *(line.client.post(f"/v1/jobs/{job_id}/retry", headers=KEY) for _ in range(10))
    )
    assert {reply.status_code for reply in replies} == {202}
    [new_id] = {reply.json()["id"] for reply in replies}
    assert await line.count(Job) == 3
    elsewhere = await line.client.post(f"/v1/jobs/{other_id}/retry", headers=KEY)
    assert (elsewhere.status_code, elsewhere.json()["field"]) == (422, "Idempotency-Key")
    acts = [each.subject for each in await line.rows(Audit) if each.act == "job.retried"]
    assert acts == [job_id]
    assert new_id not in (job_id, other_id)


@pytest.mark.parametrize("path", ["/v1/jobs/job_x/retry", "/v1/uploads"])
@pytest.mark.parametrize("key", [b"", b"k" * 256, b"two words", b"\x01"])
async def test_a_malformed_key_is_refused_wherever_one_is_taken(
    sqlite_line: Stage, path: str, key: bytes
) -> None:
    """Fault 19."""
    reply = await sqlite_line.client.post(path, headers=[(b"idempotency-key", key)])
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_header")


async def test_an_upload_under_way_is_refused_a_second_time_and_known_afterwards(line: Stage) -> None:
    """Fault 19: 409 in flight; then the same bytes are the same upload, and other bytes are refused."""
    content, held = tone(0.8), asyncio.Event()
    uploads = line.runtime.uploads
    first = asyncio.create_task(uploads.receive(pieces(content, held), idempotency_key="k-1"))
    while not await line.count(IdempotencyKey):
        await asyncio.sleep(0)
    second = await send(line, content)
    assert (second.status_code, second.json()["code"]) == (409, "request_under_way")
    assert second.headers["retry-after"] == "1"
    job = await ask(line)
    assert (job.status_code, job.json()["field"]) == (422, "Idempotency-Key"), "another request's key"
    held.set()
    made = await first
    again = await send(line, content)
    assert (again.status_code, again.json()["upload_id"]) == (201, made.upload_id)
    assert again.json()["expires_at"] == (made.expires_at.isoformat().replace("+00:00", "Z"))
    other = await send(line, tone(0.9))
    assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")
    assert await line.count(Upload) == 1


async def test_of_many_uploads_at_once_with_one_key_one_is_made(line: Stage) -> None:
    """Fault 19."""
    replies = await asyncio.gather(*(send(line, tone()) for _ in range(8)))
    statuses = [reply.status_code for reply in replies]
    assert set(statuses) <= {201, 409}
    assert 201 in statuses
    assert len({reply.json()["upload_id"] for reply in replies if reply.status_code == 201}) == 1
    assert await line.count(Upload) == 1


async def test_an_upload_that_failed_leaves_its_key_free(
    line: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 19: whether it was ours to mend or the caller's."""
    assert (await send(line, b"not sound")).status_code == 422
    assert await line.count(IdempotencyKey) == 0

    async def unavailable(*_: Any, **__: Any) -> None:
        raise StorageUnavailable("the bucket is away")

    with monkeypatch.context() as broken:
        broken.setattr(line.runtime.bench.storage, "put", unavailable)
        assert (await send(line, tone())).status_code == 503
    assert await line.count(IdempotencyKey) == await line.count(Upload) == 0
    assert (await send(line, tone())).status_code == 201


async def test_the_key_of_a_process_that_died_is_free_after_its_time(line: Stage) -> None:
    """Fault 19: the first answer was none, since the process was killed in the middle."""
    now = datetime.now(UTC)
    claims = line.runtime.uploads._once
    dead = await claims._take("default", "k-1")
    assert (await send(line, tone())).status_code == 409
    async with line.runtime.line.database.transaction() as tx:
        row = (await tx.execute(IdempotencyKey.__table__.select())).mappings().one()  # type: ignore[attr-defined]
        assert row["open_until"] <= now + timedelta(seconds=CLAIM_S + 60)
        await tx.execute(update(IdempotencyKey).values(open_until=now - timedelta(seconds=1)))
    reply = await send(line, tone())
    assert reply.status_code == 201
    # If it was only slow, it finds that the key is not its own any more, and stores nothing under it.
    with pytest.raises(UnderWay):
        await line.runtime.line.database.transact(lambda tx: dead.settle(tx, "f" * 64, "upl_late"))
    await claims._give_back(dead)
    assert (await send(line, tone())).json()["upload_id"] == reply.json()["upload_id"]


async def test_a_key_whose_upload_has_expired_makes_another(line: Stage) -> None:
    first = (await send(line, tone())).json()["upload_id"]
    await line.change(Upload, first, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await line.runtime.housekeeper.expire_uploads()
    second = await send(line, tone())
    assert second.status_code == 201
    assert second.json()["upload_id"] != first
    assert (await send(line, tone())).json()["upload_id"] == second.json()["upload_id"]
