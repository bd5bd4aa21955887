"""`/v1/figures`: how the line went in the last hour, and how long jobs took lately."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.watch.history import Sample
from app.web.parts import Part, Reader
from db.search.pages import JobFilter

MOST_ENDED = 200

router = APIRouter(prefix="/v1", tags=["health"])


class SampleOut(BaseModel):
    """How the line stood at a moment, all tenants together."""

    at: datetime
    depth: dict[str, int] = Field(description="Rows that each station had yet to work on")
    jobs: dict[str, int] = Field(description="Jobs that had not ended, by state")
    lag_worst_s: float | None = Field(description="The event loop's worst lag in the minute before")

    @classmethod
    def of(cls, sample: Sample) -> SampleOut:
        return cls(
            at=sample.at, depth=dict(sample.depth), jobs=dict(sample.jobs), lag_worst_s=sample.lag_worst_s
        )


class EndedOut(BaseModel):
    """A job of yours that has ended."""

    job_id: str
    kind: str
    state: str
    at: datetime
    took_s: float = Field(description="From asking to the end")


class FiguresOut(BaseModel):
    """What this process remembers, and what the rows say."""

    samples: list[SampleOut] = Field(description="One every 10 s, the oldest first, an hour at most")
    ended: list[EndedOut] = Field(description="Of the newest 200 jobs those that have ended")


@router.get("/figures")
async def get_figures(runtime: Part, caller: Reader) -> FiguresOut:
    """Queue depth and lag over the last hour, as the process that answers saw it; how long your jobs took."""
    views, _ = await runtime.jobs.list_jobs(JobFilter(tenant=caller.tenant), limit=MOST_ENDED)
    return FiguresOut(
        samples=[SampleOut.of(each) for each in runtime.history.samples],
        ended=[
            EndedOut(
                job_id=job.id,
                kind=job.kind,
                state=job.state,
                at=job.finished_at,
                took_s=max(0.0, (job.finished_at - job.created_at).total_seconds()),
            )
            for job in (view.job for view in views)
            if job.finished_at is not None
        ],
    )
