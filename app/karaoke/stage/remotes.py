"""Tokens of guests' phones: each opens one performance to a remote control, for a while, and nothing else.

A token is an HMAC-SHA-256 over what it allows and until when, under a secret of its own, so it cannot stand
in for a key, a link or a cursor. It names the key of whoever gave it out: with that key it ends. Promises:
checked in constant time, without a row; what it proves is a `Guest`, who has no scope at all and is let into
one room.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from app.access.callers import Caller
from app.access.keys import KeyNeeded

PREFIX = "rpr_"
MOST_CHARACTERS = 1000
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Guest(Caller):
    """Whoever holds a token: a caller without a scope."""

    performance_id: str = ""
    expires_at: datetime = LONG_AGO


@dataclass(frozen=True, slots=True)
class RemoteToken:
    """A token, shown to whoever asked for it."""

    text: str = field(repr=False)
    expires_at: datetime


class RemoteTokens:
    """Makes them and reads them."""

    def __init__(self, *, secret: str, life_s: float) -> None:
        # Bound to its purpose: what else is signed with the installation's secret never is one of these.
        self._secret = hmac.new(secret.encode(), b"remote tokens", sha256).digest()
        self._life = timedelta(seconds=life_s)

    def issue(self, by: Caller, performance_id: str, *, now: datetime) -> RemoteToken:
        """For one performance of the caller's tenant."""
        expires_at = (now + self._life).replace(microsecond=0)
        facts = [performance_id, by.tenant, by.key_id, int(expires_at.timestamp())]
        packed = _pack(json.dumps(facts, separators=(",", ":")).encode())
        return RemoteToken(f"{PREFIX}{packed}.{self._sign(packed)}", expires_at)

    def read(self, text: str, *, now: datetime) -> Guest:
        """Whom it lets in where. Raises KeyNeeded for one that is not ours or has expired."""
        packed, _, mark = text[:MOST_CHARACTERS].removeprefix(PREFIX).partition(".")
        if not hmac.compare_digest(self._sign(packed).encode(), mark.encode("utf-8", "surrogatepass")):
            raise KeyNeeded
        try:
            performance_id, tenant, key_id, expires = json.loads(_unpack(packed))
        except (ValueError, binascii.Error) as exc:
            raise KeyNeeded from exc
        expires_at = datetime.fromtimestamp(expires, UTC)
        if expires_at <= now:
            raise KeyNeeded
        return Guest(tenant, frozenset(), key_id, None, performance_id, expires_at)

    def _sign(self, packed: str) -> str:
        signed = hmac.new(self._secret, packed.encode("utf-8", "surrogatepass"), sha256).digest()
        return _pack(signed[:24])


def _pack(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _unpack(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
