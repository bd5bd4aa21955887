"""The work engine: tells stations which rows to look at. Its items are hints; the rows are the truth.

Owns the `WorkEngine` port; `embedded` is the engine of one process, `postgres` that of many. Promises: an
item enqueued through a transaction is heard of only if that transaction commits. What is lost on the way
is found again by the sweep in `app.worker`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from pgqueuer import PgQueuer

from db.ingress import Statement
from db.session import Transaction

__all__ = [
    "MOST_TOGETHER",
    "ItemsFor",
    "Station",
    "Step",
    "WorkEngine",
    "pack",
    "plan_item",
    "run_together",
    "unpack",
]


class Station(StrEnum):
    """The stations that have work items, in the order of the line."""

    DISPATCH = "dispatch"
    APPLY = "apply"
    FINISH = "finish"
    ANNOUNCE = "announce"


MOST_TOGETHER: Mapping[Station, int] = {Station.APPLY: 16}
"""Rows that an item may name, where it is not one: a station that gains by doing several in one step. Few
enough that a step is short, and that many workers share a burst."""


PLAN = "plan:"
"""Begins an item of the dispatch station that names a parent to be planned, not a job to be begun."""


def plan_item(job_id: str) -> str:
    """What the dispatch station is told of a parent that is due: it is nobody's turn there."""
    return f"{PLAN}{job_id}"


def pack(station: Station, row_ids: Sequence[str], *, at_most: int = sys.maxsize) -> list[bytes]:
    """The items for these rows."""
    most = min(at_most, MOST_TOGETHER.get(station, 1))
    return [" ".join(row_ids[at : at + most]).encode() for at in range(0, len(row_ids), most)]


def unpack(item: bytes | None) -> list[str]:
    """The rows that an item names."""
    return (item or b"").decode().split()


@dataclass(frozen=True, slots=True)
class Step:
    """What a station does with the rows of an item, and how many items it takes at once."""

    run: Callable[..., Awaitable[None]]
    """Called with the ids of the rows, one by one its arguments."""
    concurrency: int


class WorkEngine(Protocol):
    """The port. With rows as the truth and fenced steps, it stays replaceable."""

    def enqueue(self, tx: Transaction, station: Station, *row_ids: str) -> None:
        """Hint that these rows are due, once the transaction has committed."""
        ...

    def hint(self, station: Station, *row_ids: str) -> None:
        """The same without a transaction: for the sweep."""
        ...

    async def run(self, steps: Mapping[Station, Step]) -> None:
        """Run steps until `stop`; returns when those begun have ended."""
        ...

    def stop(self) -> None: ...

    def trouble(self) -> str | None:
        """Why no items are taken although `run` runs; None when they are, or nobody runs it here."""
        ...

    @property
    def items_for(self) -> ItemsFor | None:
        """What enqueues rows for a station, run by whoever stores them; None for an engine in memory."""
        ...


ItemsFor = Callable[[Station, Sequence[str]], Awaitable[Statement]]


async def run_together(queues: Sequence[tuple[PgQueuer, int]], **options: Any) -> None:
    """Run these queues, each with the most items it may hold, until all have ended or one has failed."""
    runs = [asyncio.create_task(queue.run(max_concurrent_tasks=most, **options)) for queue, most in queues]
    try:
        await asyncio.gather(*runs)
    finally:
        for queue, _ in queues:
            queue.shutdown.set()
        await asyncio.gather(*runs, return_exceptions=True)
