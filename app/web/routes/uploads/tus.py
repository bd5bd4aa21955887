"""tus 1.0 on the wire: its headers, its versions, the routes' common manners. Knows no upload.

https://tus.io/protocols/resumable-upload, with the extensions in EXTENSIONS. Not followed on one point:
`X-HTTP-Method-Override` is not heeded, because nothing that stands before this service would see the method
that a request then has.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import datetime
from email.utils import format_datetime

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from app.errors import RequestError
from app.intake.resumable.standing import CHECKSUMS, Checksum, Standing
from app.web.limits import BadHeader

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
MEDIA_TYPE = "application/offset+octet-stream"

MOST_ABOUT = 4096
"""Characters of `Upload-Metadata`."""
_COUNT = re.compile(r"[0-9]{1,18}")
_ABOUT = re.compile(r"[!-+\--~]+( [A-Za-z0-9+/]*={0,2})?", re.ASCII)


class UnsupportedTusVersion(RequestError):
    """`Tus-Resumable` is missing or names another version than those in `Tus-Version`."""

    code = "unsupported_tus_version"
    status = 412


class NotAPiece(RequestError):
    """The body of a piece is sent as application/offset+octet-stream."""

    code = "unsupported_media_type"
    status = 415


class TusRoute(APIRoute):
    """A route whose every answer, also a refusal, carries the version, as tus wants it."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = any(name == b"tus-resumable" for name, _ in scope["headers"])
        is_shared = scope["method"] == "POST"
        await super().handle(scope, receive, send if is_shared and not asked else _telling(send))


def _telling(send: Send) -> Send:
    async def send_with_version(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"tus-resumable", VERSION.encode())]
            if message["status"] == 412:
                message["headers"].append((b"tus-version", VERSION.encode()))
        await send(message)

    return send_with_version


def check_version(request: Request, *, is_needed: bool = True) -> None:
    """Raises UnsupportedTusVersion."""
    given = request.headers.getlist("tus-resumable")
    if given != [VERSION] and (given or is_needed):
        raise UnsupportedTusVersion(f"Tus-Resumable: {VERSION} is what there is")


def check_media_type(request: Request) -> None:
    """Raises NotAPiece."""
    if request.headers.get("content-type", "").strip().lower() != MEDIA_TYPE:
        raise NotAPiece(f"send the bytes as Content-Type: {MEDIA_TYPE}")


def read_count(request: Request, name: str) -> int:
    """A size or a place, in bytes. Raises BadHeader."""
    given = request.headers.getlist(name)
    if len(given) != 1 or not _COUNT.fullmatch(given[0]):
        raise BadHeader(f"{name}: one number of bytes")
    return int(given[0])


def read_about(request: Request) -> str:
    """`Upload-Metadata`, kept as it came: pairs of a key and base64, between commas. Raises BadHeader."""
    about = ",".join(request.headers.getlist("upload-metadata"))
    pairs = [pair.strip() for pair in about.split(",")] if about.strip() else []
    if len(about) > MOST_ABOUT or not all(_ABOUT.fullmatch(pair) for pair in pairs):
        raise BadHeader(f"Upload-Metadata: pairs of a key and base64, {MOST_ABOUT} characters at most")
    keys = [pair.partition(" ")[0] for pair in pairs]
    if len(set(keys)) != len(keys):
        raise BadHeader("Upload-Metadata: a key comes twice")
    return ",".join(pairs)


def read_checksum(request: Request) -> Checksum | None:
    """`Upload-Checksum`: an algorithm and a digest in base64. Raises BadHeader."""
    given = request.headers.getlist("upload-checksum")
    if not given:
        return None
    algorithm, _, text = given[0].partition(" ")
    if len(given) > 1 or algorithm not in CHECKSUMS:
        raise BadHeader(f"Upload-Checksum: by one of {', '.join(CHECKSUMS)}")
    try:
        digest = base64.b64decode(text.strip(), validate=True)
    except (ValueError, binascii.Error) as exc:
        raise BadHeader("Upload-Checksum: the digest is not base64") from exc
    if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        raise BadHeader(f"Upload-Checksum: no digest of {algorithm} has that length")
    return Checksum(algorithm, digest)


def refuse_other_extensions(request: Request) -> None:
    """Raises BadHeader for what would be understood otherwise than it is meant."""
    for name in ("upload-concat", "upload-defer-length"):
        if name in request.headers:
            raise BadHeader(f"{name.title()}: this extension is not served here")


def describe(most_bytes: int) -> dict[str, str]:
    """What this server can do, as headers."""
    return {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(most_bytes),
        "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
    }


def headers_of(standing: Standing) -> dict[str, str]:
    """How far an upload is, as headers."""
    told = {
        "Upload-Offset": str(standing.offset_bytes),
        "Upload-Length": str(standing.size_bytes),
        "Upload-Expires": http_date(standing.expires_at),
        "Cache-Control": "no-store",
    }
    return told | ({"Upload-Metadata": standing.about} if standing.about else {})


def http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)
