"""Cookies of people who signed in with a key: each names a key by its digest, and until when.

A cookie is signed with the installation's own secret and holds nothing that would do as a key: of a digest
nobody finds the key. Whether the key still holds is asked at every request, so a revoked key ends its
sessions. Pure.
"""

from __future__ import annotations

import hmac
import json
import re
from datetime import datetime
from hashlib import sha256

COOKIE = "reprise_session"
_COOKIE = re.compile(r"([0-9a-f]{64})\.(\d{1,12})\.([0-9a-f]{64})", re.ASCII)


class Sessions:
    """Makes cookies and reads them."""

    def __init__(self, *, secret: str, life_s: int) -> None:
        self._secret = secret.encode()
        self.life_s = life_s

    def begin(self, digest: str, *, now: datetime) -> str:
        """The cookie of whoever has just shown the key with that digest."""
        ends = int(now.timestamp()) + self.life_s
        return f"{digest}.{ends}.{self._sign(digest, ends)}"

    def read(self, cookie: str, *, now: datetime) -> str | None:
        """The digest of the key that it stands for; None for one that was not made here, or is over."""
        found = _COOKIE.fullmatch(cookie)
        if found is None:
            return None
        digest, ends = found[1], int(found[2])
        is_ours = hmac.compare_digest(self._sign(digest, ends), found[3])
        return digest if is_ours and now.timestamp() < ends else None

    def _sign(self, digest: str, ends: int) -> str:
        text = json.dumps(["session", digest, ends])
        return hmac.new(self._secret, text.encode(), sha256).hexdigest()
