"""What all pages share: the templates, the frame with its navigation, the page for what went wrong.

`render` makes a page for a caller. A router whose routes are `PageRoute`s answers errors of ours as pages.
Pages have no inline script or style; the one style that a library of others writes into its own shadow tree
is allowed by its hash.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app import __version__
from app.errors import AppError, RequestError, TransientError
from app.web.dashboard import words
from app.web.dashboard.files import address_of
from app.web.gate.headers import page_policy
from app.web.parts import find_caller
from app.web.problems import status_of_error

TEMPLATES = Path(__file__).with_name("templates")
WAVEFORM_STYLE = "sha256-fF0LBso7Nz75zaFRDBUefBDvPe19hjaiDnnc8lt+2Js="
"""Of the style sheet that wavesurfer.js writes at the height that `player.js` gives it."""


@dataclass(frozen=True, slots=True)
class Tab:
    """A place in the navigation."""

    name: str
    path: str
    icon: str


TABS = (
    Tab("Queue", "/", "queue"),
    Tab("Songs", "/songs", "song"),
    Tab("Voices", "/voices", "voice"),
    Tab("Performances", "/performances", "stage"),
    Tab("Ledger", "/ledger", "ledger"),
    Tab("Status", "/status", "status"),
)


def render(
    request: Request, template: str, *, status: int = 200, headers: dict[str, str] | None = None, **facts: Any
) -> HTMLResponse:
    """A page, or a part of one. `facts` are what its template names."""
    caller = find_caller(request)
    frame = {
        "tabs": TABS,
        "version": __version__,
        "path": request.url.path,
        "address": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        # In an open house there is nobody to sign out.
        "signed_in": caller is not None and caller.key_id is not None,
        "tenant": caller.tenant if caller else "",
    }
    body = templates().get_template(template).render(frame | facts)
    kept = {
        "Content-Security-Policy": page_policy(WAVEFORM_STYLE),
        # Without any referrer a browser says of its own forms that they come from nowhere: `Origin: null`.
        "Referrer-Policy": "same-origin",
    }
    return HTMLResponse(body, status, kept | (headers or {}))


@cache
def templates() -> Environment:
    """What stands in a page is escaped; a name that is not given is an error, not an empty place."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals["static"] = address_of
    made.filters.update(words.FILTERS)
    return made


def sign_in_page(request: Request) -> HTMLResponse:
    """Shown instead of any page to whoever has not signed in."""
    return render(request, "sign_in.html", status=401, wrong=False)


class PageRoute(APIRoute):
    """A route of the pages: what is wrong is told as a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await original(request)
            except (RequestError, TransientError) as exc:
                return _error_page(request, exc)

        return handler


def _error_page(request: Request, exc: AppError) -> HTMLResponse:
    status = status_of_error(exc)
    return render(
        request,
        "error.html",
        status=status,
        title=HTTPStatus(status).phrase,
        code=exc.code,
        detail=exc.message,
    )
