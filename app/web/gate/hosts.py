"""Who is meant, and which page asks: `Host` and `Origin`.

An open house (no key yet) trusts whoever reaches loopback, and a browser on this machine reaches it for any
page. Two things keep a page from driving the service: a name that is not ours is answered 421, so that a name
which its owner points at 127.0.0.1 (DNS rebinding) leads nowhere; and a request that changes something is
refused when another site's page sends it without a key. A page cannot leave out its `Origin` there.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Forbidden, RequestError
from app.outbound.addresses import is_loopback
from app.settings import Settings
from app.web.problems import render_error

ANYBODY = "*"
_ALIVE = frozenset({"/healthz", "/readyz"})
"""Asked by orchestrators at whatever address a container has; what they say is no secret."""
SOCKETS = "/socket.io/"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class MisdirectedRequest(RequestError):
    """`Host` names somebody else. Ours are loopback, that of `PUBLIC_URL`, and `ALLOWED_HOSTS`."""

    code = "misdirected_request"
    status = 421


class ForeignOrigin(Forbidden):
    """A page of another site tried to change something without a key. `CORS_ALLOWED_ORIGINS` may name it."""

    code = "foreign_origin"


class HostGate:
    """Refuses what is meant for somebody else, and what a foreign page sends."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        public = urlsplit(settings.public_url).hostname if settings.public_url else None
        self._hosts = {host.lower() for host in (*settings.allowed_hosts, public) if host}
        self._origins = {origin.lower() for origin in settings.cors_allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
        else:
            await render_error(Request(scope), refusal)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> RequestError | None:
        host = host_of(headers.get("host", ""))
        if not self._is_ours(host) and scope["path"] not in _ALIVE:
            return MisdirectedRequest("Host names no address of this service; ALLOWED_HOSTS can add it")
        # A socket is opened with a GET, and then does whatever its messages say; so is one that polls.
        is_socket = scope["type"] == "websocket" or scope["path"].startswith(SOCKETS)
        is_reading = not is_socket and scope["method"] in _READING
        if not is_reading and "authorization" not in headers and self._is_foreign(scope, headers):
            return ForeignOrigin("a page of another site may not do this without a key")
        return None

    def _is_ours(self, host: str) -> bool:
        return ANYBODY in self._hosts or host in self._hosts or is_loopback(host)

    def _is_foreign(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        origin = headers.get("origin", "").lower()
        if not origin:
            # Only programs and old browsers send none; a browser that knows says where the page is from.
            return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if origin in self._origins:
            return False
        # A page of our own: of the very host and port that was asked.
        return urlsplit(origin).netloc != headers.get("host", "").lower()


def host_of(value: str) -> str:
    """The name or address in a Host header, without its port; empty for what is none."""
    try:
        return (urlsplit(f"//{value}").hostname or "").rstrip(".")
    except ValueError:
        return ""
