"""The work engine: tells stations which rows to look at. Its items are hints; the rows are the truth.

Owns the `WorkEngine` port and its embedded form over `PgQueuer.in_memory()`. Promises: an item enqueued
through a transaction is heard of only if that transaction commits; at most one item a row and station is
waiting at a time, and one that arrives while its row is being worked on is run again afterwards. What is
lost with the process is found again by the sweep in `app.worker`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

import structlog
from pgqueuer import PgQueuer
from pgqueuer.models import Job as Item

from db.session import Transaction

log = structlog.get_logger()

MOST_WAITING = 20_000
"""Items held in memory; rows beyond wait in the database until the sweep comes round."""


class Station(StrEnum):
    """The stations that have work items, in the order of the line."""

    DISPATCH = "dispatch"
    APPLY = "apply"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class Step:
    """What a station does with one row, and how many it does at once."""

    run: Callable[[str], Awaitable[None]]
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

    @property
    def write_items(self) -> ItemsWriter | None:
        """Enqueues for a station on a driver connection, in its transaction; None for an engine in memory."""
        ...


ItemsWriter = Callable[[Station, Any, Sequence[str]], Awaitable[None]]


class EmbeddedEngine:
    """PgQueuer in memory: for one process with its database on the same machine."""

    write_items: ItemsWriter | None = None

    def __init__(self) -> None:
        self._queue: PgQueuer | None = None
        self._waiting: set[tuple[Station, str]] = set()
        self._buffer: list[tuple[Station, str]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._stopping = False

    def enqueue(self, tx: Transaction, station: Station, *row_ids: str) -> None:
        tx.after_commit(partial(self.hint, station, *row_ids))

    def hint(self, station: Station, *row_ids: str) -> None:
        fresh = [(station, row_id) for row_id in row_ids if (station, row_id) not in self._waiting]
        if not fresh or self._queue is None or len(self._waiting) + len(fresh) > MOST_WAITING:
            # Nobody would work on them, or more are waiting than memory should hold: the sweep finds them.
            return
        self._waiting.update(fresh)
        self._buffer.extend(fresh)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def run(self, steps: Mapping[Station, Step]) -> None:
        queue = PgQueuer.in_memory()
        for station, step in steps.items():
            # A failed step is not kept by the engine: its row is still due and the sweep brings it back.
            queue.entrypoint(station.value, concurrency_limit=step.concurrency)(
                partial(self._run_item, station, step)
            )
        if self._stopping:
            return
        self._queue = queue
        try:
            await queue.run(dequeue_timeout=timedelta(seconds=2), batch_size=16)
        finally:
            self._queue = None
            self._waiting.clear()

    def stop(self) -> None:
        self._stopping = True
        if self._queue is not None:
            self._queue.shutdown.set()

    async def _run_item(self, station: Station, step: Step, item: Item) -> None:
        row_id = (item.payload or b"").decode()
        # Forgotten before the step reads its row: a hint that comes from now on makes another item.
        self._waiting.discard((station, row_id))
        with structlog.contextvars.bound_contextvars(station=station.value):
            try:
                await step.run(row_id)
            except Exception as exc:
                log.error("step.failed", row_id=row_id, exc_info=exc)

    async def _flush(self) -> None:
        while self._buffer:
            batch, self._buffer = self._buffer, []
            if self._queue is None or self._queue.queries is None:
                return
            await self._queue.queries.enqueue(
                [station.value for station, _ in batch],
                [row_id.encode() for _, row_id in batch],
                [0] * len(batch),
            )
