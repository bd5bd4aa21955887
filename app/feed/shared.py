"""Reads of the feed that several streams ask for at once, made once.

A hint wakes all streams of a tenant in one turn of the event loop, and all that are up to date want the same
rows. Reads of one position that are asked for before one of them has begun share it; a reader never joins one
that has begun, since that may have looked before the change that woke the reader.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from db.feed import FeedPage, read_feed
from db.session import Database


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be read."""

    tenant: str
    after: int
    limit: int
    job_id: str | None = None


class SharedReads:
    """The reading side of a feed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: dict[Question, asyncio.Task[FeedPage]] = {}
        self.made = 0
        """Reads since the start."""

    async def read(self, question: Question) -> FeedPage:
        """The answer as it stands from now on. Raises DatabaseUnavailable."""
        task = self._asked.get(question)
        if task is None:
            # Begins at the loop's next turn: whoever asks the same in this one gets its answer.
            task = self._asked[question] = asyncio.create_task(self._read(question))
            task.add_done_callback(_note)
        # Shielded: a stream that is cut must not cut its neighbours' read.
        return await asyncio.shield(task)

    async def _read(self, question: Question) -> FeedPage:
        del self._asked[question]
        self.made += 1
        async with self._database.reading() as tx:
            return await read_feed(
                tx, question.tenant, after=question.after, limit=question.limit, job_id=question.job_id
            )


def _note(task: asyncio.Task[FeedPage]) -> None:
    # All who asked may be gone: an exception that nobody fetches is no news then.
    if not task.cancelled():
        task.exception()
