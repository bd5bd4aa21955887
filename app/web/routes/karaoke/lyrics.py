"""`/v1/lyrics`: words in time, made of a transcription or of an LRC file, corrected, each version kept."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, Field

from app.errors import InvalidInput, RequestError
from app.karaoke.lyrics.book import MOST_TITLE_CHARS, Text, to_lrc
from app.karaoke.lyrics.edits import MOST_SHIFT_MS, Fix
from app.karaoke.lyrics.lines import LATEST_MS, MOST_LINE_CHARS, MOST_LINES, Line, as_rows
from app.karaoke.lyrics.lrc import MOST_BYTES
from app.web.paging import Paged
from app.web.parts import Part, Reader, Responses, Writer
from app.web.schemas import Asked, Problem
from db.tables import Lyrics, LyricsVersion

MOST_FIXES = 500

LyricsId = Annotated[str, Path(max_length=64, description="The lyrics' id")]
Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="The version's number")]
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", max_length=200, description="The `ETag` that you have: another one is a 412"),
]
Title = Annotated[str, Field(min_length=1, max_length=MOST_TITLE_CHARS)]
Milliseconds = Annotated[int, Field(ge=0, le=LATEST_MS)]
Version = Annotated[int, Field(ge=1, le=2**31 - 1, description="The version that you have seen")]
SourceName = Literal["transcription", "lrc"]

NOT_FOUND: Responses = {
    404: {"model": Problem, "description": "There are no such lyrics, or no such version"}
}
STALE: Responses = {
    **NOT_FOUND,
    409: {"model": Problem, "description": "They have changed since that `version` (`stale_version`)"},
    412: {"model": Problem, "description": "They have changed since that `If-Match` (`precondition_failed`)"},
}
GONE: Responses = {410: {"model": Problem, "description": "The transcript is gone from the store"}}

router = APIRouter(
    prefix="/v1/lyrics",
    tags=["lyrics"],
    responses={422: {"model": Problem, "description": "A value is wrong; `field` names it"}},
)


class PreconditionFailed(RequestError):
    """It is not the one that `If-Match` names: it has changed meanwhile."""

    code = "precondition_failed"
    status = 412


class NewLyrics(Asked):
    """What lyrics are made of: one of `job_id`, `asset_id`, `lrc`."""

    title: Title | None = None
    job_id: str | None = Field(
        None, pattern=r"^job_[0-9a-f]{32}$", description="A `transcription` that has succeeded"
    )
    asset_id: str | None = Field(None, pattern=r"^ast_[0-9a-f]{32}$", description="Its `transcript`")
    lrc: str | None = Field(None, min_length=1, max_length=MOST_BYTES, description="An LRC file of your own")
    duration_s: float | None = Field(
        None, ge=0, le=LATEST_MS / 1000, description="With `lrc`: how long the song is"
    )


class NewLine(Asked):
    """A line that is to stand there."""

    start_ms: Milliseconds
    end_ms: Milliseconds
    text: str = Field(min_length=1, max_length=MOST_LINE_CHARS)


class LineFix(Asked):
    """What is to be changed in one line; what is left out stays."""

    index: int = Field(ge=0, lt=MOST_LINES, description="From 0")
    text: str | None = Field(None, min_length=1, max_length=MOST_LINE_CHARS)
    start_ms: Milliseconds | None = Field(None, description="Moves the line with its words")
    end_ms: Milliseconds | None = None
    remove: bool = False


class LyricsFix(Asked):
    """Corrections of a version."""

    version: Version
    title: Title | None = None
    lines: list[LineFix] = Field(default_factory=list, max_length=MOST_FIXES)


class NewLines(Asked):
    """Lines that replace all; they are put in order of time."""

    version: Version
    lines: list[NewLine] = Field(min_length=1, max_length=MOST_LINES)


class Shift(Asked):
    """How much later all lines are to be; earlier where negative."""

    version: Version
    ms: int = Field(ge=-MOST_SHIFT_MS, le=MOST_SHIFT_MS)


class Restoration(Asked):
    """Which older version is to be the newest again."""

    version: Version
    number: int = Field(ge=1, le=2**31 - 1, description="The older version")


class WordOut(BaseModel):
    """One word of a line."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float | None = Field(description="The model's own; null where it said none")


class LineOut(BaseModel):
    """One line, from 0 in the order of time."""

    start_ms: int
    end_ms: int
    text: str
    words: list[WordOut] = Field(description="Empty where only the line is timed")


class ReviewOut(BaseModel):
    """How sure the lyrics were when they were made of a transcript. Figures are measured, or null."""

    words: int
    dropped: int = Field(description="Words left out because the model hardly believed them")
    estimated: int = Field(description="Words whose times are a guess")
    mean_confidence: float | None
    low_confidence_share: float | None
    coverage: float | None
    timing_consistency: float | None
    flags: list[str] = Field(description="Why somebody should look over them")


class LyricsSummary(BaseModel):
    """Lyrics without what they say."""

    id: str
    title: str
    language: str | None
    source: SourceName
    job_id: str | None
    duration_ms: int | None
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def summary(cls, row: Lyrics) -> LyricsSummary:
        return cls(**row.model_dump(exclude={"tenant"}))


class LyricsPage(BaseModel):
    """Lyrics, newest first."""

    items: list[LyricsSummary]
    next_cursor: str | None


class VersionOut(BaseModel):
    """One version, without its lines."""

    number: int
    made_by: str = Field(description="`transcription`, `lrc`, `fix`, `shift +250 ms`, …")
    made_at: datetime

    @classmethod
    def of(cls, row: LyricsVersion) -> VersionOut:
        return cls(**row.model_dump(include=set(cls.model_fields)))


class VersionPage(BaseModel):
    """The versions that are kept, newest first."""

    items: list[VersionOut]


class LyricsOut(LyricsSummary):
    """Lyrics as one version says them."""

    shown: VersionOut = Field(description="The version that the lines are of")
    review: ReviewOut | None = Field(description="Null where nothing was measured")
    lines: list[LineOut]

    @classmethod
    def of(cls, text: Text) -> LyricsOut:
        figures = text.version.figures
        return cls(
            **text.lyrics.model_dump(exclude={"tenant"}),
            shown=VersionOut.of(text.version),
            review=ReviewOut(**figures) if figures else None,
            lines=[LineOut(**row) for row in as_rows(text.lines)],
        )


@router.post("", status_code=201, responses=GONE)
async def create_lyrics(new: NewLyrics, runtime: Part, caller: Writer, response: Response) -> LyricsOut:
    """Make lyrics of a transcription, of its transcript, or of an LRC file of your own."""
    given = [name for name in ("job_id", "asset_id", "lrc") if getattr(new, name) is not None]
    if len(given) != 1:
        raise InvalidInput("job_id: name one of `job_id`, `asset_id` and `lrc`", field="job_id")
    book = runtime.karaoke.lyrics
    if new.job_id is not None:
        text = await book.of_job(caller, new.job_id, title=new.title)
    elif new.asset_id is not None:
        text = await book.of_asset(caller, new.asset_id, title=new.title)
    else:
        text = await book.of_lrc(caller, new.lrc or "", title=new.title, duration_s=new.duration_s)
    response.headers["Location"] = f"/v1/lyrics/{text.lyrics.id}"
    return _shown(text, response)


@router.get("")
async def list_lyrics(
    runtime: Part,
    caller: Reader,
    paging: Paged,
) -> LyricsPage:
    """Your lyrics, newest first, without what they say."""
    page = paging.of("lyrics", caller.tenant)
    found = await runtime.karaoke.lyrics.list_lyrics(caller.tenant, before_id=page.after, limit=page.reach)
    shown, more = page.cut(found, lambda each: each.id)
    return LyricsPage(items=[LyricsSummary.summary(row) for row in shown], next_cursor=more)


@router.get("/{lyrics_id}", responses=NOT_FOUND)
async def get_lyrics(lyrics_id: LyricsId, runtime: Part, caller: Reader, response: Response) -> LyricsOut:
    """The newest version."""
    return _shown(await runtime.karaoke.lyrics.get(caller.tenant, lyrics_id), response)


@router.get(
    "/{lyrics_id}/lrc",
    response_class=Response,
    responses={**NOT_FOUND, 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_lrc(
    lyrics_id: LyricsId,
    runtime: Part,
    caller: Reader,
    words: Annotated[bool, Query(description="The enhanced form, with a time for each word")] = False,
) -> Response:
    """The newest version as an LRC file, which other players read too."""
    text = await runtime.karaoke.lyrics.get(caller.tenant, lyrics_id)
    name = f'inline; filename="{text.lyrics.id}.lrc"'
    headers = {"ETag": f'"{text.version.number}-lrc{"-words" if words else ""}"', "Content-Disposition": name}
    return Response(to_lrc(text, words=words), media_type="text/plain; charset=utf-8", headers=headers)


@router.post("/{lyrics_id}/shift", responses=STALE)
async def shift_lyrics(
    lyrics_id: LyricsId,
    wanted: Shift,
    runtime: Part,
    caller: Writer,
    response: Response,
    if_match: IfMatch = None,
) -> LyricsOut:
    """Move all lines by so many milliseconds."""
    _match(if_match, wanted.version)
    text = await runtime.karaoke.lyrics.shift(caller, lyrics_id, version=wanted.version, by_ms=wanted.ms)
    return _shown(text, response)


@router.patch("/{lyrics_id}", responses=STALE)
async def fix_lyrics(
    lyrics_id: LyricsId,
    wanted: LyricsFix,
    runtime: Part,
    caller: Writer,
    response: Response,
    if_match: IfMatch = None,
) -> LyricsOut:
    """Correct some lines, the title, or both."""
    _match(if_match, wanted.version)
    fixes = [Fix(**each.model_dump()) for each in wanted.lines]
    text = await runtime.karaoke.lyrics.fix(
        caller, lyrics_id, version=wanted.version, fixes=fixes, title=wanted.title
    )
    return _shown(text, response)


@router.put("/{lyrics_id}/lines", responses=STALE)
async def replace_lines(
    lyrics_id: LyricsId,
    wanted: NewLines,
    runtime: Part,
    caller: Writer,
    response: Response,
    if_match: IfMatch = None,
) -> LyricsOut:
    """Put other lines in the place of all."""
    _match(if_match, wanted.version)
    lines = [Line(**each.model_dump()) for each in wanted.lines]
    text = await runtime.karaoke.lyrics.replace(caller, lyrics_id, version=wanted.version, lines=lines)
    return _shown(text, response)


@router.get("/{lyrics_id}/versions", responses=NOT_FOUND)
async def list_lyrics_versions(lyrics_id: LyricsId, runtime: Part, caller: Reader) -> VersionPage:
    """The versions that are kept, newest first."""
    found = await runtime.karaoke.lyrics.list_versions(caller.tenant, lyrics_id)
    return VersionPage(items=[VersionOut.of(row) for row in found])


@router.get("/{lyrics_id}/versions/{number}", responses=NOT_FOUND)
async def get_lyrics_version(lyrics_id: LyricsId, number: Number, runtime: Part, caller: Reader) -> LyricsOut:
    """One version, with its lines."""
    return LyricsOut.of(await runtime.karaoke.lyrics.get(caller.tenant, lyrics_id, number=number))


@router.post("/{lyrics_id}/restore", responses=STALE)
async def restore_lyrics(
    lyrics_id: LyricsId,
    wanted: Restoration,
    runtime: Part,
    caller: Writer,
    response: Response,
    if_match: IfMatch = None,
) -> LyricsOut:
    """Make an older version the newest again."""
    _match(if_match, wanted.version)
    text = await runtime.karaoke.lyrics.restore(
        caller, lyrics_id, version=wanted.version, number=wanted.number
    )
    return _shown(text, response)


@router.delete("/{lyrics_id}", status_code=204, responses=NOT_FOUND)
async def delete_lyrics(lyrics_id: LyricsId, runtime: Part, caller: Writer) -> None:
    """Delete them with all versions."""
    await runtime.karaoke.lyrics.delete(caller, lyrics_id)


def _shown(text: Text, response: Response) -> LyricsOut:
    response.headers["ETag"] = f'"{text.version.number}"'
    return LyricsOut.of(text)


def _match(given: str | None, version: int) -> None:
    """Raises PreconditionFailed where the header names another version than the body."""
    if given is None or given.strip() == "*":
        return
    if f'"{version}"' not in [each.strip() for each in given.split(",")]:
        raise PreconditionFailed(
            f'If-Match names another version than the body\'s, whose ETag is "{version}"'
        )
