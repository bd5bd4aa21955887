"""Bodies as they come, never whole in memory: as they are, or as multipart/form-data with one file in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from app.errors import RequestError

Take = Callable[[bytes], object]
"""Takes a part's next bytes."""

MOST_BOUNDARY = 70
"""Characters (RFC 2046, 5.1.1)."""


class NotMultipart(RequestError):
    """The body is not of the kind that is taken here."""

    code = "unsupported_media_type"
    status = 415


class CutShort(RequestError):
    """The connection was cut before the body's end: what came of a resumable upload is kept."""

    code = "cut_short"


class BrokenBody(RequestError):
    """The body is not what its header says, or ended too early."""

    code = "invalid_multipart"


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises CutShort."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as exc:
        raise CutShort("the connection was cut") from exc


class Multipart:
    """One body of multipart/form-data.

    `begin` is told each part's name and says who takes its bytes: somebody, or with None whoever reads the
    file. It raises what a part is refused with.
    """

    def __init__(self, request: Request, begin: Callable[[str], Take | None]) -> None:
        """Raises NotMultipart."""
        kind, options = parse_options_header(request.headers.get("content-type"))
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 1 <= len(boundary) <= MOST_BOUNDARY:
            raise NotMultipart("send multipart/form-data with the file as a part of its own")
        self._request = request
        self._begin = begin
        self._field, self._value, self._name = bytearray(), bytearray(), b""
        self._file: list[bytes] = []
        self._take: Take = self._file.append
        self._has_ended = False
        # The parser bounds the number and the size of headers itself.
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_part,
                "on_part_data": self._take_data,
                "on_end": self._end,
            },
        )

    async def file(self) -> AsyncIterator[bytes]:
        """The file's bytes as they come. Raises CutShort, BrokenBody, and whatever `begin` raises."""
        async for chunk in body_of(self._request):
            try:
                self._parser.write(chunk)
            except MultipartParseError as exc:
                raise BrokenBody("the body is not multipart/form-data") from exc
            while self._file:
                yield self._file.pop(0)
        if not self._has_ended:
            raise BrokenBody("the body ended before its last boundary")

    def _end_header(self) -> None:
        if bytes(self._field).lower() == b"content-disposition":
            self._name = parse_options_header(bytes(self._value))[1].get(b"name", b"")
        self._field.clear()
        self._value.clear()

    def _begin_part(self) -> None:
        name, self._name = self._name.decode(errors="replace"), b""
        self._take = self._begin(name) or self._file.append

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        self._take(data[start:end])

    def _end(self) -> None:
        self._has_ended = True
