"""Many small writes that arrive together share one transaction, so one sync of the disk.

There is no waiting timer: whatever is queued while a commit runs forms the next group, so a lone write
pays nothing. Promises: each caller is answered after its own row is committed; one bad row does not fail
its neighbours; the queue is bounded and a full one refuses at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from db.session import DatabaseUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommitFull(Exception):
    """The queue is at its bound: nothing was stored."""


class GroupCommit(Generic[Item, Result]):
    """A queue in front of one committing function, drained by one task."""

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        most_queued: int = 2000,
        most_together: int = 128,
    ) -> None:
        """`commit` stores a group in one transaction with a result for each, or raises and stores none."""
        self._commit_group = commit
        self._most_queued = most_queued
        self._most_together = most_together
        self._queue: list[tuple[Item, asyncio.Future[Result]]] = []
        self._draining: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """Write one item and return once it is durable. Raises GroupCommitFull, or what its write raised."""
        if len(self._queue) >= self._most_queued:
            raise GroupCommitFull
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append((item, done))
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        return await done

    async def aclose(self) -> None:
        """Wait until everything that was accepted is committed or refused."""
        if self._draining is not None:
            await self._draining

    async def _drain(self) -> None:
        while self._queue:
            group = self._queue[: self._most_together]
            del self._queue[: self._most_together]
            if not await self._commit(group):
                for single in group:
                    await self._commit([single])

    async def _commit(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> bool:
        """One transaction for the group. False: nothing was written, and nobody has been told yet."""
        try:
            results = await self._commit_group([item for item, _ in group])
        except Exception as exc:  # noqa: BLE001 - it belongs to those who wait
            if len(group) > 1 and not isinstance(exc, DatabaseUnavailable):
                return False
            # Alone, or the database is away: it would not be better one by one, only slower.
            _refuse(group, exc)
            if type(exc) is DatabaseUnavailable:
                # Nor for those who stand behind it: each group of them would wait for its whole limit again.
                waiting, self._queue = self._queue, []
                _refuse(waiting, DatabaseUnavailable(str(exc)))
            return True
        for (_, done), result in zip(group, results, strict=True):
            # A caller that hung up has cancelled its future; its row is stored all the same.
            if not done.done():
                done.set_result(result)
        return True


def _refuse(group: list[tuple[Item, asyncio.Future[Result]]], exc: Exception) -> None:
    for _, done in group:
        if not done.done():
            done.set_exception(exc)
