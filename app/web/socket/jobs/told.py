"""What `/jobs` tells: an event of the feed, or a job as it stands, in the words of its clients. Pure.

`seq` is the feed's position: the number that `GET /v1/events` calls `position` and its stream carries as the
id of a message; it grows over all jobs of a tenant, with gaps. A job's own count of its events is `job_seq`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from engineio.packet import Packet
from pydantic import BaseModel, Field

from app.access.links import Links
from app.views import JobView, why_waiting
from app.web.socket.library import encode
from db.feed import FeedRow
from db.states import JobState
from db.tables import Asset

NAMESPACE = "/jobs"
PROGRESS = "job.progress"
SUCCEEDED = "job.succeeded"
Status = Literal["queued", "processing", "completed", "failed", "cancelled"]

STATUS: Mapping[str, Status] = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "processing",
    JobState.FINISHING: "processing",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELED: "cancelled",
}
"""A client's word for each state of ours."""
EVENTS = {
    "job.created": "job_created",
    "job.succeeded": "job_completed",
    "job.failed": "job_failed",
    "job.canceled": "job_cancelled",
}
"""The event that tells each type; every other type is told as `job_updated`."""
UPDATED = "job_updated"
_STAGES = {
    "job.created": "queued",
    "job.dispatched": "starting",
    "job.finishing": "finishing",
    "job.waiting": "waiting",
    "job.requeued": "waiting",
}
_PROGRESS = {
    "job.created": 0.0,
    "job.dispatched": 0.0,
    "job.waiting": 0.0,
    "job.requeued": 0.0,
    "job.finishing": 0.95,
    "job.succeeded": 1.0,
}
_MESSAGES = {
    "job.created": "accepted",
    "job.finishing": "the result is fetched and stored",
    "job.succeeded": "done",
    "job.canceled": "cancelled by the caller",
}


class JobTold(BaseModel):
    """A job after an event, or in a list."""

    seq: int = Field(description="The place among all events: go on after it by `after_seq`")
    id: str = Field(description="The job's id, for clients that look for it under this name")
    job_id: str
    status: Status
    progress: float | None = Field(ge=0, le=1, description="0 to 1; null: as it was")
    stage: str | None = Field(description="What is done now; null when it has ended")
    message: str
    timestamp: datetime
    kind: str
    job_seq: int = Field(description="The place among the job's own events, from 1 without a gap")
    output_url: str | None = Field(
        None, description="When completed: a signed link to the sound, or to the first output. Relative"
    )
    error: str | None = Field(None, description="When failed: why, in words")
    code: str | None = Field(None, description="When failed: why, for programs")


class Subscribed(BaseModel):
    """Where a subscription begins."""

    job_id: str | None = Field(description="The job; null: all of them")
    seq: int = Field(description="What follows it is told")


class ListTold(BaseModel):
    """Jobs as they stand."""

    seq: int = Field(description="What follows it may be in `jobs` already, and is told all the same")
    jobs: list[JobTold] = Field(description="Newest first, as payloads of their own with this `seq`")
    has_more: bool = Field(description="Older ones are in `GET /v1/jobs`")


class ResetTold(ListTold):
    """What stands, where what happened is gone."""

    job_id: str | None = Field(description="The job of the subscription; null: all of them")


@dataclass(frozen=True, slots=True)
class Word:
    """An event, encoded once for everybody."""

    position: int
    job_id: str
    is_progress: bool
    packet: Packet


def word_of(row: FeedRow, outputs: Mapping[str, Asset], *, tenant: str, links: Links) -> Word:
    """An event of the feed as it is told; `outputs` are those of its job, if any are known."""
    payload = told(row, outputs, tenant=tenant, links=links)
    packet = encode(NAMESPACE, EVENTS.get(row.type, UPDATED), as_json(payload))
    # Encoded now and kept so: each client's writer would do it again.
    packet.encode()
    return Word(row.position, row.job_id, row.type == PROGRESS, packet)


def told(row: FeedRow, outputs: Mapping[str, Asset], *, tenant: str, links: Links) -> JobTold:
    """The payload of an event."""
    data = row.data
    is_failed = row.type == "job.failed"
    return JobTold(
        seq=row.position,
        id=row.job_id,
        job_id=row.job_id,
        status=STATUS[str(data["status"])],
        progress=data.get("progress", _PROGRESS.get(row.type)),
        stage=data.get("stage") or _STAGES.get(row.type),
        message=_message_of(row),
        timestamp=row.at,
        kind=row.kind,
        job_seq=row.seq,
        # What was read together with the end had no output yet.
        output_url=output_url(outputs, tenant=tenant, links=links) if row.type == SUCCEEDED else None,
        error=data.get("message") if is_failed else None,
        code=data.get("code") if is_failed else None,
    )


def listed(view: JobView, *, seq: int, links: Links) -> JobTold:
    """A job as it stands, read after the feed's head was at `seq`."""
    job = view.job
    is_failed = job.state == JobState.FAILED
    return JobTold(
        seq=seq,
        id=job.id,
        job_id=job.id,
        status=STATUS[job.state],
        progress=job.progress,
        stage=None if view.is_ended else job.stage or job.state,
        message=(job.error_message if is_failed else why_waiting(view))
        or _MESSAGES.get(f"job.{job.state}", ""),
        timestamp=job.finished_at or job.started_at or job.created_at,
        kind=job.kind,
        job_seq=job.seq,
        output_url=output_url(view.outputs, tenant=job.tenant, links=links),
        error=job.error_message if is_failed else None,
        code=job.error_code if is_failed else None,
    )


def as_json(payload: JobTold) -> dict[str, Any]:
    """As it is sent: what an event does not have is left out."""
    said = payload.model_dump(mode="json")
    return {name: said[name] for name in said if name not in _OPTIONAL or said[name] is not None}


_OPTIONAL = frozenset({"output_url", "error", "code"})


def output_url(outputs: Mapping[str, Asset], *, tenant: str, links: Links) -> str | None:
    """A link to what was asked for; None where nothing is stored."""
    for name in ("audio", "video", *sorted(outputs)):
        if name in outputs:
            return links.url(outputs[name].id, tenant=tenant)
    return None


def without_superseded(words: Sequence[Word]) -> list[Word]:
    """For a reader that is behind: of a job's progress only the newest; every other event stays."""
    newest = {word.job_id: word.position for word in words if word.is_progress}
    return [word for word in words if not word.is_progress or newest[word.job_id] == word.position]


def succeeded_in(rows: Iterable[FeedRow]) -> list[str]:
    """The jobs of these events that have outputs to be linked to."""
    return [row.job_id for row in rows if row.type == SUCCEEDED]


def _message_of(row: FeedRow) -> str:
    data = row.data
    if row.type == "job.dispatched":
        return f"sent to {data.get('provider')}, attempt {data.get('attempt')}"
    said = data.get("message") or data.get("reason") or data.get("stage") or _MESSAGES.get(row.type)
    return str(said or row.type.removeprefix("job."))
