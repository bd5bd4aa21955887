"""`/healthz`, `/readyz`, `/metrics`: alive, able, and how it goes.

Promises: `/healthz` asks nobody; the other two answer within a second whatever hangs, and ask each part
outside by one look at a time, however many requests there are.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from app.access.callers import Scope
from app.errors import Forbidden
from app.watch.dependencies import Standing
from app.watch.figures import STATIONS, Queues, readable
from app.web.parts import Part, find_caller
from app.wiring import Runtime

router = APIRouter(tags=["health"])

OWN_PARTS = ("database", "storage", "hints", "engine")
"""The dependencies that are no providers."""


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers. Says nothing of what it depends on."""
    return {"status": "ok"}


@router.get(
    "/readyz", responses={503: {"description": "Something it needs is not there; `checks` says what"}}
)
async def readyz(runtime: Part) -> JSONResponse:
    """Whether jobs can be accepted, stored and finished now, with the reasons where they cannot."""
    figures = runtime.figures
    standings, queues, free, shortage = await asyncio.gather(
        figures.standings(), figures.queues(), figures.free_bytes(), figures.find_shortage()
    )
    needed = [name for name, each in figures.dependencies.items() if each.is_needed]
    reasons = [f"{name}: {standings[name].detail}" for name in needed if not standings[name].ok]
    if shortage is not None:
        reasons.append(f"disk: {shortage}")
    if runtime.jobs.is_closing:
        reasons.append("the service is stopping")
    body = {
        "ready": not reasons,
        "intake": _intake(runtime, reasons, queues),
        "checks": _checks(runtime, standings)
        | {"disk": {"ok": shortage is None, "free_bytes": free, "detail": shortage or ""}},
        "queues": _queues(queues),
        "clock": {"skew_s": _rounded(figures.clock.skew_s), "doubt_s": _rounded(figures.clock.doubt_s)},
        "event_loop": {"lag_worst_s": _rounded(figures.loop_watch.worst_s())},
    }
    return JSONResponse(body, status_code=503 if reasons else 200)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(runtime: Part, request: Request) -> Response:
    """Prometheus exposition format. A process of this machine needs no key, anybody else an `admin`'s."""
    caller = find_caller(request)
    if caller is not None and not caller.may(Scope.ADMIN):
        raise Forbidden(f"the key lacks the scope {Scope.ADMIN.value}")
    await runtime.figures.collect()
    await runtime.ledger.predictions.collect()
    runtime.line.metrics.waiters.set(runtime.line.notifier.count_subscriptions())
    return Response(runtime.line.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _checks(runtime: Runtime, standings: dict[str, Standing]) -> dict[str, Any]:
    checks: dict[str, Any] = {name: readable(standings[name]) for name in OWN_PARTS if name in standings}
    checks["database"]["pool"] = runtime.figures.pool()
    # Jobs wait for a provider that is away: it is told of, and does not make the service unready.
    checks["providers"] = {
        name: {"state": "down", **readable(standing)}
        for name, standing in standings.items()
        if name not in OWN_PARTS
    }
    return checks


def _intake(runtime: Runtime, reasons: list[str], queues: Queues | None) -> dict[str, Any]:
    """Whether a new job would be taken, and what stands in its way."""
    most = runtime.settings.max_queued_jobs
    live = sum(queues.live_jobs().values()) if queues else 0
    if live >= most:
        reasons = [*reasons, f"{live} jobs are alive, MAX_QUEUED_JOBS is {most}"]
    return {"open": not reasons, "reasons": reasons}


def _queues(queues: Queues | None) -> dict[str, Any] | None:
    """Live jobs, and how long the first row of each station has been waiting; None when nobody can say."""
    if queues is None:
        return None
    stations = {
        station: {"depth": 0, "due": 0, "oldest_due_s": 0.0, "oldest_s": 0.0} for station in STATIONS.values()
    }
    for (station, _), (depth, due, oldest_due_s, oldest_s) in queues.by_station().items():
        shown = stations[station]
        shown["depth"] += int(depth)
        shown["due"] += int(due)
        shown["oldest_due_s"] = max(shown["oldest_due_s"], round(oldest_due_s, 3))
        shown["oldest_s"] = max(shown["oldest_s"], round(oldest_s, 3))
    return {"jobs": queues.live_jobs(), "stations": stations}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
