"""What a callback address is: whether it may be one, which endpoint it names, and whose turn it takes.

An endpoint is a tenant's address without its query; it is what is paused and disabled. A receiver is a
tenant's endpoints at one host and port together; it is what takes turns, so that neither a host that hangs
nor a path of its own for each job holds up anybody else.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import httpx

from app.errors import InvalidInput, OutputRejected, ProviderUnavailable
from app.outbound import Outbound

FIELD = "callback_url"
MOST_CHARS = 2048
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Where an announcement goes, as rows name it."""

    endpoint_id: str
    receiver: str
    url: str
    """Scheme, host, port and path: what people are shown."""


def address_of(tenant: str, url: str) -> Address:
    """The endpoint of a tenant's URL that `check_callback` has let pass."""
    parsed = httpx.URL(url)
    host = parsed.raw_host.decode("ascii").lower()
    shown = f"[{host}]" if ":" in host else host
    port = parsed.port or _PORTS[parsed.scheme]
    place = shown if port == _PORTS[parsed.scheme] else f"{shown}:{port}"
    path = parsed.raw_path.decode("ascii").partition("?")[0] or "/"
    origin = f"{parsed.scheme}://{place}"
    return Address(f"ep_{_digest(tenant, origin + path)}", f"to_{_digest(tenant, origin)}", origin + path)


def without_query(url: str) -> str:
    """A callback as people are shown it: its query is where receivers keep a password."""
    return re.split(r"[?#]", url, maxsplit=1)[0]


async def check_callback(outbound: Outbound, url: str) -> None:
    """Whether announcements could go there now. Raises InvalidInput naming `callback_url`.

    The answer holds for this moment: the address is judged again at each send.
    """
    if len(url) > MOST_CHARS:
        raise InvalidInput(f"callback_url may have at most {MOST_CHARS} characters", field=FIELD)
    try:
        await outbound.check(url)
    except (OutputRejected, ProviderUnavailable) as exc:
        # A name that does not resolve is the caller's slip far more often than our resolver's.
        raise InvalidInput(f"callback_url: {exc.message}", field=FIELD) from exc


def _digest(tenant: str, text: str) -> str:
    return hashlib.sha256(f"{tenant}\n{text}".encode()).hexdigest()[:32]
