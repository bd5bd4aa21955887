"""The embedded engine: PgQueuer in memory, for one process with its database on the same machine.

At most one item a row and station is waiting at a time, and one that arrives while its row is being worked
on is run again afterwards. The number of items is bounded; nothing here survives the process, nor must it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

import structlog
from pgqueuer import PgQueuer
from pgqueuer.models import Job as Item

from app.work import ItemsWriter, Station, Step
from db.session import Transaction

log = structlog.get_logger()

MOST_WAITING = 20_000
"""Items held in memory; rows beyond wait in the database until the sweep comes round."""


class EmbeddedEngine:
    """PgQueuer in memory."""

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
