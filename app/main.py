"""`create_app(runtime)`: the service's HTTP face as one ASGI app. Decides nothing.

Webhooks go through a door of their own; everything else is the API, made by FastAPI from the models that
validate. The runtime is made by whoever serves (`app.serve`, a test) and outlives the app; requests to the
API reach it as `request.app.state.runtime`.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import __version__
from app.errors import Stopping
from app.web.limits import RequestLimits
from app.web.problems import add_problem_handlers, render_error
from app.web.routes import assets, bulk, costs, deliveries, ended, health, jobs, pages, uploads
from app.web.webhooks import PREFIX, WebhookDoor
from app.wiring import Runtime

RETRY_S = 5.0
"""When to come again after a stop: about what a restart takes."""


class Front:
    """Sends each request to the webhook door or to the API; when it closes, takes no new work.

    News of providers is taken to the last moment: it costs one commit, and whoever comes next applies it.
    """

    def __init__(self, *, door: ASGIApp, api: FastAPI) -> None:
        self.api = api
        self._door = door
        self._is_closing = False

    def close_intake(self) -> None:
        """From now on refuse what would begin something, and let go of connections as they are answered."""
        self._is_closing = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        if self._is_closing:
            send = _closing(send)
        if scope["path"].startswith(PREFIX):
            await self._door(scope, receive, send)
        elif self._is_closing and scope["method"] == "POST" and not scope["path"].endswith("/cancel"):
            refusal = Stopping("the service is stopping; nothing was stored", retry_after_s=RETRY_S)
            await render_error(Request(scope), refusal)(scope, receive, send)
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
    return Front(door=WebhookDoor(runtime), api=create_api(runtime))


def create_watch(runtime: Runtime) -> FastAPI:
    """The face of a process without a web: whether it is well and how it goes, and nothing else."""
    app = FastAPI(title="Reprise", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.runtime = runtime
    app.include_router(health.router)
    return app


def create_api(runtime: Runtime) -> FastAPI:
    """The API alone, with its documentation."""
    # FastAPIOffline serves the pages of /docs from the package: no CDN, works without a network.
    app: FastAPI = FastAPIOffline(
        title="Reprise",
        version=__version__,
        summary="An audio job service: ask for sound, get it once, lose nothing.",
        redirect_slashes=False,
    )
    app.state.runtime = runtime
    for module in (bulk, jobs, ended, uploads, assets, deliveries, costs, health, pages):
        app.include_router(module.router)
    add_problem_handlers(app)
    app.add_middleware(RequestLimits, most_bytes=runtime.settings.max_content_length)
    if runtime.settings.cors_allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(runtime.settings.cors_allowed_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Location", "X-Request-Id", "Retry-After"],
        )
    return app
