"""The embedded engine: PgQueuer in memory, for one process with its database on the same machine.

At most one item a row and station is waiting at a time, and one that arrives while its row is being worked
on is run again afterwards. The number of items is bounded; nothing here survives the process, nor must it.
Each station has a queue of its own, so that none stands behind another's long steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

import structlog
from pgqueuer import PgQueuer
from pgqueuer.adapters.inmemory import InMemoryQueries
from pgqueuer.models import Job as Item

from app.work import ItemsFor, Station, Step, pack, run_together, unpack
from db.session import Transaction

log = structlog.get_logger()

MOST_WAITING = 20_000
"""Items held in memory; rows beyond wait in the database until the sweep comes round."""

TOGETHER = 4
"""Rows in an item, where a station takes several: SQLite has one writer, and a webhook waits for whatever
transaction it meets there."""
BATCH = 16
"""Items taken from a queue at once."""


class EmbeddedEngine:
    """PgQueuer in memory."""

    items_for: ItemsFor | None = None

    def __init__(self) -> None:
        self._queues: dict[Station, PgQueuer] = {}
        self._waiting: set[tuple[Station, str]] = set()
        self._buffer: list[tuple[Station, str]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._stopping = False

    def enqueue(self, tx: Transaction, station: Station, *row_ids: str) -> None:
        tx.after_commit(partial(self.hint, station, *row_ids))

    def hint(self, station: Station, *row_ids: str) -> None:
        fresh = [(station, row_id) for row_id in row_ids if (station, row_id) not in self._waiting]
        if not fresh or station not in self._queues or len(self._waiting) + len(fresh) > MOST_WAITING:
            # Nobody would work on them, or more are waiting than memory should hold: the sweep finds them.
            return
        self._waiting.update(fresh)
        self._buffer.extend(fresh)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def run(self, steps: Mapping[Station, Step]) -> None:
        queues: dict[Station, PgQueuer] = {}
        for station, step in steps.items():
            queues[station] = queue = PgQueuer.in_memory()
            # The limit is ours: the engine's counts an item until it has written down, in batches, that it
            # ended. A failed step is not kept: its row is still due and the sweep brings it back.
            queue.entrypoint(station.value)(
                partial(self._run_item, station, step, asyncio.Semaphore(step.concurrency))
            )
        if self._stopping:
            return
        self._queues = queues
        try:
            await run_together(
                [
                    (queue, max(2 * BATCH, 2 * steps[station].concurrency))
                    for station, queue in queues.items()
                ],
                dequeue_timeout=timedelta(seconds=2),
                batch_size=BATCH,
                # Nobody reads the engine's statistics, and in memory they only grow.
                log_aggregation_interval=timedelta(0),
            )
        finally:
            self._queues = {}
            self._waiting.clear()
            self._buffer.clear()

    def stop(self) -> None:
        self._stopping = True
        for queue in self._queues.values():
            queue.shutdown.set()

    def trouble(self) -> str | None:
        return None

    async def _run_item(self, station: Station, step: Step, turn: asyncio.Semaphore, item: Item) -> None:
        row_ids = unpack(item.payload)
        async with turn:
            if self._stopping:
                return
            # Forgotten before the step reads its rows: a hint that comes from now on makes another item.
            self._waiting.difference_update((station, row_id) for row_id in row_ids)
            with structlog.contextvars.bound_contextvars(station=station.value):
                try:
                    await step.run(*row_ids)
                except Exception as exc:
                    log.error("step.failed", row_ids=row_ids, exc_info=exc)

    async def _flush(self) -> None:
        while self._buffer:
            batch, self._buffer = self._buffer, []
            by_station: dict[Station, list[str]] = {}
            for station, row_id in batch:
                by_station.setdefault(station, []).append(row_id)
            for station, row_ids in by_station.items():
                items = pack(station, row_ids, at_most=TOGETHER)
                queue = self._queues.get(station)
                if queue is None or not isinstance(queue.queries, InMemoryQueries):
                    return
                # The engine logs every item three times and never forgets; nobody reads that.
                await queue.queries.clear_queue_log()
                await queue.queries.enqueue([station.value] * len(items), list(items), [0] * len(items))
