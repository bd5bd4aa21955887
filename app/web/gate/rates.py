"""Requests past a caller's budget are answered 429, unread; the others are told how they stand.

`RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers-10, on every answer that
was counted. Stands behind whoever says who calls: `request.state.caller`, as `app.web.parts` reads it.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.callers import OPEN_HOUSE, Caller
from app.errors import RateLimited
from app.rates.limiter import Rates, Standing
from app.rates.policy import budget_of
from app.web.problems import render_error


class RateGate:
    """Counts each request once."""

    def __init__(self, app: ASGIApp, *, rates: Rates) -> None:
        self._app = app
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        budget = budget_of(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if budget is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        caller: Caller = getattr(request.state, "caller", OPEN_HOUSE)
        address = request.client.host if request.client else ""
        standing = await self._rates.spend(budget, caller, address)
        if standing is None:
            await self._app(scope, receive, send)
            return
        send = _telling(send, standing)
        if standing.is_in:
            await self._app(scope, receive, send)
            return
        refusal = RateLimited(
            f"more than {standing.quota} requests in {standing.window_s} s ({budget})",
            retry_after_s=standing.retry_s,
        )
        await render_error(request, refusal)(scope, receive, send)


def _telling(send: Send, standing: Standing) -> Send:
    told = [
        (b"ratelimit-policy", standing.policy_header.encode("ascii")),
        (b"ratelimit", standing.limit_header.encode("ascii")),
    ]

    async def send_with_standing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *told]
        await send(message)

    return send_with_standing
