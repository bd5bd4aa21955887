"""The check of keys that every request to the API passes: it proves who calls, or answers 401.

A plain ASGI middleware. What needs no key is listed here and nowhere else; a route that is not needs one,
whatever it declares. What a proven caller may do is said by the route (`app.web.parts`). Webhooks of
providers do not come by here: their door has proofs of its own. A browser shows the cookie that it got for a
key (`app.web.gate.browsers`); without one, a person who opens a page is shown where to sign in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access.callers import Caller
from app.access.keyring import Keyring
from app.access.keys import KeyNeeded, refuse_in_address
from app.errors import RequestError
from app.outbound.addresses import is_loopback
from app.web.gate.browsers import find_session, wants_page
from app.web.problems import render_error
from db.session import DatabaseUnavailable

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs", "/session", "/session/end"})
OPEN_FOLDERS = ("/docs/", "/static/", "/socket.io/")
"""Pages and what they load, and Socket.IO, whose clients show their keys as they enter a namespace."""
METRICS = "/metrics"
_CONTENT = re.compile(r"/v1/assets/[^/]+/content")
_REMOTE = re.compile(r"/performances/[^/]+/remote")
"""A page without a fact in it: the token of a guest's phone goes to Socket.IO alone."""
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


class KeyCheck:
    """Sets `request.state.caller`, or refuses."""

    def __init__(
        self, app: ASGIApp, *, keyring: Keyring, sign_in: Callable[[Request], Response] | None = None
    ) -> None:
        """`sign_in` is the page that asks for a key."""
        self._app = app
        self._keyring = keyring
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            await self._check(HTTPConnection(scope))
        except (RequestError, DatabaseUnavailable) as exc:
            if scope["type"] == "websocket":
                # Refused before it is accepted: the handshake is answered 403.
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._refusal(Request(scope), exc)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, request: Request, exc: RequestError | DatabaseUnavailable) -> Response:
        if self._sign_in is not None and isinstance(exc, KeyNeeded) and wants_page(request):
            return self._sign_in(request)
        return render_error(request, exc)

    async def _check(self, connection: HTTPConnection) -> None:
        """Raises KeyInAddress, KeyNeeded, DatabaseUnavailable."""
        refuse_in_address(connection.scope["query_string"].decode("latin-1"))
        if _needs_no_key(connection):
            return
        caller = await self._prove(connection)
        connection.state.caller = replace(caller, request_id=connection.scope.get("request_id"))

    async def _prove(self, connection: HTTPConnection) -> Caller:
        given = connection.headers.getlist("authorization")
        session = find_session(connection) if not given else None
        if session is not None and not await self._keyring.is_open():
            return await self._keyring.prove_session(session)
        # Two headers are no header: which of them a proxy on the way has read nobody knows.
        return await self._keyring.prove(given[0] if len(given) == 1 else None)


def _needs_no_key(connection: HTTPConnection) -> bool:
    path = connection.scope["path"]
    if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS) or _REMOTE.fullmatch(path):
        return True
    if path == METRICS:
        return _is_from_here(connection)
    # The link is its own proof, and the route checks it.
    return bool(_CONTENT.fullmatch(path)) and "signature" in connection.query_params


def _is_from_here(connection: HTTPConnection) -> bool:
    """Whether a process of this machine asks by itself: what a proxy hands on comes from elsewhere."""
    if connection.client is None or any(name in connection.headers for name in _FORWARDED):
        return False
    return is_loopback(connection.client.host)
