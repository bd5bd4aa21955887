"""Standard Webhooks signatures: proving what comes in, signing what goes out.

Owns the secrets and the one comparison. Promises that whatever a stranger sends in the three `webhook-*`
headers ends in a message id or in `BadSignature`, in bounded time and with one text for every cause.
Leaves the body's meaning to the adapters, deduplication by message id to the inbox, and what to do with a
refused message to the edge.

The library `standardwebhooks` makes the expected value; its `verify` is not used: its tolerance is fixed at
five minutes, it leaks six foreign exceptions, takes `1_700_000_000` for a timestamp and reads 100,000
signatures (each tried with 1.1.0).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

from app.errors import StartupError, Unauthenticated

MAX_SIGNATURES = 8
"""Signatures read from one header, and secrets held: a rotation needs two, more is an attack on our CPU."""
MAX_HEADER_CHARS = 1024
"""Of each `webhook-*` header: 8 signatures of 47 characters fit twice."""

_PREFIX = "whsec_"
_REFUSED = "the webhook could not be verified"
# Printable ASCII without blank and comma: a header that came twice is joined by a comma.
_MESSAGE_ID = re.compile(r"[!-+\--~]{1,255}", re.ASCII)
# No leading zero: the library signs the number, not its text, and one number must have one text.
_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,11}", re.ASCII)
# Years past 9999 have no `datetime`; a wide tolerance must not turn one into a foreign exception.
_LAST_TIMESTAMP_S = 253_402_300_799


class BadSignature(Unauthenticated):
    """A webhook whose proof does not hold. `reason` is for operators only; the message is always the same."""

    def __init__(self, reason: str) -> None:
        super().__init__(_REFUSED)
        self.reason = reason


class WebhookSecrets:
    """One to eight `whsec_…` secrets; each of them verifies, all of them sign (a rotation's overlap)."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Raises StartupError that names the position of a bad secret (from 1), never its value."""
        if not secrets:
            raise StartupError("no webhook secret is given: without one every forgery would pass")
        if len(secrets) > MAX_SIGNATURES:
            raise StartupError(f"{len(secrets)} webhook secrets are given, at most {MAX_SIGNATURES} are read")
        self._signers = tuple(Webhook(_key(text, position)) for position, text in enumerate(secrets, 1))

    def verify(self, headers: Mapping[str, str], body: bytes, *, now: datetime, tolerance_s: float) -> str:
        """The `webhook-id` of an authentic message, not older or newer than `tolerance_s` (inclusive).

        `headers` has lower-case names, `now` is aware. Raises BadSignature (an Unauthenticated).
        """
        message_id = _header(headers, "webhook-id")
        timestamp_text = _header(headers, "webhook-timestamp")
        given = _signatures(_header(headers, "webhook-signature"))
        if _MESSAGE_ID.fullmatch(message_id) is None:
            raise BadSignature("webhook-id is malformed or came twice")
        timestamp_s = _fresh(timestamp_text, now=now, tolerance_s=tolerance_s)
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise BadSignature("body is not UTF-8") from exc
        if not self._any_match(message_id, timestamp_s, text, given):
            raise BadSignature(f"none of {len(given)} v1 signatures matches")
        return message_id

    def sign(self, message_id: str, timestamp_s: int, body: bytes) -> str:
        """The `webhook-signature` header for a message of ours: `v1,…`, one entry per secret.

        `timestamp_s` is the unix time put into `webhook-timestamp`; `body` is UTF-8.
        """
        text = body.decode("utf-8")
        return " ".join(_sign(signer, message_id, timestamp_s, text) for signer in self._signers)

    def _any_match(self, message_id: str, timestamp_s: int, text: str, given: Sequence[bytes]) -> bool:
        # No early leave: the time must not tell which secret or which entry was right.
        matched = False
        for signer in self._signers:
            expected = _sign(signer, message_id, timestamp_s, text).encode("ascii")
            for candidate in given:
                matched |= hmac.compare_digest(expected, candidate)
        return matched


def _key(text: str, position: int) -> bytes:
    if not text.startswith(_PREFIX):
        raise StartupError(f"webhook secret number {position} does not start with {_PREFIX}")
    encoded = text.removeprefix(_PREFIX).rstrip("=")
    try:
        # Unpadded secrets are allowed; the library drops foreign characters in silence, we do not.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise StartupError(f"webhook secret number {position} is not base64") from exc
    if not key:
        raise StartupError(f"webhook secret number {position} is empty")
    return key


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "")
    if not value:
        raise BadSignature(f"{name} is missing or empty")
    if len(value) > MAX_HEADER_CHARS:
        raise BadSignature(f"{name} is {len(value)} characters long")
    return value


def _signatures(value: str) -> list[bytes]:
    """The v1 entries as sent, `v1,` included; entries of other versions are skipped, other forms refused."""
    if not value.isascii():
        raise BadSignature("webhook-signature is not ASCII")
    entries = value.split(" ")
    if len(entries) > MAX_SIGNATURES:
        raise BadSignature(f"too many signatures ({len(entries)})")
    if any(entry.count(",") != 1 for entry in entries):
        raise BadSignature("webhook-signature is malformed or came twice")
    return [entry.encode("ascii") for entry in entries if entry.startswith("v1,")]


def _fresh(text: str, *, now: datetime, tolerance_s: float) -> int:
    if _TIMESTAMP.fullmatch(text) is None or int(text) > _LAST_TIMESTAMP_S:
        raise BadSignature("webhook-timestamp is not a plain number of seconds, or came twice")
    age_s = now.timestamp() - int(text)
    if abs(age_s) > tolerance_s:
        raise BadSignature(f"webhook-timestamp is {abs(age_s):.0f} s too {'old' if age_s > 0 else 'new'}")
    return int(text)


def _sign(signer: Webhook, message_id: str, timestamp_s: int, text: str) -> str:
    # The library stamps UTC onto whatever it is given, so it must be given UTC.
    signed: str = signer.sign(message_id, datetime.fromtimestamp(timestamp_s, UTC), text)
    return signed
