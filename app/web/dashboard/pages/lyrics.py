"""`/lyrics/{id}`: lines with their times, to be moved and corrected; every version of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from app.access.callers import Scope
from app.web.dashboard.shell import PageRoute, render
from app.web.parts import Part, Reader
from app.web.routes.karaoke.lyrics import LyricsOut, VersionOut

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/lyrics/{lyrics_id}")
async def show_lyrics(
    lyrics_id: Annotated[str, Path(max_length=64)], request: Request, runtime: Part, caller: Reader
) -> Response:
    """The newest version, in a form that corrects it."""
    book = runtime.karaoke.lyrics
    text = await book.get(caller.tenant, lyrics_id)
    versions = await book.list_versions(caller.tenant, lyrics_id)
    return render(
        request,
        "lyrics.html",
        lyrics=LyricsOut.of(text),
        versions=[VersionOut.of(each) for each in versions],
        may_write=caller.may(Scope.JOBS_WRITE),
    )
