"""What whoever looks on may see of announcements and endpoints, and ask for again.

Everything here is one tenant's: what is another's is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from app.access.callers import Caller
from app.access.trail import Act, note_act
from app.errors import Conflict, NotFound
from app.line import Line
from app.work import Station
from db.announcements import endpoints as endpoint_rows
from db.announcements import ledger
from db.announcements.ledger import AnnouncementFilter
from db.announcements.sending import find_announcement
from db.session import Transaction
from db.states import AnnouncementState
from db.tables import Announcement, AnnouncementAttempt, Endpoint

log = structlog.get_logger()

MOST_RESENT = 10_000
"""That one call makes due; the next call goes on."""
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Resent:
    """What a ranged resend did, or would do."""

    dry_run: bool
    count: int
    """Announcements in the range, as they were."""
    to_disabled: int
    """Of these, those that stay because their endpoint is disabled."""
    resent: int
    has_more: bool
    """Whether there were more than one call takes."""


class Outbox:
    """Reading and resending. One a runtime."""

    def __init__(self, *, line: Line) -> None:
        self._line = line

    async def list_announcements(self, wanted: AnnouncementFilter, *, limit: int) -> list[Announcement]:
        """Newest first, without bodies."""
        async with self._line.database.reading() as tx:
            return await ledger.list_announcements(tx, wanted, limit=limit)

    async def get(self, tenant: str, announcement_id: str) -> tuple[Announcement, list[AnnouncementAttempt]]:
        """An announcement and the tries at it. Raises NotFound."""
        async with self._line.database.reading() as tx:
            found = await _find(tx, tenant, announcement_id)
            return found, await ledger.list_attempts_of(tx, found.id)

    async def resend(self, announcement_id: str, *, by: Caller) -> Announcement:
        """Make one due now, whatever became of it. Raises NotFound, and Conflict while its endpoint is
        disabled or it is on its way."""

        async def again(tx: Transaction) -> Announcement:
            found, now = await _find(tx, by.tenant, announcement_id), self._line.clock.now()
            endpoint = await endpoint_rows.find_endpoint(tx, found.endpoint_id)
            if endpoint is not None and endpoint.disabled_at is not None:
                raise Conflict(f"its endpoint is disabled ({endpoint.disabled_reason}): enable {endpoint.id}")
            if not await ledger.send_again(tx, [found.id], now=now):
                raise Conflict("it is being sent at this moment")
            await note_act(tx, by, Act.ANNOUNCEMENT_RESENT, found.id, at=now)
            self._line.engine.enqueue(tx, Station.ANNOUNCE, found.id)
            return await _find(tx, by.tenant, announcement_id)

        return await self._line.database.transact(again, is_idempotent=True)

    async def resend_range(self, wanted: AnnouncementFilter, *, by: Caller, dry_run: bool) -> Resent:
        """Count what is in a range, and unless it is a dry run make it due, a batch a transaction."""
        async with self._line.database.reading() as tx:
            count = await ledger.count_announcements(tx, wanted)
            to_disabled = await ledger.count_of_disabled(tx, wanted)
        sendable = count - to_disabled
        if dry_run:
            return Resent(True, count, to_disabled, 0, sendable > MOST_RESENT)
        resent, looked = 0, 0
        while looked < MOST_RESENT:
            # One line in the log for all of it, with the first batch.
            ids, moved = await self._resend_batch(wanted, by=None if looked else by)
            resent, looked = resent + moved, looked + len(ids)
            if len(ids) < _BATCH:
                break
            wanted = replace(wanted, before_id=ids[-1])
        log.info("announcements.resent", tenant=wanted.tenant, count=resent)
        return Resent(False, count, to_disabled, resent, sendable > looked)

    async def _resend_batch(
        self, wanted: AnnouncementFilter, *, by: Caller | None
    ) -> tuple[Sequence[str], int]:
        async def again(tx: Transaction) -> tuple[Sequence[str], int]:
            now = self._line.clock.now()
            ids = await ledger.list_sendable(tx, wanted, limit=_BATCH)
            moved = await ledger.send_again(tx, ids, now=now)
            if by is not None:
                await note_act(tx, by, Act.ANNOUNCEMENTS_RESENT, _span(wanted), at=now)
            self._line.engine.enqueue(tx, Station.ANNOUNCE, *ids)
            return ids, moved

        return await self._line.database.transact(again)

    async def list_endpoints(
        self, tenant: str, *, before_id: str | None, disabled: bool | None, limit: int
    ) -> list[Endpoint]:
        async with self._line.database.reading() as tx:
            return await endpoint_rows.list_endpoints(
                tx, tenant, before_id=before_id, disabled=disabled, limit=limit
            )

    async def enable(self, endpoint_id: str, *, by: Caller) -> Endpoint:
        """Let announcements go there again, with a clean record. What was held meanwhile is sent again only
        when it is asked for. Raises NotFound."""

        async def enable(tx: Transaction) -> Endpoint:
            found = await endpoint_rows.find_endpoint(tx, endpoint_id)
            if found is None or found.tenant != by.tenant:
                raise NotFound(f"there is no endpoint {endpoint_id[:64]}")
            await endpoint_rows.save_endpoint(
                tx,
                endpoint_id,
                disabled_at=None,
                disabled_reason=None,
                paused_until=None,
                failures=0,
                failing_since=None,
            )
            await note_act(tx, by, Act.ENDPOINT_ENABLED, endpoint_id, at=self._line.clock.now())
            enabled = await endpoint_rows.find_endpoint(tx, endpoint_id)
            return enabled or found

        endpoint = await self._line.database.transact(enable, is_idempotent=True)
        log.info("endpoint.enabled", endpoint_id=endpoint.id)
        return endpoint

    async def held_at(self, tenant: str, endpoint_id: str) -> int:
        """How many announcements are held for an endpoint."""
        wanted = AnnouncementFilter(tenant, states=(AnnouncementState.HELD,), endpoint_id=endpoint_id)
        async with self._line.database.reading() as tx:
            return await ledger.count_announcements(tx, wanted)


def _span(wanted: AnnouncementFilter) -> str:
    """From when to when, as ISO 8601 writes it."""
    ends = (wanted.since, wanted.until)
    return "/".join(each.isoformat(timespec="seconds") if each else ".." for each in ends)


async def _find(tx: Transaction, tenant: str, announcement_id: str) -> Announcement:
    found = await find_announcement(tx, announcement_id)
    if found is None or found.tenant != tenant:
        raise NotFound(f"there is no announcement {announcement_id[:64]}")
    return found
