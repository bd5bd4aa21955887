"""What an announcement says: a thin payload by Standard Webhooks, made once, sent the same at every try.

It names the job and how it ended, with the caller's own metadata; whoever wants more reads the job. It stays
below 20 kB, because metadata is at most 16 kB as JSON and everything else is cut.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from app.announcing.endpoints import address_of
from db.ids import make_id
from db.states import AnnouncementState, JobState
from db.tables import Announcement, Job

MOST_BYTES = 20_000
_MESSAGE_CHARS = 300


def write_letter(
    job: Job, callback_url: str, state: JobState, *, now: datetime, code: str | None, message: str | None
) -> Announcement:
    """The announcement of a job that ends now, due at once."""
    address = address_of(job.tenant, callback_url)
    word = f"job.{state}"
    # A provider's words may hold half a surrogate pair, which no body can.
    words = (message or "")[:_MESSAGE_CHARS].encode("utf-8", "replace").decode()
    error = {"code": code, "message": words} if code else None
    data: dict[str, Any] = {
        "id": job.id,
        "kind": job.kind,
        "state": state.value,
        "error": error,
        "metadata": job.caller_metadata,
        "created_at": job.created_at.isoformat(),
        "finished_at": now.isoformat(),
        "retry_of": job.retry_of,
    }
    payload = {"type": word, "timestamp": now.isoformat(), "data": data}
    return Announcement(
        id=make_id("ann"),
        tenant=job.tenant,
        job_id=job.id,
        endpoint_id=address.endpoint_id,
        receiver=address.receiver,
        url=callback_url,
        type=word,
        payload=json.dumps(payload, ensure_ascii=False, separators=(",", ":")),
        state=AnnouncementState.PENDING,
        created_at=now,
        run_after=now,
    )
