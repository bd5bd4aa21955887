"""Errors as RFC 9457 problem details: one registry of types, one shape for every failure.

What is not one of our errors becomes a bare 500 with the request's id: the text of a foreign exception
never leaves the process.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.errors import (
    AppError,
    BudgetExceeded,
    InvalidInput,
    InvalidQuery,
    PermanentError,
    RequestError,
    TransientError,
)
from db.session import CommitUnknown, DatabaseUnavailable

log = structlog.get_logger()

TYPE_BASE = "/docs/errors#"
"""Problem types are fragments of the reference page that explains them."""


class _ProblemResponse(JSONResponse):
    """In ASCII: a caller's field names may hold half a surrogate pair, which has no UTF-8."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def problem(
    request: Request,
    *,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """One problem response."""
    body = {
        "type": f"{TYPE_BASE}{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request.scope.get("request_id", ""),
        **{key: value for key, value in more.items() if value is not None},
    }
    return _ProblemResponse(body, status_code=status, headers=dict(headers or {}))


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
        first = exc.errors()[0]
        where = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
        broken = first["type"] == "json_invalid"
        field = None if broken else ".".join(where) or None
        detail = "the body is not JSON" if broken else str(first["msg"])
        return problem(
            request,
            status=400 if broken else 422,
            code="invalid_json" if broken else "invalid_input",
            detail=f"{field}: {detail}" if field else detail,
            field=field,
        )

    @app.exception_handler(HTTPException)
    async def _http(request: Request, exc: HTTPException) -> JSONResponse:
        if isinstance(exc.__cause__, AppError):
            # FastAPI calls whatever ends the reading of a body a 400; ours say what it was.
            return render_error(request, exc.__cause__)
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(
            exc.status_code, "bad_request"
        )
        return problem(
            request, status=exc.status_code, code=code, detail=str(exc.detail), headers=exc.headers
        )

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, exc: Exception) -> JSONResponse:
        log.error("request.failed", path=request.url.path, exc_info=exc)
        return problem(request, status=500, code="internal", detail="an error of ours; see the log")


def render_error(request: Request, exc: AppError | DatabaseUnavailable) -> JSONResponse:
    """The problem that says what an error of ours means to the caller."""
    match exc:
        case DatabaseUnavailable():
            log.error("database.unavailable", reason=str(exc))
            unknown = isinstance(exc, CommitUnknown)
            return problem(
                request,
                status=503,
                code="storage_unavailable",
                detail="the database cannot be used now; "
                + ("whether it was stored is not known: ask again" if unknown else "nothing was stored"),
                headers={"Retry-After": "5"},
                retry_after_s=5,
            )
        case InvalidInput():
            return problem(request, status=exc.status, code=exc.code, detail=exc.message, field=exc.field)
        case InvalidQuery():
            facts: dict[str, Any] = {"field": "q", "column": exc.column, "expected": exc.expected}
            return problem(request, status=exc.status, code=exc.code, detail=exc.message, **facts)
        case BudgetExceeded():
            return problem(
                request,
                status=exc.status,
                code=exc.code,
                detail=exc.message,
                headers={"Retry-After": str(max(1, math.ceil(exc.retry_after_s)))},
                budget=dict(exc.facts),
            )
        case RequestError():
            return problem(request, status=exc.status, code=exc.code, detail=exc.message)
        case TransientError():
            wait_s = max(1, round(exc.retry_after_s or 5))
            return problem(
                request,
                status=503,
                code=exc.code,
                detail=exc.message,
                headers={"Retry-After": str(wait_s)},
                retry_after_s=wait_s,
            )
        case PermanentError():
            return problem(request, status=502, code=exc.code, detail=exc.message)
        case _:
            return problem(request, status=500, code=exc.code, detail="an error of ours; see the log")
