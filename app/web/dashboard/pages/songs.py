"""`/songs`: a song sent in, sung in another voice or taken apart; `/songs/{id}`: what came of it, to compare.

A song is a job of one of SONG_KINDS, and nothing else: the list is read from the jobs, so that a page that
is loaded again has lost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from app.access.callers import Caller, Scope
from app.errors import Gone, NotFound
from app.kinds import KINDS
from app.views import JobView
from app.web.dashboard.forms import Form, list_forms
from app.web.dashboard.pages.song_figures import Figure, figures_of
from app.web.dashboard.shell import PageRoute, render
from app.web.dashboard.uploading import Limits, limits_of
from app.web.dashboard.words import seconds, size, title
from app.web.parts import Part, Reader
from app.web.routes.assets import get_asset
from app.web.schemas import JobOut, OutputOut
from app.wiring import Runtime
from db.search.pages import JobFilter
from db.voices import find_voice_names

CONVERSION = "voice_conversion"
SONG_KINDS = (CONVERSION, "stem_separation")
RECENT = 30
TITLES = {"audio": "Result", "vocals": "Vocals", "instrumental": "Music"}
"""Outputs as they are called here, in the order in which they are shown."""

JobId = Annotated[str, Path(max_length=64)]
router = APIRouter(include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Heard:
    """A sound and what it is called."""

    title: str
    output: OutputOut


@dataclass(frozen=True, slots=True)
class Given:
    """A song that is here already, for a form."""

    asset_id: str
    title: str
    about: str


@dataclass(frozen=True, slots=True)
class Song:
    """A job, as these pages tell of it."""

    job: JobOut
    title: str
    is_ended: bool
    deed: str
    """What was to be done, in words."""
    sounds: list[Heard]
    original: OutputOut | None = None
    """What was sent; None on lists, and where it is not kept any more."""

    @property
    def settings(self) -> list[str]:
        """How a conversion was asked for."""
        given = self.job.input
        if self.job.kind != CONVERSION or not given:
            return []
        return [
            f"pitch {given['pitch_shift']:+d}" if given["pitch_shift"] else "pitch as it is",
            f"strength {given['strength']:g}",
            f"vocals at {given['vocal_volume']:g}, music at {given['instrumental_volume']:g}",
        ]

    @property
    def compared(self) -> list[tuple[str, str]]:
        """What is heard one at a time: the original, and each sound that came of it."""
        if self.original is None or not self.sounds:
            return []
        # Of a conversion its result: what it was made of is heard below, together.
        heard = [each for each in self.sounds if each.title == TITLES["audio"]] or self.sounds
        return [("Original", self.original.url), *((each.title, each.output.url) for each in heard)]

    @property
    def stems(self) -> list[tuple[str, str]]:
        """What is heard together."""
        return [(each.title, each.output.url) for each in self.sounds if each.title != TITLES["audio"]]

    @property
    def figures(self) -> list[Figure]:
        return figures_of(self.job)


@router.get("/songs")
async def show_songs(request: Request, runtime: Part, caller: Reader) -> Response:
    """The latest songs, and the form that a song is sent by."""
    # Before the jobs: what happens between the two is shown and then told too, instead of neither.
    seq = await runtime.feed.head(caller.tenant)
    views = []
    for kind in SONG_KINDS:
        wanted = JobFilter(tenant=caller.tenant, kind=kind)
        views += (await runtime.jobs.list_jobs(wanted, limit=RECENT + 1))[0]
    views.sort(key=lambda view: (view.job.created_at, view.job.id), reverse=True)
    names = await _voices_of(runtime, caller, views[:RECENT])
    return render(
        request,
        "songs.html",
        seq=seq,
        songs=[_song(view, runtime, names) for view in views[:RECENT]],
        is_more=len(views) > RECENT,
        given=None,
        preset={},
        **_form(runtime, caller),
    )


@router.get("/songs/{job_id}")
async def show_song(job_id: JobId, request: Request, runtime: Part, caller: Reader) -> Response:
    """One song. Its parts are fetched again by the page that is open, when its job moves."""
    seq = await runtime.feed.head(caller.tenant)
    view = await runtime.jobs.get(job_id, tenant=caller.tenant)
    if view.job.kind not in SONG_KINDS:
        raise NotFound(f"there is no song {job_id}")
    names = await _voices_of(runtime, caller, [view])
    song = _song(view, runtime, names, await _original_of(view, runtime, caller))
    return render(
        request, "song.html", seq=seq, song=song, job=song.job, **_again(song), **_form(runtime, caller)
    )


def _form(runtime: Runtime, caller: Caller) -> dict[str, Any]:
    """What the form stands on."""
    conversion: Form = next(form for form in list_forms() if form.kind == CONVERSION)
    limits: Limits = limits_of(runtime.settings, longest_s=min(_longest_of(kind) for kind in SONG_KINDS))
    return {"conversion": conversion, "limits": limits, "may_write": caller.may(Scope.JOBS_WRITE)}


def _again(song: Song) -> dict[str, Any]:
    """The form with this song in it, as it was asked for."""
    preset = song.job.input if song.job.kind == CONVERSION else {}
    if song.original is None:
        return {"given": None, "preset": preset}
    about = f"{seconds(song.original.duration_s)}, {size(song.original.size_bytes)}"
    return {"given": Given(song.original.asset_id, song.title, about), "preset": preset}


def _longest_of(kind: str) -> float:
    return KINDS[kind].files["audio"]


def _song(view: JobView, runtime: Runtime, names: dict[str, str], original: OutputOut | None = None) -> Song:
    job = JobOut.of(view, runtime.links)
    voice_id = job.input.get("voice_id", "")
    return Song(
        job=job,
        title=title(job),
        is_ended=view.is_ended,
        deed=f"sung by {names.get(voice_id, 'a voice that is gone')}"
        if job.kind == CONVERSION
        else "voice and music apart",
        sounds=[Heard(said, job.outputs[name]) for name, said in TITLES.items() if name in job.outputs],
        original=original,
    )


async def _voices_of(runtime: Runtime, caller: Caller, views: list[JobView]) -> dict[str, str]:
    """What the voices of these jobs are called, by id."""
    wanted = {view.job.input["voice_id"] for view in views if "voice_id" in view.job.input}
    async with runtime.line.database.reading() as tx:
        return await find_voice_names(tx, wanted, tenant=caller.tenant)


async def _original_of(view: JobView, runtime: Runtime, caller: Caller) -> OutputOut | None:
    asset_id = view.job.input.get("audio")
    if asset_id is None:
        return None
    try:
        asset = await get_asset(asset_id, runtime, caller)
    except (NotFound, Gone):
        return None
    facts = asset.model_dump(include=set(OutputOut.model_fields))
    return OutputOut(asset_id=asset.id, **facts)
