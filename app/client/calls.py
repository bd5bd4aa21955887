"""What is asked of the service, as values: no socket, no clock, one function a route.

Both clients send these; what comes back is read by `models`; `call` knows how it is written.
Owns the names of the environment's variables.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict
from urllib.parse import urlsplit

from app.client.call import Call, json_call, moment, once, query, segment
from app.client.errors import InvalidInput

URL_VARIABLE = "REPRISE_URL"
KEY_VARIABLE = "REPRISE_API_KEY"
LOCAL_URL = "http://127.0.0.1:8000"

LONGEST_WAIT_S = 25.0
"""Of one request that waits for an end: proxies cut what is silent for 30 or 60 s."""
SILENCE_S = 45.0
"""A stream that says nothing for so long is cut; the service sends something every 15 s."""

RESUMED_BYTES = 8 * 1024 * 1024
"""From this size on a file that can be gone back in is sent in many requests."""
MOST_PIECE_BYTES = 16 * 1024 * 1024
"""Of one of them: a service bounds how large a request may be, and how long it may take."""
_TUS = {"Tus-Resumable": "1.0.0"}

_KEY = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)


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
    headers = once(idempotency_key)
    if wait_s is not None:
        headers["Prefer"] = f"wait={max(1, min(60, round(wait_s)))}"
    return json_call("POST", "/v1/jobs", body, headers=headers, may_take_s=60 if wait_s else 0)


def forecast(
    kind: str,
    wanted: Mapping[str, Any],
    *,
    provider: str | None = None,
    deadline_s: float | None = None,
    priority: int | None = None,
) -> Call:
    given = {"provider": provider, "deadline_s": deadline_s, "priority": priority, "dry_run": True}
    return json_call("POST", "/v1/jobs", _job(kind, wanted, given))


def get_job(job_id: str, *, wait_s: float | None = None) -> Call:
    params = {} if wait_s is None else {"wait": f"{max(0.0, min(LONGEST_WAIT_S, wait_s)):.3f}"}
    return Call("GET", f"/v1/jobs/{segment(job_id)}", params, may_take_s=LONGEST_WAIT_S if params else 0)


def list_jobs(
    *,
    state: str | None,
    kind: str | None,
    since: datetime | None,
    until: datetime | None,
    q: str | None,
    parent_id: str | None,
    limit: int,
    cursor: str | None,
) -> Call:
    return Call(
        "GET",
        "/v1/jobs",
        query(
            state=state,
            kind=kind,
            since=since,
            until=until,
            q=q,
            parent_id=parent_id,
            limit=limit,
            cursor=cursor,
        ),
    )


def cancel_job(job_id: str) -> Call:
    return Call("POST", f"/v1/jobs/{segment(job_id)}/cancel")


def retry_job(job_id: str, *, idempotency_key: str | None = None) -> Call:
    return Call("POST", f"/v1/jobs/{segment(job_id)}/retry", headers=once(idempotency_key))


def list_steps(job_id: str) -> Call:
    return Call("GET", f"/v1/jobs/{segment(job_id)}/steps")


def rerun_job(job_id: str, from_step: str, changes: Mapping[str, Any]) -> Call:
    body = {"from": from_step, "input": dict(changes)}
    return json_call("POST", f"/v1/jobs/{segment(job_id)}/rerun", body, is_repeatable=False)


def expunge_job(job_id: str) -> Call:
    return Call("POST", f"/v1/jobs/{segment(job_id)}/expunge")


def list_events(job_id: str, *, after_seq: int) -> Call:
    headers = {"Last-Event-ID": str(after_seq)} if after_seq else {}
    return Call("GET", f"/v1/jobs/{segment(job_id)}/events", headers=headers)


def follow_events(job_id: str, *, after_seq: int) -> Call:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    headers |= {"Last-Event-ID": str(after_seq)} if after_seq else {}
    return Call("GET", f"/v1/jobs/{segment(job_id)}/events", headers=headers, may_take_s=SILENCE_S)


def create_voice(name: str, file_id: str, *, idempotency_key: str | None) -> Call:
    named = "upload_id" if file_id.startswith("upl_") else "asset"
    # The recording is examined before the answer.
    return json_call(
        "POST", "/v1/voices", {"name": name, named: file_id}, headers=once(idempotency_key), may_take_s=90
    )


def list_voices(*, limit: int, cursor: str | None) -> Call:
    return Call("GET", "/v1/voices", query(limit=limit, cursor=cursor))


def get_voice(voice_id: str) -> Call:
    return Call("GET", f"/v1/voices/{segment(voice_id)}")


def rename_voice(voice_id: str, name: str) -> Call:
    return json_call("PATCH", f"/v1/voices/{segment(voice_id)}", {"name": name})


def delete_voice(voice_id: str) -> Call:
    return Call("DELETE", f"/v1/voices/{segment(voice_id)}", is_repeatable=False)


def export_voice(voice_id: str) -> Call:
    return Call("GET", f"/v1/voices/{segment(voice_id)}/export")


def get_asset(asset_id: str) -> Call:
    return Call("GET", f"/v1/assets/{segment(asset_id)}")


def get_content(asset_id: str, *, sha256: str, start: int) -> Call:
    """The bytes from `start` on; all of them where the file is not the one that was begun with."""
    # By the key and not by the signed link: that one expires, and would stand in the logs of HTTP clients.
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": f'"{sha256}"'}
    return Call("GET", f"/v1/assets/{segment(asset_id)}/content", headers=headers)


def upload(headers: Mapping[str, str], *, is_repeatable: bool, idempotency_key: str | None = None) -> Call:
    headers = {**headers, **once(idempotency_key)}
    return Call("POST", "/v1/uploads", headers=headers, is_repeatable=is_repeatable, may_take_s=60)


def begin_upload(size_bytes: int, name: str, *, sha256: str, idempotency_key: str | None = None) -> Call:
    """By tus: an upload that is written to from wherever it is."""
    told = {"filename": name[:200], "sha256": sha256}
    pairs = (
        f"{key} {base64.b64encode(value.encode('utf-8', 'replace')).decode()}" for key, value in told.items()
    )
    headers = {**_TUS, "Upload-Length": str(size_bytes), "Upload-Metadata": ",".join(pairs)}
    return Call("POST", "/v1/uploads", headers={**headers, **once(idempotency_key)})


def get_upload(upload_id: str) -> Call:
    return Call("GET", f"/v1/uploads/{segment(upload_id)}", headers=_TUS)


def append_to_upload(upload_id: str, at: int, size_bytes: int) -> Call:
    headers = {
        **_TUS,
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(size_bytes),
        "Upload-Offset": str(at),
    }
    # The last piece is answered once the whole is judged and stored.
    return Call("PATCH", f"/v1/uploads/{segment(upload_id)}", headers=headers, may_take_s=120)


def list_deliveries(*, job_id: str | None, outcome: str | None, limit: int, cursor: str | None) -> Call:
    return Call("GET", "/v1/deliveries", query(job_id=job_id, outcome=outcome, limit=limit, cursor=cursor))


def get_delivery(delivery_id: str) -> Call:
    return Call("GET", f"/v1/deliveries/{segment(delivery_id)}")


def replay_delivery(delivery_id: str) -> Call:
    return Call("POST", f"/v1/deliveries/{segment(delivery_id)}/replay", is_repeatable=False)


def recover(**wanted: str | int | datetime | None) -> Call:
    return _recovery("/v1/recoveries", wanted)


def replay_deliveries(**wanted: str | int | datetime | None) -> Call:
    return _recovery("/v1/deliveries/replay", wanted)


def list_recoveries(*, limit: int, cursor: str | None) -> Call:
    return Call("GET", "/v1/recoveries", query(limit=limit, cursor=cursor))


def get_recovery(recovery_id: str, *, wait_s: float | None = None) -> Call:
    params = {} if wait_s is None else {"wait": f"{max(0.0, min(LONGEST_WAIT_S, wait_s)):.3f}"}
    path = f"/v1/recoveries/{segment(recovery_id)}"
    return Call("GET", path, params, may_take_s=LONGEST_WAIT_S if params else 0)


def list_recovery_items(recovery_id: str, *, effect: str | None, limit: int, after: int) -> Call:
    params = query(effect=effect, limit=limit, after=after)
    return Call("GET", f"/v1/recoveries/{segment(recovery_id)}/items", params)


def abort_recovery(recovery_id: str) -> Call:
    return Call("POST", f"/v1/recoveries/{segment(recovery_id)}/abort", is_repeatable=False)


def list_announcements(
    *, job_id: str | None, state: str | None, endpoint: str | None, limit: int, cursor: str | None
) -> Call:
    params = query(job_id=job_id, state=state, endpoint=endpoint, limit=limit, cursor=cursor)
    return Call("GET", "/v1/announcements", params)


def get_announcement(announcement_id: str) -> Call:
    return Call("GET", f"/v1/announcements/{segment(announcement_id)}")


def resend_announcement(announcement_id: str) -> Call:
    return Call("POST", f"/v1/announcements/{segment(announcement_id)}/resend", is_repeatable=False)


def follow_feed(*, position: int | None, **wanted: str | int | datetime | None) -> Call:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    headers |= {} if position is None else {"Last-Event-ID": str(position)}
    return Call("GET", "/v1/events", query(**wanted), headers=headers, may_take_s=SILENCE_S)


def report_costs(
    *, group_by: str, since: datetime | None, until: datetime | None, limit: int, cursor: str | None
) -> Call:
    return Call(
        "GET",
        "/v1/costs",
        query(group_by=group_by, since=since, until=until, limit=limit, cursor=cursor),
    )


def _job(kind: str, wanted: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: value for name, value in given.items() if value is not None}
    if "metadata" in named:
        named["metadata"] = dict(named["metadata"])
    return {"kind": kind, "input": dict(wanted), **named}


def _recovery(path: str, wanted: Mapping[str, str | int | datetime | None]) -> Call:
    body = {
        name: moment(value) if isinstance(value, datetime) else value
        for name, value in wanted.items()
        if value is not None
    }
    # To look is harmless, twice too; to begin twice is two. A provider may take its time to answer a look.
    return json_call("POST", path, body, may_take_s=300, is_repeatable=bool(body.get("dry_run")))
