"""`/healthz`, `/readyz`, `/metrics`: alive, able, and how it goes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from app.web.parts import Part
from db.inbox import count_unsettled
from db.jobs import count_jobs
from db.session import DatabaseUnavailable
from db.states import JobState

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers. Says nothing of what it depends on."""
    return {"status": "ok"}


@router.get(
    "/readyz", responses={503: {"description": "Something it needs is not there; `checks` says what"}}
)
async def readyz(runtime: Part) -> JSONResponse:
    """Whether jobs can be accepted, stored and finished now."""
    database = await runtime.line.database.health()
    storage = await runtime.bench.storage.check()
    shortage = await runtime.disks.find_shortage()
    providers = {name: await provider.health() for name, provider in runtime.providers.items()}
    checks: dict[str, Any] = {
        "database": {
            "ok": database.ok,
            "latency_ms": round(database.latency_ms, 2),
            "pool": database.pool,
            "detail": database.detail,
        },
        "storage": {"ok": storage is None, "detail": storage or ""},
        "disk": {
            "ok": shortage is None,
            "free_bytes": await runtime.disks.disk_left(),
            "detail": shortage or "",
        },
        "providers": {
            name: {"ok": health.state in ("ready", "busy"), "state": health.state, "detail": health.detail}
            for name, health in providers.items()
        },
    }
    # Jobs wait for a provider that is away; without a database or a store nothing can be promised.
    ready = database.ok and storage is None and shortage is None
    return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(runtime: Part) -> Response:
    """Prometheus exposition format."""
    figures = runtime.line.metrics
    try:
        async with runtime.line.database.reading() as tx:
            counts = await count_jobs(tx)
            figures.deliveries_unsettled.set(await count_unsettled(tx))
    except DatabaseUnavailable:
        counts = {}
    for state in JobState:
        figures.jobs.labels(state.value).set(counts.get(state, 0))
    for figure, value in runtime.line.database.pool_figures().items():
        figures.pool_connections.labels(figure).set(value)
    figures.waiters.set(runtime.line.notifier.count_subscriptions())
    return Response(figures.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
