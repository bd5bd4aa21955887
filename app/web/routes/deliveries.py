"""`/v1/deliveries` and `/v1/recoveries`: the ledger, replay, and asking providers what was missed."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from app.web.parts import Part, Reader, Responses, pack_cursor, unpack_cursor
from app.web.schemas import (
    DeliveryDetail,
    DeliveryOut,
    DeliveryPage,
    FoundOut,
    NewRecovery,
    Problem,
    ReceiptOut,
    RecoveryOut,
)
from db.states import DeliveryOutcome

SHOWN_BODY_BYTES = 64 * 1024

DeliveryId = Annotated[str, Path(max_length=64)]
Outcome = Literal["applied", "ignored", "late_result", "orphaned", "quarantined"]

router = APIRouter(prefix="/v1", tags=["deliveries"])
NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is no such delivery"}}


@router.get("/deliveries")
async def list_deliveries(
    runtime: Part,
    caller: Reader,
    job_id: Annotated[str | None, Query(max_length=64)] = None,
    outcome: Outcome | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> DeliveryPage:
    """Every piece of outside news, newest first, and what became of it."""
    binding = ("deliveries", caller.tenant, job_id, outcome)
    found = await runtime.replay.list_deliveries(
        job_id=job_id,
        outcome=DeliveryOutcome(outcome) if outcome else None,
        before_id=unpack_cursor(cursor, runtime.cursors, binding=binding),
        limit=limit + 1,
    )
    last = found[limit - 1].id if len(found) > limit else None
    more = pack_cursor(last, runtime.cursors, binding=binding) if last else None
    return DeliveryPage(items=[DeliveryOut.of(each) for each in found[:limit]], next_cursor=more)


@router.get("/deliveries/{delivery_id}", responses=NOT_FOUND)
async def get_delivery(delivery_id: DeliveryId, runtime: Part) -> DeliveryDetail:
    """One delivery with its raw body."""
    delivery = await runtime.replay.get(delivery_id)
    return DeliveryDetail(
        **DeliveryOut.of(delivery).model_dump(),
        headers=delivery.headers,
        size_bytes=len(delivery.body),
        body_base64=base64.b64encode(delivery.body[:SHOWN_BODY_BYTES]).decode(),
    )


@router.post(
    "/deliveries/{delivery_id}/replay",
    status_code=202,
    responses={**NOT_FOUND, 409: {"model": Problem, "description": "A passed deadline is not replayed"}},
)
async def replay_delivery(delivery_id: DeliveryId, runtime: Part) -> ReceiptOut:
    """Send a stored delivery through the inbox once more."""
    receipt = await runtime.replay.send_again(delivery_id)
    return ReceiptOut(delivery_id=receipt.delivery_id, new=receipt.is_new)


@router.post("/recoveries")
async def recover(wanted: NewRecovery, runtime: Part) -> RecoveryOut:
    """Ask the providers about live attempts now, and post what they say; with `dry_run` only say so."""
    report = await runtime.recovery.recover(
        since=wanted.since,
        until=wanted.until,
        kind=wanted.kind,
        dry_run=wanted.dry_run,
        limit=wanted.limit,
    )
    return RecoveryOut(
        dry_run=report.dry_run,
        counts=report.counts(),
        found=[FoundOut(**asdict(found)) for found in report.found],
    )
