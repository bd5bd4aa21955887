"""Reading what providers send: a response to its cap, bytes into JSON, JSON into a `Prediction`.

Owns the tolerance: fields come and go, change their type, carry nanoseconds or thirty megabytes of log, and
none of that may cost us the result. Promises strictness where leniency would be a hole: duplicate keys, NaN,
endless nesting and anything but an object are `ProviderBadResponse` with the raw body, cut. What leaves here
can be stored: no NUL, no lone surrogate, no infinite number. Knows no provider and decides nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NoReturn
from urllib.parse import urlsplit

import httpx

from app.errors import ProviderBadResponse
from app.provider.base import Json, Prediction

LOGS_TAIL_BYTES = 4096
"""What is kept of a model's log; progress is looked for in it."""
RAW_KEPT_BYTES = 65_536
"""What is kept of a body that could not be understood."""
MAX_DEPTH = 64
"""Nesting of JSON that is followed; no model's output comes near it."""
MAX_RETRY_AFTER_S = 86_400.0
"""A longer wait than a day is a mistake of the other side."""

_DETAIL_CHARS = 500
_MAX_FIELDS = 32
_TQDM = re.compile(r"(\d{1,3})(?:\.\d+)?%\|")
_PROGRESS = re.compile(r"^\s*progress[ =:]+(\d(?:\.\d+)?)(?:\s+(\S{1,64}))?", re.IGNORECASE)
_WAIT = re.compile(r"(?:~|\bin\s)\s*(\d{1,6}(?:\.\d+)?)\s*s(?:ec(?:ond)?s?)?\b", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's HTTP response, read to its end or, when `cut`, to the cap."""

    status: int
    headers: Mapping[str, str]
    """Looked up in lower case."""
    body: bytes
    cut: bool = False

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def prediction(self) -> Prediction:
        """Raises ProviderBadResponse with the raw body."""
        if self.cut:
            raise bad_response("more than is read of one reply", self.body)
        return read_reply(self.body)

    def retry_after_s(self) -> float | None:
        return read_retry_after_s(self.headers, self.body, now=datetime.now(UTC))


async def read_capped(response: httpx.Response, *, max_bytes: int) -> Answer:
    """Read a streamed response, decoded, until its end or `max_bytes`, and close it."""
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > max_bytes:
                break
    finally:
        await response.aclose()
    return Answer(response.status_code, response.headers, bytes(body[:max_bytes]), len(body) > max_bytes)


def read_object(body: bytes) -> dict[str, Json]:
    """A JSON object out of untrusted bytes. Raises ProviderBadResponse with the raw body, cut."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        value = _tidy(value, MAX_DEPTH)
    except (ValueError, RecursionError) as exc:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise bad_response("not JSON that can be read", body) from exc
    if not isinstance(value, dict):
        raise bad_response("JSON, but not an object", body)
    return value


def read_prediction(data: Mapping[str, Json], *, raw: bytes = b"") -> Prediction:
    """A prediction out of an object; only `status` must be there. Raises ProviderBadResponse with `raw`."""
    status = data.get("status")
    if not isinstance(status, str) or not status:
        raise bad_response("a prediction without a status", raw)
    logs_tail = _logs_tail(data.get("logs"))
    progress, step = _progress(logs_tail)
    output = data.get("output")
    metrics = data.get("metrics")
    return Prediction(
        id=_word(data.get("id")),
        status=status[:64],
        output=output,
        error=_error(data.get("error")),
        logs_tail=logs_tail,
        progress=progress,
        step=step,
        metrics=metrics if isinstance(metrics, dict) else {},
        created_at=read_time(data.get("created_at")),
        started_at=read_time(data.get("started_at")),
        completed_at=read_time(data.get("completed_at")),
        engine=_engine(data, output),
        data_removed=data.get("data_removed") is True,
        callback_url=_word(data.get("webhook")),
        raw=raw,
    )


def read_reply(body: bytes) -> Prediction:
    """`read_object` and `read_prediction` in one. Raises ProviderBadResponse with the raw body, cut."""
    return read_prediction(read_object(body), raw=body)


def read_problem(body: bytes) -> tuple[str, tuple[dict[str, str], ...]]:
    """What an error body says: a sentence ("" for HTML and the like) and its `{field, description}` list.

    Reads problem details (`title`, `detail`), FastAPI's `detail: [{loc, msg}]` and Cog's `error`.
    """
    data = _object_or_empty(body)
    detail = data.get("detail")
    parts = [data.get("title"), detail, data.get("error")]
    sentence = ": ".join(_line(part) for part in parts if isinstance(part, str) and part.strip())
    fields = data.get("invalid_fields")
    rows = fields if isinstance(fields, list) else detail
    if not isinstance(rows, list):
        rows = []
    found = tuple(_field(row) for row in rows[:_MAX_FIELDS] if isinstance(row, dict))
    return sentence[:_DETAIL_CHARS], found


def read_retry_after_s(headers: Mapping[str, str], body: bytes, *, now: datetime) -> float | None:
    """How long we are asked to wait: the header, else the body's `retry_after`, else "~30s" in its text."""
    data = _object_or_empty(body)
    waits = (
        _header_wait_s(headers.get("retry-after", ""), now),
        _number(data.get("retry_after")),
        _text_wait_s(data.get("detail")),
    )
    wait_s = next((wait for wait in waits if wait is not None), None)
    return None if wait_s is None else min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def read_time(value: Json) -> datetime | None:
    """ISO 8601 with any number of decimals (cut to microseconds); without a zone it is taken as UTC."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def names_attempt(webhook: Json, attempt_id: str) -> bool:
    """Whether the last segment of the URL's path is the attempt; a query or a prefix would prove nothing."""
    if not isinstance(webhook, str) or not attempt_id:
        return False
    try:
        path = urlsplit(webhook).path
    except ValueError:
        return False
    return path.rsplit("/", 1)[-1] == attempt_id


def bad_response(what: str, raw: bytes) -> ProviderBadResponse:
    """The error for an answer that is no prediction, with the body cut to `RAW_KEPT_BYTES`."""
    return ProviderBadResponse(f"the provider sent {what}", raw=raw[:RAW_KEPT_BYTES])


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number past the range of a double")
    return number


def _tidy(value: Json, depth: int) -> Json:
    """The same value with every string storable; one walk also bounds the nesting."""
    if isinstance(value, str):
        return _storable(value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        raise ValueError("nested too deep")
    if isinstance(value, list):
        return [_tidy(item, depth - 1) for item in value]
    return {_storable(key): _tidy(item, depth - 1) for key, item in value.items()}


def _storable(text: str) -> str:
    # `isascii` is O(1): a data URI of 28 MB is searched for NUL and not copied.
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _word(value: Json) -> str | None:
    if isinstance(value, str) and 0 < len(value) <= 4096:
        return value
    return None


def _error(value: Json) -> str | None:
    """Text, whatever shape the error has: some models fail with an object or a list."""
    if value is None or value in ("", [], {}, False):
        return None
    return (value if isinstance(value, str) else json.dumps(value))[:LOGS_TAIL_BYTES]


def _logs_tail(value: Json) -> str:
    if isinstance(value, list):
        value = "".join(part for part in value[-1000:] if isinstance(part, str))
    if not isinstance(value, str):
        return ""
    return value[-LOGS_TAIL_BYTES:].encode()[-LOGS_TAIL_BYTES:].decode(errors="ignore")


def _progress(logs_tail: str) -> tuple[float | None, str | None]:
    """The last `42%|` of a tqdm bar (which redraws after CR) or `progress 0.42 word` line."""
    for line in reversed(re.split(r"[\r\n]+", logs_tail)):
        bars = _TQDM.findall(line)
        if bars and int(bars[-1]) <= 100:
            return int(bars[-1]) / 100, None
        told = _PROGRESS.match(line)
        if told and float(told[1]) <= 1:
            return float(told[1]), told[2]
    return None, None


def _engine(data: Mapping[str, Json], output: Json) -> str | None:
    """Our worker names its engine in the output; a hosted model is `owner/name:version`."""
    if isinstance(output, dict) and _word(output.get("engine")):
        return str(output["engine"])[:200]
    model, version = _word(data.get("model")), _word(data.get("version"))
    named = ":".join(part for part in (model, version) if part and part != "hidden")
    return named[:200] or None


def _object_or_empty(body: bytes) -> dict[str, Json]:
    try:
        return read_object(body)
    except ProviderBadResponse:  # HTML of a proxy, plain text of a validator
        return {}


def _line(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()


def _field(row: Mapping[str, Json]) -> dict[str, str]:
    loc = row.get("loc")
    place = ".".join(str(part) for part in loc) if isinstance(loc, list) else row.get("field")
    words = row.get("description") or row.get("msg") or row.get("type")
    return {"field": _line(str(place or ""))[:200], "description": _line(str(words or ""))[:_DETAIL_CHARS]}


def _header_wait_s(text: str, now: datetime) -> float | None:
    wait_s = _number(text)
    if wait_s is not None or not text:
        return wait_s
    try:
        return (parsedate_to_datetime(text).astimezone(UTC) - now).total_seconds()
    except (ValueError, OverflowError):
        return None


def _number(value: Json) -> float | None:
    """A plain number, also as text; `nan`, `1_0` and truth values are none."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", value, re.ASCII):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e9 else MAX_RETRY_AFTER_S
    return None


def _text_wait_s(detail: Json) -> float | None:
    found = _WAIT.search(detail) if isinstance(detail, str) else None
    return float(found[1]) if found else None
