"""`client.deliveries`, `.announcements`, `.costs`: what came in, what was told, and what it cost."""

# Made from app/client/aio by scripts/make-client. Change it there and run that again.

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from app.client import calls
from app.client.blocking.transport import Transport
from app.client.ledger import AnnouncementDetail, AnnouncementFacts, Delivery, DeliveryDetail, Receipt
from app.client.models import CostGroup, CostReport, Page, parse


class Deliveries:
    """Every call raises RepriseError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def page(
        self,
        *,
        job_id: str | None = None,
        outcome: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Delivery]:
        """One page of the ledger, newest first."""
        call = calls.list_deliveries(job_id=job_id, outcome=outcome, limit=limit, cursor=cursor)
        return parse(Page[Delivery], self._transport.ask(call))

    def list(
        self, *, job_id: str | None = None, outcome: str | None = None, limit: int = 50
    ) -> Iterator[Delivery]:
        """All of it, newest first; the pages, of `limit` each, are fetched as they are needed."""
        cursor = None
        while True:
            page = self.page(job_id=job_id, outcome=outcome, limit=limit, cursor=cursor)
            yield from page.items
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    def get(self, delivery_id: str) -> DeliveryDetail:
        """One with its headers and raw body. Raises NotFound."""
        return parse(DeliveryDetail, self._transport.ask(calls.get_delivery(delivery_id)))

    def replay(self, delivery_id: str) -> Receipt:
        """Send it through the inbox once more; what has been applied is not applied twice."""
        return parse(Receipt, self._transport.ask(calls.replay_delivery(delivery_id)))


class Announcements:
    """What callers were told of their jobs' ends. Every call raises RepriseError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def page(
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
        return parse(Page[AnnouncementFacts], self._transport.ask(call))

    def list(
        self,
        *,
        job_id: str | None = None,
        state: str | None = None,
        endpoint: str | None = None,
        limit: int = 50,
    ) -> Iterator[AnnouncementFacts]:
        """All of them, newest first; the pages, of `limit` each, are fetched as they are needed."""
        cursor = None
        while True:
            page = self.page(job_id=job_id, state=state, endpoint=endpoint, limit=limit, cursor=cursor)
            yield from page.items
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    def get(self, announcement_id: str) -> AnnouncementDetail:
        """One with its body, and every try at it. Raises NotFound."""
        call = calls.get_announcement(announcement_id)
        return parse(AnnouncementDetail, self._transport.ask(call))

    def resend(self, announcement_id: str) -> AnnouncementFacts:
        """Send one again, under the same `webhook-id`. Raises Conflict while its receiver is disabled."""
        call = calls.resend_announcement(announcement_id)
        return parse(AnnouncementFacts, self._transport.ask(call))


class Costs:
    """Every call raises RepriseError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def report(
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
        return parse(CostReport, self._transport.ask(call))

    def groups(
        self,
        group_by: str = "provider",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> Iterator[CostGroup]:
        """Every group by name, over one span of time; the pages are fetched as they are needed."""
        if since is None or until is None:
            # The service says what the span is: every page is of the same, and so is every cursor.
            span = self.report(group_by, since=since, until=until, limit=1)
            since, until = span.since, span.until
        cursor = None
        while True:
            report = self.report(group_by, since=since, until=until, limit=limit, cursor=cursor)
            yield from report.items
            if report.next_cursor is None:
                return
            cursor = report.next_cursor
