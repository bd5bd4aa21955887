"""One accepted prediction, and every word that is said about it.

Owns the shape of what callers are told, which is Cog's own: a bare prediction object, compact, keys in
order. Promises that a ticket ends once: the first last word stays, whatever comes after it. Leaves the
carrying to `app.gpu.lanes` and the sending to `app.gpu.couriers`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["waiting", "running", "ended"]

EVENTS = frozenset({"start", "output", "logs", "completed"})
TERMINAL = frozenset({"succeeded", "failed", "canceled"})
WORKER_CRASHED = "Worker crashed"
"""Cog's own last word when the process that computed is gone."""
AT_CAPACITY = "At capacity - all prediction slots busy"
"""Cog's own words for a 409."""


@dataclass(slots=True)
class Ticket:
    """A prediction from its acceptance to its last word."""

    id: str
    group: str
    input: dict[str, Any]
    webhook: str | None
    events: frozenset[str]
    size_bytes: int
    """Of the request that made it: what it costs to keep it waiting."""
    phase: Phase = "waiting"
    heard: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(maxsize=64))
    """What the Cog server says of it while it runs."""
    handed_over: asyncio.Event = field(default_factory=asyncio.Event)
    """The Cog server has answered the create, or the ticket has ended without one."""
    refusal: tuple[int, bytes] | None = None
    """How the Cog server refused the input: its status and body."""
    is_awaited: bool = False
    """The caller still waits for the answer to its create: a refusal can be said there."""
    is_refused_at_once: bool = False
    cancel_asked: asyncio.Event = field(default_factory=asyncio.Event)
    last_word: bytes | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, word: bytes) -> bool:
        """Say the last word; False when it has been said already."""
        if self.last_word is not None:
            return False
        self.phase = "ended"
        self.last_word = word
        self.is_refused_at_once = self.is_awaited and self.refusal is not None
        self.input = {}
        while not self.heard.empty():  # it is remembered for a while: without what nobody will read
            self.heard.get_nowait()
        self.handed_over.set()
        self.ended.set()
        return True

    def wants(self, event: str) -> bool:
        return self.webhook is not None and event in self.events


def waiting_word(prediction_id: str, position: int) -> bytes:
    """A prediction that has not begun; `position` is how many are carried before it."""
    metrics = {"queue_position": position}
    return _write({"id": prediction_id, "logs": "", "metrics": metrics, "status": "starting"})


def running_word(prediction_id: str) -> bytes:
    return _write({"id": prediction_id, "logs": "", "metrics": {}, "status": "processing"})


def failed_word(prediction_id: str, reason: str) -> bytes:
    """`reason` is for people."""
    return _write({"error": reason, "id": prediction_id, "logs": "", "metrics": {}, "status": "failed"})


def canceled_word(prediction_id: str) -> bytes:
    return _write({"id": prediction_id, "logs": "", "metrics": {}, "status": "canceled"})


def refused_word(reason: str) -> bytes:
    """The body of a refusal: no prediction was made."""
    return _write({"error": reason, "status": "failed"})


async def read_word(body: bytes) -> dict[str, Any]:
    """What a Cog server said, as an object; empty where it is none. A large one is read on another thread."""
    if len(body) > 1 << 20:
        return await asyncio.to_thread(_read, body)
    return _read(body)


def event_of(word: dict[str, Any]) -> str:
    """Which of Cog's four events this is: they do not say it themselves."""
    if word.get("status") in TERMINAL:
        return "completed"
    if "output" in word:
        return "output"
    return "logs" if word.get("logs") else "start"


def _read(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(word: dict[str, Any]) -> bytes:
    return json.dumps(word, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
