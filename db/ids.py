"""Ids: a prefix that names the table and a UUIDv7 (RFC 9562 §5.7), so that they sort by time of making."""

from datetime import UTC, datetime, timedelta

from uuid_utils import uuid7

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999
"""The calendar's end; an id that somebody made up may say more."""


def make_id(prefix: str) -> str:
    """Such as `job_019a9c1f2c5e7d1b8f3a…`: prefix, underscore, 32 hex digits."""
    return f"{prefix}_{uuid7().hex}"


def made_at(row_id: str) -> datetime:
    """When an id was made, to the millisecond. Raises ValueError for what `make_id` never makes."""
    since_ms = int(row_id.rpartition("_")[2], 16) >> 80
    return _FIRST + timedelta(milliseconds=min(since_ms, _LAST_MS))


def first_id(prefix: str, moment: datetime) -> str:
    """What every id made at that moment or later is at least."""
    since_ms = max(0, round((moment - _FIRST).total_seconds() * 1000))
    return f"{prefix}_{since_ms << 80:032x}"
