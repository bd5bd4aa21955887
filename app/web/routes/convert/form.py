"""What is sent with a song: a multipart form, read as it comes, the file straight to whoever stores it.

The song is the part `song` or `audio`. Everything else is a setting: a part of its own, or a member of the
JSON object in the part `settings`; a part goes before a member. Names are taken as they are and in camelCase.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import Request

from app.errors import InvalidInput
from app.web.multipart import Multipart, Take

FILES = ("song", "audio")
SETTINGS = "settings"
MOST_FIELDS = 32
MOST_FIELD_BYTES = 16_384
_CAMEL = re.compile(r"(?<=[a-z0-9])([A-Z])")


class SongForm:
    """One form. `song` first, to its end; then `values`."""

    def __init__(self, request: Request) -> None:
        """Raises NotMultipart."""
        self._fields: dict[str, bytearray] = {}
        self._has_song = False
        self._form = Multipart(request, self._begin)

    async def song(self) -> AsyncIterator[bytes]:
        """The song's bytes as they come. Raises CutShort, BrokenBody, InvalidInput."""
        async for chunk in self._form.file():
            yield chunk
        if not self._has_song:
            raise InvalidInput("song: there is no part of this name", field="song")

    def values(self) -> dict[str, Any]:
        """Every setting by its name in snake_case; what a part says is read as JSON where it is some.

        Raises InvalidInput.
        """
        parts = {name: _text(name, bytes(value)) for name, value in self._fields.items()}
        found = _members(parts.pop(SETTINGS, ""))
        for name, text in parts.items():
            found[_snake(name)] = _value(text)
        return found

    def _begin(self, name: str) -> Take | None:
        if name in FILES:
            if self._has_song:
                raise InvalidInput(f"{name}: one song at a time", field=name)
            self._has_song = True
            return None
        shown = name[:64]
        if name in self._fields or len(self._fields) >= MOST_FIELDS:
            raise InvalidInput(f"{shown}: it came twice, or there are too many parts", field=shown)
        value = self._fields[name] = bytearray()

        def take(data: bytes) -> None:
            value.extend(data)
            if len(value) > MOST_FIELD_BYTES:
                raise InvalidInput(f"{shown}: longer than {MOST_FIELD_BYTES} bytes", field=shown)

        return take


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode().strip()
    except UnicodeDecodeError as exc:
        raise InvalidInput(f"{name[:64]}: not UTF-8", field=name[:64]) from exc


def _members(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidInput("settings: not JSON", field=SETTINGS) from exc
    if not isinstance(found, Mapping):
        raise InvalidInput("settings: not a JSON object", field=SETTINGS)
    return {_snake(str(name)): value for name, value in found.items()}


def _value(text: str) -> Any:
    """A part has no type: `0.5` is a number and `true` a truth value, as in JSON."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, (bool, int, float)) else text


def _snake(name: str) -> str:
    return _CAMEL.sub(lambda found: f"_{found[1].lower()}", name[:64])
