"""What every request passes: an id, a body cap that holds while streaming, no compressed bodies.

A plain ASGI middleware: it sees each chunk as it comes and keeps none.
"""

from __future__ import annotations

import re
from typing import Any

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.problems import problem

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


class TooLong(Exception):
    """The body grew past its cap while it was read."""


class RequestLimits:
    """Bounds every request and gives it an id, echoed as `X-Request-Id`."""

    def __init__(self, app: ASGIApp, *, most_bytes: int, make_id: Any) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._make_id = make_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        given = request.headers.get("x-request-id", "")
        scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else self._make_id("req")
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=scope["request_id"])
        refusal = self._refusal(request)
        if refusal is not None:
            status, code, detail = refusal
            response = problem(request, status=status, code=code, detail=detail)
            await response(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), _with_id(send, scope["request_id"]))

    def _refusal(self, request: Request) -> tuple[int, str, str] | None:
        """What is wrong with the request by its headers alone."""
        length = request.headers.get("content-length")
        if length is not None and (not length.isdigit() or int(length) > self._most_bytes):
            return 413, "too_large", f"the body may have at most {self._most_bytes} bytes"
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            return 415, "unsupported_encoding", "compressed bodies are not accepted"
        return None

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most_bytes:
                raise TooLong
            return message

        return counted


def _with_id(send: Send, request_id: str) -> Send:
    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
        await send(message)

    return send_with_id
