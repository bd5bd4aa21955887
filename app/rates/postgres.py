"""The storage of `limits` on PostgreSQL, for which it has none: many processes count together.

Only the sliding window counter is kept there, in one statement a hit. The windows that come back with a hit
answer the question that follows it, so that a request costs one trip.
"""

from __future__ import annotations

from limits.aio.storage import SlidingWindowCounterSupport, Storage

from db.rates import RateCounters, Windows
from db.session import DatabaseUnavailable

MOST_REMEMBERED = 1024


class PostgresStorage(Storage, SlidingWindowCounterSupport):
    """`limits`' asynchronous storage over `db.rates`."""

    STORAGE_SCHEME = None

    def __init__(self, counters: RateCounters) -> None:
        super().__init__()
        self._counters = counters
        self._seen: dict[str, Windows] = {}
        """What the last hit of a key came back with, until somebody asks."""

    @property
    def base_exceptions(self) -> type[Exception]:
        return DatabaseUnavailable

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        is_in, windows = await self._counters.hit(key, limit=limit, window_s=expiry, amount=amount)
        if len(self._seen) >= MOST_REMEMBERED:
            self._seen.clear()
        self._seen[key] = windows
        return is_in

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        windows = self._seen.pop(key, None) or await self._counters.find(key, window_s=expiry)
        return windows.previous, windows.previous_s, windows.current, windows.current_s

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        self._seen.pop(key, None)
        await self._counters.clear(key)

    async def check(self) -> bool:
        try:
            await self._counters.find("", window_s=1)
        except DatabaseUnavailable:
            return False
        return True

    async def reset(self) -> int | None:
        self._seen.clear()
        await self._counters.clear()
        return None

    async def clear(self, key: str) -> None:
        await self._counters.clear(key)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        raise NotImplementedError("fixed windows are not kept here")

    async def get(self, key: str) -> int:
        raise NotImplementedError("fixed windows are not kept here")

    async def get_expiry(self, key: str) -> float:
        raise NotImplementedError("fixed windows are not kept here")
