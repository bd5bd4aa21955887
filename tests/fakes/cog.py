"""A stateful Cog server: a real ASGI app with a bounded number of slots, unpolled and unsigned.

Owns the protocol as measured on cog 0.23.1 (busy is a 409, a cancel of the unknown a 404, the webhook is the
bare prediction). The real server is what `tests/contract` speaks to; this one is for flows that need a
fallback provider whose slots a test can take and free. Nothing in it sleeps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send


@dataclass
class FakeCog:
    """The server."""

    hooks: httpx.AsyncClient | None = None
    slots: int = 1
    health: str = "READY"
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What was asked, by prediction id, while it runs."""
    asked: list[str] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    refuse: Response | None = None
    """When set: the answer to every create."""

    def __post_init__(self) -> None:
        self._app = Starlette(
            routes=[
                Route("/predictions/{id}", self._create, methods=["PUT"]),
                Route("/predictions/{id}/cancel", self._cancel, methods=["POST"]),
                Route("/health-check", self._health, methods=["GET"]),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def finish(self, prediction_id: str, *, output: Any = None, error: str | None = None) -> int:
        """End it and call back; the receiver's status."""
        asked = self.running.pop(prediction_id)
        body = {"id": prediction_id, "logs": "", "metrics": {"predict_time": 0.5}}
        body |= {"status": "succeeded", "output": output} if error is None else {"status": "failed"}
        if error is not None:
            body["error"] = error
        assert self.hooks is not None
        headers = {"content-type": "application/json"}
        reply = await self.hooks.post(asked["webhook"], content=json.dumps(body).encode(), headers=headers)
        return reply.status_code

    async def _create(self, request: Request) -> Response:
        key = request.path_params["id"]
        self.asked.append(key)
        if self.refuse is not None:
            return self.refuse
        if key not in self.running:
            if len(self.running) >= self.slots:
                busy = {"error": "At capacity - all prediction slots busy", "status": "failed"}
                return JSONResponse(busy, 409)
            self.running[key] = await request.json()
        return JSONResponse({"id": key, "status": "starting"}, 202)

    async def _cancel(self, request: Request) -> Response:
        key = request.path_params["id"]
        self.canceled.append(key)
        found = self.running.pop(key, None)
        return JSONResponse({}, 200 if found else 404)

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": self.health})
