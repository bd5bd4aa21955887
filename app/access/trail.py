"""The audit log: who did what, written in the transaction of the act where it has one.

Reads of rows are not in it; asking for a job is, in the job itself. A row names the key, never its text.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from app.access.callers import Caller
from db.access.audit import insert_audit
from db.ids import make_id
from db.session import Transaction
from db.tables import Audit


class Act(StrEnum):
    """What may be done to what belongs to a tenant, beyond asking for jobs and reading."""

    KEY_CREATED = "key.created"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    JOB_CANCELED = "job.canceled"
    JOB_RETRIED = "job.retried"
    JOB_RERUN = "job.rerun"
    JOB_EXPUNGED = "job.expunged"
    BULK_BEGUN = "bulk.begun"
    BULK_ABORTED = "bulk.aborted"
    DELIVERY_REPLAYED = "delivery.replayed"
    RECOVERY_BEGUN = "recovery.begun"
    RECOVERY_ABORTED = "recovery.aborted"
    ANNOUNCEMENT_RESENT = "announcement.resent"
    ANNOUNCEMENTS_RESENT = "announcements.resent"
    ENDPOINT_ENABLED = "endpoint.enabled"
    SECRET_ROTATED = "secret.rotated"  # noqa: S105 - the name of an act
    UPLOAD_DELETED = "upload.deleted"
    VOICE_CREATED = "voice.created"
    VOICE_RENAMED = "voice.renamed"
    VOICE_DELETED = "voice.deleted"
    LINKS_ROTATED = "links.rotated"
    LYRICS_CREATED = "lyrics.created"
    LYRICS_CHANGED = "lyrics.changed"
    LYRICS_DELETED = "lyrics.deleted"
    PERFORMANCE_CREATED = "performance.created"
    PERFORMANCE_CHANGED = "performance.changed"
    PERFORMANCE_DELETED = "performance.deleted"
    SINGERS_CHANGED = "singers.changed"
    REMOTE_INVITED = "remote.invited"


def act_of(by: Caller, act: Act, subject: str, *, at: datetime) -> Audit:
    """The row that says so; `subject` is the id of what it was done to."""
    return Audit(
        id=make_id("aud"),
        tenant=by.tenant,
        key_id=by.key_id,
        request_id=by.request_id,
        act=act.value,
        subject=subject[:128],
        at=at,
    )


async def note_act(tx: Transaction, by: Caller, act: Act, subject: str, *, at: datetime) -> None:
    """Write down an act with its own transaction."""
    await insert_audit(tx, act_of(by, act, subject, at=at))
