"""The named moments at which a process may die: what the crash tests aim at, and nothing in production.

A station calls `reach(CrashPoint.X)` at each of them. In production `reach` is `pass_by`; a crash test's
child process injects one that kills itself with SIGKILL at a chosen point.
"""

from collections.abc import Callable
from enum import StrEnum


class CrashPoint(StrEnum):
    """In the order in which a job meets them."""

    JOB_COMMITTED = "job_committed"
    """The job is stored, the caller has not been told."""
    JOB_CANCELED = "job_canceled"
    """The job has ended, its prediction has not been stopped."""
    FAMILY_PLANNED = "family_planned"
    """A parent has its next children, or is on its way to the finisher; nobody has heard of it."""
    ATTEMPT_COMMITTED = "attempt_committed"
    """The attempt is stored, the provider has not been asked."""
    PREDICTION_CREATED = "prediction_created"
    """The provider has the prediction, we have not stored its id."""
    PREDICTION_STORED = "prediction_stored"
    ATTEMPT_WITHDRAWN = "attempt_withdrawn"
    """The provider made nothing: the job waits, and no attempt was spent."""
    ATTEMPT_REFUSED = "attempt_refused"
    """The provider would not do it, and the job has gone on without it."""
    DELIVERY_COMMITTED = "delivery_committed"
    """The news is stored, the provider has not had its 2xx."""
    DELIVERY_BEGUN = "delivery_begun"
    """A try at news that is large, or that an earlier life left, is counted; it is not understood."""
    DELIVERY_PARSED = "delivery_parsed"
    """The news is understood, no row has moved."""
    DELIVERY_APPLIED = "delivery_applied"
    FINISH_CLAIMED = "finish_claimed"
    """The finisher holds the lease."""
    OUTPUT_FETCHED = "output_fetched"
    PARTS_JOINED = "parts_joined"
    """What is made of a job's parts is made, and not stored."""
    OUTPUT_TRIMMED = "output_trimmed"
    OUTPUT_STORED = "output_stored"
    """The object is in the store, no row points at it."""
    JOB_FINISHED = "job_finished"
    """The job has ended, no hint has been heard."""
    FINISH_POSTPONED = "finish_postponed"
    """What stood in the way may pass: the lease is given back."""
    FINISH_FAILED = "finish_failed"
    """The job has ended without an output."""
    OUTPUT_ASKED_AGAIN = "output_asked_again"
    """The provider had deleted the output: the job is queued for another attempt."""
    ANNOUNCEMENT_CLAIMED = "announcement_claimed"
    """The announcement is under a lease, nothing was sent."""
    ANNOUNCEMENT_SENT = "announcement_sent"
    """The receiver has answered, nothing says so yet."""
    ANNOUNCEMENT_NOTED = "announcement_noted"
    POLL_ANSWERED = "poll_answered"
    """Recovery has the provider's answer, it is not stored."""
    PREDICTION_FOUND = "prediction_found"
    """Recovery has stored the id of a prediction whose maker died, and not yet what it says."""
    PREDICTION_CANCELED = "prediction_canceled"
    """The provider was told to stop, and nothing says so yet."""
    RECOVERY_COMMITTED = "recovery_committed"
    """A recovery of many is stored with its items, the caller has not been told."""
    RECOVERY_ITEMS_DONE = "recovery_items_done"
    """Some of its items are done, and nothing says so yet."""
    PIECE_STORED = "piece_stored"
    """A piece of an upload is in the store, no row counts it."""
    PIECE_COUNTED = "piece_counted"
    """The upload's offset has moved past it, the caller has not been told."""
    UPLOAD_COMMITTED = "upload_committed"
    """The upload is stored as a whole, its pieces are still there."""
    OBJECTS_DOOMED = "objects_doomed"
    """Rows are deleted and tombstones are laid, the objects are still there."""
    OBJECTS_REMOVED = "objects_removed"
    """The objects are gone, the tombstone does not say so."""


Reach = Callable[[CrashPoint], None]


def pass_by(_point: CrashPoint) -> None:
    """Production: nothing happens."""
