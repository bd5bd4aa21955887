"""`POST /v1/uploads`: a file in, checked while it comes; its id for the inputs of jobs out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, Field
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import InvalidInput, RequestError
from app.web.parts import Part, Responses, Writer, check_idempotency_key
from app.web.schemas import Problem

PART = "file"

REFUSED: Responses = {
    400: {"model": Problem, "description": "Not multipart/form-data, or cut short"},
    409: {"model": Problem, "description": "The first request with this key is still under way"},
    413: {"model": Problem, "description": "Larger than MAX_UPLOAD_BYTES"},
    415: {"model": Problem, "description": "Compressed, or of another media type"},
    422: {"model": Problem, "description": "Not sound, cut short, or too long"},
    503: {"model": Problem, "description": "Nothing was stored; see `Retry-After`"},
}
router = APIRouter(prefix="/v1/uploads", tags=["uploads"], responses=REFUSED)


class UploadOut(BaseModel):
    """A stored upload. Inputs of jobs that are files take its id."""

    upload_id: str
    sha256: str = Field(description="Of the bytes that were sent")
    duration_s: float
    size_bytes: int
    media_type: str
    expires_at: datetime = Field(description="When it is deleted, unless a job has it by then")


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [PART],
                    "properties": {PART: {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


@router.post("", status_code=201, openapi_extra=_BODY)
async def upload(
    request: Request,
    runtime: Part,
    caller: Writer,
    idempotency_key: Annotated[str | None, Header(description="The same key makes one upload")] = None,
) -> UploadOut:
    """Send one sound file as the part `file`. The same bytes are stored once, however often they come."""
    check_idempotency_key(request)
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise _NotMultipart("send multipart/form-data with one part named file")
    received = await runtime.uploads.receive(
        _FilePart(boundary).read(request.stream()), tenant=caller.tenant, idempotency_key=idempotency_key
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


class _NotMultipart(RequestError):
    """The body is of another kind."""

    code = "unsupported_media_type"
    status = 415


class _BrokenBody(RequestError):
    """The body is not what its header says, or ended too early."""

    code = "invalid_multipart"


class _FilePart:
    """The bytes of the part named `file`, as they come. Everything else in the body is an error."""

    def __init__(self, boundary: bytes) -> None:
        self._field, self._value = bytearray(), bytearray()
        self._name = b""
        self._files = 0
        self._has_ended = False
        self._pending: list[bytes] = []
        # The parser bounds the number and the size of headers itself.
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header,
                "on_headers_finished": self._begin,
                "on_part_data": lambda data, start, end: self._pending.append(data[start:end]),
                "on_end": self._end,
            },
        )

    async def read(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Raises _BrokenBody and InvalidInput, at the latest when the body has come to its end."""
        async for chunk in chunks:
            try:
                self._parser.write(chunk)
            except MultipartParseError as exc:
                raise _BrokenBody("the body is not multipart/form-data") from exc
            pending, self._pending = self._pending, []
            for each in pending:
                yield each
        if not self._has_ended:
            raise _BrokenBody("the body ended before its last boundary")
        if not self._files:
            raise InvalidInput("file: there is no part of this name", field=PART)

    def _header(self) -> None:
        if bytes(self._field).lower() == b"content-disposition":
            self._name = parse_options_header(bytes(self._value))[1].get(b"name", b"")
        self._field.clear()
        self._value.clear()

    def _begin(self) -> None:
        name, self._name = self._name.decode(errors="replace"), b""
        if name != PART:
            raise InvalidInput(f"{name[:64]}: the only part that is taken is {PART}", field=PART)
        self._files += 1
        if self._files > 1:
            raise InvalidInput("file: one file at a time", field=PART)

    def _end(self) -> None:
        self._has_ended = True
