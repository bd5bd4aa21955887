"""`/`: how conversions go, by the names that clients of other services listen for.

A client joins a job and is told of that job alone, each event once: `conversion_progress` while it runs, and
one of `conversion_complete`, `conversion_error`, `conversion_cancelled` at its end. What is told comes from
the job's events, by their `seq`: who joins late begins with how it stands, who comes back with `after_seq`
with what was missed. Every payload has the job's id twice, as `job_id` and as `conversion_id`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

import structlog
from pydantic import BaseModel, Field

from app.errors import InvalidInput, NotFound
from app.kinds.voice_conversion import VOICE_CONVERSION
from app.notify import job_topic
from app.views import JobView
from app.web.routes.convert.shapes import STAGES, ConversionStatus, Stage
from app.web.schemas import Asked
from app.web.socket.connections import Member
from app.web.socket.namespace import Answer, Namespace
from db.session import DatabaseUnavailable
from db.states import JobState
from db.tables import Event

log = structlog.get_logger()

MOST_JOINED = 32
"""Jobs that one client may be told of at once."""
LOOK_S = 15.0
"""How often a job is looked at where no hint of it came."""
MOST_EVENTS = 200
"""Read at once."""
PROGRESS = frozenset({"job.planned", "job.progress", "job.finishing"})
"""The events that tell of it, each with a `progress`."""
ENDS = {
    JobState.SUCCEEDED: "conversion_complete",
    JobState.FAILED: "conversion_error",
    JobState.CANCELED: "conversion_cancelled",
}


class JoinJob(Asked):
    """Which conversion, and up to where it is known."""

    job_id: str = Field(max_length=64)
    after_seq: int | None = Field(None, ge=0, lt=2**31)


class LeaveJob(Asked):
    """Which conversion."""

    job_id: str = Field(max_length=64)


class _Told(BaseModel):
    """What every word has."""

    job_id: str
    conversion_id: str
    """The same."""
    seq: int
    """Of the job's own events, as in `GET /v1/jobs/{id}/events`."""


class Joined(_Told):
    """You are told of this conversion."""


class Progress(_Told):
    """How far it is."""

    timestamp: datetime
    progress: float
    stage: Stage | None
    message: str | None


class Complete(_Told):
    """It has ended well."""

    timestamp: datetime
    status: str
    output_url: str | None
    download_url: str | None
    stem_urls: dict[str, str] | None
    duration: float | None
    quality_metrics: dict[str, Any] | None


class Failed(_Told):
    """It has ended without a result."""

    timestamp: datetime
    error: str | None
    code: str | None


class Cancelled(_Told):
    """A caller has ended it."""

    timestamp: datetime
    message: str


class ConversionsNamespace(Namespace):
    """The namespace; `member.state` has the tasks that tell of jobs, by id."""

    name = "/"
    incoming: ClassVar[Mapping[str, type[BaseModel]]] = {"join_job": JoinJob, "leave_job": LeaveJob}
    outgoing: ClassVar[Mapping[str, tuple[str, type[BaseModel]]]] = {
        "joined_job": ("You are told of this conversion from now on", Joined),
        "conversion_progress": ("How far it is, in percent", Progress),
        "conversion_complete": ("It has ended well. The last of a conversion", Complete),
        "conversion_error": ("It has ended without a result. The last of a conversion", Failed),
        "conversion_cancelled": ("A caller has ended it. The last of a conversion", Cancelled),
    }

    async def came(self, member: Member) -> None:
        member.state = {}

    async def left(self, member: Member) -> None:
        for task in member.state.values():
            task.cancel()

    async def join_job(self, member: Member, asked: JoinJob) -> Answer:
        """Raises NotFound, and InvalidInput where there are too many."""
        view = await self._find(member, asked.job_id)
        told: dict[str, asyncio.Task[None]] = member.state
        if asked.job_id not in told and len(told) >= MOST_JOINED:
            raise InvalidInput(f"job_id: at most {MOST_JOINED} at once", field="job_id")
        if (older := told.pop(asked.job_id, None)) is not None:
            older.cancel()
        said = Joined(**_ids(view), seq=view.job.seq).model_dump(mode="json")
        await self.tell(member, "joined_job", said)
        told[asked.job_id] = asyncio.create_task(self._follow(member, asked))
        return said

    async def leave_job(self, member: Member, asked: LeaveJob) -> Answer:
        if (task := member.state.pop(asked.job_id, None)) is not None:
            task.cancel()
        return {"job_id": asked.job_id, "conversion_id": asked.job_id}

    async def _find(self, member: Member, job_id: str) -> JobView:
        view = await self.runtime.jobs.get(job_id, tenant=member.caller.tenant)
        if view.job.kind != VOICE_CONVERSION.name:
            raise NotFound(f"there is no job {job_id[:64]}")
        return view

    async def _follow(self, member: Member, asked: JoinJob) -> None:
        """Tell of one job to its end."""
        seq = asked.after_seq
        with self.runtime.line.notifier.subscribe(job_topic(asked.job_id)) as hints:
            while True:
                try:
                    words = await self._words_after(member, asked.job_id, seq)
                except NotFound:
                    break
                except DatabaseUnavailable as exc:
                    log.warning("look.failed", look="conversions", reason=str(exc))
                    words = []
                for event, payload in words:
                    await self.tell(member, event, payload)
                    seq = payload["seq"]
                if words and words[-1][0] in ENDS.values():
                    break
                if not words:
                    await hints.wait(LOOK_S)
        if member.state.get(asked.job_id) is asyncio.current_task():
            del member.state[asked.job_id]

    async def _words_after(
        self, member: Member, job_id: str, seq: int | None
    ) -> list[tuple[str, dict[str, Any]]]:
        """What is to be said after a `seq`; without one, how the job stands. Raises NotFound."""
        if seq is None:
            return [self._standing(await self._find(member, job_id))]
        events = await self.runtime.jobs.list_events(
            job_id, tenant=member.caller.tenant, after_seq=seq, limit=MOST_EVENTS
        )
        if not events:
            return []
        # Read after its events: one that has had its last event has ended.
        view = await self._find(member, job_id)
        words = [
            ("conversion_progress", _progress_of(view, event)) for event in events if event.type in PROGRESS
        ]
        if not words or events[-1].type.removeprefix("job.") in ENDS:
            words.append(self._standing(view))
        return words

    def _standing(self, view: JobView) -> tuple[str, dict[str, Any]]:
        """The one word that says how a job stands now."""
        job, state = view.job, JobState(view.job.state)
        now = ConversionStatus.of(view, self.runtime.links)
        at = job.finished_at or self.runtime.line.clock.now()
        known = {**_ids(view), "seq": job.seq, "timestamp": at}
        said: BaseModel
        match state:
            case JobState.SUCCEEDED:
                facts = now.model_dump(include=set(Complete.model_fields) - set(known) - {"duration"})
                said = Complete(**known, **facts, duration=now.audio_duration_seconds)
            case JobState.FAILED:
                said = Failed(**known, error=now.error, code=now.code)
            case JobState.CANCELED:
                said = Cancelled(**known, message="the conversion was canceled")
            case _:
                said = Progress(**known, progress=now.progress, stage=now.stage, message=now.message)
        return ENDS.get(state, "conversion_progress"), said.model_dump(mode="json")


def _ids(view: JobView) -> dict[str, Any]:
    return {"job_id": view.job.id, "conversion_id": view.job.id}


def _progress_of(view: JobView, event: Event) -> dict[str, Any]:
    """What an event tells of the progress."""
    said = Progress(
        **_ids(view),
        seq=event.seq,
        timestamp=event.at,
        progress=round(100 * event.data.get("progress", 0.0), 2),
        stage=STAGES.get(event.data.get("stage") or ""),
        message=None,
    )
    return said.model_dump(mode="json")
