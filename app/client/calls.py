"""What is asked of the service, as values: no socket, no clock, one function a route.

Both clients send these; what comes back is read by `models`. Owns the names of the environment's variables.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypedDict
from urllib.parse import urlsplit

from app.client.errors import InvalidInput

URL_VARIABLE = "REPRISE_URL"
KEY_VARIABLE = "REPRISE_API_KEY"
LOCAL_URL = "http://127.0.0.1:8000"

LONGEST_WAIT_S = 25.0
"""Of one request that waits for an end: proxies cut what is silent for 30 or 60 s."""
SILENCE_S = 45.0
"""A stream that says nothing for so long is cut; the service sends something every 15 s."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_ONCE = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    is_repeatable: bool = True
    """Whether sending it twice does no more than sending it once."""
    may_take_s: float = 0.0
    """How long the service may be silent before it answers, beyond the client's own limit."""


class Options(TypedDict, total=False):
    """What every job may be asked with, whatever its kind."""

    metadata: Mapping[str, Any]
    """Yours; comes back as given."""
    provider: str
    """`auto`, or the provider to keep to."""
    deadline_s: float
    """When the service gives up on the job."""
    priority: int
    """-100 to 100; higher goes first."""
    callback_url: str
    """Told when the job has ended, by a signed POST (`app.client.webhooks`)."""
    retention_s: float
    """How long after its end it is kept with its files; by default as long as all are."""
    idempotency_key: str
    """The same key makes one job, however often and by whomever it is sent; by default one is made a call."""
    timeout_s: float
    """How long to wait for the end, 600 s by default; the job goes on after it."""


def address(given: str | None) -> str:
    """The service's address without a slash at its end. Raises InvalidInput, never with a password."""
    url = (given or os.environ.get(URL_VARIABLE) or LOCAL_URL).strip().rstrip("/")
    try:
        parts = urlsplit(url)
        found = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        parts, found = urlsplit(""), False
    if not found:
        raise InvalidInput("base_url: must be http://HOST or https://HOST", field="base_url")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidInput("base_url: must have no user, password, query or fragment", field="base_url")
    return url


def key(given: str | None) -> str | None:
    """The key to send, if any. Raises InvalidInput without the key's text."""
    found = given if given is not None else os.environ.get(KEY_VARIABLE)
    if found is not None and found and not _KEY.fullmatch(found.strip()):
        raise InvalidInput("api_key: must be visible ASCII characters without blanks", field="api_key")
    return found.strip() if found and found.strip() else None


def create_job(
    kind: str,
    wanted: Mapping[str, Any],
    *,
    metadata: Mapping[str, Any] | None = None,
    provider: str | None = None,
    deadline_s: float | None = None,
    priority: int | None = None,
    callback_url: str | None = None,
    retention_s: float | None = None,
    idempotency_key: str | None = None,
    wait_s: float | None = None,
) -> Call:
    given = {"metadata": metadata, "provider": provider, "deadline_s": deadline_s, "priority": priority}
    body = _job(kind, wanted, {**given, "callback_url": callback_url, "retention_s": retention_s})
    headers = _once(idempotency_key)
    if wait_s is not None:
        headers["Prefer"] = f"wait={max(1, min(60, round(wait_s)))}"
    return _send("POST", "/v1/jobs", body, headers=headers, may_take_s=60 if wait_s else 0)


def forecast(
    kind: str,
    wanted: Mapping[str, Any],
    *,
    provider: str | None = None,
    deadline_s: float | None = None,
    priority: int | None = None,
) -> Call:
    given = {"provider": provider, "deadline_s": deadline_s, "priority": priority, "dry_run": True}
    return _send("POST", "/v1/jobs", _job(kind, wanted, given))


def get_job(job_id: str, *, wait_s: float | None = None) -> Call:
    params = {} if wait_s is None else {"wait": f"{max(0.0, min(LONGEST_WAIT_S, wait_s)):.3f}"}
    return Call("GET", f"/v1/jobs/{_id(job_id)}", params, may_take_s=LONGEST_WAIT_S if params else 0)


def list_jobs(
    *,
    state: str | None,
    kind: str | None,
    since: datetime | None,
    until: datetime | None,
    q: str | None,
    limit: int,
    cursor: str | None,
) -> Call:
    return Call(
        "GET",
        "/v1/jobs",
        _params(state=state, kind=kind, since=since, until=until, q=q, limit=limit, cursor=cursor),
    )


def cancel_job(job_id: str) -> Call:
    return Call("POST", f"/v1/jobs/{_id(job_id)}/cancel")


def retry_job(job_id: str, *, idempotency_key: str | None = None) -> Call:
    return Call("POST", f"/v1/jobs/{_id(job_id)}/retry", headers=_once(idempotency_key))


def list_steps(job_id: str) -> Call:
    return Call("GET", f"/v1/jobs/{_id(job_id)}/steps")


def rerun_job(job_id: str, from_step: str, changes: Mapping[str, Any]) -> Call:
    body = {"from": from_step, "input": dict(changes)}
    return _send("POST", f"/v1/jobs/{_id(job_id)}/rerun", body, is_repeatable=False)


def expunge_job(job_id: str) -> Call:
    return Call("POST", f"/v1/jobs/{_id(job_id)}/expunge")


def list_events(job_id: str, *, after_seq: int) -> Call:
    headers = {"Last-Event-ID": str(after_seq)} if after_seq else {}
    return Call("GET", f"/v1/jobs/{_id(job_id)}/events", headers=headers)


def follow_events(job_id: str, *, after_seq: int) -> Call:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    headers |= {"Last-Event-ID": str(after_seq)} if after_seq else {}
    return Call("GET", f"/v1/jobs/{_id(job_id)}/events", headers=headers, may_take_s=SILENCE_S)


def get_asset(asset_id: str) -> Call:
    return Call("GET", f"/v1/assets/{_id(asset_id)}")


def get_content(asset_id: str, *, sha256: str, start: int) -> Call:
    """The bytes from `start` on; all of them where the file is not the one that was begun with."""
    # By the key and not by the signed link: that one expires, and would stand in the logs of HTTP clients.
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": f'"{sha256}"'}
    return Call("GET", f"/v1/assets/{_id(asset_id)}/content", headers=headers)


def upload(headers: Mapping[str, str], *, is_repeatable: bool, idempotency_key: str | None = None) -> Call:
    headers = {**headers, **_once(idempotency_key)}
    return Call("POST", "/v1/uploads", headers=headers, is_repeatable=is_repeatable, may_take_s=60)


def list_deliveries(*, job_id: str | None, outcome: str | None, limit: int, cursor: str | None) -> Call:
    return Call("GET", "/v1/deliveries", _params(job_id=job_id, outcome=outcome, limit=limit, cursor=cursor))


def get_delivery(delivery_id: str) -> Call:
    return Call("GET", f"/v1/deliveries/{_id(delivery_id)}")


def replay_delivery(delivery_id: str) -> Call:
    return Call("POST", f"/v1/deliveries/{_id(delivery_id)}/replay", is_repeatable=False)


def recover(**wanted: str | int | datetime | None) -> Call:
    return _recovery("/v1/recoveries", wanted)


def replay_deliveries(**wanted: str | int | datetime | None) -> Call:
    return _recovery("/v1/deliveries/replay", wanted)


def list_recoveries(*, limit: int, cursor: str | None) -> Call:
    return Call("GET", "/v1/recoveries", _params(limit=limit, cursor=cursor))


def get_recovery(recovery_id: str, *, wait_s: float | None = None) -> Call:
    params = {} if wait_s is None else {"wait": f"{max(0.0, min(LONGEST_WAIT_S, wait_s)):.3f}"}
    path = f"/v1/recoveries/{_id(recovery_id)}"
    return Call("GET", path, params, may_take_s=LONGEST_WAIT_S if params else 0)


def list_recovery_items(recovery_id: str, *, effect: str | None, limit: int, after: int) -> Call:
    params = _params(effect=effect, limit=limit, after=after)
    return Call("GET", f"/v1/recoveries/{_id(recovery_id)}/items", params)


def abort_recovery(recovery_id: str) -> Call:
    return Call("POST", f"/v1/recoveries/{_id(recovery_id)}/abort", is_repeatable=False)


def list_announcements(
    *, job_id: str | None, state: str | None, endpoint: str | None, limit: int, cursor: str | None
) -> Call:
    params = _params(job_id=job_id, state=state, endpoint=endpoint, limit=limit, cursor=cursor)
    return Call("GET", "/v1/announcements", params)


def get_announcement(announcement_id: str) -> Call:
    return Call("GET", f"/v1/announcements/{_id(announcement_id)}")


def resend_announcement(announcement_id: str) -> Call:
    return Call("POST", f"/v1/announcements/{_id(announcement_id)}/resend", is_repeatable=False)


def follow_feed(*, position: int | None, **wanted: str | int | datetime | None) -> Call:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    headers |= {} if position is None else {"Last-Event-ID": str(position)}
    return Call("GET", "/v1/events", _params(**wanted), headers=headers, may_take_s=SILENCE_S)


def report_costs(
    *, group_by: str, since: datetime | None, until: datetime | None, limit: int, cursor: str | None
) -> Call:
    return Call(
        "GET",
        "/v1/costs",
        _params(group_by=group_by, since=since, until=until, limit=limit, cursor=cursor),
    )


def _job(kind: str, wanted: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: value for name, value in given.items() if value is not None}
    if "metadata" in named:
        named["metadata"] = dict(named["metadata"])
    return {"kind": kind, "input": dict(wanted), **named}


def _once(given: str | None) -> dict[str, str]:
    """The header that makes a request one. Without a key one is made, so that a repeat after an answer that
    was lost finds what the first try made. Raises InvalidInput."""
    found = given or f"auto-{secrets.token_hex(16)}"
    if not _ONCE.fullmatch(found):
        raise InvalidInput("idempotency_key: must be 1-255 visible ASCII characters", field="idempotency_key")
    return {"Idempotency-Key": found}


def _recovery(path: str, wanted: Mapping[str, str | int | datetime | None]) -> Call:
    body = {
        name: _moment(value) if isinstance(value, datetime) else value
        for name, value in wanted.items()
        if value is not None
    }
    # To look is harmless, twice too; to begin twice is two. A provider may take its time to answer a look.
    return _send("POST", path, body, may_take_s=300, is_repeatable=bool(body.get("dry_run")))


def _send(
    method: str,
    path: str,
    body: Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    may_take_s: float = 0,
    is_repeatable: bool = True,
) -> Call:
    try:
        content = json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInput(f"what is asked is not JSON: {exc}") from exc
    return Call(
        method,
        path,
        headers={"Content-Type": "application/json", **(headers or {})},
        content=content,
        may_take_s=may_take_s,
        is_repeatable=is_repeatable,
    )


def _params(**given: str | int | datetime | None) -> dict[str, str]:
    return {
        name: _moment(value) or "" if isinstance(value, datetime) else str(value)
        for name, value in given.items()
        if value is not None
    }


def _moment(value: datetime | None) -> str | None:
    if value is not None and value.tzinfo is None:
        raise InvalidInput("a time needs its zone: datetime(…, tzinfo=UTC)")
    return None if value is None else value.astimezone(UTC).isoformat()


def _id(text: str) -> str:
    """An id as a part of a path. Raises InvalidInput for what would be another path."""
    if not _ID.fullmatch(text):
        raise InvalidInput(f"not an id: {text[:80]!r}")
    return text
