"""Who writes next where there is one writer: the two lines before SQLite's.

The ingress goes before the stations, but never twice in a row before them. In one line with eight appliers
and four finishers a webhook would wait for all of their commits before its own; like this it waits for one,
and under a flood of webhooks the stations get every other turn. Nobody waits longer than a limit.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from db.connections.faults import DatabaseUnavailable


class WriteTurns:
    """One writer at a time."""

    def __init__(self, limit_s: float) -> None:
        self.first = WriteLine(self, is_first=True)
        """For the ingress; as `ordinary`, an async context that may be entered again and again."""
        self.ordinary = WriteLine(self, is_first=False)
        self._limit_s = limit_s
        self._is_held = False
        self._was_first = False
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {True: deque(), False: deque()}
        self._waited = self._timeouts = 0
        self._waited_s = 0.0

    def figures(self) -> dict[str, int]:
        """`turn_waited`, `turn_waited_ms`, `turn_timeouts`: since the start."""
        return {
            "turn_waited": self._waited,
            "turn_waited_ms": round(self._waited_s * 1000),
            "turn_timeouts": self._timeouts,
        }

    async def take(self, *, is_first: bool) -> None:
        """Raises DatabaseUnavailable when the turn does not come."""
        if not self._is_held:
            self._is_held, self._was_first = True, is_first
            return
        began = time.monotonic()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[is_first].append(turn)
        try:
            async with asyncio.timeout(self._limit_s):
                await turn
        except BaseException as exc:
            if turn.done() and not turn.cancelled():
                # Handed over in the same moment: it is somebody else's now.
                self.pass_on()
            if not isinstance(exc, TimeoutError):
                raise
            self._timeouts += 1
            raise DatabaseUnavailable(f"no turn to write within {self._limit_s:g} s") from None
        finally:
            self._waited += 1
            self._waited_s += time.monotonic() - began

    def pass_on(self) -> None:
        """The writer has ended: the other line's next, or its own line's."""
        for is_first in (not self._was_first, self._was_first):
            waiting = self._waiting[is_first]
            while waiting:
                turn = waiting.popleft()
                if not turn.done():
                    self._was_first = is_first
                    turn.set_result(None)
                    return
        self._is_held = False


class WriteLine:
    """One of the two lines."""

    def __init__(self, turns: WriteTurns, *, is_first: bool) -> None:
        self._turns = turns
        self._is_first = is_first

    async def __aenter__(self) -> None:
        await self._turns.take(is_first=self._is_first)

    async def __aexit__(self, *_: object) -> None:
        self._turns.pass_on()
