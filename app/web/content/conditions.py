"""Conditional requests (RFC 9110 §13) on a stored file: its validators, and what they decide.

Pure. A stored file never changes under its id, so its ETag and its time are strong validators.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

MOST_CHARS = 4096
_TAG = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True, slots=True)
class Validators:
    """What names this version of a file."""

    etag: str
    """Strong, in its quotes."""
    modified_at: datetime

    @property
    def last_modified(self) -> str:
        return format_datetime(self.modified_at.astimezone(UTC).replace(microsecond=0), usegmt=True)

    def is_unwanted(self, headers: Mapping[str, str]) -> bool:
        """If-Match fails: the caller wants another version or none (412)."""
        given = headers.get("if-match")
        if given is None or given.strip() == "*":
            return False
        return self.etag not in _tags(given)

    def is_known(self, headers: Mapping[str, str]) -> bool:
        """The caller has this version already (304): If-None-Match, and without it If-Modified-Since."""
        given = headers.get("if-none-match")
        if given is not None:
            # Compared weakly (§8.8.3.2), and `*` is any version.
            return given.strip() == "*" or self.etag in {tag.removeprefix("W/") for tag in _tags(given)}
        since = _date(headers.get("if-modified-since"))
        return since is not None and self.modified_at.replace(microsecond=0) <= since

    def allow_ranges(self, headers: Mapping[str, str]) -> bool:
        """If-Range: pieces are for who has this very version, by its strong tag or its exact time."""
        given = headers.get("if-range")
        if given is None:
            return True
        if given.strip().startswith(('"', "W/")):
            return given.strip() == self.etag
        return _date(given) == self.modified_at.replace(microsecond=0)


def _tags(value: str) -> list[str]:
    return [match[0] for match in _TAG.finditer(value[:MOST_CHARS])]


def _date(value: str | None) -> datetime | None:
    if value is None or len(value) > 64:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
