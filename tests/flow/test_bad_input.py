"""What a caller must not send: each is a problem that names the field, and nothing is stored."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from db.tables import Event, IdempotencyKey, Job
from tests.flow.conftest import OpenStage, Stage

GOOD = {"kind": "sound_effect", "input": {"prompt": "rain"}}
LIMIT = 200_000


@pytest.fixture
async def strict(stage_on: OpenStage) -> AsyncIterator[Stage]:
    """A stage that takes bodies up to `LIMIT`, and the promise that nothing was stored in it."""
    async with stage_on(max_content_length=LIMIT) as line:
        yield line
        assert await line.count(Job) == await line.count(Event) == await line.count(IdempotencyKey) == 0


def with_input(**values: Any) -> dict[str, Any]:
    return {"kind": "sound_effect", "input": {"prompt": "rain", **values}}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


WRONG_VALUES = [
    ({"input": {"prompt": "rain"}}, "kind"),
    ({**GOOD, "kind": "nothing"}, "kind"),
    ({**GOOD, "kind": 5}, "kind"),
    ({**GOOD, "kind": "k" * 65}, "kind"),
    ({**GOOD, "kind": "\ud800"}, "kind"),
    ({"kind": "sound_effect"}, "input"),
    ({**GOOD, "input": []}, "input"),
    ({**GOOD, "input": None}, "input"),
    ({**GOOD, "input": {}}, "input.prompt"),
    (with_input(prompt=""), "input.prompt"),
    (with_input(prompt="   "), "input.prompt"),
    (with_input(prompt="x" * 100_000), "input.prompt"),
    (with_input(prompt=["rain"]), "input.prompt"),
    (with_input(prompt=5), "input.prompt"),
    (with_input(prompt="nul \x00 inside"), "input.prompt"),
    (with_input(prompt="half a pair \ud83d"), "input.prompt"),
    (with_input(duration_s=0.49), "input.duration_s"),
    (with_input(duration_s=30.01), "input.duration_s"),
    (with_input(duration_s=-1), "input.duration_s"),
    (with_input(duration_s="long"), "input.duration_s"),
    (with_input(duration_s=None), "input.duration_s"),
    (with_input(seed=-1), "input.seed"),
    (with_input(seed=2**31), "input.seed"),
    (with_input(seed=10**400), "input.seed"),
    (with_input(seed=1.5), "input.seed"),
    (with_input(loop="perhaps"), "input.loop"),
    (with_input(colour="red"), "input.colour"),
    ({**GOOD, "colour": "red"}, "colour"),
    ({**GOOD, "metadata": []}, "metadata"),
    ({**GOOD, "metadata": {"a": "x" * 17_000}}, "metadata"),
    ({**GOOD, "metadata": {"a": "half \ud83d"}}, "metadata"),
    ({**GOOD, "metadata": {"half \ud83d": 1}}, "metadata"),
    ({**GOOD, "metadata": {"a": "nul \x00"}}, "metadata"),
    ({**GOOD, "metadata": {"a": nested(300)}}, "metadata"),
    ({**GOOD, "provider": "nobody"}, "provider"),
    ({**GOOD, "provider": "cog"}, "provider"),
    ({**GOOD, "provider": 5}, "provider"),
    ({**GOOD, "provider": ""}, "provider"),
    ({**GOOD, "deadline_s": 0}, "deadline_s"),
    ({**GOOD, "deadline_s": 86_401}, "deadline_s"),
    ({**GOOD, "deadline_s": "soon"}, "deadline_s"),
    ({**GOOD, "priority": 101}, "priority"),
    ({**GOOD, "priority": 10**30}, "priority"),
    ({**GOOD, "priority": 0.5}, "priority"),
]


async def test_a_wrong_value_is_a_problem_that_names_its_field(strict: Stage) -> None:
    for body, field in WRONG_VALUES:
        content = json.dumps(body).encode()
        reply = await strict.client.post(
            "/v1/jobs", content=content, headers={"content-type": "application/json"}
        )
        told = reply.json()
        assert reply.status_code == 422, (reply.status_code, content[:200], told)
        assert reply.headers["content-type"] == "application/problem+json"
        assert str(told["field"]).startswith(field), (content[:200], told)
        assert told["code"] == "invalid_input"
        assert told["type"] == "/docs/errors#invalid_input"
        assert told["request_id"] == reply.headers["x-request-id"]
        assert len(reply.content) < 2000, "the problem repeats what was sent"


async def test_unknown_fields_with_unprintable_names_are_refused_without_an_error_of_ours(
    strict: Stage,
) -> None:
    for name in ("\ud800", "\x00", "\x1b[31m", "a" * 10_000):
        for body in ({**GOOD, name: 1}, with_input(**{name: 1})):
            reply = await strict.client.post(
                "/v1/jobs",
                content=json.dumps(body).encode(),
                headers={"content-type": "application/json"},
            )
            assert reply.status_code == 422, (name[:20], reply.text[:200])


NO_JSON = {
    "open": b"{",
    "words": b"nothing",
    "not-utf8": b"\xff\xfe",
    "deep-list": b"[" * 100_000,
    "deep-object": b'{"a":' * 30_000,
    "deep-and-closed": b"[" * 100_000 + b"]" * 100_000,
    "comma": b'{"kind": "sound_effect",}',
    "long-number": b"1" * 5000,
    "twice": b'{"kind": "sound_effect", "kind": "speech", "input": {"prompt": "rain"}}',
    "twice-inside": b'{"kind": "sound_effect", "input": {"prompt": "rain", "prompt": "sun"}}',
    "nan": b'{"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": NaN}}',
    "infinity": b'{"kind": "sound_effect", "input": {"prompt": "rain"}, "deadline_s": Infinity}',
    "minus-infinity": b'{"kind": "sound_effect", "input": {}, "metadata": {"a": [-Infinity]}}',
}


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
async def test_a_body_that_is_not_json_is_a_problem(strict: Stage, body: bytes) -> None:
    reply = await strict.client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_json"), reply.text
    assert reply.headers["content-type"] == "application/problem+json"


async def test_an_empty_body_is_a_problem(strict: Stage) -> None:
    reply = await strict.client.post("/v1/jobs", content=b"", headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_input"), reply.text


async def test_a_json_body_has_a_limit_of_its_own(stage_on: OpenStage) -> None:
    """Fault 11: JSON is read whole, so it may not be as large as a file."""
    async with stage_on(max_json_bytes=20_000) as line:
        body = json.dumps({**GOOD, "metadata": {"a": "x" * 20_000}}).encode()
        reply = await line.client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
        assert (reply.status_code, reply.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("body", [b"[]", b"5", b'"x"', b"null", b"true"])
async def test_json_that_is_no_object_is_a_problem(strict: Stage, body: bytes) -> None:
    reply = await strict.client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 422, reply.text


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_another_content_type_is_a_problem(strict: Stage, media_type: str) -> None:
    reply = await strict.client.post(
        "/v1/jobs", content=json.dumps(GOOD).encode(), headers={"content-type": media_type}
    )
    assert (reply.status_code, reply.json()["code"]) == (415, "unsupported_media_type"), reply.text


async def test_a_body_past_the_limit_is_refused_by_its_announced_length(strict: Stage) -> None:
    """Fault 11."""
    body = json.dumps({**GOOD, "metadata": {"a": "x" * LIMIT}}).encode()
    reply = await strict.client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")


async def test_a_body_past_the_limit_is_refused_while_it_streams(strict: Stage) -> None:
    """Fault 11."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 50_000
            yield b" " * 50_000

    reply = await strict.client.post(
        "/v1/jobs", content=endless(), headers={"content-type": "application/json"}
    )
    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")
    assert sent <= LIMIT + 100_000


@pytest.mark.parametrize("length", ["-1", "1e3", "5x", "\xb2", "9" * 5000])
async def test_a_length_that_is_no_number_is_refused(strict: Stage, length: str) -> None:
    """Fault 11."""
    reply = await strict.client.post(
        "/v1/jobs",
        content=b"{}",
        headers=[(b"content-type", b"application/json"), (b"content-length", length.encode("latin-1"))],
    )
    assert reply.status_code in (400, 413), reply.text


async def test_a_compressed_body_is_refused_before_it_is_opened(strict: Stage) -> None:
    """Fault 11."""
    reply = await strict.client.post(
        "/v1/jobs",
        content=b"\x1f\x8b" + b"0" * 100,
        headers={"content-type": "application/json", "content-encoding": "gzip"},
    )
    assert (reply.status_code, reply.json()["code"]) == (415, "unsupported_encoding")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/a%00b",
        "/v1/jobs/a%00b/events",
        "/v1/jobs?q=a%00b",
        "/v1/jobs?kind=a%00b",
        "/v1/deliveries?job_id=a%00b",
        "/v1/deliveries/a%00b",
        "/v1/assets/a%00b",
        "/v1/jobs/" + "j" * 65,
        "/v1/jobs/%ff%fe",
        "/v1/jobs?since=0001-01-01T00:00:00%2B14:00",
        "/v1/jobs?until=9999-12-31T23:59:59-14:00",
        "/v1/jobs?since=yesterday",
        "/v1/jobs?since=2026-01-01T00:00:00",
        "/v1/jobs?state=asleep",
        "/v1/jobs?limit=0",
        "/v1/jobs?limit=201",
        "/v1/jobs?limit=1e9",
        "/v1/deliveries?limit=-1",
        "/v1/deliveries?outcome=lost",
    ],
)
async def test_a_wrong_address_is_a_problem_and_never_an_error_of_ours(strict: Stage, path: str) -> None:
    reply = await strict.client.get(path)
    assert 400 <= reply.status_code < 500, (reply.status_code, reply.text)
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_another_method_is_refused(strict: Stage, method: str) -> None:
    reply = await strict.client.request(method, "/v1/jobs")
    assert (reply.status_code, reply.json()["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("seq", ["-1", "x", "1.5", "9" * 30, "\u0661"])
async def test_an_event_to_go_on_after_must_be_a_number(sqlite_line: Stage, seq: str) -> None:
    job_id = await sqlite_line.ask()
    reply = await sqlite_line.client.get(
        f"/v1/jobs/{job_id}/events", headers=[(b"last-event-id", seq.encode())]
    )
    assert (reply.status_code, reply.json()["field"]) == (422, "Last-Event-ID")


LOOSE = [
    ("/v1/recoveries", {"dry_run": 0}, "dry_run"),
    ("/v1/recoveries", {"dry_run": "true"}, "dry_run"),
    ("/v1/recoveries", {"limit": "5"}, "limit"),
    ("/v1/deliveries/replay", {"since": 1_700_000_000}, "since"),
    ("/v1/deliveries/import", {"headers": {}, "body_base64": 5}, "body_base64"),
    ("/v1/announcements/resend", {"since": "2026-01-31T12:00:00Z", "dry_run": 1}, "dry_run"),
    ("/v1/webhook-secrets", {"overlap_s": False}, "overlap_s"),
    ("/v1/keys", {"name": 5, "scopes": ["admin"]}, "name"),
    ("/v1/keys", {"name": "a", "scopes": ["admin", "all"]}, "scopes"),
    ("/v1/keys/key_1/rotate", {"overlap_s": True}, "overlap_s"),
    ("/v1/jobs/bulk", {"action": "cancel", "q": "state:queued", "dry_run": "yes"}, "dry_run"),
    ("/v1/jobs/job_1/rerun", {"from_step": "finish"}, "from"),
]


@pytest.mark.parametrize(("path", "body", "field"), LOOSE)
async def test_no_value_is_taken_for_one_of_another_type(
    strict: Stage, path: str, body: dict[str, Any], field: str
) -> None:
    reply = await strict.client.post(path, json=body)
    assert reply.status_code == 422, reply.text
    assert reply.json()["field"].startswith(field)


@pytest.mark.parametrize("text", ["nul \x00 inside", "half a pair \ud83d"])
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/recoveries", {}, "kind"),
        ("/v1/deliveries/replay", {}, "kind"),
        ("/v1/deliveries/import", {"headers": {}, "body_base64": ""}, "attempt_id"),
        ("/v1/deliveries/import", {"headers": {}, "body_base64": ""}, "provider"),
        ("/v1/announcements/resend", {"since": "2026-01-31T12:00:00Z"}, "endpoint"),
        ("/v1/keys", {"scopes": ["admin"]}, "name"),
        ("/v1/jobs/bulk", {"action": "cancel"}, "q"),
        ("/v1/jobs/bulk", {"action": "cancel"}, "ids"),
    ],
)
async def test_a_text_that_no_database_takes_is_refused_by_every_route(
    line: Stage, path: str, body: dict[str, Any], field: str, text: str
) -> None:
    content = json.dumps({**body, field: [text] if field == "ids" else text}).encode()
    reply = await line.client.post(path, content=content, headers={"content-type": "application/json"})
    assert 400 <= reply.status_code < 500, (reply.status_code, reply.text)
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("last", ["first", "dlv_1", "job_" + "0" * 32, "dlv_" + "G" * 32])
async def test_a_delivery_to_go_on_after_must_be_the_id_of_one(sqlite_line: Stage, last: str) -> None:
    reply = await sqlite_line.client.get("/v1/deliveries", headers={"last-event-id": last})
    assert (reply.status_code, reply.json()["field"]) == (422, "Last-Event-ID")


async def test_odd_but_valid_text_comes_back_as_it_was_sent(line: Stage) -> None:
    """Fault 23."""
    prompt = "<b>rain</b>\r\nX: y \u202e\u200f 🌧 \x1b[31m 𝄞"
    reply = await line.client.post("/v1/jobs", json={**GOOD, "input": {"prompt": prompt}})
    job = await line.read(reply.json()["id"])
    assert job["input"]["prompt"] == prompt
    found = await line.client.get("/v1/jobs", params={"q": "🌧"})
    assert [each["id"] for each in found.json()["items"]] == [job["id"]]
