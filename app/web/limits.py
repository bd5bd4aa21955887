"""What every request passes: an id, heads that say one thing, a body cap that holds while streaming.

A plain ASGI middleware: it sees each chunk as it comes and keeps none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import RequestError, TooLarge
from app.web.problems import render_error
from db.ids import make_id

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_LENGTH = re.compile(r"[0-9]{1,18}")


class UnsupportedEncoding(RequestError):
    """The body is compressed: what it would grow to is not ours to find out."""

    code = "unsupported_encoding"
    status = 415


class BadAddress(RequestError):
    """A NUL in the path or the query: no id, word or cursor of ours has one, and PostgreSQL takes none."""

    code = "invalid_address"


class BadHeader(RequestError):
    """A header's value is not one that it may have, or it came twice."""

    code = "invalid_header"


class HeadTooLarge(RequestError):
    """More headers than a request needs, or longer ones."""

    code = "head_too_large"
    status = 431


MOST_HEADERS = 100
MOST_HEADER_BYTES = 16 * 1024
"""One header; the server bounds the whole head at four times that."""
_ONCE = (b"host", b"authorization", b"idempotency-key", b"content-length", b"content-type")
"""Headers of which a second one could be read by somebody on the way in place of the first."""


class RequestLimits:
    """Bounds every request and gives it an id, echoed as `X-Request-Id`."""

    def __init__(self, app: ASGIApp, *, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # A handshake has a head like any other request, and no body.
        request = Request({**scope, "type": "http", "method": scope.get("method", "GET")})
        scope["request_id"] = request.scope["request_id"] = request_id_of(
            request.headers.get("x-request-id", "")
        )
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=scope["request_id"])
        refusal = head_refusal_of(scope) or refusal_of(request.headers, self._most_bytes)
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            refusal = BadAddress("the address holds a NUL")
        if refusal is not None:
            await render_error(request, refusal)(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), _with_id(send, scope["request_id"]))

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most_bytes:
                raise TooLarge(f"the body may have at most {self._most_bytes} bytes")
            return message

        return counted


def request_id_of(given: str) -> str:
    """The caller's own id where it is a decent one, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else make_id("req")


def head_refusal_of(scope: Scope) -> RequestError | None:
    """What is wrong with the head as it came: too much of it, or two words for one thing."""
    names = [name for name, _ in scope["headers"]]
    longest = max((len(name) + len(value) for name, value in scope["headers"]), default=0)
    if len(names) > MOST_HEADERS or longest > MOST_HEADER_BYTES:
        return HeadTooLarge(f"at most {MOST_HEADERS} headers of {MOST_HEADER_BYTES} bytes each")
    if scope["http_version"] == "1.1" and b"host" not in names:
        return BadHeader("Host: missing")
    if len(set(names)) != len(names):
        for name in _ONCE:
            if names.count(name) > 1:
                return BadHeader(f"{name.decode().title()}: at most once")
    return None


def refusal_of(headers: Mapping[str, str], most_bytes: int) -> RequestError | None:
    """What is wrong with a request by its headers alone."""
    length = headers.get("content-length")
    if length is not None and (not _LENGTH.fullmatch(length) or int(length) > most_bytes):
        return TooLarge(f"the body may have at most {most_bytes} bytes")
    if headers.get("content-encoding", "identity").lower() != "identity":
        return UnsupportedEncoding("compressed bodies are not accepted")
    return None


def _with_id(send: Send, request_id: str) -> Send:
    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            if not any(name == b"x-request-id" for name, _ in headers):
                message["headers"] = [*headers, (b"x-request-id", request_id.encode())]
        await send(message)

    return send_with_id
