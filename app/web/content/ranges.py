"""The Range header (RFC 9110 §14): any text, read into the pieces of a file that are sent.

Pure. Promises: the pieces lie inside the file, do not overlap and are at most `MOST_PIECES`, so no answer is
larger than the file and its heads; a header that is malformed, too long, of another unit, or asks for pieces
that overlap or are too many is ignored, which the RFC allows, and the whole is sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

MOST_PIECES = 8
MOST_CHARS = 512
"""Of the header: eight pieces of the largest file need 320."""

_UNIT = "bytes="
_PIECE = re.compile(r"([0-9]*)-([0-9]*)")


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes from `start` up to, not including, `end`."""

    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start

    def content_range(self, size: int) -> str:
        return f"bytes {self.start}-{self.end - 1}/{size}"


class Unsatisfiable(Exception):
    """No piece that was asked for lies in the file: 416."""


def read_range(value: str | None, size: int) -> list[Piece]:
    """The pieces in the order in which they were asked for; none for the whole. Raises Unsatisfiable."""
    if value is None or len(value) > MOST_CHARS or value[: len(_UNIT)].lower() != _UNIT:
        return []
    wanted = [part for part in (each.strip(" \t") for each in value[len(_UNIT) :].split(",")) if part]
    if not 1 <= len(wanted) <= MOST_PIECES:
        return []
    found = [_PIECE.fullmatch(each) for each in wanted]
    pieces: list[Piece] = []
    for match in found:
        if match is None or not _is_valid(match[1], match[2]):
            return []
        piece = _piece(match[1], match[2], size)
        if piece.size_bytes > 0:
            pieces.append(piece)
    if not pieces:
        raise Unsatisfiable
    return [] if _overlap(pieces) else pieces


def _is_valid(first: str, last: str) -> bool:
    return bool(first or last) and not (first and last and int(last) < int(first))


def _piece(first: str, last: str, size: int) -> Piece:
    """Empty where it lies past the end."""
    if not first:
        return Piece(size - min(int(last), size), size)
    return Piece(min(int(first), size), min(int(last) + 1, size) if last else size)


def _overlap(pieces: list[Piece]) -> bool:
    ordered = sorted(pieces, key=lambda piece: piece.start)
    return any(later.start < earlier.end for earlier, later in pairwise(ordered))
