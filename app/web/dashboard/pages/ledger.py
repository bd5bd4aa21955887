"""`/ledger`: who told the end of each prediction, every delivery, what was refused; and recovering many."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.access.callers import Scope
from app.kinds import KINDS
from app.web.dashboard.shell import PageRoute, render
from app.web.paging import Page
from app.web.parts import Part, Reader
from app.web.routes.ledger import PredictionOut, RefusalOut
from app.web.routes.recoveries import RecoveryOut
from app.web.schemas import DeliveryOut
from db.ledger.predictions import LedgerFilter

PAGE = 50
RECENT = 5
"""Recoveries that are shown with what they came to."""
TELLERS = ("webhook", "poll", "replay", "deadline", "none")

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/ledger")
async def show_ledger(
    request: Request,
    runtime: Part,
    caller: Reader,
    view: Literal["predictions", "deliveries", "refusals"] = "predictions",
    told_by: Annotated[str, Query(max_length=16)] = "",
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """One of three lists, newest first, and the latest recoveries."""
    told_by = told_by if told_by in TELLERS else ""
    page = Page(PAGE, cursor, runtime.cursors, ("ledger", caller.tenant, view, told_by))
    items: list[PredictionOut] | list[DeliveryOut] | list[RefusalOut]
    more: str | None
    match view:
        case "predictions":
            wanted = LedgerFilter(tenant=caller.tenant, told_by=told_by or None)
            views = await runtime.ledger.predictions.list_predictions(
                wanted, before_id=page.after, limit=page.reach
            )
            predictions, more = page.cut(views, lambda each: each.attempt.id)
            items = [PredictionOut.of(each) for each in predictions]
        case "deliveries":
            news = await runtime.replay.list_deliveries(by=caller, before_id=page.after, limit=page.reach)
            deliveries, more = page.cut(news, lambda each: each.id)
            items = [DeliveryOut.of(each) for each in deliveries]
        case "refusals":
            refused = await runtime.ledger.refusals.list_refusals(
                tenant=caller.tenant, failed=None, since=None, before_id=page.after, limit=page.reach
            )
            refusals, more = page.cut(refused, lambda each: each.id)
            items = [RefusalOut.of(each) for each in refusals]
    recoveries = await runtime.ledger.recoveries.list_recoveries(
        tenant=caller.tenant, before_id=None, limit=RECENT
    )
    return render(
        request,
        "ledger.html",
        view=view,
        told_by=told_by,
        tellers=TELLERS,
        items=items,
        more=more,
        recoveries=[RecoveryOut.of(each) for each in recoveries],
        kinds=list(KINDS),
        may_replay=caller.may(Scope.DELIVERIES_REPLAY),
    )
