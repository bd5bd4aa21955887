"""How a conversion is told to clients of `/api/v1/convert`: their words over a job's rows, and only what is
true of it; what is not known is null."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.access.links import Links
from app.views import JobView
from db.states import JobState

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
PublicStatus = Literal["queued", "processing", "completed", "error", "cancelled"]
Stage = Literal["source_separation", "voice_conversion", "audio_mixing"]
STATUSES: dict[JobState, tuple[Status, PublicStatus]] = {
    JobState.QUEUED: ("queued", "queued"),
    JobState.RUNNING: ("in_progress", "processing"),
    JobState.FINISHING: ("in_progress", "processing"),
    JobState.SUCCEEDED: ("completed", "completed"),
    JobState.FAILED: ("failed", "error"),
    JobState.CANCELED: ("cancelled", "cancelled"),
}
STAGES: dict[str, Stage] = {
    "separation": "source_separation",
    "transfer": "voice_conversion",
    "joining": "audio_mixing",
}
"""By the word of the job's stage."""
STEMS = ("vocals", "instrumental")
PREFIX = "/api/v1/convert"


class QueuedSong(BaseModel):
    """A conversion was asked for."""

    status: Literal["queued"] = "queued"
    job_id: str
    conversion_id: str = Field(description="The same as `job_id`")
    status_url: str
    message: str
    original_audio_asset_id: str
    ignored_settings: list[str] = Field(
        description="Settings of other services that were sent and change nothing here"
    )


class ConversionStatus(BaseModel):
    """How far a conversion is."""

    job_id: str
    conversion_id: str = Field(description="The same as `job_id`")
    status: Status
    public_status: PublicStatus
    progress: float = Field(ge=0, le=100, description="In percent, as its parts have measured it")
    stage: Stage | None = Field(description="Null before the first and after the last")
    message: str | None = Field(description="Why it is not further yet")
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    processing_time_seconds: float | None = Field(description="From its start to its end")
    audio_duration_seconds: float | None = Field(description="Of the result")
    rtf: float | None = Field(description="The one divided by the other")
    output_url: str | None = Field(description="Signed and expiring")
    download_url: str | None
    stem_urls: dict[str, str] | None = Field(description="With `return_stems`, once it is completed")
    quality_metrics: dict[str, Any] | None = Field(description="What was measured of it; null: nothing was")
    error: str | None
    code: str | None = Field(description="The error's")

    @classmethod
    def of(cls, view: JobView, links: Links) -> ConversionStatus:
        job, state = view.job, JobState(view.job.state)
        status, public_status = STATUSES[state]
        urls = {name: links.url(asset.id, tenant=job.tenant) for name, asset in view.outputs.items()}
        audio = view.outputs.get("audio")
        took_s = duration_s = None
        if state is JobState.SUCCEEDED and job.finished_at and job.started_at and audio is not None:
            took_s, duration_s = (job.finished_at - job.started_at).total_seconds(), audio.duration_s
        return cls(
            job_id=job.id,
            conversion_id=job.id,
            status=status,
            public_status=public_status,
            progress=round(100 * job.progress, 2),
            stage=STAGES.get(job.stage or ""),
            message=job.waiting_reason,
            created_at=job.created_at,
            started_at=job.started_at,
            completed_at=job.finished_at,
            processing_time_seconds=took_s,
            audio_duration_seconds=duration_s,
            rtf=round(took_s / duration_s, 4) if took_s is not None and duration_s else None,
            output_url=urls.get("audio"),
            download_url=f"{PREFIX}/download/{job.id}" if audio else None,
            stem_urls={name: urls[name] for name in STEMS if name in urls} or None,
            quality_metrics=job.measured,
            error=job.error_message,
            code=job.error_code,
        )
