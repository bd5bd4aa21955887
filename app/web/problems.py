"""Errors as RFC 9457 problem details: one shape for every failure, of the types in `problem_types`.

What is not one of our errors becomes a bare 500 with the request's id: the text of a foreign exception
never leaves the process.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import Scope

from app.access.keys import KeyNeeded
from app.errors import (
    AppError,
    BudgetExceeded,
    InvalidInput,
    InvalidQuery,
    PermanentError,
    RateLimited,
    RequestError,
    TransientError,
)
from app.intake.once import UnderWay
from app.web.problem_types import problem_type, status_of
from db.session import CommitUnknown, DatabaseUnavailable

log = structlog.get_logger()


class _ProblemResponse(JSONResponse):
    """In ASCII: a caller's field names may hold half a surrogate pair, which has no UTF-8."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def problem(
    request: Request,
    *,
    code: str,
    detail: str,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """One problem response, with the status of its type unless another is given. Raises KeyError."""
    kind = problem_type(code)
    status = status or kind.status or 500
    request_id = request.scope.get("request_id", "")
    body = {
        "type": kind.uri,
        "title": kind.title,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
        **{key: value for key, value in more.items() if value is not None},
    }
    # Also here: what answers for an error that nobody caught stands before whoever gives the others theirs.
    return _ProblemResponse(body, status_code=status, headers={"X-Request-Id": request_id, **(headers or {})})


def add_problem_handlers(app: FastAPI) -> None:
    """Turn every exception that reaches the edge into a problem."""

    @app.exception_handler(AppError)
    async def _ours(request: Request, exc: AppError) -> JSONResponse:
        return render_error(request, exc)

    @app.exception_handler(DatabaseUnavailable)
    async def _database(request: Request, exc: DatabaseUnavailable) -> JSONResponse:
        return render_error(request, exc)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, exc: RequestValidationError) -> JSONResponse:
        return _render_invalid(request, exc)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, exc: HTTPException) -> JSONResponse:
        if isinstance(exc.__cause__, AppError):
            # FastAPI calls whatever ends the reading of a body a 400; ours say what it was.
            return render_error(request, exc.__cause__)
        if exc.status_code == 405:
            allowed = ", ".join(methods_at(app, request.scope))
            return problem(
                request,
                code="method_not_allowed",
                detail=f"the path is there, the method is not; there are {allowed}",
                headers={"Allow": allowed},
            )
        if exc.status_code == 404:
            return problem(request, code="not_found", detail="there is nothing here")
        code = "too_large" if exc.status_code == 413 else "bad_request"
        return problem(
            request, status=exc.status_code, code=code, detail=str(exc.detail), headers=exc.headers
        )

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, exc: Exception) -> JSONResponse:
        log.error("request.failed", path=request.url.path, exc_info=exc)
        return problem(request, code="internal", detail="an error of ours; see the log")


def _render_invalid(request: Request, exc: RequestValidationError) -> JSONResponse:
    """What the first of the wrong values is; a body of another kind than JSON is a matter of its own."""
    first = exc.errors()[0]
    if first["type"] == "json_invalid":
        return problem(request, code="invalid_json", detail="the body is not JSON")
    if tuple(first["loc"]) == ("body",) and not is_json(request.headers.get("content-type", "")):
        return problem(
            request,
            code="unsupported_media_type",
            detail="send the body as JSON: Content-Type: application/json",
        )
    where = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    field = ".".join(where) or None
    detail = str(first["msg"])
    return problem(
        request, code="invalid_input", detail=f"{field}: {detail}" if field else detail, field=field
    )


def is_json(content_type: str) -> bool:
    """Whether a body with this Content-Type is read as JSON."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def methods_at(app: FastAPI, scope: Scope) -> list[str]:
    """What may be done at this address: with every GET there is a HEAD.

    An address such as `…/resend` is itself, and not an id in its place: the plainest path counts alone.
    """
    found: dict[str, set[str]] = {}
    for route in iter_route_contexts(app.router.routes):
        if route.path and route.methods and compile_path(route.path)[0].match(scope["path"]):
            found.setdefault(route.path, set()).update(route.methods)
    allowed = found[min(found, key=lambda path: path.count("{"))] if found else {"GET"}
    return sorted(allowed | ({"HEAD"} if "GET" in allowed else set()))


def status_of_error(exc: AppError) -> int:
    """The status that an error of ours is answered with."""
    return exc.status if isinstance(exc, RequestError) else status_of(type(exc))


def render_error(request: Request, exc: AppError | DatabaseUnavailable) -> JSONResponse:
    """The problem that says what an error of ours means to the caller."""
    match exc:
        case DatabaseUnavailable():
            log.error("database.unavailable", reason=str(exc))
            unknown = isinstance(exc, CommitUnknown)
            return problem(
                request,
                code="storage_unavailable",
                detail="the database cannot be used now; "
                + ("whether it was stored is not known: ask again" if unknown else "nothing was stored"),
                headers={"Retry-After": "5"},
                retry_after_s=5,
            )
        case InvalidInput():
            return problem(request, code=exc.code, detail=exc.message, field=exc.field)
        case KeyNeeded():
            return problem(request, code=exc.code, detail=exc.message, headers={"WWW-Authenticate": "Bearer"})
        case InvalidQuery():
            facts: dict[str, Any] = {"field": "q", "column": exc.column, "expected": exc.expected}
            return problem(request, code=exc.code, detail=exc.message, **facts)
        case BudgetExceeded():
            return problem(
                request,
                code=exc.code,
                detail=exc.message,
                headers={"Retry-After": str(max(1, math.ceil(exc.retry_after_s)))},
                budget=dict(exc.facts),
            )
        case RateLimited() | UnderWay():
            wait_s = max(1, math.ceil(exc.retry_after_s))
            return problem(
                request,
                code=exc.code,
                detail=exc.message,
                headers={"Retry-After": str(wait_s)},
                retry_after_s=wait_s,
            )
        case RequestError():
            return problem(request, status=exc.status, code=exc.code, detail=exc.message)
        case TransientError():
            wait_s = max(1, round(exc.retry_after_s or 5))
            return problem(
                request,
                status=status_of(type(exc)),
                code=exc.code,
                detail=exc.message,
                headers={"Retry-After": str(wait_s)},
                retry_after_s=wait_s,
            )
        case PermanentError():
            return problem(request, status=502, code=exc.code, detail=exc.message)
        case _:
            return problem(request, code="internal", detail="an error of ours; see the log")
