"""The story "webhook": from a signed callback to a stored asset, once, in whatever order it comes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from app.crash_points import CrashPoint
from app.dispatch import Route
from app.lifecycle import Silence
from app.provider.replicate import Replicate
from db.tables import Asset, Delivery, Event, Output
from tests.conftest import MariadbServer
from tests.fakes.provider import OTHER_SECRET, SECRET
from tests.flow.conftest import TONE, OpenStage, Stage, tone

VECTOR_A = {
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "timestamp": "1614265330",
    "body": b'{"test": 2432232314}',
    "signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
VECTOR_B = {
    "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "id": "msg_2b6f",
    "timestamp": "1700000000",
    "body": b'{"id":"ufawqhfynnddngldkgtslldrkq","status":"succeeded",'
    b'"output":"https://replicate.delivery/pbxt/abc/out.wav"}',
    "signature": "v1,Pt1hSHblIpejA1Jz7mKuBZKGS18wkcL0eL4LPMLsnt8=",
}
ENDED = ["job.created", "job.dispatched", "job.finishing", "job.succeeded"]


@asynccontextmanager
async def unwritable(line: Stage) -> AsyncIterator[None]:
    """Within the block nothing can be stored: tables are away, or the server read-only, or nobody let in."""
    url = make_url(line.runtime.settings.database_url)
    if line.runtime.settings.is_sqlite:
        with sqlite3.connect(str(url.database), isolation_level=None) as own:
            for table in ("deliveries", "jobs"):
                own.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
            yield
            for table in ("deliveries", "jobs"):
                own.execute(f"ALTER TABLE {table}_away RENAME TO {table}")
        own.close()
        return
    if not line.runtime.settings.is_shared:
        await MariadbServer(url.port or 0).execute("SET GLOBAL read_only=ON")
        yield
        await MariadbServer(url.port or 0).execute("SET GLOBAL read_only=OFF")
        return
    own = await asyncpg.connect(host=url.host, port=url.port, user=url.username, database="postgres")
    await own.execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS false')
    await own.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", url.database
    )
    yield
    await own.execute(f'ALTER DATABASE "{url.database}" ALLOW_CONNECTIONS true')
    await own.close()


async def test_a_webhook_ends_in_a_stored_asset(stage_on: OpenStage) -> None:
    async with stage_on(serve=True) as line:
        job_id, prediction_id = await line.start()
        url = line.fake.keep_output("out.wav", tone(1.0, pad_s=0.5))
        await line.fake.begin(prediction_id)
        await line.fake.log(prediction_id, "50%|####      | 1/2\n")
        await line.drain()
        running = await line.read(job_id)
        assert running["state"] == "running"
        assert running["stage"] == "processing"
        assert 0 < running["progress"] < 0.9
        await line.fake.finish(prediction_id, output=url)
        assert [hook.status for hook in line.fake.sent] == [200, 200, 200]
        await line.drain()
        job = await line.read(job_id)
        assert (job["state"], job["progress"], job["error"]) == ("succeeded", 1.0, None)
        output = job["outputs"]["audio"]
        assert 0.9 < output["duration_s"] < 1.3, "both ends were to be trimmed"
        content = (await line.client.get(output["url"])).content
        assert hashlib.sha256(content).hexdigest() == output["sha256"]
        assert len(content) == output["size_bytes"]
        attempt = job["attempts"][0]
        assert (attempt["status"], attempt["prediction_id"]) == ("succeeded", prediction_id)
        assert attempt["metrics"]["predict_time"] == 1.25
        events = await line.events(job_id)
        assert [each for each in events if each != "job.progress"] == ENDED
        assert await line.outcomes() == ["applied", "applied", "applied"]


async def test_fifty_copies_at_once_are_all_accepted_and_have_one_effect(line: Stage) -> None:
    """Fault 7."""
    job_id, prediction_id = await line.start()
    row = line.fake.predictions[prediction_id]
    body = json.dumps(row | {"status": "succeeded", "output": TONE}).encode()
    headers = line.fake.signed("msg_same", body)
    attempt_id = (await line.attempts())[0].id
    replies = await asyncio.gather(*(line.post(attempt_id, body, headers) for _ in range(50)))
    assert {reply.status_code for reply in replies} == {200}
    assert await line.count(Delivery) == 1
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    assert await line.events(job_id) == ENDED
    assert await line.count(Asset) == await line.count(Output) == 1
    assert (await line.post(attempt_id, body, headers)).status_code == 200
    assert await line.drain() == 0


async def test_the_same_id_with_another_body_has_no_second_effect(line: Stage) -> None:
    """Fault 7."""
    job_id, prediction_id = await line.start()
    row = line.fake.predictions[prediction_id]
    attempt_id = (await line.attempts())[0].id
    for changes in ({"status": "succeeded", "output": TONE}, {"status": "failed", "error": "no"}):
        body = json.dumps(row | changes).encode()
        assert (await line.post(attempt_id, body, line.fake.signed("msg_same", body))).status_code == 200
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    assert await line.count(Delivery) == 1


async def test_a_webhook_after_a_restart_is_still_known(stage_on: OpenStage) -> None:
    """Fault 8."""
    async with stage_on() as line:
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=TONE)
        await line.drain()
        hook = line.fake.sent[-1]
        attempt_id = (await line.attempts())[0].id
    async with stage_on() as line:
        assert (await line.post(attempt_id, hook.body, hook.headers)).status_code == 200
        assert await line.drain() == 0
        assert await line.count(Delivery) == 1
        assert await line.events(job_id) == ENDED


async def test_a_webhook_that_comes_before_the_create_reply_ends_the_job(line: Stage) -> None:
    """Fault 10."""
    line.fake.early = TONE
    job_id = await line.ask()
    await line.drain()
    job = await line.read(job_id)
    assert job["state"] == "succeeded"
    assert [attempt["prediction_id"] for attempt in job["attempts"]] == list(line.fake.predictions)
    assert await line.events(job_id) == ENDED


async def test_reordered_and_doubled_webhooks_change_nothing_after_the_end(line: Stage) -> None:
    """Fault 9."""
    line.fake.reorder = line.fake.double_hooks = True
    job_id, prediction_id = await line.start()
    await line.fake.begin(prediction_id)
    await line.fake.log(prediction_id, "80%|\n")
    await line.fake.finish(prediction_id, output=TONE)
    assert len(line.fake.sent) == 4
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    assert await line.events(job_id) == ENDED
    assert sorted(str(each) for each in await line.outcomes()) == ["applied", "ignored", "ignored", "ignored"]


async def test_progress_never_goes_back(line: Stage) -> None:
    """Fault 9."""
    job_id, prediction_id = await line.start()
    await line.fake.begin(prediction_id)
    for text in ("80%|\n", "20%|\n", "nonsense\n"):
        line.fake.predictions[prediction_id]["logs"] = text
        await line.fake.send_hook("logs", prediction_id)
        await line.drain()
        assert (await line.read(job_id))["progress"] == pytest.approx(0.72)


async def test_a_success_after_the_attempt_was_given_up_changes_nothing_and_is_kept(line: Stage) -> None:
    """Fault 9."""
    job_id, first = await line.start()
    attempt = (await line.attempts())[0]
    await line.runtime.inbox.receive_silence(Silence("silent"), job_id=job_id, attempt=attempt)
    await line.drain()
    await line.hurry()
    await line.drain()
    _, second = line.fake.predictions
    await line.fake.finish(first, output=TONE)
    await line.drain()
    assert (await line.ledger())[-1]["outcome"] == "late_result"
    job = await line.read(job_id)
    assert (job["state"], [each["status"] for each in job["attempts"]]) == ("running", ["lost", "starting"])
    # What the late one cost is still known.
    assert job["attempts"][0]["metrics"]["predict_time"] == 1.25
    await line.fake.finish(second, output=TONE)
    await line.drain()
    assert await line.state(job_id) == "succeeded"


async def test_a_success_after_a_cancel_changes_nothing_and_is_kept(line: Stage) -> None:
    """Fault 9."""
    job_id, prediction_id = await line.start()
    await line.client.post(f"/v1/jobs/{job_id}/cancel")
    before = await line.events(job_id)
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    assert (await line.ledger())[-1]["outcome"] == "late_result"
    assert await line.state(job_id) == "canceled"
    assert await line.events(job_id) == before
    assert await line.count(Asset) == 0


async def test_a_signed_webhook_for_an_unknown_attempt_is_accepted_as_an_orphan(line: Stage) -> None:
    """Fault 10."""
    body = b'{"id": "x", "status": "succeeded", "output": "https://example.com/a.wav"}'
    for attempt_id, token in (("att_nobody", None), ("att_nobody", "0" * 48)):
        reply = await line.post(attempt_id, body, line.fake.signed(f"m{token}", body), token=token)
        assert reply.status_code == 200
    await line.drain()
    assert await line.outcomes() == ["orphaned", "orphaned"]


async def test_a_signed_webhook_at_another_attempts_address_is_an_orphan(line: Stage) -> None:
    """Without the address's own token a signature moves nothing: it may be any account's prediction."""
    job_id, prediction_id = await line.start()
    await line.ask()
    await line.drain()
    body = json.dumps(line.fake.predictions[prediction_id] | {"status": "failed", "error": "x"}).encode()
    first, second = await line.attempts()
    token = line.runtime.callbacks.token(second.id)
    assert (await line.post(first.id, body, line.fake.signed("m", body), token=token)).status_code == 200
    await line.drain()
    assert await line.outcomes() == ["orphaned"]
    assert await line.state(job_id) == "running"


async def test_an_unsigned_provider_is_believed_by_its_token_alone(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        job_id = await line.ask()
        await line.drain()
        attempt_id = line.cog.asked[0]
        for token in ("", "0" * 48, line.runtime.callbacks.token("att_other")):
            path = f"/v1/webhooks/cog/{attempt_id}?token={token}"
            reply = await line.client.post(path, content=b'{"status": "failed"}')
            assert reply.status_code == 401
        assert await line.count(Delivery) == 0
        assert await line.cog.finish(attempt_id, output=TONE) == 200
        await line.drain()
        assert await line.state(job_id) == "succeeded"


@pytest.mark.parametrize("vector", [VECTOR_A, VECTOR_B])
async def test_the_published_vectors_pass_the_real_door(
    stage_on_sqlite: OpenStage, vector: dict[str, Any]
) -> None:
    patient = Replicate(token="t", secrets=[vector["secret"]], tolerance_s=10**10)
    async with stage_on_sqlite(ports={"routes": {"replicate": Route(patient)}}) as line:
        headers = {
            "webhook-id": vector["id"],
            "webhook-timestamp": vector["timestamp"],
            "webhook-signature": vector["signature"],
        }
        assert (await line.post("att_1", vector["body"], headers)).status_code == 200
        assert (await line.post("att_1", vector["body"] + b" ", headers)).status_code == 401
        assert await line.count(Delivery) == 1


async def test_while_no_secret_is_known_the_door_is_closed(stage_on_sqlite: OpenStage) -> None:
    """Fault 6."""
    unprepared = Replicate(token="t")
    async with stage_on_sqlite(ports={"routes": {"replicate": Route(unprepared)}}) as line:
        body = b"{}"
        reply = await line.post("att_1", body, line.fake.signed("m", body))
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) >= 1
        assert await line.count(Delivery) == 0


async def test_either_secret_of_a_rotation_opens_and_a_third_does_not(stage_on_sqlite: OpenStage) -> None:
    """Fault 5."""
    both = Replicate(token="t", secrets=[SECRET, OTHER_SECRET])
    async with stage_on_sqlite(ports={"routes": {"replicate": Route(both)}}) as line:
        body = b'{"status": "starting"}'
        for forge in (False, True):
            line.fake.forge = forge
            assert (await line.post("att_1", body, line.fake.signed(f"m{forge}", body))).status_code == 200
        line.fake.forge, line.fake.secret = False, "whsec_" + "A" * 32
        assert (await line.post("att_1", body, line.fake.signed("m3", body))).status_code == 401


async def test_a_webhook_is_not_accepted_before_its_commit(stage_on_sqlite: OpenStage) -> None:
    """Fault 14: A process that dies right after the commit has not answered; the provider sends it again."""

    class Died(BaseException):
        pass

    def die(point: CrashPoint) -> None:
        if point is CrashPoint.DELIVERY_COMMITTED:
            raise Died

    async with stage_on_sqlite(ports={"reach": die}) as line:
        body = b'{"status": "starting"}'
        with pytest.raises(Died):
            await line.post("att_1", body, line.fake.signed("m", body))
        assert await line.count(Delivery) == 1


async def test_when_the_database_is_away_the_answer_is_503_and_never_2xx(line: Stage) -> None:
    """Fault 14."""
    job_id, prediction_id = await line.start()
    attempt_id = (await line.attempts())[0].id
    body = json.dumps(line.fake.predictions[prediction_id] | {"status": "succeeded", "output": TONE}).encode()
    headers = line.fake.signed("m", body)
    events = await line.count(Event)
    async with unwritable(line):
        reply = await line.post(attempt_id, body, headers)
        assert reply.status_code == 503, reply.text
        assert int(reply.headers["retry-after"]) >= 1
        created = await line.client.post("/v1/jobs", json={"kind": "sound_effect", "input": {"prompt": "x"}})
        assert (created.status_code, created.json()["code"]) == (503, "storage_unavailable")
    assert (await line.count(Delivery), await line.count(Event)) == (0, events)
    assert (await line.post(attempt_id, body, headers)).status_code == 200
    await line.drain()
    assert await line.state(job_id) == "succeeded"


async def test_an_unsigned_provider_that_is_not_configured_has_no_door(sqlite_line: Stage) -> None:
    reply = await sqlite_line.client.post("/v1/webhooks/cog/att_1?token=x", content=b"{}")
    assert reply.status_code == 404
