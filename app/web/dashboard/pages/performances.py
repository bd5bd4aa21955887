"""`/performances`: evenings and lyrics; `/performances/{id}`: the stage; `…/remote`: a phone beside it.

The stage is drawn once as it stands and lives by Socket.IO from then on. The remote is a frame without any
fact in it, because a guest's phone has no key: what it shows it hears over the token behind `#`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from app.access.callers import Caller, Scope
from app.web.dashboard.shell import PageRoute, render
from app.web.dashboard.words import title
from app.web.paging import Page
from app.web.parts import Part, Reader
from app.web.routes.karaoke.lyrics import LyricsSummary
from app.web.routes.karaoke.shapes import PerformanceOut, PerformanceSummary
from app.web.schemas import JobOut
from app.wiring import Runtime
from db.search.pages import JobFilter
from db.states import JobState

PAGE = 50
CHOICES = 50
"""Songs, lyrics and transcripts that a form offers, the latest."""
STEMS = ("stem_separation", "voice_conversion")

PerformanceId = Annotated[str, Path(max_length=64)]
router = APIRouter(include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Choice:
    """Something that a form offers."""

    id: str
    title: str


@router.get("/performances")
async def show_performances(
    request: Request,
    runtime: Part,
    caller: Reader,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Performances and the latest lyrics, newest first, and what makes more of both."""
    page = Page(PAGE, cursor, runtime.cursors, ("performances page", caller.tenant))
    found = await runtime.karaoke.performances.list_performances(
        caller.tenant, before_id=page.after, limit=page.reach
    )
    shown, more = page.cut(found, lambda each: each.id)
    return render(
        request,
        "performances.html",
        performances=[PerformanceSummary.summary(row) for row in shown],
        more=more,
        songs=await _jobs(runtime, caller, *STEMS),
        transcripts=await _jobs(runtime, caller, "transcription"),
        lyrics=await _lyrics(runtime, caller),
        may_write=caller.may(Scope.JOBS_WRITE),
    )


@router.get("/performances/{performance_id}")
async def show_performance(
    performance_id: PerformanceId, request: Request, runtime: Part, caller: Reader
) -> Response:
    """The stage."""
    row = await runtime.karaoke.performances.get(caller.tenant, performance_id)
    return render(
        request,
        "performance.html",
        performance=PerformanceOut.of(row, runtime.links, runtime.line.clock.now()),
        songs=await _jobs(runtime, caller, *STEMS),
        lyrics=await _lyrics(runtime, caller),
        may_write=caller.may(Scope.JOBS_WRITE),
    )


@router.get("/performances/{performance_id}/remote")
async def show_remote(performance_id: PerformanceId, request: Request) -> Response:
    """The frame of the phone's page: whether there is such a performance is told to who may know."""
    return render(request, "remote.html", performance_id=performance_id)


async def _jobs(runtime: Runtime, caller: Caller, *kinds: str) -> list[Choice]:
    """The latest jobs of these kinds that have succeeded."""
    views = []
    for kind in kinds:
        wanted = JobFilter(tenant=caller.tenant, kind=kind, state=JobState.SUCCEEDED)
        views += (await runtime.jobs.list_jobs(wanted, limit=CHOICES))[0]
    views.sort(key=lambda view: (view.job.created_at, view.job.id), reverse=True)
    return [Choice(view.job.id, title(JobOut.of(view, runtime.links))) for view in views[:CHOICES]]


async def _lyrics(runtime: Runtime, caller: Caller) -> list[LyricsSummary]:
    found = await runtime.karaoke.lyrics.list_lyrics(caller.tenant, before_id=None, limit=CHOICES)
    return [LyricsSummary.summary(row) for row in found]
