"""JSON bodies, judged before a route sees them: their size, their depth, and what parsers disagree about.

A key that comes twice is read differently by different parsers, and NaN is no JSON at all: what we would
store would not be what the caller's own tools see. Both are refused, as is what cannot be read.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import TooLarge
from app.web.problems import is_json, problem, render_error

_WITH_A_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class StrictJson:
    """Reads a JSON body whole, up to its limit, and hands it on as it came."""

    def __init__(self, app: ASGIApp, *, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] not in _WITH_A_BODY
            or not is_json(Headers(scope=scope).get("content-type", ""))
        ):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(receive)
        except ClientDisconnect:
            return
        except TooLarge as exc:
            await render_error(Request(scope), exc)(scope, receive, send)
            return
        fault = fault_of(body) if body else None
        if fault is not None:
            answer = problem(Request(scope), code="invalid_json", detail=fault)
            await answer(scope, receive, send)
            return
        await self._app(scope, _again(body, receive), send)

    async def _read(self, receive: Receive) -> bytes:
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._most_bytes:
                raise TooLarge(f"a JSON body may have at most {self._most_bytes} bytes")
            if not message.get("more_body", False):
                return b"".join(chunks)


def fault_of(body: bytes) -> str | None:
    """Why this is no JSON that is read here; None where it is."""
    try:
        json.loads(body, object_pairs_hook=_once, parse_constant=_no_constant)
    except _Refused as exc:
        return str(exc)
    except RecursionError:
        return "the body is nested too deeply"
    except ValueError:
        # Not JSON, not UTF-8, or a number of thousands of digits.
        return "the body is not JSON"
    return None


class _Refused(Exception):
    """It could be read, and must not be."""


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _Refused("the body is not JSON: an object has a key twice")


def _no_constant(name: str) -> None:
    raise _Refused(f"the body is not JSON: {name} is no number of its")


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more in one piece, then whatever comes after it."""
    is_told = False

    async def receive_again() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
