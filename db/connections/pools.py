"""How the pools do: who waits for a connection, which were replaced, who keeps one too long.

One `PoolMonitor` an engine, and on SQLite one `WriteTurns` a database, which is the pool of its single
writer. Replaced connections are counted through SQLAlchemy's pool events; waits and holders are told by
`db.session`, because a pool says nothing of those who stand in line. Bounded: a monitor knows only the
connections that exist. It starts no task: who holds too long is seen when others come, and at every look.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType
from typing import Any

import structlog
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

log = structlog.get_logger()

Place = tuple[CodeType, int]
"""A line of code, kept as it is: most are never shown."""

_OURS = (str(Path(__file__).parent.parent), contextmanager.__code__.co_filename)
_LIVED = "reprise_lived"


class PoolMonitor:
    """Watches one engine's pool."""

    def __init__(self, engine: AsyncEngine, *, most: int, held_limit_s: float) -> None:
        """`most` is how many connections the pool may have out at once, overflow included."""
        self._engine = engine.sync_engine
        self._most = most
        self._held_limit_s = held_limit_s
        self._records: dict[int, Any] = {}
        self._held: dict[int, tuple[float, Place]] = {}
        self._told: set[int] = set()
        self._look_at = 0.0
        self._waited = self._timeouts = self._recycled = self._leaked = self._turns = 0
        self._waited_s = 0.0
        event.listen(self._engine.pool, "connect", self._connected)
        event.listen(self._engine.pool, "close", self._closed)

    def is_full(self) -> bool:
        """Whether whoever asks now has to wait."""
        pool = self._engine.pool
        return isinstance(pool, QueuePool) and pool.checkedout() >= self._most

    def waited(self, took_s: float) -> None:
        """Somebody found the pool full, and has a connection now or has given up."""
        self._waited += 1
        self._waited_s += took_s

    def timed_out(self) -> None:
        """Somebody got no connection within the limit."""
        self._timeouts += 1

    @contextmanager
    def holding(self, place: Place) -> Iterator[None]:
        """A connection is out for as long as the block takes."""
        now = time.monotonic()
        if now >= self._look_at:
            self.look(now)
        self._turns += 1
        turn = self._turns
        self._held[turn] = (now, place)
        try:
            yield
        finally:
            self._release(turn)

    def look(self, now: float) -> None:
        """Say who has held a connection for too long; once for each."""
        self._look_at = now + self._held_limit_s / 2
        for turn, (since, place) in self._held.items():
            if now - since >= self._held_limit_s:
                self._tell(turn, now - since, place)

    def condemn(self) -> None:
        """Every connection made so far leads to a server that does not serve us: none is used again.

        Idle ones are cut at once, because closing them politely would wait for that server.
        """
        for record in list(self._records.values()):
            record.invalidate(soft=True)
            cut = getattr(record.driver_connection, "terminate", None)
            if not record.in_use and cut is not None:
                with suppress(Exception):
                    cut()

    def figures(self) -> dict[str, int]:
        """`size`, `in_use`, `idle`, `overflow`: connections now. `waited`, `waited_ms`, `timeouts`,
        `recycled`, `leaked`: since the start."""
        self.look(time.monotonic())
        pool = self._engine.pool
        now = {"size": 0, "in_use": 0, "idle": 0, "overflow": 0}
        if isinstance(pool, QueuePool):
            now = {
                "size": pool.size(),
                "in_use": pool.checkedout(),
                "idle": pool.checkedin(),
                "overflow": max(0, pool.overflow()),
            }
        return {
            **now,
            "waited": self._waited,
            "waited_ms": round(self._waited_s * 1000),
            "timeouts": self._timeouts,
            "recycled": self._recycled,
            "leaked": self._leaked,
        }

    def _connected(self, _connection: Any, record: Any) -> None:
        # The pool keeps a record for each place in it: a second connection there replaces the first, for its
        # age or because it was broken.
        self._recycled += _LIVED in record.record_info
        record.record_info[_LIVED] = True
        self._records[id(record)] = record

    def _closed(self, _connection: Any, record: Any) -> None:
        self._records.pop(id(record), None)

    def _release(self, turn: int) -> None:
        since, place = self._held.pop(turn)
        held_s = time.monotonic() - since
        if held_s >= self._held_limit_s:
            self._tell(turn, held_s, place)
        self._told.discard(turn)

    def _tell(self, turn: int, held_s: float, place: Place) -> None:
        if turn in self._told:
            return
        self._told.add(turn)
        self._leaked += 1
        log.warning("pool.connection_held", held_s=round(held_s, 1), where=name_of(place))


def place_outside() -> Place:
    """The nearest line of code on the stack that is not of `db`: who asked."""
    frame = sys._getframe(1)  # noqa: SLF001 - a whole traceback would cost more than the transaction's BEGIN
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return frame.f_code, frame.f_lineno


def name_of(place: Place) -> str:
    """Such as `app/jobs.py:78 submit`."""
    code, line = place
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{line} {code.co_name}"
