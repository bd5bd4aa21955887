"""`/docs/errors`: the page that every problem's `type` points to, made from the error tree itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from app.errors import AppError, PermanentError, RequestError, TransientError

router = APIRouter(include_in_schema=False)

EDGE_CODES = {
    "internal": "An error of ours. The log has the rest, under the same `request_id`.",
    "invalid_json": "The body is not JSON.",
    "bad_request": "The request cannot be understood.",
    "method_not_allowed": "The path is right, the method is not.",
}
"""What the edge says by itself, without an error of the tree."""

FAMILIES = (
    (RequestError, "The caller can fix it"),
    (TransientError, "The same call may work later"),
    (PermanentError, "It never will"),
)


@router.get("/docs/errors")
async def errors_page() -> HTMLResponse:
    """Every code, with what it means."""
    # Made at the first request: by then every module that adds a class to the tree has been imported.
    return HTMLResponse(_render())


def _codes_of(family: type[AppError]) -> Iterator[tuple[str, str]]:
    """Each code of a family once, with the first sentence of the class that gives it."""
    seen: set[str] = set()
    for kind in (family, *_below(family)):
        if kind.code not in seen:
            seen.add(kind.code)
            yield kind.code, (kind.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def _below(kind: type[AppError]) -> Iterator[type[AppError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


@cache
def _render() -> str:
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><title>Reprise: errors</title>"]
    parts.append("<h1>Errors</h1><p>A problem's <code>type</code> ends in one of these codes.</p>")
    for family, title in FAMILIES:
        parts.append(f"<h2>{escape(title)}</h2><dl>")
        parts += [_entry(code, meaning) for code, meaning in _codes_of(family)]
        parts.append("</dl>")
    parts.append("<h2>Said by the edge</h2><dl>")
    parts += [_entry(code, meaning) for code, meaning in EDGE_CODES.items()]
    return "".join([*parts, "</dl></html>"])


def _entry(code: str, meaning: str) -> str:
    return f'<dt id="{escape(code)}"><code>{escape(code)}</code></dt><dd>{escape(meaning)}</dd>'
