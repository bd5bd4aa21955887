"""What is signed with the installation's own secret: callback URLs, links to stored assets, cursors of lists.

Each is an HMAC-SHA-256 over a labelled text, so none can stand in for another, and each is checked in
constant time without reading a row: by any process, also for news that arrives before or long after the
attempt's row changed.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Sequence
from hashlib import sha256

from app.errors import Forbidden, StartupError


class Callbacks:
    """Makes callback URLs and checks their tokens."""

    def __init__(self, *, secret: str, public_url: str | None, local: frozenset[str] = frozenset()) -> None:
        """`local` are the providers that run beside this process and call it without leaving the machine."""
        self._secret = secret.encode()
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
        return _sign(self._secret, f"attempt:{attempt_id}")[:48]

    def is_ours(self, attempt_id: str, token: str) -> bool:
        """Whether this token was made here for this attempt."""
        return _same(self.token(attempt_id), token)


class Links:
    """Makes links to assets and checks them: whoever holds one may fetch that asset until it expires."""

    def __init__(self, *, secret: str, life_s: int) -> None:
        self._secret = secret.encode()
        self._life_s = life_s

    def url(self, asset_id: str) -> str:
        """A path with `expires` (unix seconds) and `signature`, relative to the service's own address."""
        expires = int(time.time()) + self._life_s
        signature = self._signature(asset_id, expires)
        return f"/v1/assets/{asset_id}/content?expires={expires}&signature={signature}"

    def check(self, asset_id: str, expires: str, signature: str) -> None:
        """Raises Forbidden when the link was altered or has expired."""
        given = int(expires) if expires.isascii() and expires.isdigit() and len(expires) <= 12 else 0
        if not _same(self._signature(asset_id, given), signature):
            raise Forbidden("the link is not valid")
        if given < time.time():
            raise Forbidden("the link has expired")

    def _signature(self, asset_id: str, expires: int) -> str:
        return _sign(self._secret, f"asset:{asset_id}:{expires}")


class Cursors:
    """Proves that a cursor was made here, for one list: whose it is, what it shows, how it is narrowed."""

    def __init__(self, *, secret: str) -> None:
        self._secret = secret.encode()

    def mark(self, last: str, binding: Sequence[object]) -> bytes:
        """128 bits over the place where a page ended and the list that it is a page of."""
        text = json.dumps([last, *binding], default=str, separators=(",", ":"))
        return bytes.fromhex(_sign(self._secret, f"cursor:{text}"))[:16]

    def is_ours(self, last: str, binding: Sequence[object], mark: bytes) -> bool:
        return hmac.compare_digest(self.mark(last, binding), mark)


def _sign(secret: bytes, text: str) -> str:
    return hmac.new(secret, text.encode("utf-8", "surrogatepass"), sha256).hexdigest()


def _same(ours: str, given: str) -> bool:
    return hmac.compare_digest(ours.encode(), given.encode("utf-8", "surrogatepass"))
