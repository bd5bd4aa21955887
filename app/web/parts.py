"""What routes are handed: the runtime of their app, whoever calls, and times as they are written."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Strict

from app.access.callers import Caller, Scope
from app.access.keys import KeyNeeded
from app.errors import Forbidden
from app.web.limits import BadHeader
from app.wiring import Runtime

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt _]", re.ASCII)
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def runtime_of(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


Part = Annotated[Runtime, Depends(runtime_of)]


def find_caller(request: Request) -> Caller | None:
    """Whoever calls, as `app.web.gate.access` has proven; None where a signed link stands for a key."""
    caller: Caller | None = getattr(request.state, "caller", None)
    return caller


_Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(auto_error=False, scheme_name="key", description="A key of this service")),
]
"""For OpenAPI, so that its readers know where the key goes; it proves nothing."""


def _with(scope: Scope) -> Callable[..., Caller]:
    """Whoever calls, given that they may do this. Raises KeyNeeded, Forbidden."""

    def caller_of(request: Request, _documented: _Bearer) -> Caller:
        return prove(request, scope)

    return caller_of


def prove(request: Request, scope: Scope) -> Caller:
    """Whoever calls, given that they may do this. Raises KeyNeeded, Forbidden."""
    caller = find_caller(request)
    if caller is None:
        raise KeyNeeded
    if not caller.may(scope):
        raise Forbidden(f"the key lacks the scope {scope.value}")
    return caller


Writer = Annotated[Caller, Security(_with(Scope.JOBS_WRITE), scopes=[Scope.JOBS_WRITE.value])]
Reader = Annotated[Caller, Security(_with(Scope.JOBS_READ), scopes=[Scope.JOBS_READ.value])]
Replayer = Annotated[Caller, Security(_with(Scope.DELIVERIES_REPLAY), scopes=[Scope.DELIVERIES_REPLAY.value])]
Administrator = Annotated[Caller, Security(_with(Scope.ADMIN), scopes=[Scope.ADMIN.value])]


def _written_out(value: object) -> object:
    """A time is a text with a date in it: pydantic would take a bare number for seconds or milliseconds."""
    if not isinstance(value, datetime) and not _DATE.match(str(value)):
        raise ValueError("a time is written as 2026-01-31T12:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("a time outside the calendar") from exc


Moment = Annotated[AwareDatetime, Strict(False), BeforeValidator(_written_out), AfterValidator(_in_utc)]
"""A time with its zone that is one in UTC too: the calendar's first and last hours are not everywhere.
Never strict: JSON has no type for it, so a text must do in strict models, too."""

Responses = dict[int | str, dict[str, Any]]
"""Documented responses by status, as FastAPI takes them."""


def check_idempotency_key(request: Request) -> None:
    """Raises BadHeader for an `Idempotency-Key` that came twice or is not 1-255 visible ASCII characters."""
    keys = request.headers.getlist("idempotency-key")
    if len(keys) > 1 or any(not _IDEMPOTENCY_KEY.fullmatch(key) for key in keys):
        raise BadHeader("Idempotency-Key: one value of 1-255 visible ASCII characters")
