"""`/`: the queue, newest first, filtered by the search language; and the form that asks for more."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.access.callers import Scope
from app.errors import InvalidQuery
from app.search.language import MOST_CHARS, parse
from app.web.dashboard.forms import list_forms
from app.web.dashboard.shell import PageRoute, render
from app.web.paging import Page
from app.web.parts import Part, Reader
from app.web.schemas import JobOut
from app.wiring import Runtime
from db.search.pages import JobFilter, Place
from db.states import JobState

PAGE = 50
STATES = tuple(state.value for state in JobState)

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/")
async def show_queue(
    request: Request,
    runtime: Part,
    caller: Reader,
    q: Annotated[str, Query(max_length=MOST_CHARS)] = "",
    state: Annotated[str, Query(max_length=16)] = "",
    kind: Annotated[str, Query(max_length=64)] = "",
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    part: Annotated[str, Query(max_length=16)] = "",
) -> Response:
    """The page; with `part=list` its list alone, for the page that is open already."""
    state = state if state in STATES else ""
    # Before the jobs: what happens between the two is shown and then told too, instead of neither.
    seq = await runtime.feed.head(caller.tenant)
    jobs: list[JobOut] = []
    more, wrong = None, None
    try:
        jobs, more = await _find(runtime, caller.tenant, q, state, kind, cursor)
    except InvalidQuery as exc:
        wrong = exc
    return render(
        request,
        "queue_list.html" if part == "list" else "queue.html",
        seq=seq,
        jobs=jobs,
        more=more,
        wrong=wrong,
        q=q,
        state=state,
        kind=kind,
        states=STATES,
        forms=list_forms(),
        may_write=caller.may(Scope.JOBS_WRITE),
        is_narrowed=bool(q or state or kind or cursor),
    )


async def _find(
    runtime: Runtime, tenant: str, q: str, state: str, kind: str, cursor: str | None
) -> tuple[list[JobOut], str | None]:
    """Raises InvalidQuery, BadCursor."""
    page = Page(PAGE, cursor, runtime.cursors, ("queue", tenant, q, state, kind))
    wanted = JobFilter(
        tenant=tenant,
        state=JobState(state) if state else None,
        kind=kind or None,
        asked=parse(q, now=runtime.line.clock.now()) if q and not q.isspace() else None,
        before=Place.read(page.after) if page.after else None,
    )
    views, place = await runtime.jobs.list_jobs(wanted, limit=page.limit)
    return [JobOut.of(view, runtime.links) for view in views], page.cursor_after(
        str(place) if place else None
    )
