"""Standard Webhooks signatures: proving what comes in, signing what goes out.

Owns the secrets and the one comparison. Promises that whatever a stranger sends in the three `webhook-*`
headers ends in a message id or in `BadSignature`, in bounded time and with one text for every cause.
Leaves the body's meaning to the adapters, deduplication by message id to the inbox, and what to do with a
refused message to the edge.

The library `standardwebhooks` signs; its `verify` is not used: its tolerance is fixed at five minutes, it
leaks six foreign exceptions, takes `1_700_000_000` for a timestamp and reads 100,000 signatures (each tried
with 1.1.0). What it would sign is computed here once more, because every webhook passes: one call over the
bytes as they came takes a quarter of its time, most of which goes into text, dates and objects.
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
    """A webhook whose proof does not hold. The message is always the same; the rest is for operators only.

    `failed` names the check. `skew_s` is how far the signed time is from our clock, above zero in the past;
    `secret` the number of the secret that fits all the same, from 1, or 0 where none does; both None where it
    did not come to that.
    """

    def __init__(
        self, failed: str, reason: str, *, skew_s: float | None = None, secret: int | None = None
    ) -> None:
        super().__init__(_REFUSED)
        self.failed = failed
        self.reason = reason
        self.skew_s = skew_s
        self.secret = secret


class WebhookSecrets:
    """One to eight `whsec_…` secrets; each of them verifies, all of them sign (a rotation's overlap)."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Raises StartupError that names the position of a bad secret (from 1), never its value."""
        if not secrets:
            raise StartupError("no webhook secret is given: without one every forgery would pass")
        if len(secrets) > MAX_SIGNATURES:
            raise StartupError(f"{len(secrets)} webhook secrets are given, at most {MAX_SIGNATURES} are read")
        keys = [_key(text, position) for position, text in enumerate(secrets, 1)]
        # Made ready once: a webhook is proved with a copy of each.
        self._keys = tuple(hmac.new(key, digestmod="sha256") for key in keys)
        self._signers = tuple(map(Webhook, keys))

    def verify(self, headers: Mapping[str, str], body: bytes, *, now: datetime, tolerance_s: float) -> str:
        """The `webhook-id` of an authentic message, not older or newer than `tolerance_s` (inclusive).

        `headers` has lower-case names, `now` is aware. Raises BadSignature (an Unauthenticated).
        """
        message_id = _header(headers, "webhook-id")
        timestamp_text = _header(headers, "webhook-timestamp")
        given = _signatures(_header(headers, "webhook-signature"))
        if _MESSAGE_ID.fullmatch(message_id) is None:
            raise BadSignature("message_id", "webhook-id is malformed or came twice")
        timestamp_s = _seconds(timestamp_text)
        skew_s = round(now.timestamp() - timestamp_s, 3)
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise BadSignature("body", "body is not UTF-8", skew_s=skew_s) from exc
        # Also of what comes too late: an operator wants to know whether it was real.
        secret = self._matching(b"%b.%d.%b" % (message_id.encode("ascii"), timestamp_s, body), given)
        if abs(skew_s) > tolerance_s:
            proof = f"signed by secret number {secret}" if secret else "signed by none of our secrets"
            late = f"webhook-timestamp is {abs(skew_s):.0f} s too {'old' if skew_s > 0 else 'new'}, {proof}"
            raise BadSignature("timestamp", late, skew_s=skew_s, secret=secret)
        if not secret:
            reason = f"none of {len(given)} v1 signatures matches"
            raise BadSignature("signature", reason, skew_s=skew_s, secret=0)
        return message_id

    def sign(self, message_id: str, timestamp_s: int, body: bytes) -> str:
        """The `webhook-signature` header for a message of ours: `v1,…`, one entry per secret.

        `timestamp_s` is the unix time put into `webhook-timestamp`; `body` is UTF-8.
        """
        text = body.decode("utf-8")
        return " ".join(_sign(signer, message_id, timestamp_s, text) for signer in self._signers)

    def _matching(self, signed: bytes, given: Sequence[bytes]) -> int:
        """The number of a secret that one of these was made with, from 1; 0: of none.

        `v1,` and the base64 of an HMAC-SHA-256: Standard Webhooks, "Symmetric signatures".
        """
        # No early leave: the time must not tell which secret or which entry was right.
        number = 0
        for position, key in enumerate(self._keys, 1):
            mac = key.copy()
            mac.update(signed)
            expected = b"v1," + base64.b64encode(mac.digest())
            for candidate in given:
                number = max(number, position * hmac.compare_digest(expected, candidate))
        return number


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
        raise BadSignature("header", f"{name} is missing or empty")
    if len(value) > MAX_HEADER_CHARS:
        raise BadSignature("header", f"{name} is {len(value)} characters long")
    return value


def _signatures(value: str) -> list[bytes]:
    """The v1 entries as sent, `v1,` included; entries of other versions are skipped, other forms refused."""
    if not value.isascii():
        raise BadSignature("signature_form", "webhook-signature is not ASCII")
    entries = value.split(" ")
    if len(entries) > MAX_SIGNATURES:
        raise BadSignature("signature_form", f"too many signatures ({len(entries)})")
    if any(entry.count(",") != 1 for entry in entries):
        raise BadSignature("signature_form", "webhook-signature is malformed or came twice")
    return [entry.encode("ascii") for entry in entries if entry.startswith("v1,")]


def _seconds(text: str) -> int:
    if _TIMESTAMP.fullmatch(text) is None or int(text) > _LAST_TIMESTAMP_S:
        why = "webhook-timestamp is not a plain number of seconds, or came twice"
        raise BadSignature("timestamp_form", why)
    return int(text)


def _sign(signer: Webhook, message_id: str, timestamp_s: int, text: str) -> str:
    # The library stamps UTC onto whatever it is given, so it must be given UTC.
    signed: str = signer.sign(message_id, datetime.fromtimestamp(timestamp_s, UTC), text)
    return signed
