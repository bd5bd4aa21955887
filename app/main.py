"""`create_app(runtime)`: the service's HTTP face as one ASGI app. Decides nothing.

Webhooks go through a door of their own; everything else is the API, made by FastAPI from the models that
validate. The runtime is made by whoever serves (`app.serve`, a test) and outlives the app; requests to the
API reach it as `request.app.state.runtime`.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import __version__
from app.errors import Stopping
from app.settings import Settings
from app.web.dashboard.routes import add_dashboard
from app.web.dashboard.shell import sign_in_page
from app.web.gate.access import KeyCheck
from app.web.gate.bodies import StrictJson
from app.web.gate.headers import SecurityHeaders
from app.web.gate.hosts import HostGate
from app.web.gate.methods import HeadAsGet
from app.web.gate.rates import RateGate
from app.web.limits import RequestLimits, request_id_of
from app.web.openapi import document, operation_id
from app.web.problems import add_problem_handlers, render_error
from app.web.routes import (
    announcements,
    assets,
    audit,
    bulk,
    convert,
    costs,
    deliveries,
    ended,
    events,
    figures,
    health,
    jobs,
    keys,
    ledger,
    pages,
    recoveries,
    uploads,
    voices,
)
from app.web.routes.karaoke import lyrics, performances
from app.web.socket import tokens as socket_tokens
from app.web.socket.conversions import ConversionsNamespace
from app.web.socket.jobs import JobsNamespace
from app.web.socket.performance import PerformanceNamespace
from app.web.socket.server import PATH as SOCKETS
from app.web.socket.server import Sockets
from app.web.webhooks import PREFIX, WebhookDoor
from app.wiring import Runtime

RETRY_S = 5.0
"""When to come again after a stop: about what a restart takes."""


CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
CORS_ACCEPTED = (
    "Authorization", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID", "X-Request-Id",
    "Range", "If-Range", "If-Match", "If-None-Match",
    "Tus-Resumable", "Upload-Length", "Upload-Offset", "Upload-Metadata", "Upload-Checksum",
)  # fmt: skip
CORS_EXPOSED = (
    "Location", "X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy", "Preference-Applied",
    "ETag", "Accept-Ranges", "Content-Range", "Content-Disposition",
    "Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm",
    "Upload-Offset", "Upload-Length", "Upload-Expires", "Upload-Metadata",
)  # fmt: skip
"""What a page of an allowed origin may send and read beside what browsers allow anyway."""
CORS_MAX_AGE_S = 600


class Front:
    """Sends each request to the webhook door or to the API; when it closes, takes no new work.

    News of providers is taken to the last moment: it costs one commit, and whoever comes next applies it.
    """

    def __init__(self, *, door: ASGIApp, api: FastAPI, settings: Settings) -> None:
        self.api = api
        self._door = door
        self._guarded = SecurityHeaders(self._lead, settings=settings)
        self._is_closing = False

    def close_intake(self) -> None:
        """From now on refuse what would begin something, and let go of connections as they are answered."""
        self._is_closing = True
        sockets: Sockets = self.api.state.sockets
        sockets.release()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guarded(scope, receive, send)

    async def _lead(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        if self._is_closing:
            send = _closing(send)
        if scope["path"].startswith(PREFIX):
            await self._door(scope, receive, send)
        elif (
            self._is_closing
            and scope["method"] in ("POST", "PATCH")
            and not scope["path"].endswith("/cancel")
        ):
            request = Request(scope)
            scope["request_id"] = request_id_of(request.headers.get("x-request-id", ""))
            refusal = Stopping("the service is stopping; nothing was stored", retry_after_s=RETRY_S)
            await render_error(request, refusal)(scope, receive, send)
        else:
            await self.api(scope, receive, send)


def _closing(send: Send) -> Send:
    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await send(message)

    return send_and_close


def create_app(runtime: Runtime) -> Front:
    """The whole face."""
    return Front(door=WebhookDoor(runtime), api=create_api(runtime), settings=runtime.settings)


def create_watch(runtime: Runtime) -> FastAPI:
    """The face of a process without a web: whether it is well and how it goes, and nothing else."""
    app = FastAPI(title="Reprise", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.runtime = runtime
    app.include_router(health.router)
    return app


def create_api(runtime: Runtime) -> FastAPI:
    """The API alone, with its documentation."""
    app = FastAPI(
        title="Reprise",
        version=__version__,
        summary="An audio job service: ask for sound, get it once, lose nothing.",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
    )
    app.state.runtime = runtime
    # Before `/v1/jobs/{id}`, which would take the words for ids.
    families = (
        bulk,
        jobs,
        ended,
        events,
        uploads,
        convert,
        voices,
        assets,
        ledger,
        recoveries,
        deliveries,
        announcements,
        costs,
        keys,
        audit,
        lyrics,
        performances,
        socket_tokens,
    )
    for module in (*families, health, figures):
        app.include_router(module.router)
    pages.add_pages(app)
    add_dashboard(app)
    app.state.sockets = make_sockets(runtime)
    app.mount(SOCKETS, app.state.sockets)
    add_problem_handlers(app)
    document(app)
    _add_gate(app, runtime)
    return app


def make_sockets(runtime: Runtime) -> Sockets:
    """The Socket.IO server, with every namespace."""
    return Sockets(
        runtime, [JobsNamespace(runtime), PerformanceNamespace(runtime), ConversionsNamespace(runtime)]
    )


def _add_gate(app: FastAPI, runtime: Runtime) -> None:
    """What a request passes, from the route outwards: what is added last is passed first."""
    settings = runtime.settings
    app.add_middleware(StrictJson, most_bytes=min(settings.max_json_bytes, settings.max_content_length))
    # Counted by who calls, and both before a body is read.
    app.add_middleware(RateGate, rates=runtime.rates)
    app.add_middleware(KeyCheck, keyring=runtime.keyring, sign_in=sign_in_page)
    app.add_middleware(HeadAsGet)
    if settings.cors_allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_allowed_origins),
            allow_methods=list(CORS_METHODS),
            allow_headers=list(CORS_ACCEPTED),
            expose_headers=list(CORS_EXPOSED),
            max_age=CORS_MAX_AGE_S,
        )
    app.add_middleware(HostGate, settings=settings)
    app.add_middleware(RequestLimits, most_bytes=settings.max_content_length)
