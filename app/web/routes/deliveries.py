"""`/v1/deliveries`: every piece of outside news, its bytes, and sending one of them again."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Base64Bytes, Field
from sse_starlette import EventSourceResponse

from app.ledger.originals import Original
from app.web.arrivals import Watch
from app.web.paging import Paged
from app.web.parts import Part, Reader, Replayer, Responses
from app.web.schemas import (
    Asked,
    DeliveryDetail,
    DeliveryOut,
    DeliveryPage,
    Problem,
    ReceiptOut,
    Text,
)
from db.states import DeliveryOutcome

SHOWN_BODY_BYTES = 64 * 1024

DeliveryId = Annotated[str, Path(max_length=64)]
Outcome = Literal["applied", "ignored", "late_result", "orphaned", "quarantined"]

router = APIRouter(prefix="/v1", tags=["deliveries"])
BYTES: Responses = {200: {"content": {"application/octet-stream": {}}, "description": "The raw body"}}
NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is no such delivery"}}


@router.get("/deliveries", response_model=DeliveryPage)
async def list_deliveries(
    runtime: Part,
    caller: Reader,
    paging: Paged,
    job_id: Annotated[str | None, Query(max_length=64)] = None,
    outcome: Outcome | None = None,
    watch: Watch = None,
) -> DeliveryPage | EventSourceResponse:
    """Every piece of outside news of your jobs, newest first, and what became of it.

    What belongs to no job is shown to administrators of the tenant `default` alone. With
    `Accept: text/event-stream`, which needs the scope `deliveries:replay`: each as it is stored.
    """
    if watch is not None:
        return watch
    page = paging.of("deliveries", caller.tenant, job_id, outcome)
    found = await runtime.replay.list_deliveries(
        by=caller,
        job_id=job_id,
        outcome=DeliveryOutcome(outcome) if outcome else None,
        before_id=page.after,
        limit=page.reach,
    )
    shown, more = page.cut(found, lambda each: each.id)
    return DeliveryPage(items=[DeliveryOut.of(each) for each in shown], next_cursor=more)


@router.get("/deliveries/{delivery_id}", responses=NOT_FOUND)
async def get_delivery(delivery_id: DeliveryId, runtime: Part, caller: Reader) -> DeliveryDetail:
    """One delivery with its raw body."""
    delivery = await runtime.replay.get(delivery_id, by=caller)
    return DeliveryDetail(
        **DeliveryOut.of(delivery).model_dump(),
        headers=delivery.headers,
        size_bytes=len(delivery.body),
        body_base64=base64.b64encode(delivery.body[:SHOWN_BODY_BYTES]).decode(),
    )


@router.get("/deliveries/{delivery_id}/body", responses={**NOT_FOUND, **BYTES}, response_class=Response)
async def get_body(delivery_id: DeliveryId, runtime: Part, caller: Reader) -> Response:
    """What was received, byte for byte, as a file: never to be opened by a browser as what it says it is."""
    delivery = await runtime.replay.get(delivery_id, by=caller)
    headers = {
        "Content-Disposition": f'attachment; filename="{delivery.id}.bin"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
    }
    return Response(delivery.body, media_type="application/octet-stream", headers=headers)


class OriginalIn(Asked):
    """A provider's message as it was sent, however long ago."""

    provider: Text = Field("replicate", max_length=32)
    attempt_id: Text | None = Field(
        None, max_length=64, description="As its address named it; left out: found by the prediction's id"
    )
    headers: dict[Text, Annotated[Text, Field(max_length=1024)]] = Field(
        max_length=64, description="`webhook-id`, `webhook-timestamp` and `webhook-signature` among them"
    )
    body_base64: Base64Bytes = Field(strict=False, description="The body, byte for byte")


@router.post(
    "/deliveries/import",
    status_code=202,
    responses={
        404: {"model": Problem, "description": "It is news of no attempt of yours"},
        422: {"model": Problem, "description": "It is not proven, or not understood; `field` names what"},
    },
)
async def import_original(original: OriginalIn, runtime: Part, caller: Replayer) -> ReceiptOut:
    """Take a provider's original message late: its age is waived, its signature is not."""
    taken = Original(original.provider, original.headers, original.body_base64, original.attempt_id)
    receipt = await runtime.ledger.originals.take(taken, tenant=caller.tenant)
    return ReceiptOut(delivery_id=receipt.delivery_id, new=receipt.is_new)


@router.post(
    "/deliveries/{delivery_id}/replay",
    status_code=202,
    responses={**NOT_FOUND, 409: {"model": Problem, "description": "A passed deadline is not replayed"}},
)
async def replay_delivery(delivery_id: DeliveryId, runtime: Part, caller: Replayer) -> ReceiptOut:
    """Send a stored delivery through the inbox once more."""
    receipt = await runtime.replay.send_again(delivery_id, by=caller)
    return ReceiptOut(delivery_id=receipt.delivery_id, new=receipt.is_new)
