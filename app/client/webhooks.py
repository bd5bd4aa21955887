"""Proving an announcement at its receiver: signed by Standard Webhooks, by one of the secrets, lately.

    from app.client.webhooks import BadSignature, verify

    announcement = verify(secrets, request.headers, await request.body())
    if announcement.type == "job.succeeded": ...

Promises: whatever a stranger sends ends in an `Announcement` or in `BadSignature`, in bounded time. The raw
body is what was signed: parse nothing before. Leaves to the receiver to answer 2xx soon, to remember the ids
that it has seen (announcements come at least once), and to ask the service for the job: they are thin.

The library `standardwebhooks` computes the signature. Its `verify` is not used: it leaks six foreign
exceptions, takes `1_700_000_000` for a time, reads any number of signatures, and its tolerance is fixed.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from app.client.errors import InvalidInput, RepriseError

TOLERANCE_S = 300.0
MOST_SIGNATURES = 8
"""Read from one header, and secrets tried: a rotation needs two."""
MOST_BODY_BYTES = 1024 * 1024
MOST_HEADER_CHARS = 1024

_PREFIX = "whsec_"
_ID = re.compile(r"[!-+\--~]{1,255}", re.ASCII)
_TIME = re.compile(r"0|[1-9][0-9]{0,10}", re.ASCII)


class BadSignature(RepriseError):
    """The announcement is not proven: answer 401. `reason` is for your log, not for the sender."""

    def __init__(self, reason: str) -> None:
        super().__init__("the announcement could not be verified", code="bad_signature", status=401)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Announcement:
    """What the service announces, proven."""

    id: str
    """The same for each try to deliver it: remember it, and do nothing twice."""
    sent_at: datetime
    """When this try was signed."""
    type: str
    """Such as `job.succeeded`; empty where the body names none."""
    data: Mapping[str, Any]
    """What it is about: ids and states, as far as they were known then."""
    body: Mapping[str, Any]
    """All of it, parsed."""


def verify(
    secrets: str | Sequence[str],
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    body: bytes,
    *,
    tolerance_s: float = TOLERANCE_S,
    now: datetime | None = None,
) -> Announcement:
    """The announcement in a request. During a rotation give both secrets.

    `headers` may be any mapping or list of pairs, names in any case; `body` is the raw bytes;
    `tolerance_s` is how old or new the time of signing may be. Raises BadSignature for whatever is wrong
    with the request, and InvalidInput for secrets that are none.
    """
    signers = _signers(secrets)
    given = _headers(headers)
    message_id, signed_s = given["webhook-id"], _fresh(given["webhook-timestamp"], tolerance_s, now)
    if not _ID.fullmatch(message_id):
        raise BadSignature("webhook-id is malformed")
    if len(body) > MOST_BODY_BYTES:
        raise BadSignature(f"the body has more than {MOST_BODY_BYTES} bytes")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSignature("the body is not UTF-8") from None
    sent_at = datetime.fromtimestamp(signed_s, UTC)
    candidates = _signatures(given["webhook-signature"])
    # No early leave: the time must not tell which secret or which entry was right.
    matches = [
        hmac.compare_digest(signer.sign(message_id, sent_at, text).encode(), candidate)
        for signer in signers
        for candidate in candidates
    ]
    if not any(matches):
        raise BadSignature(f"none of {len(candidates)} signatures is by one of {len(signers)} secrets")
    return _read(message_id, sent_at, text)


def _read(message_id: str, sent_at: datetime, text: str) -> Announcement:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise BadSignature("the body is authentic and no JSON") from None
    if not isinstance(found, dict):
        raise BadSignature("the body is authentic and no object")
    named, data = found.get("type"), found.get("data")
    return Announcement(
        id=message_id,
        sent_at=sent_at,
        type=named if isinstance(named, str) else "",
        data=data if isinstance(data, dict) else {},
        body=found,
    )


def _signers(secrets: str | Sequence[str]) -> list[Webhook]:
    """Raises InvalidInput with the place of a bad one, never its text."""
    texts = secrets.split() if isinstance(secrets, str) else list(secrets)
    if not 1 <= len(texts) <= MOST_SIGNATURES:
        raise InvalidInput(f"secrets: from one to {MOST_SIGNATURES} are needed", field="secrets")
    return [Webhook(_key(text, place)) for place, text in enumerate(texts, 1)]


def _key(text: str, place: int) -> bytes:
    encoded = text.removeprefix(_PREFIX).rstrip("=")
    try:
        # Strictly: the library would drop foreign characters in silence, and sign with what is left.
        found = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        found = b""
    if not found or not text.startswith(_PREFIX):
        raise InvalidInput(f"secrets: number {place} is no {_PREFIX}… secret", field="secrets")
    return found


def _headers(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, str]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    wanted = dict.fromkeys(("webhook-id", "webhook-timestamp", "webhook-signature"), "")
    for name, value in pairs:
        if name.lower() in wanted:
            if wanted[name.lower()]:
                raise BadSignature(f"{name.lower()} came twice")
            wanted[name.lower()] = value
    for name, value in wanted.items():
        if not value or len(value) > MOST_HEADER_CHARS:
            raise BadSignature(f"{name} is missing, empty or too long")
    return wanted


def _fresh(text: str, tolerance_s: float, now: datetime | None) -> int:
    if not _TIME.fullmatch(text):
        raise BadSignature("webhook-timestamp is not a plain number of seconds")
    age_s = (now.timestamp() if now else time.time()) - int(text)
    if abs(age_s) > tolerance_s:
        raise BadSignature(f"it was signed {abs(age_s):.0f} s {'ago' if age_s > 0 else 'ahead'}")
    return int(text)


def _signatures(value: str) -> list[bytes]:
    entries = value.split(" ")
    if len(entries) > MOST_SIGNATURES or not value.isascii():
        raise BadSignature("webhook-signature is malformed")
    if any(entry.count(",") != 1 for entry in entries):
        raise BadSignature("webhook-signature is malformed, or came twice")
    return [entry.encode("ascii") for entry in entries if entry.startswith("v1,")]
