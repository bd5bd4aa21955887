"""`/v1/voices`: voice profiles for `voice_transfer` and `voice_conversion`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, model_validator

from app.voices import Made
from app.voices.notes import note_of
from app.voices.parcel import wrap
from app.web.paging import Paged
from app.web.parts import (
    Moment,
    Part,
    Reader,
    Responses,
    Writer,
    check_idempotency_key,
)
from app.web.schemas import Asked, Problem, Text

MOST_NAME_CHARACTERS = 100
VoiceId = Annotated[str, Path(max_length=64, description="The voice's id")]
Name = Annotated[Text, Field(min_length=1, max_length=MOST_NAME_CHARACTERS, description="For people")]
NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is no such voice"}}
REFUSED: Responses = {
    409: {
        "model": Problem,
        "description": "The first request with this key is still under way, or there are 1000 voices",
    },
    422: {
        "model": Problem,
        "description": "A value is wrong, or the recording is not good enough (`voice_unfit`): each figure "
        "that was measured, and what is needed",
    },
    502: {"model": Problem, "description": "What examines recordings is not installed here"},
    503: {"model": Problem, "description": "Nothing was stored; see `Retry-After`"},
}
router = APIRouter(prefix="/v1/voices", tags=["voices"])


class NewVoice(Asked):
    """A voice to be made from 15 to 60 s of one person's speech or singing, without music."""

    name: Name
    upload_id: str | None = Field(None, pattern=r"^upl_[0-9a-f]{32}$", description="An upload of yours")
    asset: str | None = Field(
        None, pattern=r"^ast_[0-9a-f]{32}$", description="Or an asset of yours, such as the vocals of a song"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> NewVoice:
        if (self.upload_id is None) == (self.asset is None):
            raise ValueError("either upload_id or asset is needed, not both")
        return self


class VoiceChange(Asked):
    """What is to be different."""

    name: Name


class NotedPitch(BaseModel):
    """A pitch."""

    hz: float
    note: str = Field(description="The nearest note; A4 is 440 Hz", examples=["A3"])


class VocalRange(BaseModel):
    """What of the recording's pitch is between its 5th and 95th percentile."""

    lowest: NotedPitch
    median: NotedPitch
    highest: NotedPitch


class DuplicateOut(BaseModel):
    """Another voice of yours that sounds like this one."""

    voice_id: str
    similarity: float = Field(description="The cosine of both embeddings; from 0.82 on it is shown")


class VoiceOut(BaseModel):
    """A voice profile. Figures were measured when it was made."""

    id: str
    name: str
    created_at: Moment
    asset_id: str = Field(description="Its recording")
    duration_s: float
    snr_db: float | None = Field(description="Of the recording; 60 stands for 60 and more")
    silence_share: float | None
    clipped_share: float | None
    consistency: float | None = Field(description="How alike the recording's parts are, as a cosine")
    vocal_range: VocalRange | None
    duplicates: list[DuplicateOut]

    @classmethod
    def of(cls, made: Made) -> VoiceOut:
        voice = made.voice
        pitches = (voice.lowest_hz, voice.median_hz, voice.highest_hz)
        noted = [NotedPitch(hz=each, note=note_of(each)) for each in pitches if each]
        return cls(
            **voice.model_dump(include=set(cls.model_fields) - {"vocal_range", "duplicates"}),
            vocal_range=VocalRange(lowest=noted[0], median=noted[1], highest=noted[2])
            if len(noted) == len(pitches)
            else None,
            duplicates=[
                DuplicateOut(voice_id=each.voice_id, similarity=each.similarity) for each in made.duplicates
            ],
        )


class VoicePage(BaseModel):
    """A page of voices, newest first."""

    items: list[VoiceOut]
    next_cursor: str | None


@router.post("", status_code=201, responses=REFUSED)
async def create_voice(
    request: Request,
    new: NewVoice,
    runtime: Part,
    caller: Writer,
    response: Response,
    idempotency_key: Annotated[str | None, Header(description="The same key makes one voice")] = None,
) -> VoiceOut:
    """Make a voice. The recording is measured first, which takes seconds; the answer waits for it."""
    check_idempotency_key(request)
    made = await runtime.voices.create(
        caller, name=new.name, file_id=new.upload_id or new.asset or "", key=idempotency_key
    )
    response.headers["Location"] = f"/v1/voices/{made.voice.id}"
    return VoiceOut.of(made)


@router.get("")
async def list_voices(
    runtime: Part,
    caller: Reader,
    paging: Paged,
) -> VoicePage:
    """Your voices, newest first."""
    page = paging.of("voices", caller.tenant)
    found = await runtime.voices.list_voices(caller, before_id=page.after, limit=page.reach)
    shown, more = page.cut(found, lambda each: each.voice.id)
    return VoicePage(items=[VoiceOut.of(each) for each in shown], next_cursor=more)


@router.get("/{voice_id}", responses=NOT_FOUND)
async def get_voice(voice_id: VoiceId, runtime: Part, caller: Reader) -> VoiceOut:
    """One voice, and those of yours that sound like it now."""
    return VoiceOut.of(await runtime.voices.get(voice_id, by=caller))


@router.patch("/{voice_id}", responses=NOT_FOUND)
async def rename_voice(voice_id: VoiceId, change: VoiceChange, runtime: Part, caller: Writer) -> VoiceOut:
    """Give it another name."""
    return VoiceOut.of(await runtime.voices.rename(voice_id, change.name, by=caller))


@router.delete("/{voice_id}", status_code=204, responses=NOT_FOUND)
async def delete_voice(voice_id: VoiceId, runtime: Part, caller: Writer) -> None:
    """Delete it. What was made with it stays; jobs that wait for it end as `voice_gone`."""
    await runtime.voices.delete(voice_id, by=caller)


_ZIP: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        "description": "`voice.json` (the voice with its embedding) and the recording",
    },
    410: {"model": Problem, "description": "Its recording is gone"},
}


@router.get("/{voice_id}/export", responses={**NOT_FOUND, **_ZIP}, response_class=Response)
async def export_voice(voice_id: VoiceId, runtime: Part, caller: Reader) -> Response:
    """All of it as a zip."""
    made = await runtime.voices.get(voice_id, by=caller)
    recording = await runtime.voices.recording_of(made.voice)
    profile = VoiceOut.of(made).model_dump(mode="json", exclude={"duplicates"})
    bench = runtime.bench
    chunks = await wrap(made.voice, recording, profile, storage=bench.storage, workspace=bench.workspace)
    headers = {
        "Content-Disposition": f'attachment; filename="{made.voice.id}.zip"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
    }
    return StreamingResponse(chunks, media_type="application/zip", headers=headers)
