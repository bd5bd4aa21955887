"""`/v1/performances`: evenings that several devices share, their singers, and guests' phones."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from app.karaoke.stage import singers
from app.karaoke.stage.rows import queue_of
from app.karaoke.stage.singers import MOST_WAITING
from app.web.paging import Paged
from app.web.parts import Moment, Part, Reader, Responses, Writer
from app.web.routes.karaoke.shapes import (
    EntryOut,
    NewPerformance,
    NewSinger,
    PerformanceChange,
    PerformanceOut,
    PerformanceSummary,
    QueueOut,
)
from app.web.schemas import Asked, Problem
from app.wiring import Runtime
from db.tables import Performance

PerformanceId = Annotated[str, Path(max_length=64, description="The performance's id")]
EntryId = Annotated[str, Path(max_length=64, description="The singer's entry")]
Version = Annotated[int, Field(ge=0, le=2**31 - 1, description="The version of the line that you have seen")]

NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is no such performance or singer"}}
STALE: Responses = {
    **NOT_FOUND,
    409: {"model": Problem, "description": "The line has changed meanwhile (`stale_version`), or is full"},
}

router = APIRouter(
    prefix="/v1/performances",
    tags=["performances"],
    responses={422: {"model": Problem, "description": "A value is wrong; `field` names it"}},
)


class PerformancePage(BaseModel):
    """Performances, newest first."""

    items: list[PerformanceSummary]
    next_cursor: str | None


class NewOrder(Asked):
    """The line in another order."""

    version: Version
    ids: list[Annotated[str, Field(pattern=r"^sng_[0-9a-f]{32}$")]] = Field(
        max_length=MOST_WAITING, description="Everybody who waits, the next one first"
    )


class NewPlace(Asked):
    """Another place for one singer."""

    position: int = Field(ge=1, le=2**31 - 1, description="From 1; beyond the last is the last")
    version: Version | None = None


class NextSinger(Asked):
    """Who has seen the line asks for the next singer: of two who ask at once, one does."""

    version: Version | None = None


class RemoteTokenOut(BaseModel):
    """What opens one performance to a guest's phone, and nothing else."""

    token: str = Field(description="For `auth: {token}` of Socket.IO's `/performance`. Shown this once")
    expires_at: Moment
    url: str = Field(description="A page for the phone, with the token behind `#`: for a QR code")


@router.post("", status_code=201)
async def create_performance(
    new: NewPerformance, runtime: Part, caller: Writer, response: Response
) -> PerformanceOut:
    """Make a performance. Devices come in by Socket.IO, namespace `/performance`."""
    row = await runtime.karaoke.performances.create(
        caller, title=new.title, wanted=new.wanted(None)
    )  # fmt: skip
    response.headers["Location"] = f"/v1/performances/{row.id}"
    return _shown(runtime, row)


@router.get("")
async def list_performances(
    runtime: Part,
    caller: Reader,
    paging: Paged,
) -> PerformancePage:
    """Your performances, newest first."""
    page = paging.of("performances", caller.tenant)
    found = await runtime.karaoke.performances.list_performances(
        caller.tenant, before_id=page.after, limit=page.reach
    )
    shown, more = page.cut(found, lambda each: each.id)
    return PerformancePage(items=[PerformanceSummary.summary(row) for row in shown], next_cursor=more)


@router.get("/{performance_id}", responses=NOT_FOUND)
async def get_performance(performance_id: PerformanceId, runtime: Part, caller: Reader) -> PerformanceOut:
    """A performance as it stands, with the live position and links to the stems."""
    return _shown(runtime, await runtime.karaoke.performances.get(caller.tenant, performance_id))


@router.patch("/{performance_id}", responses=NOT_FOUND)
async def change_performance(
    performance_id: PerformanceId, wanted: PerformanceChange, runtime: Part, caller: Writer
) -> PerformanceOut:
    """Another title, another song, or both. A song stands at its beginning until somebody plays it."""
    row = await runtime.karaoke.performances.change(
        caller, performance_id, title=wanted.title, wanted=wanted.wanted(wanted.song_title)
    )
    return _shown(runtime, row)


@router.delete("/{performance_id}", status_code=204, responses=NOT_FOUND)
async def delete_performance(performance_id: PerformanceId, runtime: Part, caller: Writer) -> None:
    """Delete it with its singers. The songs stay."""
    await runtime.karaoke.performances.delete(caller, performance_id)


@router.get("/{performance_id}/singers", responses=NOT_FOUND)
async def list_singers(performance_id: PerformanceId, runtime: Part, caller: Reader) -> QueueOut:
    """Who sings, and who waits."""
    return _line(runtime, await runtime.karaoke.performances.get(caller.tenant, performance_id))


@router.post("/{performance_id}/singers", status_code=201, responses=STALE)
async def add_singer(
    performance_id: PerformanceId, new: NewSinger, runtime: Part, caller: Writer
) -> EntryOut:
    """Put a singer with a song at the end of the line."""
    row, entry = await runtime.karaoke.performances.add_singer(
        caller, performance_id, singer=new.singer, wanted=new.wanted(new.title)
    )
    return EntryOut.of(entry, len(queue_of(row).waiting), runtime.links, row.tenant)


@router.put("/{performance_id}/singers/order", responses=STALE)
async def order_singers(
    performance_id: PerformanceId, wanted: NewOrder, runtime: Part, caller: Writer
) -> QueueOut:
    """Put the line in another order."""
    change = partial(singers.reorder, ids=wanted.ids)
    row = await runtime.karaoke.performances.change_line(
        caller, performance_id, change, version=wanted.version
    )
    return _line(runtime, row)


@router.post("/{performance_id}/singers/next", responses=STALE)
async def call_next_singer(
    performance_id: PerformanceId, wanted: NextSinger, runtime: Part, caller: Writer
) -> QueueOut:
    """The first in the line comes on the stage; where nobody waits, it is empty."""
    row = await runtime.karaoke.performances.next_singer(caller, performance_id, version=wanted.version)
    return _line(runtime, row)


@router.patch("/{performance_id}/singers/{entry_id}", responses=STALE)
async def move_singer(
    performance_id: PerformanceId, entry_id: EntryId, wanted: NewPlace, runtime: Part, caller: Writer
) -> QueueOut:
    """Give one singer another place in the line."""
    change = partial(singers.move, entry_id=entry_id, to=wanted.position)
    row = await runtime.karaoke.performances.change_line(
        caller, performance_id, change, version=wanted.version
    )
    return _line(runtime, row)


@router.delete("/{performance_id}/singers/{entry_id}", responses=NOT_FOUND)
async def remove_singer(
    performance_id: PerformanceId, entry_id: EntryId, runtime: Part, caller: Writer
) -> QueueOut:
    """Take a singer out of the line, or off the stage: the song stops then, and nobody moves up."""
    change = partial(singers.remove, entry_id=entry_id)
    return _line(runtime, await runtime.karaoke.performances.change_line(caller, performance_id, change))


@router.post("/{performance_id}/remote-tokens", status_code=201, responses=NOT_FOUND)
async def create_remote_token(
    performance_id: PerformanceId, runtime: Part, caller: Writer, request: Request, response: Response
) -> RemoteTokenOut:
    """A token for a guest's phone: a remote control of this performance, without a key."""
    await runtime.karaoke.performances.note_invitation(caller, performance_id)
    made = runtime.karaoke.remotes.issue(caller, performance_id, now=runtime.line.clock.now())
    base = runtime.settings.public_url or str(request.base_url).rstrip("/")
    response.headers["Cache-Control"] = "no-store"
    return RemoteTokenOut(
        token=made.text,
        expires_at=made.expires_at,
        # Behind `#`, so that it is sent to no server and stands in no log.
        url=f"{base}/performances/{performance_id}/remote#token={made.text}",
    )


def _shown(runtime: Runtime, row: Performance) -> PerformanceOut:
    return PerformanceOut.of(row, runtime.links, runtime.line.clock.now())


def _line(runtime: Runtime, row: Performance) -> QueueOut:
    return QueueOut.of(queue_of(row), runtime.links, row.tenant)
