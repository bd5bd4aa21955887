"""Promises of `app.provider.reading`: odd shapes are mapped, unsafe JSON is refused, waits are understood."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ProviderBadResponse
from app.provider.reading import (
    LOGS_TAIL_BYTES,
    RAW_KEPT_BYTES,
    names_attempt,
    read_object,
    read_prediction,
    read_problem,
    read_reply,
    read_retry_after_s,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"<html></html>",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": 1} trailing',
    ],
)
def test_unsafe_json_is_refused_with_the_raw_body(body: bytes) -> None:
    with pytest.raises(ProviderBadResponse) as caught:
        read_object(body)
    assert caught.value.raw == body[:RAW_KEPT_BYTES]


def test_what_is_read_can_be_stored() -> None:
    read = read_object(b'{"a\\u0000": ["\\ud800x", "\\u0000", "\xc3\xa9"]}')
    assert read == {"a\ufffd": ["?x", "\ufffd", "é"]}


@pytest.mark.parametrize("status", [None, "", 7, ["succeeded"]])
def test_a_prediction_without_a_status_word_is_refused(status: Any) -> None:
    with pytest.raises(ProviderBadResponse):
        read_prediction({"id": "x", "status": status})


@pytest.mark.parametrize(
    "output", [None, "u", ["u"], {"audio": "u"}, {"a": [{"b": "u"}]}, 3, True, [], "", [None]]
)
def test_output_is_kept_as_given(output: Any) -> None:
    assert read_reply(json.dumps({"status": "succeeded", "output": output}).encode()).output == output


def test_odd_fields_are_mapped_or_missing_and_never_fail() -> None:
    read = read_prediction(
        {
            "status": "aborted",
            "id": 5,
            "error": {"code": "E1001"},
            "logs": ["a", 3, "b"],
            "metrics": [1],
            "created_at": "2024-01-01T00:00:00.123456789Z",
            "started_at": "0001-01-01T00:00:00+23:59",
            "completed_at": 17,
            "data_removed": "yes",
            "webhook": {},
            "unheard": object(),
        }
    )
    assert (read.status, read.id, read.error, read.logs_tail) == ("aborted", None, '{"code": "E1001"}', "ab")
    assert read.created_at == datetime(2024, 1, 1, 0, 0, 0, 123456, UTC)
    assert (read.started_at, read.completed_at, read.metrics) == (None, None, {})
    assert (read.data_removed, read.callback_url, read.engine) == (False, None, None)


def test_a_huge_log_is_cut_to_its_tail() -> None:
    read = read_reply(json.dumps({"status": "processing", "logs": "é" * 10_000_000 + " 42%|##"}).encode())
    assert len(read.logs_tail.encode()) <= LOGS_TAIL_BYTES
    assert read.progress == 0.42


@pytest.mark.parametrize(
    ("logs", "progress", "step"),
    [
        ("", None, None),
        ("nothing here 42%", None, None),
        ("  5%|█         | 1/20\r 10%|██        | 2/20", 0.1, None),
        ("100%|██████████| 20/20 [00:01<00:00]\nsaving", 1.0, None),
        ("progress 0.10 load\nprogress 0.42 render\n", 0.42, "render"),
        ("progress 1", 1.0, None),
        ("progress 7 x", None, None),
        ("999%|", None, None),
        (" 50%|x\nprogress 0.6 mix", 0.6, "mix"),
    ],
)
def test_progress_is_the_last_one_told(logs: str, progress: float | None, step: str | None) -> None:
    read = read_prediction({"status": "processing", "logs": logs})
    assert (read.progress, read.step) == (progress, step)


@pytest.mark.parametrize(
    ("data", "engine"),
    [
        ({"model": "meta/musicgen", "version": "abc"}, "meta/musicgen:abc"),
        ({"model": "meta/musicgen", "version": "hidden"}, "meta/musicgen"),
        ({"output": {"engine": "espeak", "audio": "data:"}}, "espeak"),
        ({"output": {"engine": 3}}, None),
    ],
)
def test_the_engine_is_named_where_the_provider_says(data: dict[str, Any], engine: str | None) -> None:
    assert read_prediction({"status": "succeeded", **data}).engine == engine


@pytest.mark.parametrize(
    ("header", "body", "wait_s"),
    [
        ("30", {}, 30),
        ("0", {"retry_after": 9}, 0),
        ("", {"retry_after": 8}, 8),
        ("", {"retry_after": "8.5"}, 8.5),
        ("nonsense", {"retry_after": 8}, 8),
        ("", {"detail": "Request was throttled. Your rate limit resets in ~30s."}, 30),
        ("", {"detail": "Expected available in 1 second."}, 1),
        ("", {"detail": "Request was throttled."}, None),
        ("", {"detail": "reduced to 6 requests per minute with a burst of 1 requests"}, None),
        ("", {"retry_after": True}, None),
        ("-5", {}, None),
        ("nan", {}, None),
        ("99999999", {}, 86_400),
        ("", {"retry_after": 10**400}, 86_400),
        (format_datetime(NOW + timedelta(seconds=12), usegmt=True), {}, 12),
        (format_datetime(NOW - timedelta(seconds=12), usegmt=True), {}, 0),
        ("Thu, 99 Foo 2026", {}, None),
    ],
)
def test_the_wait_is_read_from_header_then_body_then_text(
    header: str, body: dict[str, Any], wait_s: float | None
) -> None:
    given = {"retry-after": header} if header else {}
    assert read_retry_after_s(given, json.dumps(body).encode(), now=NOW) == wait_s


def test_a_problem_is_read_in_every_known_shape() -> None:
    title = {
        "title": "Bad",
        "detail": "- input:\nx",
        "invalid_fields": [{"field": "a", "description": "b"}, 3],
    }
    assert read_problem(json.dumps(title).encode()) == (
        "Bad: - input: x",
        ({"field": "a", "description": "b"},),
    )
    fastapi = {"detail": [{"loc": ["body", "input", "prompt"], "msg": "Field required"}]}
    assert read_problem(json.dumps(fastapi).encode()) == (
        "",
        ({"field": "body.input.prompt", "description": "Field required"},),
    )
    assert read_problem(b'{"error":"At capacity"}') == ("At capacity", ())
    assert read_problem(b"<html>502</html>") == ("", ())
    assert read_problem(b"[1]") == ("", ())
    assert read_problem(b'{"detail": {"a": 1}, "title": 3, "invalid_fields": {"a": 1}}') == ("", ())


@pytest.mark.parametrize(
    ("webhook", "named"),
    [
        ("https://h/v1/webhooks/replicate/att_1?token=x", True),
        ("https://h/att_1", True),
        ("https://h/att_10", False),
        ("https://h/xatt_1", False),
        ("https://h/other?id=att_1", False),
        ("https://h/other?x=/att_1", False),
        ("https://h/other#/att_1", False),
        ("https://h/att_1/other", False),
        ("http://[bad", False),
        (None, False),
        (["https://h/att_1"], False),
    ],
)
def test_an_attempt_is_named_by_the_last_path_segment_only(webhook: Any, named: bool) -> None:
    assert names_attempt(webhook, "att_1") is named
    assert not names_attempt(webhook, "")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = [
    "id",
    "output",
    "error",
    "logs",
    "metrics",
    "created_at",
    "version",
    "model",
    "data_removed",
    "webhook",
]


@settings(max_examples=150, deadline=None)
@given(fields=st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=6), junk=st.binary(max_size=30))
def test_any_shape_is_mapped_or_a_bad_response_and_can_be_stored(fields: dict[str, Any], junk: bytes) -> None:
    for body in (json.dumps({"status": "succeeded", **fields}).encode(), junk):
        read_problem(body)
        read_retry_after_s({}, body, now=NOW)
        try:
            read = read_reply(body)
        except ProviderBadResponse:
            continue
        stored = json.dumps([read.output, read.error, read.logs_tail, dict(read.metrics)], ensure_ascii=False)
        assert "\\u0000" not in stored
        assert stored.encode()
