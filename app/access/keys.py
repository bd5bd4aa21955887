"""What a key looks like, and how one is made, recognised and refused; pure.

`rp_` + ten letters and digits that may be seen by anybody + `_` + 256 random bits. The service keeps the
SHA-256 of the whole and cannot show it again. Random bits need no slow hash: there is nothing to guess.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import unquote_plus

from app.errors import RequestError, Unauthenticated

PUBLIC_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PUBLIC_LENGTH = 10
SECRET_BYTES = 32
MOST_HEADER_CHARACTERS = 200
_KEY = re.compile(r"rp_[a-z0-9]{10}_[A-Za-z0-9_-]{43}", re.ASCII)
_KEY_INSIDE = re.compile(r"rp_[a-z0-9]{10}_", re.ASCII)
_BEARER = re.compile(r"(?i:bearer) +([^ ]+) *", re.ASCII)
_NAMES = frozenset({"api_key", "apikey", "access_token", "authorization", "bearer", "key"})


class KeyNeeded(Unauthenticated):
    """No key, or one that does not hold: unknown, revoked or expired. The text is the same for all."""

    def __init__(self) -> None:
        super().__init__("send a key of this service that holds, as `Authorization: Bearer KEY`")


class KeyInAddress(RequestError):
    """A key stood in the address, where logs and histories keep it. Take it for lost and revoke it."""

    code = "key_in_address"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made."""

    text: str = field(repr=False)
    """To be shown once, and to be kept by whoever asked for it alone."""
    prefix: str
    digest: str


def make_key() -> NewKey:
    """A new key, of 256 random bits."""
    public = "".join(secrets.choice(PUBLIC_CHARACTERS) for _ in range(PUBLIC_LENGTH))
    prefix = f"rp_{public}"
    text = f"{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return NewKey(text, prefix, digest_of(text))


def digest_of(text: str) -> str:
    """What is kept of a key: its SHA-256 in hex."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def looks_like_key(text: str) -> bool:
    """Whether it is worth a look at the rows: nothing else was ever made here."""
    return _KEY.fullmatch(text) is not None


def read_bearer(authorization: str | None) -> str | None:
    """What an `Authorization` header carries as a bearer; None for no header or another scheme."""
    if authorization is None or len(authorization) > MOST_HEADER_CHARACTERS:
        return None
    found = _BEARER.fullmatch(authorization)
    return found[1] if found else None


def refuse_in_address(query: str) -> None:
    """Raises KeyInAddress where the query of an address holds a key, or what is meant for one."""
    if not query:
        return
    names = {unquote_plus(pair.partition("=")[0]).lower() for pair in query.split("&")}
    if names & _NAMES or _KEY_INSIDE.search(unquote_plus(query)):
        raise KeyInAddress("a key goes into the header `Authorization: Bearer KEY`, never into the address")
