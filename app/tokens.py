"""What is signed with the installation's own secret: callback URLs for providers, cursors of lists, tickets.

Each is an HMAC-SHA-256 over a labelled text, so neither can stand in for the other, and each is checked in
constant time without reading a row: by any process, also for news that arrives before or long after the
attempt's row changed. Links to assets have a secret of their own, which rotates: `app.access.links`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app.access.callers import Caller, Scope
from app.access.keys import KeyNeeded
from app.errors import StartupError

TICKET_PREFIX = "rpt_"


class Callbacks:
    """Makes callback URLs and checks their tokens."""

    def __init__(self, *, secret: str, public_url: str | None, local: frozenset[str] = frozenset()) -> None:
        """`local` are the providers that run beside this process and call it without leaving the machine."""
        self._key = _key(secret)
        self._public_url = public_url
        self._local = local
        self._local_url: str | None = None

    def listen_at(self, local_url: str) -> None:
        """Tell where this process listens, once its port is known: a worker on this machine calls there."""
        self._local_url = local_url.rstrip("/")

    def url(self, provider: str, attempt_id: str) -> str:
        """The URL for one attempt. Raises StartupError when providers have no address to call."""
        return f"{self.base(provider)}/v1/webhooks/{provider}/{attempt_id}?token={self.token(attempt_id)}"

    def base(self, provider: str) -> str:
        """Where this provider reaches the service, for callbacks and for the files that it reads."""
        places = (self._public_url, self._local_url)
        base = next(filter(None, reversed(places) if provider in self._local else places), None)
        if base is None:
            raise StartupError("PUBLIC_URL: set it, or start the service before dispatching jobs")
        return base

    def token(self, attempt_id: str) -> str:
        """192 bits in hex."""
        return _sign(self._key, f"attempt:{attempt_id}")[:48]

    def is_ours(self, attempt_id: str, token: str) -> bool:
        """Whether this token was made here for this attempt."""
        return _same(self.token(attempt_id), token)


class Cursors:
    """Proves that a cursor was made here, for one list: whose it is, what it shows, how it is narrowed."""

    def __init__(self, *, secret: str) -> None:
        self._key = _key(secret)

    def mark(self, last: str, binding: Sequence[object]) -> bytes:
        """128 bits over the place where a page ended and the list that it is a page of."""
        text = json.dumps([last, *binding], default=str, separators=(",", ":"))
        return bytes.fromhex(_sign(self._key, f"cursor:{text}"))[:16]

    def is_ours(self, last: str, binding: Sequence[object], mark: bytes) -> bool:
        return hmac.compare_digest(self.mark(last, binding), mark)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A token that stands for a caller for a short while."""

    text: str = field(repr=False)
    expires_at: datetime


class Tickets:
    """Tokens for where a key should not go, such as a page: what its caller may do, signed, for a while.

    A ticket says who its caller is; whether the key behind it still holds is whoever's to ask who takes it.
    """

    def __init__(self, *, secret: str, life_s: float) -> None:
        self._key = _key(secret)
        self._life = timedelta(seconds=life_s)

    def issue(self, caller: Caller, *, now: datetime) -> Ticket:
        """A ticket for what this caller may do."""
        expires_at = (now + self._life).replace(microsecond=0)
        facts = [caller.tenant, sorted(caller.scopes), caller.key_id, int(expires_at.timestamp())]
        packed = base64.urlsafe_b64encode(json.dumps(facts, separators=(",", ":")).encode()).decode()
        text = f"{TICKET_PREFIX}{packed.rstrip('=')}.{_sign(self._key, f'ticket:{packed}')}"
        return Ticket(text, expires_at)

    def read(self, text: str, *, now: datetime) -> Caller:
        """Whom the ticket stands for. Raises KeyNeeded for one that is not ours or has expired."""
        packed, _, mark = text.removeprefix(TICKET_PREFIX).partition(".")
        packed += "=" * (-len(packed) % 4)
        if not _same(_sign(self._key, f"ticket:{packed}"), mark):
            raise KeyNeeded
        try:
            tenant, scopes, key_id, expires = json.loads(base64.urlsafe_b64decode(packed))
        except (ValueError, binascii.Error) as exc:
            raise KeyNeeded from exc
        if datetime.fromtimestamp(expires, UTC) <= now:
            raise KeyNeeded
        return Caller(tenant, frozenset(Scope(each) for each in scopes), key_id)


def _key(secret: str) -> hmac.HMAC:
    """Made ready once: every webhook's token is checked with it."""
    return hmac.new(secret.encode(), digestmod="sha256")


def _sign(key: hmac.HMAC, text: str) -> str:
    signed = key.copy()
    signed.update(text.encode("utf-8", "surrogatepass"))
    return signed.hexdigest()


def _same(ours: str, given: str) -> bool:
    return hmac.compare_digest(ours.encode(), given.encode("utf-8", "surrogatepass"))
