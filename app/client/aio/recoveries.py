"""`client.recoveries`: very many at once, foreseen, begun, waited for, ended early.

A recovery asks the providers about attempts that are live; a replay sends stored deliveries through the inbox
once more. Both run at the service, on their own, whether or not anybody waits.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime

from app.client import calls
from app.client.aio.following import HASTE_S
from app.client.aio.shown import WAIT_S
from app.client.aio.transport import AsyncTransport
from app.client.aio.waits import sleep
from app.client.errors import RateLimited, RecoveryTimedOut, RepriseError, Unavailable
from app.client.ledger import Plan, Recovery, RecoveryItem, RecoveryItems
from app.client.models import Page, parse


class AsyncRecoveries:
    """Every call raises RepriseError.

    What begins one (`recover`, `replay`) is not repeated when its answer is lost: look at `list` before you
    call it again. Done twice it would only ask twice: nothing is applied twice.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def recover(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        kind: str | None = None,
        limit: int = 1000,
    ) -> Recovery:
        """Begin to ask the providers about live attempts, and to carry out what they say. Raises Conflict
        where too many are running."""
        call = calls.recover(since=since, until=until, kind=kind, limit=limit)
        return parse(Recovery, await self._transport.ask(call))

    async def plan_recover(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        kind: str | None = None,
        limit: int = 1000,
    ) -> Plan:
        """What that would do. The providers are asked, and nothing is changed."""
        call = calls.recover(since=since, until=until, kind=kind, limit=limit, dry_run=True)
        return parse(Plan, await self._transport.ask(call))

    async def replay(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        kind: str | None = None,
        outcome: str | None = None,
        source: str | None = None,
        limit: int = 1000,
    ) -> Recovery:
        """Begin to send stored deliveries again: each that would change something, once."""
        call = calls.replay_deliveries(
            since=since, until=until, kind=kind, outcome=outcome, source=source, limit=limit
        )
        return parse(Recovery, await self._transport.ask(call))

    async def plan_replay(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        kind: str | None = None,
        outcome: str | None = None,
        source: str | None = None,
        limit: int = 1000,
    ) -> Plan:
        """What that would do; nothing is changed."""
        call = calls.replay_deliveries(
            since=since, until=until, kind=kind, outcome=outcome, source=source, limit=limit, dry_run=True
        )
        return parse(Plan, await self._transport.ask(call))

    async def get(self, recovery_id: str) -> Recovery:
        """One as it stands. Raises NotFound."""
        return parse(Recovery, await self._transport.ask(calls.get_recovery(recovery_id)))

    async def wait(self, recovery_id: str, timeout_s: float = WAIT_S) -> Recovery:
        """It once it has ended, done or aborted. Raises RecoveryTimedOut after `timeout_s`."""
        patience = self._transport.long_patience()
        until_s, known = time.monotonic() + timeout_s, -1
        while True:
            asked_s = time.monotonic()
            call = calls.get_recovery(recovery_id, wait_s=max(0.0, until_s - asked_s))
            try:
                found = parse(Recovery, await self._transport.ask_once(call))
                if found.is_ended:
                    return found
                if time.monotonic() >= until_s:
                    raise RecoveryTimedOut(found, timeout_s)
                # Answered as soon as it goes on; sooner than that is a service that stops.
                if found.done != known or time.monotonic() - asked_s >= HASTE_S:
                    known = found.done
                    patience.refresh()
                    continue
                failure: RepriseError = Unavailable("the service ends waits before their time")
            except (Unavailable, RateLimited) as exc:
                failure = exc
            wait_s = patience.wait_s(failure)
            if wait_s is None:
                raise failure
            await sleep(min(wait_s, max(0.0, until_s - time.monotonic())))

    async def abort(self, recovery_id: str) -> Recovery:
        """End it early; what is done stays done. Raises Conflict where it has ended."""
        return parse(Recovery, await self._transport.ask(calls.abort_recovery(recovery_id)))

    async def page(self, *, limit: int = 50, cursor: str | None = None) -> Page[Recovery]:
        """One page of recoveries and replays, newest first."""
        call = calls.list_recoveries(limit=limit, cursor=cursor)
        return parse(Page[Recovery], await self._transport.ask(call))

    async def list(self, *, limit: int = 50) -> AsyncIterator[Recovery]:
        """All of them, newest first; the pages, of `limit` each, are fetched as they are needed."""
        cursor = None
        while True:
            page = await self.page(limit=limit, cursor=cursor)
            for recovery in page.items:
                yield recovery
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    async def items(
        self, recovery_id: str, *, effect: str | None = None, limit: int = 200
    ) -> AsyncIterator[RecoveryItem]:
        """What became of each item, in the order of work."""
        after: int | None = 0
        while after is not None:
            call = calls.list_recovery_items(recovery_id, effect=effect, limit=limit, after=after)
            found = parse(RecoveryItems, await self._transport.ask(call))
            for item in found.items:
                yield item
            after = found.next_after
