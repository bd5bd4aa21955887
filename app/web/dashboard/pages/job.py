"""`/jobs/{id}`: everything about one job; `/jobs/{id}/row`: its line in the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from app.access.callers import Scope
from app.web.dashboard.shell import PageRoute, render
from app.web.parts import Part, Reader
from app.web.routes.ended import StepOut
from app.web.schemas import DeliveryOut, JobOut
from db.tables import Event

MOST_DELIVERIES = 100

JobId = Annotated[str, Path(max_length=64)]
router = APIRouter(prefix="/jobs", include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Moment:
    """An event on the timeline; those of progress that follow each other are one."""

    seq: int
    type: str
    at: datetime
    data: dict[str, Any]
    after_s: float
    """Since the one before it."""
    times: int = 1


@router.get("/{job_id}")
async def show_job(job_id: JobId, request: Request, runtime: Part, caller: Reader) -> Response:
    """The page. Its parts are fetched again by the page that is open, when the job moves."""
    # Before the job: what happens between the two is shown and then told too, instead of neither.
    seq = await runtime.feed.head(caller.tenant)
    view = await runtime.jobs.get(job_id, tenant=caller.tenant)
    events = await runtime.jobs.list_events(job_id, tenant=caller.tenant)
    steps = await runtime.reruns.list_steps(job_id, tenant=caller.tenant)
    deliveries = await runtime.replay.list_deliveries(by=caller, job_id=job_id, limit=MOST_DELIVERIES)
    job = JobOut.of(view, runtime.links)
    sounds = {name: each for name, each in job.outputs.items() if each.duration_s is not None}
    return render(
        request,
        "job.html",
        seq=seq,
        job=job,
        is_ended=view.is_ended,
        moments=gather(events),
        steps=[StepOut.of(step) for step in steps],
        deliveries=[DeliveryOut.of(each) for each in deliveries],
        sounds=sounds,
        texts={name: each for name, each in job.outputs.items() if name not in sounds},
        may_write=caller.may(Scope.JOBS_WRITE),
        may_replay=caller.may(Scope.DELIVERIES_REPLAY),
    )


@router.get("/{job_id}/row")
async def show_row(job_id: JobId, request: Request, runtime: Part, caller: Reader) -> Response:
    """The job as the queue lists it."""
    view = await runtime.jobs.get(job_id, tenant=caller.tenant)
    job = JobOut.of(view, runtime.links)
    return render(request, "queue_row.html", job=job, may_write=caller.may(Scope.JOBS_WRITE))


def gather(events: Sequence[Event]) -> list[Moment]:
    """The timeline: oldest first, runs of progress as their last."""
    found: list[Moment] = []
    before = events[0].at if events else None
    for event in events:
        after_s = (event.at - before).total_seconds() if before else 0.0
        moment = Moment(event.seq, event.type, event.at, event.data, max(0.0, after_s))
        if found and event.type == "job.progress" == found[-1].type:
            last = found.pop()
            moment = Moment(
                event.seq, event.type, event.at, event.data, last.after_s + moment.after_s, last.times + 1
            )
        found.append(moment)
        before = event.at
    return found
