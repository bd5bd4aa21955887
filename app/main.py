"""`create_app(runtime)`: the routes on one ASGI app. Decides nothing.

The runtime is made by whoever serves (`app.serve`, a test) and outlives the app; requests reach it as
`request.app.state.runtime`.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from app import __version__
from app.web import assets, deliveries, health, jobs
from app.web.limits import RequestLimits
from app.web.problems import add_problem_handlers
from app.web.webhooks import webhook_route
from app.wiring import Runtime
from db.ids import make_id


def create_app(runtime: Runtime) -> FastAPI:
    """The service's HTTP face."""
    # FastAPIOffline serves the pages of /docs from the package: no CDN, works without a network.
    app: FastAPI = FastAPIOffline(
        title="Reprise",
        version=__version__,
        summary="An audio job service: ask for sound, get it once, lose nothing.",
        redirect_slashes=False,
    )
    app.state.runtime = runtime
    # The hot path comes first, as a plain route: no dependency is resolved, no model is built.
    app.router.routes.insert(0, webhook_route)
    for module in (jobs, assets, deliveries, health):
        app.include_router(module.router)
    add_problem_handlers(app)
    app.add_middleware(RequestLimits, most_bytes=runtime.settings.max_content_length, make_id=make_id)
    if runtime.settings.cors_allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(runtime.settings.cors_allowed_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Location", "X-Request-Id", "Retry-After"],
        )
    return app
