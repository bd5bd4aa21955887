"""Pages of lists: how much of one is asked for, and the cursor that leads to the rest.

A cursor is where a page ended, signed together with the list, the tenant and the filters that it belongs
to: one that was mangled, or is used for another list, is a 400.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Depends, Query

from app.errors import RequestError
from app.tokens import Cursors
from app.web.parts import Part

Row = TypeVar("Row")

MARK_BYTES = 16
"""Of the signature that a cursor begins with."""

_NOT_OURS = "cursor: not a cursor of this list with these filters; begin again without one"


class BadCursor(RequestError):
    """The cursor was not made here, or for another list, filter or tenant."""

    code = "invalid_cursor"


class Page:
    """One page of one list."""

    def __init__(self, limit: int, cursor: str | None, cursors: Cursors, binding: Sequence[object]) -> None:
        """`binding` says which list it is: its name, the tenant, each filter as given. Raises BadCursor."""
        self.limit = limit
        self.after = None if cursor is None else _unpack(cursor, cursors, binding)
        """Where the page before ended, usually an id; None for the first."""
        self._cursors = cursors
        self._binding = binding

    @property
    def reach(self) -> int:
        """How many rows to read: one more than are shown tells whether another page follows."""
        return self.limit + 1

    def cut(self, found: Sequence[Row], id_of: Callable[[Row], str]) -> tuple[Sequence[Row], str | None]:
        """What to show of the rows within `reach`, and the cursor of the next page if there is one."""
        shown = found[: self.limit]
        return shown, self.cursor_after(id_of(shown[-1]) if len(found) > self.limit else None)

    def cursor_after(self, last: str | None) -> str | None:
        """The cursor of the page that begins after this place; None when nothing follows."""
        if last is None:
            return None
        packed = self._cursors.mark(last, self._binding) + last.encode("utf-8", "surrogatepass")
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")


class Paging:
    """How much of a list is asked for, and from where on; `of` says of which list."""

    def __init__(
        self,
        runtime: Part,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
    ) -> None:
        self._limit, self._cursor, self._cursors = limit, cursor, runtime.cursors

    def of(self, *binding: object) -> Page:
        """The page of the list of this name, tenant and filters, each as given. Raises BadCursor."""
        return Page(self._limit, self._cursor, self._cursors, binding)


Paged = Annotated[Paging, Depends()]


def _unpack(cursor: str, cursors: Cursors, binding: Sequence[object]) -> str:
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        last = packed[MARK_BYTES:].decode("utf-8", "surrogatepass")
    except (ValueError, binascii.Error) as exc:
        raise BadCursor(_NOT_OURS) from exc
    if not cursors.is_ours(last, binding, packed[:MARK_BYTES]):
        raise BadCursor(_NOT_OURS)
    return last
