"""A group's queue, and how one prediction of it comes to its end.

Promises that every accepted ticket ends, whatever its Cog server does. A crash sends it once more to the
restarted server, the second one fails it. A server that says nothing for too long counts as a crash; one
that computes past the limit is killed and its prediction fails, as it would again. Both clocks run here, in
another process than the one that computes, so nothing that hangs there can stop them. A cancel that the
server does not follow in time ends the server too.

Predictions of a group go one after the other: two at once on one model spoil each other or its memory.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import httpx
from structlog.typing import FilteringBoundLogger

from app.errors import EngineUnavailable
from app.gpu.garage import Bay, Garage
from app.gpu.tickets import (
    TERMINAL,
    WORKER_CRASHED,
    Ticket,
    canceled_word,
    event_of,
    failed_word,
    read_word,
)

CANCEL_S = 10.0
CREATE_S = 60.0
BUSY_PAUSE_S = 0.1
LOOK_S = 0.5
REASON_LENGTH = 500
MOST_CRASHES = 2
MOST_STARTS = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one prediction, in seconds."""

    run_s: float
    """From the moment that it is handed to the server."""
    quiet_s: float
    """Without a word from the server: engines of ours tell how far they are."""
    return_s: float
    """For a crashed server to be up again."""


class _Turn(Enum):
    """How one try at a prediction ended."""

    ENDED = auto()
    LOST = auto()
    """Its server went down with it."""
    NOT_BEGUN = auto()
    """The server was down already, or on its way: no fault of this prediction's."""


class Lane:
    """One group: `offer` tickets, `run` for as long as the worker lives."""

    def __init__(
        self,
        *,
        bay: Bay,
        garage: Garage,
        limits: Limits,
        hook_url: Callable[[str], str],
        tell: Callable[[Ticket, str, bytes], None],
        log: FilteringBoundLogger,
    ) -> None:
        """`hook_url` is where a prediction's server reports to us; `tell` passes a word to the caller."""
        self._bay = bay
        self._garage = garage
        self._limits = limits
        self._hook_url = hook_url
        self._tell = tell
        self._log = log.bind(group=bay.group.name)
        self._waiting: deque[Ticket] = deque()
        self._more = asyncio.Event()
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(CREATE_S, connect=5.0), trust_env=False)
        self.current: Ticket | None = None

    @property
    def length(self) -> int:
        """How many predictions are ahead of one that comes now."""
        return len(self._waiting) + (self.current is not None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_loaded(self) -> bool:
        return self._bay.state == "up"

    @property
    def state(self) -> str:
        return self._bay.state

    def offer(self, ticket: Ticket) -> int:
        """Take it; its position."""
        position = self.length
        self._waiting.append(ticket)
        self._more.set()
        return position

    def cancel(self, ticket: Ticket) -> None:
        """End at once what has not begun, its engine loading included; ask the server of a running one."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            self.end(ticket, canceled_word(ticket.id))
            self._tell_positions()
        elif ticket.phase == "waiting":
            self.end(ticket, canceled_word(ticket.id))
        else:
            ticket.cancel_asked.set()

    def turn_away(self, reason: str) -> None:
        """Fail everything that has not begun."""
        while self._waiting:
            ticket = self._waiting.popleft()
            self.end(ticket, failed_word(ticket.id, reason))

    def end(self, ticket: Ticket, word: bytes) -> None:
        if ticket.end(word):
            self._tell(ticket, "completed", word)

    async def run(self) -> None:
        """Carry tickets to their ends, one after the other, until cancelled."""
        try:
            while True:
                await self._more.wait()
                if not self._waiting:
                    self._more.clear()
                    continue
                self.current = self._waiting.popleft()
                self._tell_positions()
                try:
                    await self._carry(self.current)
                except Exception as error:  # noqa: BLE001 - the lane must go on, the ticket must end
                    self._log.exception("prediction.not_carried", prediction_id=self.current.id)
                    self.end(self.current, failed_word(self.current.id, f"the worker failed: {error!r:.200}"))
                finally:
                    self.current = None
        finally:
            await self._client.aclose()

    def _tell_positions(self) -> None:
        for position, ticket in enumerate(self._waiting, 1):
            self._tell(ticket, "waiting", str(position).encode())

    async def _carry(self, ticket: Ticket) -> None:
        try:
            await self._garage.open(self._bay)
        except EngineUnavailable as error:
            self.end(ticket, failed_word(ticket.id, reason_of(error)))
            return
        try:
            crashes = 0
            for _ in range(MOST_STARTS):
                turn = await self._play(ticket)
                if turn is _Turn.ENDED:
                    return
                crashes += turn is _Turn.LOST
                self._log.warning("prediction.crashed", prediction_id=ticket.id, crashes=crashes)
                if crashes == MOST_CRASHES:
                    break
            twice = "the engine crashed twice on this prediction"
            reason = twice if crashes == MOST_CRASHES else "the engine does not stay up"
            self.end(ticket, failed_word(ticket.id, reason))
        finally:
            self._garage.leave(self._bay)

    async def _play(self, ticket: Ticket) -> _Turn:
        """One try. Where it did not end, the server is there again, without the prediction."""
        if ticket.last_word is not None:  # canceled while the engine was loaded
            return _Turn.ENDED
        ticket.phase = "running"
        self._bay.replaced.clear()
        while not ticket.heard.empty():
            ticket.heard.get_nowait()
        if not await self._hand_over(ticket):
            turn = await self._await_return(ticket)
            return _Turn.NOT_BEGUN if turn is _Turn.LOST else turn
        if ticket.last_word is not None:
            return _Turn.ENDED
        return await self._listen(ticket)

    async def _hand_over(self, ticket: Ticket) -> bool:
        """Create it at the server; False where the server is not there."""
        deadline = time.monotonic() + CREATE_S
        while True:
            try:
                answer = await self._client.put(
                    f"{self._bay.url}/predictions/{ticket.id}",
                    json={
                        "input": ticket.input,
                        "webhook": self._hook_url(ticket.id),
                        "webhook_events_filter": _asked(ticket),
                    },
                    headers={"prefer": "respond-async"},
                )
            except (httpx.HTTPError, EngineUnavailable):
                return False
            if answer.status_code in (409, 503):
                # The one before has said its last word but not left yet; or the worker inside is dead.
                if self._bay.replaced.is_set() or time.monotonic() > deadline:
                    return False
                await asyncio.sleep(BUSY_PAUSE_S)
                continue
            if answer.status_code >= 400:
                ticket.refusal = (answer.status_code, answer.content)
                self.end(
                    ticket, failed_word(ticket.id, f"the engine refused it: {answer.text[:REASON_LENGTH]}")
                )
            ticket.handed_over.set()
            return True

    async def _listen(self, ticket: Ticket) -> _Turn:
        began_at = heard_at = time.monotonic()
        cancel_at: float | None = None
        while True:
            body = await self._hear(ticket)
            now = time.monotonic()
            if body is not None:
                heard_at = now
                word = await read_word(body)
                if word.get("error") == WORKER_CRASHED:
                    return await self._await_return(ticket)
                if self._pass_on(ticket, word, body):
                    return _Turn.ENDED
            if self._bay.replaced.is_set():
                return _Turn.LOST
            if ticket.cancel_asked.is_set() and cancel_at is None:
                cancel_at = now
                await self._ask_to_cancel(ticket)
            if cancel_at is not None and now - cancel_at > CANCEL_S:
                self._stop_server(ticket, "it did not follow a cancel")
                self.end(ticket, canceled_word(ticket.id))
                return _Turn.ENDED
            if now - began_at > self._limits.run_s:
                self._stop_server(ticket, "it took too long")
                reason = f"it took longer than {self._limits.run_s:g} s and was stopped"
                self.end(ticket, failed_word(ticket.id, reason))
                return _Turn.ENDED
            if now - heard_at > self._limits.quiet_s:
                self._stop_server(ticket, "it said nothing")
                return await self._await_return(ticket)

    async def _hear(self, ticket: Ticket) -> bytes | None:
        """The next word, or None when something else has happened or is to be looked at."""
        waits = [
            asyncio.ensure_future(ticket.heard.get()),
            asyncio.ensure_future(self._bay.replaced.wait()),
        ]
        if not ticket.cancel_asked.is_set():
            waits.append(asyncio.ensure_future(ticket.cancel_asked.wait()))
        try:
            await asyncio.wait(waits, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            first = waits[0]
            return first.result() if first.done() else None  # type: ignore[return-value]
        finally:
            for wait in waits:
                wait.cancel()

    def _pass_on(self, ticket: Ticket, word: dict[str, Any], body: bytes) -> bool:
        """Tell the caller; whether it was the last word."""
        if word.get("status") in TERMINAL:
            self.end(ticket, body)
            return True
        if word:
            self._tell(ticket, event_of(word), body)
        return False

    async def _await_return(self, ticket: Ticket) -> _Turn:
        """Wait for the server that replaces the lost one. ENDED where none comes, or nobody wants it."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._bay.replaced, ticket.cancel_asked)]
        try:
            await asyncio.wait(waits, timeout=self._limits.return_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if ticket.cancel_asked.is_set():
            self.end(ticket, canceled_word(ticket.id))
            return _Turn.ENDED
        if self._bay.replaced.is_set():
            return _Turn.LOST
        await self._garage.take_down(self._bay)
        self.end(ticket, failed_word(ticket.id, "the engine crashed and did not come back"))
        return _Turn.ENDED

    async def _ask_to_cancel(self, ticket: Ticket) -> None:
        try:
            await self._client.post(f"{self._bay.url}/predictions/{ticket.id}/cancel", timeout=CANCEL_S)
        except (httpx.HTTPError, EngineUnavailable):
            return  # its server is gone, which is heard of otherwise

    def _stop_server(self, ticket: Ticket, reason: str) -> None:
        self._log.warning("engine.killed", prediction_id=ticket.id, reason=reason)
        self._bay.condemn(reason)


def _asked(ticket: Ticket) -> list[str]:
    """What we want to hear: the caller's events, and logs, which show that it is alive."""
    return sorted({"start", "logs", "completed"} | (ticket.events & {"output"}))


def reason_of(error: EngineUnavailable) -> str:
    """Why an engine did not start, for people; the first word tells services to go elsewhere.

    The server's own words are in the last of its lines that tell of an error, where it came to say them.
    """
    first, _, tail = error.message.partition("\n")
    told = next(filter(None, map(_error_in, reversed(tail.splitlines()))), "")
    said = told.rpartition("etup failed: ")[2].removeprefix("EngineUnavailable: ")[:REASON_LENGTH]
    return f"EngineUnavailable: {first.rstrip(':')}" + (f": {said}" if said else "")


def _error_in(line: str) -> str:
    """What one line of a Cog server's log says of an error; empty where it says nothing."""
    try:
        fields = json.loads(line).get("fields", {})
        return str(fields.get("error", ""))
    except (ValueError, AttributeError):
        return ""
