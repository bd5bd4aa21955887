"""`/docs`: the API to try out, and `/docs/errors`, the page that every problem's `type` points to.

Both work without a network and under a policy that allows no inline script: what they load comes from this
service, Swagger UI from the package that carries it.
"""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from starlette.staticfiles import StaticFiles

from app.web.problem_types import Family, ProblemType, problem_types

router = APIRouter(include_in_schema=False)

SWAGGER = Path(str(files("fastapi_offline") / "static"))
"""Swagger UI as the package fastapi-offline brings it."""
OUR_SCRIPT = Path(__file__).with_name("docs.js")
_PAGE = """\
<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>Reprise: API</title>
<link rel=icon href="/docs/static/favicon.png">
<link rel=stylesheet href="/docs/static/swagger-ui.css">
<div id=swagger-ui></div>
<script src="/docs/static/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</html>
"""


def add_pages(app: FastAPI) -> None:
    """The pages and what they load."""
    app.include_router(router)
    app.mount("/docs/static", StaticFiles(directory=SWAGGER), name="docs-static")


@router.get("/docs")
async def docs_page() -> HTMLResponse:
    """Swagger UI over `/openapi.json`."""
    return HTMLResponse(_PAGE)


@router.get("/docs/start.js")
async def docs_script() -> FileResponse:
    """What starts Swagger UI; a file, because no page of ours holds script."""
    return FileResponse(OUR_SCRIPT, media_type="text/javascript")


@router.get("/docs/errors")
async def errors_page() -> HTMLResponse:
    """Every code, with what it means."""
    # Made at the first request: by then every module that adds a class to the tree has been imported.
    return HTMLResponse(_render())


@cache
def _render() -> str:
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><title>Reprise: errors</title>"]
    parts.append("<h1>Errors</h1><p>A problem's <code>type</code> ends in one of these codes.</p>")
    types = problem_types().values()
    for family in Family:
        parts.append(f"<h2>{escape(family)}</h2><dl>")
        parts += [_entry(each) for each in types if each.family is family]
        parts.append("</dl>")
    return "".join([*parts, "</html>"])


def _entry(kind: ProblemType) -> str:
    status = f" (HTTP {kind.status})" if kind.status else ""
    code = escape(kind.code)
    return f'<dt id="{code}"><code>{code}</code>{status}</dt><dd>{escape(kind.meaning)}</dd>'
