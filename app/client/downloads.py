"""A file that arrives in pieces over any number of connections, and is proven before it is there.

Pure but for the disk. `Arriving` knows how far it is and what the bytes so far are; `Part` is the file beside
its place, under a name that nobody else writes to, until it is whole.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from app.client.errors import DownloadDamaged, UnexpectedAnswer

_SPAN = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)", re.ASCII)


class Expected(Protocol):
    """What is known of a file before it comes."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def sha256(self) -> str: ...


class Arriving:
    """The bytes so far."""

    def __init__(self, expected: Expected, target: BinaryIO) -> None:
        self._expected = expected
        self._target = target
        self._digest = hashlib.sha256()
        self.received_bytes = 0

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Take an answer's beginning: it goes on, or it starts anew. Raises UnexpectedAnswer for a gap."""
        span = _SPAN.fullmatch(headers.get("content-range", "")) if status == 206 else None
        start = int(span[1]) if span else 0
        if status == 206 and (span is None or start != self.received_bytes):
            raise UnexpectedAnswer("another part of the file came than was asked for", status=status)
        if start == 0:
            self._target.seek(0)
            self._target.truncate()
            self._digest = hashlib.sha256()
            self.received_bytes = 0

    def take(self, piece: bytes) -> None:
        """Write it. Raises DownloadDamaged where more comes than there is, OSError."""
        self.received_bytes += len(piece)
        if self.received_bytes > self._expected.size_bytes:
            raise DownloadDamaged(f"more came than the {self._expected.size_bytes} bytes that were stored")
        self._digest.update(piece)
        self._target.write(piece)

    @property
    def is_whole(self) -> bool:
        return self.received_bytes == self._expected.size_bytes

    def prove(self) -> None:
        """Raises DownloadDamaged."""
        measured = self._digest.hexdigest()
        if measured != self._expected.sha256:
            raise DownloadDamaged("the SHA-256 of what came is not that of what was stored")


class Part:
    """The file beside its place."""

    def __init__(self, place: Path) -> None:
        """Raises OSError where nothing can be written there."""
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            raise IsADirectoryError(f"{place}: is a folder; name the file")
        self._place = place
        # Not a temporary file of the library's: those only their owner may read, also once they are renamed.
        self._path = place.with_name(f".{place.name[:100]}.{secrets.token_hex(6)}.part")
        self.file = self._path.open("x+b")

    def keep(self) -> None:
        """Put it in its place, at once and whole."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self._path.replace(self._place)

    def drop(self) -> None:
        self.file.close()
        self._path.unlink(missing_ok=True)


def size_of(file: BinaryIO) -> int | None:
    """How much is left to read of a file; None where it cannot be gone back in."""
    try:
        here = file.tell()
        end = file.seek(0, io.SEEK_END)
        file.seek(here)
    except (OSError, AttributeError):
        return None
    return end - here
