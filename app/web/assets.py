"""`/v1/assets`: stored files, with Range (RFC 9110 §14), ETag and signed links."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from app.errors import NotFound
from app.web.parts import Part
from app.web.schemas import Problem
from app.wiring import Runtime
from db.assets import find_asset
from db.tables import Asset

router = APIRouter(
    prefix="/v1/assets",
    tags=["assets"],
    responses={404: {"model": Problem, "description": "There is no such asset"}},
)
AssetId = Annotated[str, Path(max_length=64)]
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class AssetOut(BaseModel):
    """A stored file, as measured."""

    id: str
    sha256: str
    media_type: str
    size_bytes: int
    duration_s: float
    sample_rate: int
    channels: int
    url: str


@router.get("/{asset_id}")
async def get_asset(asset_id: AssetId, runtime: Part) -> AssetOut:
    """What is known of an asset, with a fresh signed link to its bytes."""
    asset = await _get(runtime, asset_id)
    return AssetOut(**asset.model_dump(include=set(AssetOut.model_fields)), url=runtime.links.url(asset.id))


@router.get(
    "/{asset_id}/content",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"audio/*": {}}},
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
    asset = await _get(runtime, asset_id)
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
    if not await runtime.bench.storage.exists(asset.storage_key):
        raise NotFound("the asset's bytes are gone from the store")
    status = 206 if span else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=asset.media_type)
    return StreamingResponse(
        runtime.bench.storage.read(asset.storage_key, start=start, end=end),
        status_code=status,
        headers=headers,
        media_type=asset.media_type,
    )


@router.get(
    "/{asset_id}/peaks",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}, "description": "The outline"}},
)
async def get_peaks(asset_id: AssetId, runtime: Part) -> Response:
    """The outline for a player: audiowaveform's JSON, version 2. Drawn when it is first asked for."""
    asset = await _get(runtime, asset_id)
    return Response(
        await runtime.outlines.get(asset),
        media_type="application/json",
        headers={"ETag": f'"{asset.sha256[:32]}-peaks"', "Cache-Control": "private, max-age=86400"},
    )


async def _get(runtime: Runtime, asset_id: str) -> Asset:
    async with runtime.line.database.reading() as tx:
        asset = await find_asset(tx, asset_id)
    if asset is None:
        raise NotFound(f"there is no asset {asset_id}")
    return asset


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
