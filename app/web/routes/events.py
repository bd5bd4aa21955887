"""`/v1/events`: everything that happens to a tenant's jobs, in one order, as a list and as a stream.

A stream's messages are named by the event's type, with its position as their id; besides, `opened`,
`position`, `reset` and, as its last word, `closed` (docs/reference/events.md).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.errors import InvalidInput
from app.feed import Closed, Moved, Opened, Reset, Told, Wanted
from app.web.parts import Moment, Part, Reader
from app.web.schemas import KindName, Problem, StateName
from app.wiring import Runtime
from db.feed import FeedRow
from db.session import DatabaseUnavailable

KEEPALIVE_S = 15
SEND_LIMIT_S = 60.0
"""For one message to a reader that takes nothing at all: past that, its connection is let go."""
LAST_POSITION = 2**63 - 1

router = APIRouter(prefix="/v1", tags=["events"])

Position = Annotated[
    int | None, Query(ge=0, le=LAST_POSITION, description="Go on after this position; a stream: from now on")
]


class FeedEventOut(BaseModel):
    """Something that happened to a job."""

    position: int = Field(description="Its place among all events; grows, with gaps")
    job_id: str
    kind: str
    seq: int = Field(description="Its place among the job's own events: from 1, without a gap")
    type: str
    at: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, row: FeedRow) -> FeedEventOut:
        return cls(
            position=row.position,
            job_id=row.job_id,
            kind=row.kind,
            seq=row.seq,
            type=row.type,
            at=row.at,
            data=row.data,
        )


class FeedPageOut(BaseModel):
    """Events, oldest first."""

    items: list[FeedEventOut]
    position: int = Field(description="The next page's `after`")
    has_more: bool = Field(description="Whether that page may be read at once")
    reset: bool = Field(
        description="Events after the given position are gone: read the jobs anew, then go on from `position`"
    )


@router.get(
    "/events",
    response_model=FeedPageOut,
    responses={422: {"model": Problem, "description": "A value is wrong; `field` names it"}},
)
async def list_events(
    runtime: Part,
    caller: Reader,
    after: Position = None,
    since: Annotated[Moment | None, Query(description="Begin with the events of that time")] = None,
    kind: KindName | None = None,
    type: Annotated[str | None, Query(max_length=32, examples=["job.succeeded"])] = None,  # noqa: A002
    state: Annotated[StateName | None, Query(description="The state that the event left the job in")] = None,
    job_id: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[str | None, Header(description="The position to go on after")] = None,
) -> FeedPageOut | EventSourceResponse:
    """All events, oldest first; with `Accept: text/event-stream` a stream that goes on until it is closed."""
    wanted = Wanted(kind=kind, type=type, state=state, job_id=job_id)
    from_there = _position_of(last_event_id)
    after = after if from_there is None else from_there
    if after is None and since is not None:
        after = await runtime.feed.start(caller.tenant, since)
    if "text/event-stream" in accept:
        runtime.feed.refuse_when_full()
        told = _stream(runtime, caller.tenant, wanted, after)
        return EventSourceResponse(told, ping=KEEPALIVE_S, send_timeout=SEND_LIMIT_S)
    page = await runtime.feed.page(caller.tenant, wanted, after=after, limit=limit)
    return FeedPageOut(
        items=[FeedEventOut.of(row) for row in page.rows],
        position=page.position,
        has_more=page.has_more,
        reset=page.is_reset,
    )


async def _stream(
    runtime: Runtime, tenant: str, wanted: Wanted, after: int | None
) -> AsyncIterator[ServerSentEvent]:
    async with aclosing(runtime.feed.follow(tenant, wanted, after=after)) as stream:
        try:
            async for told in stream:
                yield _message(told)
        except DatabaseUnavailable:
            # The reader comes again with the position that it has, and another process may have an answer.
            yield ServerSentEvent(json.dumps({"reason": "unavailable"}), event="closed")


def _message(told: Told) -> ServerSentEvent:
    position = str(told.position)
    match told:
        case FeedRow():
            return ServerSentEvent(FeedEventOut.of(told).model_dump_json(), event=told.type, id=position)
        case Closed():
            data = {"reason": told.reason.value, "position": told.position}
            return ServerSentEvent(json.dumps(data), event="closed", id=position)
        case Opened() | Moved() | Reset():
            name = {Opened: "opened", Moved: "position", Reset: "reset"}[type(told)]
            return ServerSentEvent(json.dumps({"position": told.position}), event=name, id=position)


def _position_of(last_event_id: str | None) -> int | None:
    if last_event_id is None:
        return None
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 20):
        raise InvalidInput("Last-Event-ID must be the position of an event", field="Last-Event-ID")
    return min(int(last_event_id), LAST_POSITION)
