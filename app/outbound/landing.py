"""Where foreign bytes touch down: a file that is filled under a cap and ends whole or not at all.

Owns the file of one download, its byte count, its inflation and what a resume needs to know; and data URIs,
which are downloads without a road. Promises that no more than the cap is ever written or held in memory, and
that disk work happens in a thread. Leaves the road to `app.outbound` and the meaning of the bytes to
`app.audio`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, unquote_to_bytes

from app.errors import OutputRejected, ProviderUnavailable, StorageUnavailable

if TYPE_CHECKING:
    from zlib import _Decompress

_BLOCK_BYTES = 256 * 1024
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}", re.ASCII)
_IDENTITY = ("", "identity")
_GZIP = ("gzip", "x-gzip")


@dataclass(frozen=True, slots=True)
class Download:
    """A file that arrived whole. `media_type` is the sender's claim, lower case, without parameters."""

    size_bytes: int
    media_type: str | None
    url: str = field(repr=False)
    """Where the bytes came from after redirects; may be signed, so it must not be logged. Empty for data."""


async def decode_data_uri(uri: str, into: Path, *, max_bytes: int) -> Download:
    """Write the payload of `data:[type][;base64],…` (RFC 2397) to `into`; base64 padding may be missing.

    Raises OutputRejected (malformed, empty, or over `max_bytes`: judged on the text before it is decoded)
    and StorageUnavailable; `into` is not there afterwards then.
    """
    return await asyncio.to_thread(_decode_data_uri, uri, into, max_bytes)


def media_type(claimed: str) -> str | None:
    """The bare type of a Content-Type, or None where it is not one."""
    bare = claimed.partition(";")[0].strip().lower()
    return bare if _MEDIA_TYPE.fullmatch(bare) else None


class Landing:
    """The file of one download, over all its tries. `size_bytes` counts decoded bytes on disk."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file: IO[bytes] | None = None
        self._pending = bytearray()
        self._validator: str | None = None
        self._inflate: _Decompress | None = None
        self.size_bytes = 0

    def resume_headers(self) -> dict[str, str]:
        """Range and If-Range, when a try left bytes behind and the server named their version."""
        if not self.size_bytes or self._validator is None:
            return {}
        return {"range": f"bytes={self.size_bytes}-", "if-range": self._validator}

    async def begin(self, headers: Mapping[str, str], *, resumed: bool) -> None:
        """Go on after what is there, or start afresh; refuse at once what is declared too large.

        `headers` are the answer's, by lower-case name. Raises OutputRejected, StorageUnavailable.
        """
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in _IDENTITY + _GZIP:
            raise OutputRejected(
                f"the output is encoded as {encoding[:20]!r} although identity was asked for"
            )
        if not resumed:
            await asyncio.to_thread(self._restart)
        plain = encoding in _IDENTITY
        self._inflate = None if plain else zlib.decompressobj(wbits=31)
        # What is on disk of a compressed output is not a prefix of what the server would resume.
        self._validator = _validator(headers) if plain else None
        declared = headers.get("content-length", "")
        if plain and declared.isdecimal() and self.size_bytes + int(declared[:20]) > self._max_bytes:
            raise self._too_large()

    async def add(self, chunk: bytes) -> None:
        """Take a piece, write full blocks. Raises OutputRejected past the cap, StorageUnavailable."""
        self._pending += chunk
        if len(self._pending) >= _BLOCK_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending, also when the road is cut: the next try may build on it."""
        block, self._pending = bytes(self._pending), bytearray()
        await asyncio.to_thread(self._write, block)

    async def finish(self) -> None:
        """The road ended well. Raises OutputRejected when nothing came, ProviderUnavailable when half did."""
        block, self._pending = bytes(self._pending), bytearray()
        await asyncio.to_thread(self._end, block)

    def forget(self) -> None:
        """What is there cannot be built upon: the next try asks for the whole."""
        self._validator = None

    def discard(self) -> None:
        """Remove the file. Closing takes its lock, so a write that a cancellation left behind ends first."""
        with contextlib.suppress(OSError, StorageUnavailable):
            self._close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _restart(self) -> None:
        self._close()
        with _disk():
            self._file = self._path.open("wb")
        self._pending.clear()
        self.size_bytes = 0

    def _write(self, block: bytes) -> None:
        if self._inflate is None:
            self._store(block)
            return
        while block:
            if self._inflate.eof:
                raise OutputRejected("the compressed output goes on after its end")
            try:
                # A block at a time: a bomb meets the cap before it meets the memory.
                inflated = self._inflate.decompress(block, _BLOCK_BYTES)
            except zlib.error as exc:
                raise OutputRejected("the compressed output is damaged") from exc
            self._store(inflated)
            block = self._inflate.unconsumed_tail or self._inflate.unused_data

    def _end(self, block: bytes) -> None:
        self._write(block)
        if self._inflate is not None and not self._inflate.eof:
            raise ProviderUnavailable("the compressed output was cut short")
        if not self.size_bytes:
            raise OutputRejected("the output is empty")
        self._close()

    def _store(self, block: bytes) -> None:
        if self.size_bytes + len(block) > self._max_bytes:
            raise self._too_large()
        if self._file is None:
            raise RuntimeError("begin() comes before the first write")
        with _disk():
            self._file.write(block)
        self.size_bytes += len(block)

    def _close(self) -> None:
        with _disk():
            if self._file is not None:
                self._file.close()

    def _too_large(self) -> OutputRejected:
        return OutputRejected(f"the output is larger than {self._max_bytes} bytes")


def _validator(headers: Mapping[str, str]) -> str | None:
    etag = headers.get("etag")
    if etag is not None and not etag.startswith("W/"):  # a weak one promises no equal bytes
        return etag
    return headers.get("last-modified")


def _decode_data_uri(uri: str, into: Path, max_bytes: int) -> Download:
    head, comma, payload = uri.partition(",")
    if head[:5].lower() != "data:" or not comma:
        raise OutputRejected("the output is not a data URI")
    kind, *parameters = head[5:].split(";")
    is_base64 = bool(parameters) and parameters[-1].strip().lower() == "base64"
    # Three characters of base64 hold at least two bytes; a percent form holds at least a third of its length.
    at_least = len(payload) * 2 // 3 - 4 if is_base64 and "%" not in payload else len(payload) // 3
    if at_least > max_bytes:
        raise OutputRejected(f"the output is larger than {max_bytes} bytes")
    content = _from_base64(payload) if is_base64 else unquote_to_bytes(payload)
    if len(content) > max_bytes:
        raise OutputRejected(f"the output is larger than {max_bytes} bytes")
    if not content:
        raise OutputRejected("the output is empty")
    try:
        with _disk():
            into.write_bytes(content)
    except StorageUnavailable:
        into.unlink(missing_ok=True)
        raise
    return Download(len(content), media_type(kind), "")


def _from_base64(payload: str) -> bytes:
    bare = (unquote(payload) if "%" in payload else payload).rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise OutputRejected("the data URI is not valid base64") from exc


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StorageUnavailable(f"the output cannot be written: {exc.strerror}") from exc
