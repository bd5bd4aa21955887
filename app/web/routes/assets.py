"""`/v1/assets`: stored files, by key or by signed link, with Range, conditions and a name for the file.

Promises: a tenant sees an asset only while a job or an upload of its own has it, though its bytes are stored
once for all tenants; the content is given to whoever holds a valid link, or a key that may read jobs of such
a tenant; what has expired, was deleted or is lost is a 410 to whoever holds a link to it. Leaves the bytes to
`app.web.content`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from app.access.callers import Caller, Scope
from app.errors import Gone, NotFound
from app.web.content.conditions import Validators
from app.web.content.ranges import Unsatisfiable, read_range
from app.web.content.sending import Shelf, send_file
from app.web.parts import Part, Reader, prove
from app.web.schemas import Problem
from app.wiring import Runtime
from db.assets import Hold, find_asset, find_hold, was_deleted
from db.tables import Asset

router = APIRouter(
    prefix="/v1/assets",
    tags=["assets"],
    responses={
        404: {"model": Problem, "description": "There is no such asset"},
        410: {"model": Problem, "description": "It has expired, or the store has lost it"},
    },
)

AssetId = Annotated[str, Path(max_length=64)]


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


@dataclass(frozen=True, slots=True)
class Right:
    """Whose asset may be read, and by what right."""

    tenant: str
    by_link: bool
    in_open_house: bool = False

    @classmethod
    def of(cls, caller: Caller) -> Right:
        return cls(caller.tenant, by_link=False, in_open_house=caller.key_id is None)


async def _right(
    asset_id: AssetId,
    runtime: Part,
    request: Request,
    tenant: Annotated[str | None, Query(description="These three are the parts of a signed link")] = None,
    expires: str | None = None,
    signature: str | None = None,
) -> Right:
    """By the link, where there is anything of one; else by the key. Raises Forbidden, Unauthenticated."""
    if (tenant, expires, signature) == (None, None, None):
        return Right.of(prove(request, Scope.JOBS_READ))
    tenant = tenant or ""
    await runtime.links.check(
        asset_id, tenant=tenant, expires=expires or "", signature=signature or "", method=request.method
    )
    return Right(tenant, by_link=True)


@router.get("/{asset_id}")
async def get_asset(asset_id: AssetId, runtime: Part, caller: Reader) -> AssetOut:
    """What is known of an asset, with a fresh signed link to its bytes."""
    asset, hold = await _get(runtime, asset_id, Right.of(caller))
    known = asset.model_dump(include=set(AssetOut.model_fields))
    if not asset.channels:
        known |= dict.fromkeys(("duration_s", "sample_rate", "channels"))
    url = runtime.links.url(asset.id, tenant=caller.tenant)
    return AssetOut(**known, url=url, expires_at=hold.expires_at)


@router.get(
    "/{asset_id}/content",
    response_class=StreamingResponse,
    # A key, where there is no link: `_right` proves it.
    openapi_extra={"security": [{"key": [Scope.JOBS_READ.value]}]},
    responses={
        200: {"content": {"audio/*": {}, "application/json": {}, "application/x-subrip": {}}},
        206: {"description": "The ranges that were asked for: one as it is, several as multipart/byteranges"},
        304: {"description": "Not changed"},
        403: {"model": Problem, "description": "The link was altered (`forbidden`), or has expired"},
        412: {"description": "Not the version that If-Match names"},
        416: {"description": "No such range"},
    },
)
@router.head("/{asset_id}/content", include_in_schema=False)
async def get_content(
    asset_id: AssetId,
    runtime: Part,
    request: Request,
    right: Annotated[Right, Depends(_right)],
    download: Annotated[bool, Query(description="As a file to keep, and not to play in the page")] = False,
) -> Response:
    """The bytes, to whoever holds a signed link or a key that may read jobs of the asset's tenant."""
    asset, hold = await _get(runtime, asset_id, right)
    validators = Validators(f'"{asset.sha256}"', asset.created_at)
    headers = _headers(asset, hold, validators, download=download)
    if validators.is_unwanted(request.headers):
        return Response(status_code=412, headers=headers)
    if validators.is_known(request.headers):
        return Response(status_code=304, headers=headers)
    shelf = Shelf(runtime.bench.storage, asset)
    if request.method == "HEAD":  # for which a range has no meaning: RFC 9110 §14.2
        await shelf.check()
        headers["Content-Length"] = str(asset.size_bytes)
        return Response(headers=headers, media_type=asset.media_type)
    wanted = request.headers.get("range") if validators.allow_ranges(request.headers) else None
    try:
        pieces = read_range(wanted, asset.size_bytes)
    except Unsatisfiable:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{asset.size_bytes}"})
    return await send_file(shelf, pieces, headers)


@router.get(
    "/{asset_id}/peaks",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}, "description": "The outline"}},
)
async def get_peaks(asset_id: AssetId, runtime: Part, caller: Reader) -> Response:
    """The outline for a player: audiowaveform's JSON, version 2. Drawn when it is first asked for."""
    asset, _ = await _get(runtime, asset_id, Right.of(caller))
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


async def _get(runtime: Runtime, asset_id: str, right: Right) -> tuple[Asset, Hold]:
    """The asset and what its tenant has it for. Raises NotFound, and Gone to whoever may know of it."""
    async with runtime.line.database.reading() as tx:
        asset = await find_asset(tx, asset_id)
        hold = await find_hold(tx, asset_id, tenant=right.tenant) if asset else None
        # A link that we signed is proof that this tenant had it once. A tombstone does not say whose the
        # asset was: it is told of only while there are no keys.
        was_there = right.by_link or (
            right.in_open_house and asset is None and await was_deleted(tx, asset_id)
        )
    if asset is None or hold is None:
        if was_there:
            raise Gone("the asset has expired")
        raise NotFound(f"there is no asset {asset_id}")
    if hold.expires_at is not None and hold.expires_at <= datetime.now(UTC):
        raise Gone("the asset has expired")
    return asset, hold


def _headers(asset: Asset, hold: Hold, validators: Validators, *, download: bool) -> dict[str, str]:
    suffix = asset.storage_key.rpartition(".")[2]
    # Made of our own words alone, so it needs no second form for other alphabets (RFC 6266).
    name = f"{hold.kind or 'upload'}-{asset.id}.{suffix}"
    return {
        "ETag": validators.etag,
        "Last-Modified": validators.last_modified,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=86400",
        "Content-Disposition": f'{"attachment" if download else "inline"}; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
    }
