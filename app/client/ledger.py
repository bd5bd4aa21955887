"""What came from outside, what was recovered of it, what callers were told: answers as values.

Like `models`, which has their base: frozen, times in UTC, fields of a newer service passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from app.client.models import Fact


class Delivery(Fact):
    """One piece of outside news in the ledger."""

    id: str
    source: str
    provider: str
    attempt_id: str
    job_id: str | None
    message_id: str | None
    received_at: datetime
    settled_at: datetime | None
    outcome: str | None
    """None: not yet applied."""
    detail: str | None
    told: str | None = None
    """The status word in it; `silence` for a limit of the service's own."""
    conflicts: int = 0
    """Authentic messages under the same id with another body, refused."""


class DeliveryDetail(Delivery):
    """The same with what was received."""

    headers: Mapping[str, str]
    size_bytes: int
    body_base64: str = Field(repr=False)
    """The first 64 kB of the raw body."""


class Receipt(Fact):
    """News was stored."""

    delivery_id: str
    new: bool


class RecoveryItem(Fact):
    """One attempt that is asked about, or one delivery that is sent again."""

    attempt_id: str
    job_id: str | None
    provider: str
    original_id: str | None
    """The delivery that is sent again."""
    output_expires_at: datetime | None
    """The earliest moment at which the provider may have deleted the output."""
    effect: str | None
    """None: not done yet."""
    finding: str | None
    """The provider's answer in one word, where it was asked."""
    detail: str | None
    rerun_usd: float | None
    """What another attempt would cost, where the output expired."""
    delivery_id: str | None
    """What was stored because of it."""


class Plan(Fact):
    """What a recovery, or a replay, would do if nothing else happened. Nothing was changed."""

    dry_run: bool = True
    task: str
    """recover or replay."""
    since: datetime
    until: datetime
    total: int
    counts: Mapping[str, int]
    """Items by their effect."""
    rerun_usd: float | None
    """What it would cost to make anew all that has expired."""
    found: Sequence[RecoveryItem]
    """A few of each effect."""


class Recovery(Fact):
    """A recovery, or a replay of many, as it stands."""

    dry_run: bool = False
    id: str
    task: str
    state: str
    """running, done or aborted."""
    since: datetime
    until: datetime
    wanted: Mapping[str, Any]
    created_at: datetime
    finished_at: datetime | None
    total: int
    done: int
    counts: Mapping[str, int]
    """Items done, by their effect."""
    rerun_usd: float | None

    @property
    def is_ended(self) -> bool:
        return self.state != "running"


class RecoveryItems(Fact):
    """Items in the order of work."""

    items: Sequence[RecoveryItem]
    next_after: int | None


class AnnouncementFacts(Fact):
    """A job's end, and how far telling its caller has come."""

    id: str
    """The `webhook-id` of every try."""
    job_id: str
    endpoint_id: str
    url: str
    type: str
    state: str
    """pending, delivered, failed or held."""
    attempts: int
    created_at: datetime
    next_at: datetime | None
    """When it is tried next; None: it has come to an end."""
    settled_at: datetime | None
    error: str | None
    """What the last try came to."""


class SentRequest(Fact):
    """What was sent besides the body."""

    headers: Mapping[str, str]


class ReceiverAnswer(Fact):
    """What came back, cut; a stranger's text."""

    status: int
    headers: Mapping[str, str]
    body: str


class AnnouncementTry(Fact):
    """One try."""

    number: int
    at: datetime
    outcome: str
    latency_ms: int
    error: str | None
    request: SentRequest
    response: ReceiverAnswer | None
    """None when there was no whole answer."""
    next_at: datetime | None


class AnnouncementDetail(AnnouncementFacts):
    """The same with its body and the tries at it, the first one first."""

    payload: str
    tries: Sequence[AnnouncementTry]
