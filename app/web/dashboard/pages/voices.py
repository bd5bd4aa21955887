"""`/voices`: voice profiles with what was measured of them; making, renaming, deleting, exporting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.access.callers import Caller, Scope
from app.voices import Made
from app.voices.judging import LEAST_S, MOST_S
from app.web.dashboard.shell import PageRoute, render
from app.web.dashboard.uploading import limits_of
from app.web.paging import Page
from app.web.parts import Part, Reader
from app.web.routes.voices import VoiceOut
from app.wiring import Runtime
from db.voices import find_voice_names

PAGE = 50

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Alike:
    """Another voice that sounds the same."""

    voice_id: str
    name: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Profile:
    """A voice as it is listed."""

    voice: VoiceOut
    url: str
    """Of its recording."""
    alike: list[Alike]


@router.get("/voices")
async def show_voices(
    request: Request,
    runtime: Part,
    caller: Reader,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """A page of them, newest first, and the form that makes one."""
    page = Page(PAGE, cursor, runtime.cursors, ("voices page", caller.tenant))
    found = await runtime.voices.list_voices(caller, before_id=page.after, limit=page.reach)
    shown, more = page.cut(found, lambda each: each.voice.id)
    return render(
        request,
        "voices.html",
        voices=await _profiles(runtime, caller, shown),
        more=more,
        limits=limits_of(runtime.settings, longest_s=MOST_S, least_s=LEAST_S),
        may_write=caller.may(Scope.JOBS_WRITE),
    )


async def _profiles(runtime: Runtime, caller: Caller, found: Sequence[Made]) -> list[Profile]:
    wanted = {each.voice_id for made in found for each in made.duplicates}
    async with runtime.line.database.reading() as tx:
        names = await find_voice_names(tx, wanted, tenant=caller.tenant)
    return [
        Profile(
            voice=VoiceOut.of(made),
            url=runtime.links.url(made.voice.asset_id, tenant=caller.tenant),
            alike=[
                Alike(each.voice_id, names[each.voice_id], each.similarity)
                for each in made.duplicates
                if each.voice_id in names
            ],
        )
        for made in found
    ]
