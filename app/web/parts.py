"""What routes are handed: the runtime of their app, and cursors.

A cursor is the last id of a page, packed so that nobody builds one by hand; a mangled one is a 400.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import AfterValidator, AwareDatetime

from app.errors import RequestError
from app.wiring import Runtime

_DIGITS = re.compile("[0-9a-f]{32}", re.ASCII)


def runtime_of(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


Part = Annotated[Runtime, Depends(runtime_of)]


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
    """The cursor was not made here."""

    code = "invalid_cursor"


def pack_cursor(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def unpack_cursor(cursor: str | None, prefix: str) -> str | None:
    """The id in a cursor. Raises BadCursor."""
    if cursor is None:
        return None
    try:
        last_id = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as exc:
        raise BadCursor("cursor: not a cursor of this service") from exc
    digits = last_id.removeprefix(f"{prefix}_")
    if digits == last_id or not _DIGITS.fullmatch(digits):
        raise BadCursor("cursor: not a cursor of this list")
    return last_id
