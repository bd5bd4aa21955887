"""`/v1/uploads`: files in, checked while they come; their ids for the inputs of jobs out.

`multipart` is one request that sends a file whole, `tus` an upload that any number of requests write to.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field

from app.intake.resumable.standing import Standing
from app.web.multipart import body_of
from app.web.parts import Part, Responses, Writer, check_idempotency_key
from app.web.routes.uploads import tus
from app.web.routes.uploads.file import PART, read_file
from app.web.schemas import Problem

REFUSED: Responses = {
    400: {"model": Problem, "description": "A header or a body that cannot be read, or a body cut short"},
    409: {"model": Problem, "description": "The first request with this key is still under way"},
    412: {"model": Problem, "description": "Another version of tus"},
    413: {"model": Problem, "description": "Larger than MAX_UPLOAD_BYTES"},
    415: {"model": Problem, "description": "Compressed, or of another media type"},
    422: {"model": Problem, "description": "Not sound, cut short, or too long"},
    423: {"model": Problem, "description": "Another request writes to it"},
    460: {"model": Problem, "description": "Not the bytes of `Upload-Checksum`: nothing was kept of them"},
    503: {"model": Problem, "description": "Nothing was stored; see `Retry-After`"},
}
ABSENT: Responses = {
    404: {"model": Problem, "description": "There is no such upload"},
    410: {"model": Problem, "description": "It was not finished in its time, or the store has lost it"},
}
router = APIRouter(prefix="/v1/uploads", tags=["uploads"], route_class=tus.TusRoute)

_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_FORM: dict[str, Any] = {
    "schema": {
        "type": "object",
        "required": [PART],
        "properties": {PART: {"type": "string", "format": "binary"}},
    }
}
_FILE = {
    "requestBody": {"required": False, "content": {"multipart/form-data": _FORM, tus.MEDIA_TYPE: _BYTES}}
}
_PIECE = {"requestBody": {"required": True, "content": {tus.MEDIA_TYPE: _BYTES}}}

Version = Annotated[str | None, Header(alias="Tus-Resumable", description=f"`{tus.VERSION}`")]
Length = Annotated[str | None, Header(alias="Upload-Length", description="With tus: of the whole, in bytes")]
About = Annotated[str | None, Header(alias="Upload-Metadata", description="Given back, and nothing else")]
Offset = Annotated[str | None, Header(alias="Upload-Offset", description="Where these bytes begin")]
Sum = Annotated[str | None, Header(alias="Upload-Checksum", description="`sha256 BASE64` of these bytes")]


class UploadOut(BaseModel):
    """A stored upload. Inputs of jobs that are files take its id."""

    state: Literal["stored"] = "stored"
    upload_id: str
    sha256: str = Field(description="Of the bytes that were sent")
    duration_s: float
    size_bytes: int
    media_type: str
    expires_at: datetime = Field(description="When it is deleted, unless a job has it by then")


class PartialOut(BaseModel):
    """An upload that has not all come."""

    state: Literal["partial"] = "partial"
    upload_id: str
    offset_bytes: int = Field(description="What has come, and is durable")
    size_bytes: int = Field(description="What was announced")
    expires_at: datetime = Field(description="When it is deleted, unless more comes by then")


@router.post("", status_code=201, responses=REFUSED, openapi_extra=_FILE)
async def upload(
    request: Request,
    response: Response,
    runtime: Part,
    caller: Writer,
    idempotency_key: Annotated[str | None, Header(description="The same key makes one upload")] = None,
    version: Version = None,
    length: Length = None,
    about: About = None,
    checksum: Sum = None,
) -> UploadOut | PartialOut:
    """Send one sound file as the part `file`; or, with `Tus-Resumable`, begin an upload that `Location`
    names. The same bytes are stored once, however often they come."""
    del length, about, checksum
    check_idempotency_key(request)
    if version is not None:
        return await _begin(request, response, runtime, caller, idempotency_key)
    received = await runtime.uploads.receive(
        read_file(request), tenant=caller.tenant, idempotency_key=idempotency_key
    )
    asset = received.asset
    return UploadOut(
        upload_id=received.upload_id,
        sha256=asset.sha256,
        duration_s=asset.duration_s,
        size_bytes=asset.size_bytes,
        media_type=asset.media_type,
        expires_at=received.expires_at,
    )


async def _begin(
    request: Request, response: Response, runtime: Part, caller: Writer, idempotency_key: str | None
) -> UploadOut | PartialOut:
    """tus: creation, and creation-with-upload where there is a body."""
    tus.check_version(request)
    tus.refuse_other_extensions(request)
    about, checksum = tus.read_about(request), tus.read_checksum(request)
    size_bytes = tus.read_count(request, "Upload-Length")
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if has_body:
        tus.check_media_type(request)
    standing = await runtime.resumable.create(
        caller.tenant, size_bytes, about=about, idempotency_key=idempotency_key
    )
    if has_body and standing.offset_bytes == 0:
        standing = await runtime.resumable.append(
            caller.tenant, standing.upload_id, body_of(request), offset_bytes=0, checksum=checksum
        )
    response.headers.update(tus.headers_of(standing))
    response.headers["Location"] = f"/v1/uploads/{standing.upload_id}"
    return _shown(standing)


@router.options("", status_code=204)
async def describe_uploads(request: Request, response: Response, runtime: Part, _caller: Writer) -> None:
    """What can be done here, in tus's headers."""
    response.headers.update(tus.describe(runtime.settings.max_upload_bytes))


@router.options("/{upload_id}", status_code=204, responses=ABSENT)
async def describe_upload(upload_id: str, response: Response, runtime: Part, caller: Writer) -> None:
    """The same of one upload."""
    await runtime.resumable.find(caller.tenant, upload_id)
    response.headers.update(tus.describe(runtime.settings.max_upload_bytes))


@router.get("/{upload_id}", responses={412: REFUSED[412], **ABSENT})
async def get_upload(
    upload_id: str,
    request: Request,
    response: Response,
    runtime: Part,
    caller: Writer,
    version: Version = None,
) -> UploadOut | PartialOut:
    """How far an upload is; of a stored one, what it is. HEAD, as tus asks it, tells the first in headers."""
    del version
    standing = await runtime.resumable.find(caller.tenant, upload_id)
    tus.check_version(request, is_needed=False)
    response.headers.update(tus.headers_of(standing))
    return _shown(standing)


@router.patch("/{upload_id}", status_code=204, responses=REFUSED | ABSENT, openapi_extra=_PIECE)
async def append_to_upload(
    upload_id: str,
    request: Request,
    response: Response,
    runtime: Part,
    caller: Writer,
    version: Version = None,
    offset: Offset = None,
    checksum: Sum = None,
) -> None:
    """Send bytes from `Upload-Offset` on. With the last, the upload is judged and stored as by POST."""
    del version, offset, checksum
    await runtime.resumable.find(caller.tenant, upload_id)
    tus.check_version(request)
    tus.check_media_type(request)
    standing = await runtime.resumable.append(
        caller.tenant,
        upload_id,
        body_of(request),
        offset_bytes=tus.read_count(request, "Upload-Offset"),
        checksum=tus.read_checksum(request),
    )
    told = tus.headers_of(standing)
    response.headers.update({name: told[name] for name in ("Upload-Offset", "Upload-Expires")})


@router.delete("/{upload_id}", status_code=204, responses={412: REFUSED[412], **ABSENT})
async def delete_upload(
    upload_id: str, request: Request, runtime: Part, caller: Writer, version: Version = None
) -> None:
    """End an upload, however far it is. A job that has a stored one keeps its file."""
    del version
    await runtime.resumable.find(caller.tenant, upload_id)
    tus.check_version(request, is_needed=False)
    await runtime.resumable.remove(caller, upload_id)


def _shown(standing: Standing) -> UploadOut | PartialOut:
    stored = standing.stored
    if stored is None:
        return PartialOut(
            upload_id=standing.upload_id,
            offset_bytes=standing.offset_bytes,
            size_bytes=standing.size_bytes,
            expires_at=standing.expires_at,
        )
    return UploadOut(
        upload_id=stored.upload_id,
        sha256=stored.asset.sha256,
        duration_s=stored.asset.duration_s,
        size_bytes=stored.asset.size_bytes,
        media_type=stored.asset.media_type,
        expires_at=stored.expires_at,
    )
