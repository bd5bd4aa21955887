"""The story "refusals": the outside hears one text, the inside which check failed; and late originals."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from sqlalchemy import select

from app.dispatch import Route
from app.errors import Unauthenticated
from app.ledger.refusals import MOST_A_SECOND, MOST_KEPT, Refusals
from app.provider.replicate import Replicate
from db.ids import make_id
from db.ledger.refusals import insert_refusals
from db.tables import Delivery, Job, Refusal
from tests.fakes.provider import OTHER_SECRET, SECRET, TOKEN
from tests.flow.conftest import TONE, OpenStage, Stage

DAY_S = 86_400


async def refused(line: Stage, **wanted: Any) -> list[Any]:
    """Oldest first."""
    reply = await line.client.get("/v1/refusals", params=wanted)
    assert reply.status_code == 200, reply.text
    return list(reply.json()["items"][::-1])


BODY = b'{"status": "processing"}'
ATTACKS = {
    "header": lambda headers: {**headers, "webhook-id": ""},
    "signature_form": lambda headers: {**headers, "webhook-signature": "v1 no comma"},
    "message_id": lambda headers: {**headers, "webhook-id": "a, a"},
    "timestamp_form": lambda headers: {**headers, "webhook-timestamp": "1e9"},
    "signature": lambda headers: {**headers, "webhook-id": "msg_other"},
}


@pytest.mark.parametrize("failed", ATTACKS)
async def test_the_inside_knows_which_check_failed_and_the_outside_hears_one_text(
    sqlite_line: Stage, failed: str
) -> None:
    """Fault 1, Fault 2, Fault 5, Fault 16."""
    line = sqlite_line
    await line.start()
    attempt_id = (await line.attempts())[0].id
    reply = await line.post(attempt_id, BODY, ATTACKS[failed](line.fake.signed("msg_1", BODY)))
    assert (reply.status_code, reply.json()["detail"]) == (401, "the webhook could not be verified")
    (told,) = await refused(line)
    assert (told["failed"], told["attempt_id"], told["provider"]) == (failed, attempt_id, "replicate")
    assert told["secret"] == (0 if failed == "signature" else None)
    assert await line.count(Delivery) == 0


@pytest.mark.parametrize(("late_s", "forged"), [(412, False), (-900, False), (412, True)])
async def test_a_message_outside_the_window_is_told_with_its_seconds_and_whether_it_was_real(
    line: Stage, late_s: int, *, forged: bool
) -> None:
    """Fault 4."""
    await line.start()
    attempt_id = (await line.attempts())[0].id
    line.fake.forge = forged
    headers = line.fake.signed("msg_1", BODY, at=time.time() - late_s)
    assert (await line.post(attempt_id, BODY, headers)).status_code == 401
    (told,) = await refused(line)
    assert told["failed"] == "timestamp"
    assert told["skew_s"] == pytest.approx(late_s, abs=60)
    assert told["secret"] == (0 if forged else 1)
    assert ("signed by none of our secrets" in told["detail"]) is forged


async def test_the_number_of_the_secret_that_fits_is_told(stage_on_sqlite: OpenStage) -> None:
    """Fault 5: signed by the second of two live secrets, but too late."""
    replicate = Replicate(token=TOKEN, base_url="https://r.test", secrets=[OTHER_SECRET, SECRET])
    async with stage_on_sqlite(ports={"routes": {"replicate": Route(replicate)}}) as line:
        headers = line.fake.signed("msg_1", BODY, at=time.time() - 1000)
        assert (await line.post("att_nobody", BODY, headers)).status_code == 401
        (told,) = await refused(line, failed="timestamp")
        assert (told["secret"], told["attempt_id"]) == (2, None)


async def test_what_never_came_to_its_signature_is_told_too(stage_on_sqlite: OpenStage) -> None:
    """Fault 11, Fault 15."""
    async with stage_on_sqlite(
        routes=("replicate", "cog"), max_content_length=2000, max_upload_bytes=1000
    ) as line:
        big = await line.post("att_x", b"x" * 3000, {})
        token = await line.client.post("/v1/webhooks/cog/att_x?token=guess", content=b"{}")
        method = await line.client.get("/v1/webhooks/replicate/att_x")
        where = await line.client.post("/v1/webhooks/nobody/att_x")
        assert [each.status_code for each in (big, token, method, where)] == [413, 401, 405, 404]
        told = [(each["provider"], each["failed"]) for each in await refused(line)]
        assert told == [
            ("replicate", "too_large"),
            ("cog", "token"),
            ("replicate", "method_not_allowed"),
            ("unknown", "not_found"),
        ]


async def test_nothing_of_a_strangers_text_is_kept(sqlite_line: Stage) -> None:
    """Fault 71: whatever is put into address, headers and body."""
    line, canary = sqlite_line, "canary-7f3a"
    headers = line.fake.signed(canary, canary.encode()) | {"user-agent": canary, "x-request-id": canary}
    line.fake.forge = True
    await line.post(canary, canary.encode(), headers | {"webhook-signature": f"v1,{canary}"}, token=canary)
    await line.post(f"att_{canary}", canary.encode(), headers | {"webhook-timestamp": canary})
    await line.runtime.ledger.refusals.write()
    async with line.runtime.line.database.reading() as tx:
        rows = (await tx.execute(select(Refusal.__table__))).all()  # type: ignore[attr-defined]
    assert len(rows) == 2
    assert canary not in str(rows)


async def test_a_flood_is_counted_and_not_written_and_the_table_never_grows(line: Stage) -> None:
    now_s = [100.0]
    refusals = Refusals(line.runtime.line, clock=lambda: now_s[0])
    error = Unauthenticated("no")
    for _ in range(50):
        refusals.note(error, provider="replicate", attempt_id="x")
    now_s[0] += 1
    refusals.note(error, provider="replicate", attempt_id="x")
    await refusals.aclose()
    told = await refused(line)
    assert [each["left_out"] for each in told] == [0] * MOST_A_SECOND + [50 - MOST_A_SECOND]
    assert "reprise_refusals_left_out_total 45.0" in (await line.client.get("/metrics")).text
    at = line.runtime.line.clock.now()
    more = [
        Refusal(id=make_id("rfs"), at=at, provider="cog", tenant="default", failed="token", detail="")
        for _ in range(MOST_KEPT)
    ]
    async with line.runtime.line.database.transaction() as tx:
        await insert_refusals(tx, more, most=MOST_KEPT)
    assert await line.count(Refusal) == MOST_KEPT
    assert {each["provider"] for each in await refused(line, limit=200)} == {"cog"}


async def test_a_refusal_belongs_to_the_tenant_whose_attempt_was_named(sqlite_line: Stage) -> None:
    """Fault 18."""
    line = sqlite_line
    job_id, _ = await line.start()
    await line.change(Job, job_id, tenant="other")
    attempt_id = (await line.attempts())[0].id
    await line.post(attempt_id, BODY, {})
    await line.post("att_nobody", BODY, {})
    assert [each["attempt_id"] for each in await refused(line)] == [None]
    theirs = await line.runtime.ledger.refusals.list_refusals(
        tenant="other", failed=None, since=None, before_id=None, limit=10
    )
    assert [each.attempt_id for each in theirs] == [attempt_id]


async def test_refusals_are_paged(sqlite_line: Stage) -> None:
    for _ in range(3):
        await sqlite_line.post("att_nobody", BODY, {})
    first = (await sqlite_line.client.get("/v1/refusals", params={"limit": 2})).json()
    params = {"limit": 2, "cursor": first["next_cursor"]}
    second = (await sqlite_line.client.get("/v1/refusals", params=params)).json()
    ids = [each["id"] for each in (*first["items"], *second["items"])]
    assert (ids, second["next_cursor"]) == (sorted(ids, reverse=True), None)


# ── originals that come late ────────────────────────────────────────────────────────────────────────────


async def lost(line: Stage) -> tuple[str, bytes, dict[str, str]]:
    """A job whose last webhook was sent days ago, and nobody listened; the original."""
    line.fake.lose_hooks = frozenset({"start", "logs", "completed"})
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    body = json.dumps(line.fake.predictions[prediction_id]).encode()
    return job_id, body, line.fake.signed("msg_lost", body, at=time.time() - 3 * DAY_S)


async def bring(line: Stage, body: bytes, headers: dict[str, str], **more: Any) -> Any:
    wanted = {"headers": headers, "body_base64": base64.b64encode(body).decode(), **more}
    return await line.client.post("/v1/deliveries/import", json=wanted)


async def test_fault_8_a_days_old_original_is_refused_at_the_door_and_taken_from_a_caller(
    line: Stage,
) -> None:
    job_id, body, headers = await lost(line)
    attempt_id = (await line.attempts())[0].id
    assert (await line.post(attempt_id, body, headers)).status_code == 401
    taken = await bring(line, body, headers)
    assert (taken.status_code, taken.json()["new"]) == (202, True)
    again = await bring(line, body, headers, attempt_id=attempt_id)
    assert again.json() == {"delivery_id": taken.json()["delivery_id"], "new": False}
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    (delivery,) = await line.ledger()
    assert (delivery["source"], delivery["outcome"], delivery["message_id"]) == (
        "replay",
        "applied",
        "msg_lost",
    )
    # After it was taken the door refuses it as before.
    assert (await line.post(attempt_id, body, headers)).status_code == 401


async def test_fault_8_an_original_that_the_door_has_had_is_known(line: Stage) -> None:
    _, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    hook = line.fake.sent[-1]
    reply = await bring(line, hook.body, dict(hook.headers))
    assert reply.json()["new"] is False
    (delivery,) = await line.ledger()
    assert reply.json()["delivery_id"] == delivery["id"]


async def test_fault_8_an_original_with_anything_changed_is_refused(sqlite_line: Stage) -> None:
    line = sqlite_line
    _, body, headers = await lost(line)
    other = line.fake.signed("msg_new", body, at=time.time() + 3600)
    line.fake.forge = True
    forged = line.fake.signed("msg_lost", body, at=time.time() - DAY_S)
    changed: dict[str, tuple[bytes, dict[str, str]]] = {
        "id": (body, headers | {"webhook-id": "msg_else"}),
        "body": (body.replace(b"succeeded", b"processin"), headers),
        "time": (body, headers | {"webhook-timestamp": str(int(time.time()))}),
        "no time": (body, headers | {"webhook-timestamp": "now"}),
        "future": (body, other),
        "forged": (body, forged),
        "no signature": (body, {name: value for name, value in headers.items() if "sign" not in name}),
    }
    for name, (content, given) in changed.items():
        reply = await bring(line, content, given)
        assert (reply.status_code, reply.json()["field"]) == (422, "headers"), name
    assert (await bring(line, body, headers, provider="cog")).status_code == 422
    assert await line.count(Delivery) == 0


async def test_an_original_is_taken_for_its_own_attempt_only(sqlite_line: Stage) -> None:
    """Fault 18: nor for another's, nor by another tenant."""
    line = sqlite_line
    job_id, body, headers = await lost(line)
    await line.start()
    mine, other = await line.attempts()
    wrong = await bring(line, body, headers, attempt_id=other.id)
    assert (wrong.status_code, wrong.json()["field"]) == (422, "attempt_id")
    assert (await bring(line, body, headers, attempt_id="att_nobody")).status_code == 404
    await line.change(Job, job_id, tenant="other")
    assert (await bring(line, body, headers, attempt_id=mine.id)).status_code == 404
    assert (await bring(line, body, headers)).status_code == 404
    assert await line.count(Delivery) == 0
