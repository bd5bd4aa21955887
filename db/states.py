"""The states of rows and the moves between them: pure, and the only place where a move is made legal.

Terminal states have no way out: a row that reached one never changes state again.
"""

from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands. Exactly one of the last three ends it."""

    QUEUED = "queued"
    """Waits for a dispatcher; `run_after` says from when, `waiting_reason` says why."""
    RUNNING = "running"
    """One attempt is alive at a provider; news of it comes through the inbox."""
    FINISHING = "finishing"
    """The provider succeeded; the finisher fetches, trims and stores under a lease."""
    SUCCEEDED = "succeeded"
    """Every output is a stored asset."""
    FAILED = "failed"
    """Ended without output; `error_code` says why."""
    CANCELED = "canceled"
    """The caller ended it; what the provider still delivers changes nothing."""

    @property
    def is_terminal(self) -> bool:
        return not JOB_MOVES[self]


JOB_MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.FINISHING, JobState.FAILED, JobState.CANCELED}),
    JobState.FINISHING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELED: frozenset(),
}
"""`running` and `finishing` go back to `queued` for another attempt: a failed one, or an expired output."""

LIVE_JOB_STATES = frozenset(state for state, moves in JOB_MOVES.items() if moves)


class AttemptStatus(StrEnum):
    """The provider's own words, with one before them and one for when they never came."""

    PENDING = "pending"
    """The row is written, the provider is not known to have been asked."""
    STARTING = "starting"
    """The provider accepted it: queued there or cold."""
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    ABORTED = "aborted"
    """The provider's deadline passed before the prediction began."""
    LOST = "lost"
    """Silent past its time and unknown to the provider; a late success changes nothing but the cost."""

    @property
    def is_terminal(self) -> bool:
        return not ATTEMPT_MOVES[self]


_ENDS = frozenset(
    {
        AttemptStatus.SUCCEEDED,
        AttemptStatus.FAILED,
        AttemptStatus.CANCELED,
        AttemptStatus.ABORTED,
        AttemptStatus.LOST,
    }
)

ATTEMPT_MOVES: Mapping[AttemptStatus, frozenset[AttemptStatus]] = {
    AttemptStatus.PENDING: frozenset({AttemptStatus.STARTING, AttemptStatus.PROCESSING}) | _ENDS,
    AttemptStatus.STARTING: frozenset({AttemptStatus.PROCESSING}) | _ENDS,
    AttemptStatus.PROCESSING: _ENDS,
    **{status: frozenset() for status in _ENDS},
}
"""Never backwards: a `start` hook that arrives after `processing` moves nothing."""

LIVE_ATTEMPT_STATUSES = frozenset(status for status, moves in ATTEMPT_MOVES.items() if moves)


class DeliverySource(StrEnum):
    """Which postman brought it."""

    WEBHOOK = "webhook"
    """The provider called our callback URL."""
    POLL = "poll"
    """Recovery asked the provider."""
    REPLAY = "replay"
    """An operator, or a script of theirs, sent a stored delivery again."""
    DEADLINE = "deadline"
    """A time limit of ours passed."""


class DeliveryOutcome(StrEnum):
    """How a delivery was settled."""

    APPLIED = "applied"
    """It moved a row."""
    IGNORED = "ignored"
    """Known and true, but it changes nothing: a duplicate, a regression, late news."""
    LATE_RESULT = "late_result"
    """A success for an attempt that had already ended otherwise: kept here, effect none."""
    ORPHANED = "orphaned"
    """Authentic, but no attempt of ours answers to it."""
    QUARANTINED = "quarantined"
    """Authentic, but not understood; kept raw for a person."""


class AnnouncementState(StrEnum):
    """How far telling the caller has come."""

    PENDING = "pending"
    """Due at its time, or being sent."""
    DELIVERED = "delivered"
    """The receiver answered 2xx."""
    FAILED = "failed"
    """The schedule is spent; it can be sent again by hand."""
    HELD = "held"
    """Its endpoint is disabled; it can be sent again once that is enabled."""


ANNOUNCEMENT_MOVES: Mapping[AnnouncementState, frozenset[AnnouncementState]] = {
    AnnouncementState.PENDING: frozenset(AnnouncementState),
    AnnouncementState.DELIVERED: frozenset({AnnouncementState.PENDING}),
    AnnouncementState.FAILED: frozenset({AnnouncementState.PENDING}),
    AnnouncementState.HELD: frozenset({AnnouncementState.PENDING}),
}
"""What has come to an end goes back to `pending` only when somebody asks for it to be sent again."""


class AnnouncementOutcome(StrEnum):
    """What one try at an announcement came to."""

    DELIVERED = "delivered"
    """2xx."""
    REFUSED = "refused"
    """Another answer, redirects included: those are not followed."""
    THROTTLED = "throttled"
    """429, 502, 503 or 504: the receiver is not able now."""
    GONE = "gone"
    """410: the receiver wants nothing more at this address."""
    UNREACHABLE = "unreachable"
    """No whole answer in time: no connection, no valid certificate, silence, nonsense."""
    BLOCKED = "blocked"
    """The address is not one that may be spoken to: no byte was sent."""
    ABANDONED = "abandoned"
    """Sending it ended the process too often."""


class RecoveryState(StrEnum):
    """Where a recovery stands."""

    RUNNING = "running"
    """Somebody works on it, or will: whichever process holds its lease."""
    DONE = "done"
    """Every item has an effect."""
    ABORTED = "aborted"
    """Ended by a caller; what was done by then stays done."""


class BulkAction(StrEnum):
    """What a bulk act does to each of its jobs."""

    CANCEL = "cancel"
    """End those that are alive."""
    RETRY = "retry"
    """Ask again for those that failed or were canceled."""


class BulkState(StrEnum):
    """How a bulk act stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    """It has come to every job."""
    ABORTED = "aborted"
    """It was stopped; what it had done by then stays done, and is counted."""


class BulkOutcome(StrEnum):
    """What became of one job of a bulk act."""

    CHANGED = "changed"
    """As was asked: canceled, or asked for again."""
    SKIPPED = "skipped"
    """When its turn came it was past that, or gone."""
    FAILED = "failed"
    """It was refused, by a budget or for want of room; it may be tried again by another act."""
