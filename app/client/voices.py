"""Voice profiles: answers as values. Like `models`, which has their base."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.client.models import Fact


class NotedPitch(Fact):
    """A pitch and the name of the nearest note."""

    hz: float
    note: str


class VocalRange(Fact):
    """What of the recording's pitch is between its 5th and 95th percentile."""

    lowest: NotedPitch
    median: NotedPitch
    highest: NotedPitch


class Duplicate(Fact):
    """Another voice that sounds like this one."""

    voice_id: str
    similarity: float


class Voice(Fact):
    """A voice profile; inputs that are voices take its `id`. What could not be measured is None."""

    id: str
    name: str
    created_at: datetime
    asset_id: str
    """Its recording."""
    duration_s: float
    snr_db: float | None
    silence_share: float | None
    clipped_share: float | None
    consistency: float | None
    vocal_range: VocalRange | None
    duplicates: Sequence[Duplicate]
