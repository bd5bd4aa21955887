"""`/v1/assets`: stored files, with Range (RFC 9110 §14), ETag and signed links.

Promises: no byte is sent as if it were the asset's when it is not. A small file is read and held against its
SHA-256 before the answer begins; a larger one while it is sent, and the last piece is held back until the
whole is proven; a part of a larger one is held against the size alone. What has expired, was deleted or is
lost is a 410 that says so; an answer that cannot be finished is cut short of its declared length.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from app.errors import AppError, ChecksumMismatch, Gone, NotFound
from app.web.parts import Part
from app.web.schemas import Problem
from app.wiring import Runtime
from db.assets import find_asset, find_asset_expiry, was_deleted
from db.tables import Asset

router = APIRouter(
    prefix="/v1/assets",
    tags=["assets"],
    responses={
        404: {"model": Problem, "description": "There is no such asset"},
        410: {"model": Problem, "description": "It has expired, or the store has lost it"},
    },
)
log = structlog.get_logger()

PROVEN_BYTES = 1024 * 1024
"""Up to this size a file is read whole and proven before the first byte is sent."""
AssetId = Annotated[str, Path(max_length=64)]
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class AssetOut(BaseModel):
    """A stored file, as measured."""

    id: str
    sha256: str
    media_type: str
    size_bytes: int
    duration_s: float | None = Field(description="Null for text, as the next two")
    sample_rate: int | None
    channels: int | None
    url: str
    expires_at: datetime | None = Field(description="When the last of its jobs expires; null: not known")


@router.get("/{asset_id}")
async def get_asset(asset_id: AssetId, runtime: Part) -> AssetOut:
    """What is known of an asset, with a fresh signed link to its bytes."""
    asset, expires_at = await _get(runtime, asset_id)
    known = asset.model_dump(include=set(AssetOut.model_fields))
    if not asset.channels:
        known |= dict.fromkeys(("duration_s", "sample_rate", "channels"))
    return AssetOut(**known, url=runtime.links.url(asset.id), expires_at=expires_at)


@router.get(
    "/{asset_id}/content",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"audio/*": {}, "application/json": {}, "application/x-subrip": {}}},
        206: {"description": "The range that was asked for"},
        304: {"description": "Not changed"},
        403: {"model": Problem, "description": "The link was altered or has expired"},
        416: {"description": "No such range"},
    },
)
@router.head("/{asset_id}/content", include_in_schema=False)
async def get_content(
    asset_id: AssetId,
    runtime: Part,
    request: Request,
    expires: Annotated[str | None, Query(max_length=20)] = None,
    signature: Annotated[str | None, Query(max_length=128)] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    range_: Annotated[str | None, Header(alias="Range")] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """The bytes."""
    if expires is not None or signature is not None:
        runtime.links.check(asset_id, expires or "", signature or "")
    # A link that we signed is proof that there was one.
    asset, _ = await _get(runtime, asset_id, was_there=signature is not None)
    headers = _headers(asset)
    if if_none_match is not None and (if_none_match.strip() == "*" or headers["ETag"] in if_none_match):
        return Response(status_code=304, headers=headers)
    whole = range_ is None or (if_range is not None and if_range != headers["ETag"])
    span = None if whole else _parse_range(range_ or "", asset.size_bytes)
    if span == (0, 0):
        return Response(status_code=416, headers={"Content-Range": f"bytes */{asset.size_bytes}"})
    start, end = span or (0, asset.size_bytes)
    headers["Content-Length"] = str(end - start)
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{asset.size_bytes}"
    size_bytes = await runtime.bench.storage.size(asset.storage_key)
    if size_bytes is None:
        raise Gone("the asset's bytes are gone from the store")
    if size_bytes != asset.size_bytes:
        raise _mismatch(asset)
    status = 206 if span else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=asset.media_type)
    if size_bytes <= PROVEN_BYTES:
        content = (await _read_proven(runtime, asset))[start:end]
        return Response(content, status_code=status, headers=headers, media_type=asset.media_type)
    chunks = await _begun(_read_proving(runtime, asset, start, end))
    return _Cut(chunks, status_code=status, headers=headers, media_type=asset.media_type)


@router.get(
    "/{asset_id}/peaks",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}, "description": "The outline"}},
)
async def get_peaks(asset_id: AssetId, runtime: Part) -> Response:
    """The outline for a player: audiowaveform's JSON, version 2. Drawn when it is first asked for."""
    asset, _ = await _get(runtime, asset_id)
    if not asset.channels:
        raise NotFound("text has no outline")
    try:
        outline = await runtime.outlines.get(asset)
    except NotFound as exc:
        raise Gone("the asset's bytes are gone from the store") from exc
    return Response(
        outline,
        media_type="application/json",
        headers={"ETag": f'"{asset.sha256[:32]}-peaks"', "Cache-Control": "private, max-age=86400"},
    )


class _Cut(StreamingResponse):
    """Ends without an end when its body fails: the caller sees that less came than was declared."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except AppError as exc:
            log.warning("asset.cut", path=scope["path"], code=exc.code, reason=exc.message)


async def _get(runtime: Runtime, asset_id: str, *, was_there: bool = False) -> tuple[Asset, datetime | None]:
    """The asset and when it expires. Raises NotFound, and Gone where there was one."""
    async with runtime.line.database.reading() as tx:
        asset = await find_asset(tx, asset_id)
        expires_at = await find_asset_expiry(tx, asset_id) if asset else None
        was_there = was_there or (asset is None and await was_deleted(tx, asset_id))
    if asset is None and not was_there:
        raise NotFound(f"there is no asset {asset_id}")
    if asset is None or (expires_at is not None and expires_at <= datetime.now(UTC)):
        raise Gone("the asset has expired")
    return asset, expires_at


async def _read_proven(runtime: Runtime, asset: Asset) -> bytes:
    """All of a small file. Raises Gone, ChecksumMismatch, StorageUnavailable."""
    chunks = runtime.bench.storage.read(asset.storage_key, end=PROVEN_BYTES)
    try:
        content = b"".join([chunk async for chunk in chunks])
    except NotFound as exc:
        raise Gone("the asset's bytes are gone from the store") from exc
    measured = hashlib.sha256(content).hexdigest()
    if measured != asset.sha256:
        raise _mismatch(asset)
    return content


async def _read_proving(runtime: Runtime, asset: Asset, start: int, end: int) -> AsyncIterator[bytes]:
    """The bytes in chunks, each held back until the next is there; of a whole, the last until it is proven.

    Raises as `_read_proven`, before the first chunk or after any.
    """
    digest, held, sent = hashlib.sha256(), b"", 0
    whole = (start, end) == (0, asset.size_bytes)
    try:
        async for chunk in runtime.bench.storage.read(asset.storage_key, start=start, end=end):
            if held:
                yield held
            if whole:
                digest.update(chunk)
            held, sent = chunk, sent + len(chunk)
    except NotFound as exc:
        raise Gone("the asset's bytes are gone from the store") from exc
    measured = digest.hexdigest() if whole else asset.sha256
    if sent != end - start or measured != asset.sha256:
        raise _mismatch(asset)
    yield held


async def _begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks with the first one read: what fails at once can still be answered with a problem."""
    first = await anext(chunks, b"")

    async def rest() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return rest()


def _mismatch(asset: Asset) -> ChecksumMismatch:
    log.error("asset.damaged", asset_id=asset.id, key=asset.storage_key)
    return ChecksumMismatch("the store has other bytes than those that were stored")


def _headers(asset: Asset) -> dict[str, str]:
    suffix = asset.storage_key.rpartition(".")[2]
    return {
        "ETag": f'"{asset.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=86400",
        "Content-Disposition": f'inline; filename="{asset.id}.{suffix}"',
        "X-Content-Type-Options": "nosniff",
    }


def _parse_range(value: str, size: int) -> tuple[int, int] | None:
    """One range as [start, end); None when it is to be ignored, (0, 0) when it cannot be satisfied.

    Several ranges, and units other than bytes, are answered with the whole file, as RFC 9110 §14.2 allows.
    """
    found = _RANGE.fullmatch(value.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        return (size - length, size) if length else (0, 0)
    start = int(first)
    end = min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return None
    return (start, end) if start < size else (0, 0)
