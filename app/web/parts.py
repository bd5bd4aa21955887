"""What routes are handed: the runtime of their app, whoever calls, and cursors.

A cursor is where a page ended, signed together with the list, the tenant and the filters that it belongs
to: one that was mangled, or is used for another list, is a 400.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import AfterValidator, AwareDatetime

from app.access.callers import OPEN_HOUSE, Caller, Scope
from app.errors import Forbidden, RequestError
from app.tokens import Cursors
from app.wiring import Runtime

MARK_BYTES = 16
"""Of the signature that a cursor begins with."""


def runtime_of(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


Part = Annotated[Runtime, Depends(runtime_of)]


def _with(scope: Scope) -> Callable[[Request], Caller]:
    """Whoever calls, given that they may do this. Raises Forbidden."""

    def caller_of(request: Request) -> Caller:
        caller: Caller = getattr(request.state, "caller", OPEN_HOUSE)
        if not caller.may(scope):
            raise Forbidden(f"the key lacks the scope {scope.value}")
        return caller

    return caller_of


Writer = Annotated[Caller, Depends(_with(Scope.JOBS_WRITE))]
Reader = Annotated[Caller, Depends(_with(Scope.JOBS_READ))]
Replayer = Annotated[Caller, Depends(_with(Scope.DELIVERIES_REPLAY))]
Administrator = Annotated[Caller, Depends(_with(Scope.ADMIN))]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("a time outside the calendar") from exc


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time with its zone that is one in UTC too: the calendar's first and last hours are not everywhere."""

Responses = dict[int | str, dict[str, Any]]
"""Documented responses by status, as FastAPI takes them."""


class BadCursor(RequestError):
    """The cursor was not made here, or for another list, filter or tenant."""

    code = "invalid_cursor"


def pack_cursor(last: str, cursors: Cursors, *, binding: Sequence[object]) -> str:
    """Where a page ended (`last`, usually an id), for whoever asks for the next page of the same list.

    `binding` says which list that is: its name, the tenant, and every filter as it was given.
    """
    packed = cursors.mark(last, binding) + last.encode("utf-8", "surrogatepass")
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def unpack_cursor(cursor: str | None, cursors: Cursors, *, binding: Sequence[object]) -> str | None:
    """The place in a cursor that was packed with an equal binding. Raises BadCursor."""
    if cursor is None:
        return None
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        last = packed[MARK_BYTES:].decode("utf-8", "surrogatepass")
    except (ValueError, binascii.Error) as exc:
        raise BadCursor(_NOT_OURS) from exc
    if not cursors.is_ours(last, binding, packed[:MARK_BYTES]):
        raise BadCursor(_NOT_OURS)
    return last


_NOT_OURS = "cursor: not a cursor of this list with these filters; begin again without one"
