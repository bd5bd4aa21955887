"""`/api/v1/convert`: send a song, ask how far it is, cancel, download. One job of kind `voice_conversion`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.responses import RedirectResponse

from app.access.callers import Caller
from app.errors import Conflict, InvalidInput, NotFound
from app.jobs import JobRequest
from app.kinds.voice_conversion import VOICE_CONVERSION
from app.views import JobView
from app.web.parts import Part, Reader, Responses, Writer, check_idempotency_key
from app.web.routes.convert.form import FILES, SETTINGS, SongForm
from app.web.routes.convert.shapes import PREFIX, ConversionStatus, QueuedSong
from app.web.schemas import Problem
from app.wiring import Runtime

PROFILES = ("profile_id", "target_profile_id")
ALIASES = {"pitch_shift_semitones": "pitch_shift"}
TAKEN = frozenset(VOICE_CONVERSION.input_model.model_fields) - {"audio", "voice_id"}
IGNORED = frozenset(
    (
        "output_quality",
        "quality_preset",
        "preset",
        "adapter_type",
        "pipeline_type",
        "temperature",
        "use_cache",
    )
)
"""Settings of other services that have nothing to set here: taken, and named in the answer."""

NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is no such conversion"}}
INCOMPLETE: Responses = {409: {"model": Problem, "description": "It has no such file, or not yet"}}
REFUSED: Responses = {
    400: {"model": Problem, "description": "Not a form, or cut short"},
    402: {"model": Problem, "description": "The budget is spent; `budget` says until when"},
    404: {"model": Problem, "description": "There is no such profile"},
    413: {"model": Problem, "description": "Larger than MAX_UPLOAD_BYTES"},
    415: {"model": Problem, "description": "Compressed, or of another media type"},
    422: {"model": Problem, "description": "Not sound, too long, or a setting is wrong; `field` names it"},
    503: {"model": Problem, "description": "Nothing was stored; see `Retry-After`"},
}
_SETTING = {"type": "string"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["song", "profile_id"],
                    "properties": {
                        "song": {"type": "string", "format": "binary", "description": "Or `audio`"},
                        "profile_id": {**_SETTING, "description": "A voice; or `target_profile_id`"},
                        SETTINGS: {**_SETTING, "description": "The rest as one JSON object"},
                        **dict.fromkeys(sorted(TAKEN), _SETTING),
                    },
                }
            }
        },
    }
}

router = APIRouter(prefix=PREFIX, tags=["convert"])

JobId = Annotated[str, Path(max_length=64, description="The conversion's id, which is its job's")]


class Variant(StrEnum):
    """A file of a conversion."""

    MIX = "mix"
    VOCALS = "vocals"
    INSTRUMENTAL = "instrumental"


class NoProfile(NotFound):
    """There is no voice profile of this id."""

    code = "profile_not_found"


class Incomplete(Conflict):
    """The conversion has no such file: it has not ended well, or no stems were asked for."""

    code = "conversion_incomplete"


@router.post("/song", status_code=202, openapi_extra=_BODY, responses=REFUSED)
async def convert_song(
    request: Request,
    runtime: Part,
    caller: Writer,
    response: Response,
    idempotency_key: Annotated[str | None, Header(description="The same key makes one conversion")] = None,
) -> QueuedSong:
    """Send a song and the voice to sing it in. A form's part goes before the same name in
    `settings`; names are taken in snake_case and in camelCase."""
    check_idempotency_key(request)
    form = SongForm(request)
    try:
        received = await runtime.uploads.receive(form.song(), tenant=caller.tenant)
    except InvalidInput as exc:
        raise _in_their_words(exc) from exc
    wanted, ignored = _wanted(form.values())
    # The asset, not the upload: the same song is then the same request, whenever it is sent again.
    asked = JobRequest(
        VOICE_CONVERSION.name, {**wanted, "audio": received.asset.id}, {}, tenant=caller.tenant
    )
    try:
        view = await runtime.jobs.submit(asked, idempotency_key=idempotency_key)
    except InvalidInput as exc:
        raise _in_their_words(exc) from exc
    status_url = f"{PREFIX}/status/{view.job.id}"
    response.headers["Location"] = status_url
    return QueuedSong(
        job_id=view.job.id,
        conversion_id=view.job.id,
        status_url=status_url,
        message="the song is stored, and its conversion is in the queue",
        original_audio_asset_id=received.asset.id,
        ignored_settings=ignored,
    )


@router.get("/status/{job_id}", responses=NOT_FOUND)
async def get_conversion(job_id: JobId, runtime: Part, caller: Reader) -> ConversionStatus:
    """How far a conversion is, and its files once it has them."""
    return ConversionStatus.of(await _find(runtime, job_id, caller), runtime.links)


@router.post("/cancel/{job_id}", responses=NOT_FOUND | INCOMPLETE)
async def cancel_conversion(job_id: JobId, runtime: Part, caller: Writer) -> ConversionStatus:
    """End a conversion, whatever it is at. Canceling a canceled one changes nothing."""
    await _find(runtime, job_id, caller)
    return ConversionStatus.of(await runtime.jobs.cancel(job_id, by=caller), runtime.links)


@router.get(
    "/download/{job_id}",
    status_code=307,
    response_class=RedirectResponse,
    responses={307: {"description": "To a signed link that expires"}, **NOT_FOUND, **INCOMPLETE},
)
async def download_conversion(
    job_id: JobId, runtime: Part, caller: Reader, variant: Annotated[Variant, Query()] = Variant.MIX
) -> RedirectResponse:
    """One of its files."""
    view = await _find(runtime, job_id, caller)
    asset = view.outputs.get("audio" if variant is Variant.MIX else variant.value)
    if asset is None:
        raise Incomplete(f"the conversion is {view.job.state} and has no {variant.value}")
    return RedirectResponse(runtime.links.url(asset.id, tenant=caller.tenant), status_code=307)


async def _find(runtime: Runtime, job_id: str, caller: Caller) -> JobView:
    view = await runtime.jobs.get(job_id, tenant=caller.tenant)
    if view.job.kind != VOICE_CONVERSION.name:
        raise NotFound(f"there is no job {job_id[:64]}")
    return view


def _wanted(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings as the kind takes them, and those that change nothing. Raises InvalidInput."""
    voices = {str(values.pop(name)) for name in PROFILES if name in values}
    if len(voices) != 1:
        raise InvalidInput("profile_id: name one voice profile", field="profile_id")
    ignored = sorted(values.keys() & IGNORED)
    wanted = {ALIASES.get(name, name): value for name, value in values.items() if name not in IGNORED}
    unknown = sorted(wanted.keys() - TAKEN)
    if unknown:
        known = ", ".join([*FILES, *PROFILES, SETTINGS, *sorted(TAKEN)])
        raise InvalidInput(f"{unknown[0]}: there is no such setting; there are {known}", field=unknown[0])
    return {**wanted, "voice_id": voices.pop()}, ignored


def _in_their_words(error: InvalidInput) -> InvalidInput | NoProfile:
    """What was wrong with the job's input, by the name that was sent."""
    field = (error.field or "").removeprefix("input.")
    if field == "voice_id":
        return NoProfile("there is no such voice profile")
    message = error.message.removeprefix("input.")
    if field in ("audio", "file"):
        message, field = message.replace(field, "song", 1), "song"
    return InvalidInput(message, field=field or None)
