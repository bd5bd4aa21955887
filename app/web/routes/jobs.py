"""`/v1/jobs`: ask, read, wait, list, cancel, retry, follow."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.errors import InvalidInput
from app.jobs import JobRequest
from app.notify import job_topic
from app.search.language import MOST_CHARS, parse
from app.web.limits import BadHeader
from app.web.paging import Paged
from app.web.parts import (
    Moment,
    Part,
    Reader,
    Responses,
    Writer,
    check_idempotency_key,
)
from app.web.schemas import (
    EventOut,
    EventPage,
    ForecastOut,
    JobOut,
    JobPage,
    KindName,
    NewJob,
    Problem,
    StateName,
)
from app.wiring import Runtime
from db.search.pages import JobFilter, Place
from db.states import JobState

MOST_WAIT_S = 60.0
KEEPALIVE_S = 15
MOST_EVENTS = 1000
"""Read at once; a longer history comes in several reads."""

_PREFER_WAIT = re.compile(r"\bwait=(\d{1,3})\b")

JobId = Annotated[str, Path(max_length=64, description="The job's id")]
WaitS = Annotated[float | None, Query(ge=0, le=MOST_WAIT_S, description="Seconds to wait for the end")]

router = APIRouter(
    prefix="/v1/jobs",
    tags=["jobs"],
    responses={422: {"model": Problem, "description": "A value is wrong; `field` names it"}},
)
NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is no such job"}}
CONFLICT: Responses = {409: {"model": Problem, "description": "The job's state does not allow it"}}
REFUSED: Responses = {400: {"model": Problem, "description": "The search or the cursor cannot be read"}}
GONE: Responses = {410: {"model": Problem, "description": "What it asked for was expunged"}}
BROKE: Responses = {402: {"model": Problem, "description": "The budget is spent; `budget` says until when"}}
BUSY: Responses = {503: {"model": Problem, "description": "Nothing was stored; see `Retry-After`"}}


@router.post(
    "",
    status_code=202,
    responses={
        200: {"model": ForecastOut, "description": "A dry run: nothing was stored"},
        201: {"model": JobOut, "description": "Ended within the wait"},
        400: {"model": Problem, "description": "Not JSON, or a header is wrong"},
        **BROKE,
        **BUSY,
    },
)
async def submit_job(
    new: NewJob,
    runtime: Part,
    caller: Writer,
    request: Request,
    response: Response,
    idempotency_key: Annotated[str | None, Header(description="The same key makes one job")] = None,
    prefer: Annotated[str | None, Header(description="`wait=N`, 1-60 s: answer when it has ended")] = None,
) -> JobOut | ForecastOut:
    """Ask for audio. Answered at once with 202, or with 201 once it has ended within `Prefer: wait=N`."""
    check_idempotency_key(request)
    wait_s = _wait_of(prefer)
    asked = JobRequest(
        new.kind,
        new.input,
        new.metadata,
        new.provider,
        new.deadline_s,
        new.priority,
        tenant=caller.tenant,
        callback_url=new.callback_url,
        retention_s=new.retention_s,
    )
    if new.dry_run:
        response.status_code = 200
        return ForecastOut.of(new.kind, await runtime.jobs.forecast(asked))
    view = await runtime.jobs.submit(asked, idempotency_key=idempotency_key)
    if wait_s:
        view = await runtime.jobs.wait(view.job.id, timeout_s=wait_s, tenant=caller.tenant)
        response.headers["Preference-Applied"] = f"wait={wait_s}"
        response.status_code = 201 if view.is_ended else 202
    response.headers["Location"] = f"/v1/jobs/{view.job.id}"
    return JobOut.of(view, runtime.links)


@router.get("", responses=REFUSED)
async def list_jobs(
    runtime: Part,
    caller: Reader,
    paging: Paged,
    state: StateName | None = None,
    kind: KindName | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    q: Annotated[
        str | None, Query(max_length=MOST_CHARS, description="A search; see the guide to finding jobs")
    ] = None,
    parent_id: Annotated[
        str | None, Query(max_length=64, description="The jobs that do this one's work; else none such")
    ] = None,
) -> JobPage:
    """Jobs, newest first; `next_cursor` leads to the next page.

    `q` is a search such as `state:failed since:2h (rain OR "tin roof") -prompt:snow tag.album:blue`; one that
    cannot be read is a 400 that names the column. A page with `q` looks through at most 10,000 jobs: it may
    hold fewer than `limit`, even none, while `next_cursor` says that there is more to look through.
    """
    page = paging.of("jobs", caller.tenant, state, kind, since, until, q, *([parent_id] if parent_id else []))
    wanted = JobFilter(
        tenant=caller.tenant,
        state=JobState(state) if state else None,
        kind=kind,
        since=since,
        until=until,
        asked=parse(q, now=runtime.line.clock.now()) if q and not q.isspace() else None,
        parent_id=parent_id or None,
        before=Place.read(page.after) if page.after else None,
    )
    views, place = await runtime.jobs.list_jobs(wanted, limit=page.limit)
    more = page.cursor_after(str(place) if place else None)
    return JobPage(items=[JobOut.of(view, runtime.links) for view in views], next_cursor=more)


@router.get("/{job_id}", responses=NOT_FOUND)
async def get_job(job_id: JobId, runtime: Part, caller: Reader, wait: WaitS = None) -> JobOut:
    """A job as it stands; with `wait`, once it has ended or after that many seconds."""
    if wait:
        view = await runtime.jobs.wait(job_id, timeout_s=wait, tenant=caller.tenant)
    else:
        view = await runtime.jobs.get(job_id, tenant=caller.tenant)
    return JobOut.of(view, runtime.links)


@router.post("/{job_id}/cancel", responses=NOT_FOUND | CONFLICT)
async def cancel_job(job_id: JobId, runtime: Part, caller: Writer) -> JobOut:
    """End a job. Canceling a canceled one changes nothing and is answered alike."""
    return JobOut.of(await runtime.jobs.cancel(job_id, by=caller), runtime.links)


@router.post("/{job_id}/retry", status_code=202, responses=NOT_FOUND | CONFLICT | GONE | BROKE | BUSY)
async def retry_job(
    job_id: JobId,
    runtime: Part,
    caller: Writer,
    request: Request,
    response: Response,
    idempotency_key: Annotated[str | None, Header(description="The same key makes one job")] = None,
) -> JobOut:
    """Ask again for what a failed or canceled job asked: a new job, with `retry_of`."""
    check_idempotency_key(request)
    view = await runtime.jobs.retry(job_id, by=caller, idempotency_key=idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{view.job.id}"
    return JobOut.of(view, runtime.links)


@router.get("/{job_id}/events", responses=NOT_FOUND, response_model=EventPage)
async def list_job_events(
    job_id: JobId,
    runtime: Part,
    caller: Reader,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str | None, Header(description="The `seq` to go on after")] = None,
) -> EventPage | EventSourceResponse:
    """A job's events; with `Accept: text/event-stream` a stream that ends with the job."""
    after_seq = _seq_of(last_event_id)
    if "text/event-stream" in accept:
        await runtime.jobs.get(job_id, tenant=caller.tenant)
        stream = _stream(runtime, job_id, caller.tenant, after_seq)
        return EventSourceResponse(stream, ping=KEEPALIVE_S)
    events = await runtime.jobs.list_events(job_id, tenant=caller.tenant, after_seq=after_seq)
    return EventPage(items=[EventOut.of(event) for event in events])


async def _stream(
    runtime: Runtime, job_id: str, tenant: str, after_seq: int
) -> AsyncIterator[ServerSentEvent]:
    """Every event once, in order, until the job's last one, or until this process stops."""
    with runtime.line.notifier.subscribe(job_topic(job_id)) as hints:
        has_waited = False
        while True:
            view = await runtime.jobs.get(job_id, tenant=tenant)
            events = await runtime.jobs.list_events(
                job_id, tenant=tenant, after_seq=after_seq, limit=MOST_EVENTS
            )
            for event in events:
                after_seq = event.seq
                yield ServerSentEvent(
                    EventOut.of(event).model_dump_json(), event=event.type, id=str(event.seq)
                )
            if len(events) == MOST_EVENTS:
                continue
            if view.is_ended or runtime.jobs.is_closing:
                if has_waited and view.is_ended:
                    runtime.jobs.note_woken(view)
                return
            has_waited = True
            await hints.wait(KEEPALIVE_S)


def _wait_of(prefer: str | None) -> int | None:
    if prefer is None or "wait" not in prefer:
        return None
    found = _PREFER_WAIT.search(prefer)
    if found is None or not 1 <= int(found[1]) <= MOST_WAIT_S:
        raise BadHeader("Prefer: wait must be a number of seconds from 1 to 60")
    return int(found[1])


def _seq_of(last_event_id: str | None) -> int:
    if last_event_id is None:
        return 0
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 10):
        raise InvalidInput("Last-Event-ID must be the seq of an event", field="Last-Event-ID")
    return int(last_event_id)
