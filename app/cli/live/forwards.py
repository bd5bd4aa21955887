"""What `reprise listen` forwards, wherever it comes from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Forward:
    """One message to be forwarded; `body` is None where it was too large to be told."""

    id: str
    name: str
    at: datetime
    headers: dict[str, str]
    body: bytes | None
    facts: dict[str, Any]


class Source(Protocol):
    """Where messages come from."""

    def messages(self) -> AsyncIterator[Forward]: ...
