"""Formats without a socket: server-sent events as they come, files as they go, whole or in slices."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from app.client.errors import InvalidInput, UnexpectedAnswer

MOST_EVENT_BYTES = 1024 * 1024
"""Of one event: whoever sends more is no Reprise service."""
PIECE_BYTES = 256 * 1024
"""What is read from a file at once."""


@dataclass(frozen=True, slots=True)
class Message:
    """One server-sent event."""

    name: str
    """Its `event`; empty: it has none."""
    data: bytes


class EventReader:
    """Server-sent events, in order, from bytes cut anywhere; those without data are passed over."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """What this piece completes. What is not whole when the stream ends is dropped, as it must be."""
        self._rest += chunk
        # A \r at the end may be the first half of \r\n: it waits.
        while (found := _line_end(self._rest)) is not None:
            end, after = found
            line, self._rest = self._rest[:end], self._rest[after:]
            if line:
                self._take(line)
            else:
                name, data = self._name, self._data
                self._name, self._data, self._size = "", [], 0
                if data:
                    yield Message(name, b"\n".join(data))
        if len(self._rest) + self._size > MOST_EVENT_BYTES:
            raise UnexpectedAnswer(f"an event of more than {MOST_EVENT_BYTES} bytes")

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"event":
            self._name = value.removeprefix(b" ").decode("utf-8", "replace")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)


def _line_end(text: bytes) -> tuple[int, int] | None:
    places = [place for place in (text.find(b"\n"), text.find(b"\r")) if place >= 0]
    if not places:
        return None
    end = min(places)
    if text[end : end + 1] == b"\n":
        return end, end + 1
    if end + 1 == len(text):
        return None
    return end, end + 2 if text[end + 1 : end + 2] == b"\n" else end + 1


@dataclass(frozen=True, slots=True)
class Envelope:
    """What stands around the one file of an upload."""

    name: str
    size_bytes: int | None
    """None where nobody can say before it has been sent."""
    boundary: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def head(self) -> bytes:
        shown = self.name.encode("utf-8", "replace").decode("utf-8")
        for sign, spelled in (('"', "%22"), ("\r", "%0D"), ("\n", "%0A")):
            shown = shown.replace(sign, spelled)
        return (
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="file"; filename="{shown[:200]}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()

    @property
    def tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode()

    def next_bytes(self, sent_bytes: int) -> int:
        """How much is read from the file next; 0: all of it was."""
        return PIECE_BYTES if self.size_bytes is None else min(PIECE_BYTES, self.size_bytes - sent_bytes)

    def check(self, sent_bytes: int) -> None:
        """Raises InvalidInput for a file that became shorter."""
        if self.size_bytes is not None and sent_bytes < self.size_bytes:
            raise InvalidInput(
                f"the file ended after {sent_bytes} of its {self.size_bytes} bytes", field="file"
            )

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Content-Type": f"multipart/form-data; boundary={self.boundary}"}
        if self.size_bytes is not None:
            headers["Content-Length"] = str(len(self.head) + self.size_bytes + len(self.tail))
        return headers


@dataclass(frozen=True, slots=True)
class Slice:
    """So much of an open file from a place on: what an upload in many requests is made of. Blocks."""

    file: BinaryIO
    start: int
    size_bytes: int
    name: str

    def digest(self) -> str:
        """SHA-256, in hex. Raises InvalidInput for a file that became shorter."""
        self.go_to(0)
        found, left = hashlib.sha256(), self.size_bytes
        while left:
            piece = self.read(left)
            found.update(piece)
            left -= len(piece)
        return found.hexdigest()

    def go_to(self, at: int) -> None:
        """Read from there next, counted from the beginning of the slice."""
        self.file.seek(self.start + at)

    def read(self, most_bytes: int) -> bytes:
        """The next bytes. Raises InvalidInput where the file has ended before them."""
        piece = self.file.read(min(PIECE_BYTES, most_bytes))
        if not piece:
            ended = self.file.tell() - self.start
            raise InvalidInput(f"the file ended after {ended} of its {self.size_bytes} bytes", field="file")
        return piece
