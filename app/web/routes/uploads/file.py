"""The one file of an upload's form."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request

from app.errors import InvalidInput
from app.web.multipart import Multipart

PART = "file"


def read_file(request: Request) -> AsyncIterator[bytes]:
    """The bytes of the one part `file`.

    Raises NotMultipart; the iterator CutShort, BrokenBody, InvalidInput.
    """
    names: list[str] = []

    def begin(name: str) -> None:
        if name != PART:
            raise InvalidInput(f"{name[:64]}: the only part that is taken is {PART}", field=PART)
        if names:
            raise InvalidInput("file: one file at a time", field=PART)
        names.append(name)

    async def whole(form: Multipart) -> AsyncIterator[bytes]:
        async for chunk in form.file():
            yield chunk
        if not names:
            raise InvalidInput("file: there is no part of this name", field=PART)

    return whole(Multipart(request, begin))
