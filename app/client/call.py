"""One request as a value, and how what is asked is written into it.

Raises InvalidInput for what could not be sent as it was meant. Leaves what is asked to `calls`, and
sending to the transports.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.client.errors import InvalidInput

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_ONCE = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    is_repeatable: bool = True
    """Whether sending it twice does no more than sending it once."""
    may_take_s: float = 0.0
    """How long the service may be silent before it answers, beyond the client's own limit."""


def json_call(
    method: str,
    path: str,
    body: Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    may_take_s: float = 0,
    is_repeatable: bool = True,
) -> Call:
    """A call with a JSON body."""
    try:
        content = json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInput(f"what is asked is not JSON: {exc}") from exc
    return Call(
        method,
        path,
        headers={"Content-Type": "application/json", **(headers or {})},
        content=content,
        may_take_s=may_take_s,
        is_repeatable=is_repeatable,
    )


def once(given: str | None) -> dict[str, str]:
    """The header that makes a request one. Without a key one is made, so that a repeat after an answer that
    was lost finds what the first try made. Raises InvalidInput."""
    found = given or f"auto-{secrets.token_hex(16)}"
    if not _ONCE.fullmatch(found):
        raise InvalidInput("idempotency_key: must be 1-255 visible ASCII characters", field="idempotency_key")
    return {"Idempotency-Key": found}


def query(**given: str | int | datetime | None) -> dict[str, str]:
    """The query: what was not given is not there."""
    return {
        name: moment(value) or "" if isinstance(value, datetime) else str(value)
        for name, value in given.items()
        if value is not None
    }


def moment(value: datetime | None) -> str | None:
    """A time in UTC."""
    if value is not None and value.tzinfo is None:
        raise InvalidInput("a time needs its zone: datetime(…, tzinfo=UTC)")
    return None if value is None else value.astimezone(UTC).isoformat()


def segment(text: str) -> str:
    """An id as a part of a path. Raises InvalidInput for what would be another path."""
    if not _ID.fullmatch(text):
        raise InvalidInput(f"not an id: {text[:80]!r}")
    return text
