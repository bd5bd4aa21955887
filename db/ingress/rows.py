"""A delivery as it goes into the table: the columns, in the order in which every ingress writes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from pydantic_core import to_json


class NewDelivery(NamedTuple):
    """A delivery to be stored; the fields are columns of `db.tables.Delivery`."""

    id: str
    source: str
    provider: str
    attempt_id: str
    job_id: str | None
    message_id: str | None
    dedupe_key: bytes
    headers: dict[str, str]
    body: bytes
    received_at: datetime


class Ingress(Protocol):
    """Stores groups of deliveries."""

    async def write(self, deliveries: Sequence[NewDelivery]) -> list[bool]:
        """Store them in one commit; for each, whether it was new. Raises DatabaseUnavailable."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of the database's, with values for `$1` and so on, for whoever runs it."""

    query: str
    values: tuple[Any, ...]


ItemsFor = Callable[[Sequence[str]], Awaitable[Statement]]
"""What enqueues the work items of these deliveries; one that is not there does no harm."""


COLUMNS = NewDelivery._fields
NAMES = ", ".join([*COLUMNS, "run_after", "tries"])


def as_json(headers: dict[str, str]) -> str:
    """The text of the headers' column."""
    return to_json(headers).decode()
