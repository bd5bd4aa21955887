"""`client.deliveries`, `.announcements`, `.costs`: what came in, what was told, and what it cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from app.client import calls
from app.client.aio.transport import AsyncTransport
from app.client.ledger import AnnouncementDetail, AnnouncementFacts, Delivery, DeliveryDetail, Receipt
from app.client.models import CostGroup, CostReport, Page, parse


class AsyncDeliveries:
    """Every call raises RepriseError."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def page(
        self,
        *,
        job_id: str | None = None,
        outcome: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Delivery]:
        """One page of the ledger, newest first."""
        call = calls.list_deliveries(job_id=job_id, outcome=outcome, limit=limit, cursor=cursor)
        return parse(Page[Delivery], await self._transport.ask(call))

    async def list(
        self, *, job_id: str | None = None, outcome: str | None = None, limit: int = 50
    ) -> AsyncIterator[Delivery]:
        """All of it, newest first; the pages, of `limit` each, are fetched as they are needed."""
        cursor = None
        while True:
            page = await self.page(job_id=job_id, outcome=outcome, limit=limit, cursor=cursor)
            for delivery in page.items:
                yield delivery
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    async def get(self, delivery_id: str) -> DeliveryDetail:
        """One with its headers and raw body. Raises NotFound."""
        return parse(DeliveryDetail, await self._transport.ask(calls.get_delivery(delivery_id)))

    async def replay(self, delivery_id: str) -> Receipt:
        """Send it through the inbox once more; what has been applied is not applied twice."""
        return parse(Receipt, await self._transport.ask(calls.replay_delivery(delivery_id)))


class AsyncAnnouncements:
    """What callers were told of their jobs' ends. Every call raises RepriseError."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def page(
        self,
        *,
        job_id: str | None = None,
        state: str | None = None,
        endpoint: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[AnnouncementFacts]:
        """One page of announcements, newest first."""
        call = calls.list_announcements(
            job_id=job_id, state=state, endpoint=endpoint, limit=limit, cursor=cursor
        )
        return parse(Page[AnnouncementFacts], await self._transport.ask(call))

    async def list(
        self,
        *,
        job_id: str | None = None,
        state: str | None = None,
        endpoint: str | None = None,
        limit: int = 50,
    ) -> AsyncIterator[AnnouncementFacts]:
        """All of them, newest first; the pages, of `limit` each, are fetched as they are needed."""
        cursor = None
        while True:
            page = await self.page(job_id=job_id, state=state, endpoint=endpoint, limit=limit, cursor=cursor)
            for announcement in page.items:
                yield announcement
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    async def get(self, announcement_id: str) -> AnnouncementDetail:
        """One with its body, and every try at it. Raises NotFound."""
        call = calls.get_announcement(announcement_id)
        return parse(AnnouncementDetail, await self._transport.ask(call))

    async def resend(self, announcement_id: str) -> AnnouncementFacts:
        """Send one again, under the same `webhook-id`. Raises Conflict while its receiver is disabled."""
        call = calls.resend_announcement(announcement_id)
        return parse(AnnouncementFacts, await self._transport.ask(call))


class AsyncCosts:
    """Every call raises RepriseError."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def report(
        self,
        group_by: str = "provider",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> CostReport:
        """The total, and a page of groups: by provider, kind, model, day, job or metadata.NAME."""
        call = calls.report_costs(group_by=group_by, since=since, until=until, limit=limit, cursor=cursor)
        return parse(CostReport, await self._transport.ask(call))

    async def groups(
        self,
        group_by: str = "provider",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> AsyncIterator[CostGroup]:
        """Every group by name, over one span of time; the pages are fetched as they are needed."""
        if since is None or until is None:
            # The service says what the span is: every page is of the same, and so is every cursor.
            span = await self.report(group_by, since=since, until=until, limit=1)
            since, until = span.since, span.until
        cursor = None
        while True:
            report = await self.report(group_by, since=since, until=until, limit=limit, cursor=cursor)
            for group in report.items:
                yield group
            if report.next_cursor is None:
                return
            cursor = report.next_cursor
