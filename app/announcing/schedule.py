"""What follows an answer: pure, no clock, no rows, no network.

The waits are Svix's: soon at first, then for hours, about three days in all. A receiver that says when to
come again is believed up to a day; one that cannot, or does not answer, is left alone for a while with
everything that goes there. An endpoint is disabled for good after 410, or when it has failed steadily for
`ANNOUNCE_DISABLE_AFTER_S` (Svix: 5 days) with nothing between: what fails now and then never is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.backoff import backoff_s
from db.states import AnnouncementOutcome

WAITS_S = (5, 300, 1800, 7200, 18_000, *(36_000,) * 7)
"""Before the second try, the third, …: 13 tries over 3.2 days."""
JITTER = 0.2
"""How much of a wait is chance, either way."""
MOST_TOLD_S = 86_400.0
"""The longest Retry-After that is believed."""
MOST_FAILURES = 10
"""Failures in a row without which no endpoint is disabled for its age."""
_FIRST_PAUSE_S = 5.0
_MOST_PAUSE_S = 300.0

_NOT_NOW = frozenset({429, 502, 503, 504})
_GONE = 410
PAUSING = frozenset({AnnouncementOutcome.THROTTLED, AnnouncementOutcome.UNREACHABLE})


def judge(status: int) -> AnnouncementOutcome:
    """What an answer's status means."""
    if 200 <= status < 300:
        return AnnouncementOutcome.DELIVERED
    if status == _GONE:
        return AnnouncementOutcome.GONE
    return AnnouncementOutcome.THROTTLED if status in _NOT_NOW else AnnouncementOutcome.REFUSED


@dataclass(frozen=True, slots=True)
class Wait:
    """When an announcement is tried again, and how long its endpoint is left alone meanwhile."""

    again_s: float | None
    """None: the schedule is spent."""
    pause_s: float | None


def wait_after(
    outcome: AnnouncementOutcome, *, tries: int, told_s: float | None, failures: int, chance: float
) -> Wait:
    """What follows a try that failed.

    `tries` so far and `failures` of the endpoint in a row, both with this one; `chance` from 0 to 1 is the
    jitter's; `told_s` is Retry-After's.
    """
    told = min(told_s, MOST_TOLD_S) if told_s is not None else None
    spread = 1 - JITTER + 2 * JITTER * chance
    pause_s = None
    if outcome in PAUSING:
        pause_s = told or backoff_s(failures, first_s=_FIRST_PAUSE_S, most_s=_MOST_PAUSE_S) * spread
    if tries > len(WAITS_S):
        return Wait(None, pause_s)
    return Wait(max(WAITS_S[tries - 1] * spread, told or 0.0, pause_s or 0.0), pause_s)


def is_steady(failing_since: datetime, failures: int, *, now: datetime, after_s: float) -> bool:
    """Whether an endpoint has failed for so long, and so often, that it is given up."""
    return failures >= MOST_FAILURES and now - failing_since >= timedelta(seconds=after_s)
