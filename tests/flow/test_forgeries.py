"""The webhook door against strangers: what is not proven is refused with one text, and nothing is stored.

And what is proven but makes no sense is kept for a person, without a crash. The numbers are those of the list
of faults that the service was built against.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from db.tables import Delivery, Job
from tests.fakes.provider import OTHER_SECRET
from tests.flow.conftest import OpenStage, Stage

BODY = b'{"id": "x", "status": "starting"}'
LIMIT = 100_000


@pytest.fixture
async def door(stage_on_sqlite: OpenStage) -> AsyncIterator[Stage]:
    async with stage_on_sqlite(max_content_length=LIMIT) as line:
        yield line


async def refused(line: Stage, headers: Any, body: bytes = BODY) -> str:
    """Post it; the text of the refusal, after which nothing is stored and the counter is up."""
    figure = line.runtime.line.metrics.deliveries_refused
    before = sum(sample.value for metric in figure.collect() for sample in metric.samples)
    url = f"/v1/webhooks/replicate/att_1?token={line.runtime.callbacks.token('att_1')}"
    reply = await line.client.post(url, content=body, headers=headers)
    assert reply.status_code in (400, 401, 413, 415), (reply.status_code, headers)
    assert reply.headers["content-type"] == "application/problem+json"
    assert await line.count(Delivery) == 0
    after = sum(sample.value for metric in figure.collect() for sample in metric.samples)
    assert after > before
    return str(reply.json()["detail"])


def without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
async def test_fault_1_each_header_missing_empty_or_doubled_is_refused(door: Stage, name: str) -> None:
    good = door.fake.signed("msg_1", BODY)
    texts = {
        await refused(door, without(good, name)),
        await refused(door, good | {name: ""}),
        await refused(door, [*good.items(), (name, good[name])]),
        await refused(door, [*good.items(), (name, "other")]),
    }
    assert texts == {"the webhook could not be verified"}


@pytest.mark.parametrize(
    "signature",
    [
        "v1",
        "v1,",
        "v1,a,b",
        "{good}  {good}",
        " {good}",
        "{good},",
        "v1,!!!",
        "v1,AAAA",
        "v1a,{mac}",
        "v2,{mac}",
        "V1,{mac}",
        "{mac}",
        "v1,{mac}x",
        "v1,sch\xfcssel",
    ],
)
async def test_fault_2_a_malformed_signature_list_is_refused(door: Stage, signature: str) -> None:
    good = door.fake.signed("msg_1", BODY)
    text = signature.replace("{good}", good["webhook-signature"])
    text = text.replace("{mac}", good["webhook-signature"].removeprefix("v1,"))
    headers = [(k.encode(), v.encode()) for k, v in without(good, "webhook-signature").items()]
    told = await refused(door, [*headers, (b"webhook-signature", text.encode("latin-1"))])
    assert told == "the webhook could not be verified"


async def test_fault_3_a_body_that_is_not_text_is_refused(door: Stage) -> None:
    body = b"\xff\xfe{}"
    await refused(door, door.fake.signed("msg_1", body), body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b'"x"',
        b"null",
        b"[" * 50_000,
        b'{"a":' * 15_000,
        b'{"status": "succeeded", "status": "failed"}',
        b'{"status": NaN}',
        b'{"status": "succeeded", "metrics": {"predict_time": Infinity}}',
        b'{"status": "succeeded", "metrics": {"predict_time": 1e999}}',
        b'{"status": 5}',
        b'{"status": ""}',
        b'{"output": "https://example.com/a.wav"}',
        b'{"status": "' + b"1" * 5000 + b'"}',
        b'{"status": "asleep"}',
        b'{"status": "succeeded", "x": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_fault_3_what_is_proven_and_not_understood_is_kept_and_harms_nobody(
    line: Stage, body: bytes
) -> None:
    job_id, _ = await line.start()
    attempt_id = (await line.attempts())[0].id
    assert (await line.post(attempt_id, body, line.fake.signed("msg_1", body))).status_code == 200
    await line.drain()
    kept = await line.ledger()
    assert [item["outcome"] for item in kept] == ["quarantined"]
    assert kept[0]["detail"]
    shown = (await line.client.get(f"/v1/deliveries/{kept[0]['id']}")).json()
    assert base64.b64decode(shown["body_base64"]) == body[: 64 * 1024]
    assert shown["size_bytes"] == len(body)
    assert await line.state(job_id) == "running"


async def test_fault_3_odd_but_readable_news_is_applied(line: Stage) -> None:
    """NUL, half a pair, numbers past 64 bits and unknown fields: no database may choke on them."""
    job_id, _ = await line.start()
    attempt_id = (await line.attempts())[0].id
    body = (
        b'{"id": "' + b"p" * 300 + b'", "status": "failed", "error": "a\\u0000b\\ud800c", "odd\\u0000": 1,'
        b'"metrics": {"predict_time": 1e300, "n": 123456789012345678901234567890, "t\\u0000": "\\ud800"},'
        b'"logs": ["x", 5, null], "created_at": 12, "model": {"a": 1}, "version": "hidden"}'
    )
    assert (await line.post(attempt_id, body, line.fake.signed("msg_1", body))).status_code == 200
    await line.drain()
    assert await line.outcomes() == ["applied"]
    attempt = (await line.read(job_id))["attempts"][0]
    assert (attempt["status"], attempt["error"]) == ("failed", "a\ufffdb?c")


@pytest.mark.parametrize("offset_s", [-299, 299, 0])
async def test_fault_4_a_timestamp_inside_the_window_is_accepted(door: Stage, offset_s: int) -> None:
    headers = door.fake.signed(f"msg_{offset_s}", BODY, at=time.time() + offset_s)
    assert (await door.post("att_1", BODY, headers)).status_code == 200


@pytest.mark.parametrize("offset_s", [-302, 302, -86_400, 10**9])
async def test_fault_4_a_timestamp_outside_the_window_is_refused(door: Stage, offset_s: int) -> None:
    await refused(door, door.fake.signed("msg_1", BODY, at=time.time() + offset_s))


@pytest.mark.parametrize(
    "text",
    [
        "nan",
        "inf",
        "1e9",
        "1_700_000_000",
        " 1",
        "-1",
        str(2**70),
        "{now}.0",
        "0{now}",
        "+{now}",
        "0x10",
        "{now} ",
    ],
)
async def test_fault_4_a_timestamp_that_is_not_all_digits_is_refused(door: Stage, text: str) -> None:
    good = door.fake.signed("msg_1", BODY)
    value = text.replace("{now}", good["webhook-timestamp"])
    if value.strip() == good["webhook-timestamp"]:
        return  # blanks around a header's value are not part of it (RFC 9110 §5.5)
    await refused(door, good | {"webhook-timestamp": value})


async def test_fault_5_another_accounts_secret_is_refused(door: Stage) -> None:
    door.fake.forge = True
    await refused(door, door.fake.signed("msg_1", BODY))
    assert door.fake.secret != OTHER_SECRET


async def test_fault_5_a_good_entry_beside_unknown_versions_is_accepted(door: Stage) -> None:
    good = door.fake.signed("msg_1", BODY)
    mixed = f"v1a,AAAA v2,BBBB {good['webhook-signature']}"
    assert (await door.post("att_1", BODY, good | {"webhook-signature": mixed})).status_code == 200


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "body"])
async def test_fault_8_a_captured_message_with_anything_changed_is_refused(door: Stage, changed: str) -> None:
    good = door.fake.signed("msg_1", BODY)
    match changed:
        case "body":
            await refused(door, good, BODY.replace(b"x", b"y"))
            await refused(door, good, BODY + b" ")
        case "webhook-id":
            await refused(door, good | {changed: "msg_2"})
        case _:
            await refused(door, good | {changed: str(int(good[changed]) + 1)})


async def test_fault_8_a_days_old_original_is_refused_at_the_door_and_accepted_as_a_replay(
    line: Stage,
) -> None:
    job_id, prediction_id = await line.start()
    await line.fake.begin(prediction_id)
    hook = line.fake.sent[-1]
    attempt_id = (await line.attempts())[0].id
    old = line.fake.signed("msg_old", hook.body, at=time.time() - 3 * 86_400)
    assert (await line.post(attempt_id, hook.body, old)).status_code == 401
    kept = (await line.ledger())[0]["id"]
    reply = await line.client.post(f"/v1/deliveries/{kept}/replay")
    assert (reply.status_code, reply.json()["new"]) == (202, True)
    await line.drain()
    assert [item["source"] for item in await line.ledger()] == ["webhook", "replay"]
    assert await line.state(job_id) == "running"


async def test_fault_11_a_body_past_the_limit_is_refused_however_it_is_announced(door: Stage) -> None:
    big = b"x" * (LIMIT + 1)
    headers = door.fake.signed("msg_1", BODY)
    await refused(door, headers, big)
    await refused(door, headers | {"content-encoding": "gzip"})
    await refused(door, headers | {"content-length": "99999999999999999999999"})
    await refused(door, [*headers.items(), ("content-length", "5x")])
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 10_000
            yield b" " * 10_000

    url = f"/v1/webhooks/replicate/att_1?token={door.runtime.callbacks.token('att_1')}"
    reply = await door.client.post(url, content=endless(), headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")
    assert sent <= LIMIT + 30_000
    assert await door.count(Delivery) == 0


async def test_fault_11_a_body_of_a_real_providers_size_is_accepted(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, error="x" * 11_000_000)
    assert line.fake.sent[-1].status == 200
    await line.drain()
    assert await line.outcomes() == ["applied"]
    assert len((await line.read(job_id))["attempts"][0]["error"]) <= 4096


async def test_fault_13_a_flood_of_signatures_is_refused_without_being_read(door: Stage) -> None:
    good = door.fake.signed("msg_1", BODY)
    mac = good["webhook-signature"]
    await refused(door, good | {"webhook-signature": "v1,AAAA " * 8 + mac})
    started = time.process_time()
    await refused(door, good | {"webhook-signature": "v1,AAAA " * 100_000 + mac})
    await refused(door, good | {"webhook-id": "m" * 64_000})
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/webhooks/replicate/att_1/", 404),
        ("POST", "/v1/webhooks/replicate", 404),
        ("POST", "/v1/webhooks/replicate/", 404),
        ("POST", "/v1/webhooks/", 404),
        ("POST", "/v1/webhooks", 404),
        ("POST", "//v1/webhooks/replicate/att_1", 404),
        ("POST", "/v1/webhooks/nobody/att_1", 404),
        ("POST", "/webhooks/replicate/att_1", 404),
        ("GET", "/v1/webhooks/replicate/att_1", 405),
        ("PUT", "/v1/webhooks/replicate/att_1", 405),
    ],
)
async def test_fault_15_another_address_is_never_answered_by_a_redirect(
    door: Stage, method: str, path: str, status: int
) -> None:
    # An absolute address: httpx would read the one with two slashes as a host.
    url = f"https://reprise.test{path}?token={door.runtime.callbacks.token('att_1')}"
    reply = await door.client.request(method, url, headers=door.fake.signed("msg_1", BODY), content=BODY)
    assert reply.status_code == status
    assert await door.count(Delivery) == 0


@pytest.mark.parametrize("path", ["att%00", "att%2f1", "%ff%fe", "a" * 5000, "..%2f..", "%0d%0ax"])
async def test_an_odd_attempt_in_the_address_is_an_orphan_at_most(line: Stage, path: str) -> None:
    body = b'{"status": "failed", "path": "%s"}' % path[:20].encode()
    reply = await line.client.post(
        f"/v1/webhooks/replicate/{path}?token=%00", content=body, headers=line.fake.signed("m", body)
    )
    assert reply.status_code in (200, 400, 404), reply.text
    await line.drain()
    assert await line.outcomes() in ([], ["orphaned"])
    assert await line.count(Job) == 0


async def test_fault_16_every_refusal_reads_the_same_to_the_outside(door: Stage) -> None:
    good = door.fake.signed("msg_1", BODY)
    door.fake.forge = True
    forged = door.fake.signed("msg_1", BODY)
    cases = [
        (forged, BODY),
        (good, BODY + b" "),
        (good | {"webhook-timestamp": "1"}, BODY),
        (good | {"webhook-signature": "nonsense"}, BODY),
        (without(good, "webhook-id"), BODY),
    ]
    seen = set()
    for headers, body in cases:
        reply = await door.post("att_1", body, headers)
        told = reply.json()
        told.pop("request_id")
        seen.add((reply.status_code, str(told)))
    assert len(seen) == 1
