"""`/status`: whether the service is well, how long things take, what they cost."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.web.dashboard.shell import PageRoute, render
from app.web.parts import Part, Reader

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/status")
async def show_status(request: Request, runtime: Part, caller: Reader) -> Response:
    """The frame; its module fills it from `/readyz`, `/v1/figures` and `/v1/costs`, again and again."""
    return render(request, "status.html", tenant_of=caller.tenant, process_id=runtime.process_id)
