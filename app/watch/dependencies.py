"""How the parts outside are doing: each is asked by one look at a time, however many want to know.

Promises: an answer within the time that the asker gives, also while the part hangs; a look that hangs ends
by itself and never holds up the next one for longer than its limit; the time of the last good answer is
remembered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")

LOOK_LIMIT_S = 10.0
"""A look that has no answer by then is ended: its connection may be one that will never say anything."""


OLDEST_S = 15.0
"""How old an answer may become because asking is slow."""


class Unanswered(Exception):
    """There is no answer yet; the text says since when there should be."""


class Remembered(Generic[Answer]):
    """The answer to one question, asked once for all who ask together, and kept for a while."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[Answer]],
        *,
        fresh_s: float,
        limit_s: float = LOOK_LIMIT_S,
        most_share: float = 1.0,
    ) -> None:
        """An answer is good for `fresh_s`, and where it took long for longer: asking takes up no more than
        `most_share` of the time, until that would make it older than `OLDEST_S`."""
        self._ask = ask
        self._most_share = most_share
        self._kept_s = fresh_s
        self._fresh_s = fresh_s
        self._limit_s = limit_s
        self._asking: asyncio.Task[Answer] | None = None
        self._asked_at = self._answered_at = -float("inf")

    async def get(self, *, within_s: float) -> Answer:
        """The answer, kept or new. Raises Unanswered, or what asking raised."""
        asking = self._asking
        if asking is None or (asking.done() and time.monotonic() - self._answered_at >= self._kept_s):
            self._asked_at = time.monotonic()
            asking = self._asking = asyncio.create_task(self._bounded())
            asking.add_done_callback(_heard)
        # Not cancelled when our time is over: others wait for it, and the next one finds it running.
        await asyncio.wait([asking], timeout=within_s)
        if not asking.done():
            raise Unanswered(f"no answer for {time.monotonic() - self._asked_at:.1f} s")
        return asking.result()

    async def aclose(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _bounded(self) -> Answer:
        try:
            async with asyncio.timeout(self._limit_s):
                answer = await self._ask()
            took_s = time.monotonic() - self._asked_at
            self._kept_s = max(self._fresh_s, min(OLDEST_S, took_s / self._most_share - took_s))
            return answer
        except TimeoutError as exc:
            raise Unanswered(f"no answer within {self._limit_s:g} s") from exc
        finally:
            self._answered_at = time.monotonic()


def _heard(asking: asyncio.Task[Any]) -> None:
    """Nobody may be waiting any more when it fails: that is no news for the log."""
    if not asking.cancelled():
        asking.exception()


@dataclass(frozen=True, slots=True)
class Standing:
    """What a look found. `facts` are figures and words of its own, for people."""

    ok: bool
    detail: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    last_ok_s: float | None = None
    """Seconds since it was last well; None when it never was, as far as this process knows."""


class Dependency:
    """One part that the service stands on."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Standing]],
        *,
        is_needed: bool = True,
        fresh_s: float = 0.0,
        limit_s: float = LOOK_LIMIT_S,
    ) -> None:
        """`is_needed`: without it nothing can be accepted. `fresh_s`: how long an answer is good for."""
        self.is_needed = is_needed
        self._look = look
        self._remembered = Remembered(self._note, fresh_s=fresh_s, limit_s=limit_s)
        self._ok_at: float | None = None

    async def stand(self, *, within_s: float) -> Standing:
        """How it is doing. Never raises."""
        try:
            found = await self._remembered.get(within_s=within_s)
        except Unanswered as exc:
            found = Standing(ok=False, detail=str(exc))
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with it, that is what was asked
            found = Standing(ok=False, detail=type(exc).__name__)
        last_ok_s = None if self._ok_at is None else round(time.monotonic() - self._ok_at, 3)
        return Standing(found.ok, found.detail, found.facts, last_ok_s)

    async def aclose(self) -> None:
        await self._remembered.aclose()

    async def _note(self) -> Standing:
        found = await self._look()
        if found.ok:
            self._ok_at = time.monotonic()
        return found
