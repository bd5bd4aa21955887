"""`/static`: style sheets, modules and vendored libraries, served from memory with validators by content.

Pages ask under the hash of all files together (`/static/HASH/…`): such an address never changes what it
holds, so it is kept for a year and the modules under it always fit each other. Without the hash
(`/static/client.js`, for pages of others) a file is asked for anew each time; 304 while it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from mimetypes import types_map
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.errors import NotFound

FOLDER = Path(__file__).resolve().parent.parent / "static"
PREFIX = "/static"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain"}
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "public, no-cache"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is sent."""

    content: bytes
    etag: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Shelf:
    """All files by their path, and the hash of all."""

    files: dict[str, StaticFile]
    build: str


@cache
def shelf() -> Shelf:
    """Read once: half a megabyte, and what is served cannot change under a page."""
    files, whole = {}, sha256()
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.suffix != ".toml":
            name, content = path.relative_to(FOLDER).as_posix(), path.read_bytes()
            digest = sha256(content).hexdigest()
            whole.update(f"{name} {digest}\n".encode())
            media_type = _TYPES.get(path.suffix) or types_map.get(path.suffix, "application/octet-stream")
            files[name] = StaticFile(content, f'"{digest[:32]}"', media_type)
    return Shelf(files, whole.hexdigest()[:12])


def address_of(name: str) -> str:
    """Where a page of this release gets a file. Raises KeyError for one that is not there."""
    kept = shelf()
    return f"{PREFIX}/{kept.build}/{name}" if kept.files[name] else ""


@router.get(PREFIX + "/{path:path}")
async def get_static(path: str, request: Request) -> Response:
    """A file, under the hash of this release or without one."""
    kept = shelf()
    name = path.removeprefix(f"{kept.build}/")
    found = kept.files.get(name)
    if found is None:
        raise NotFound("there is no such file")
    # One that names another release's hash is not to be kept: it may be asked for until that one is gone.
    headers = {"ETag": found.etag, "Cache-Control": _FOR_EVER if name != path else _ASK_AGAIN}
    if found.etag in [each.strip() for each in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)
