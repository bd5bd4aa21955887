"""Sending a stored file: whole or in pieces, never a byte that is not its own.

Promises: a small file is read and held against its SHA-256 before the answer begins; a larger one while it is
sent, and the last piece is held back until the whole is proven; pieces of a larger one are held against the
size alone. What cannot be finished is cut short of its declared length. Memory holds one chunk of the store,
or one small file, however many pieces are asked for.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import structlog
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.errors import AppError, ChecksumMismatch, Gone, NotFound
from app.storage import Storage
from app.web.content.ranges import Piece
from db.tables import Asset

log = structlog.get_logger()

PROVEN_BYTES = 1024 * 1024
"""Up to this size a file is read whole and proven before the first byte is sent."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """One asset in the store."""

    storage: Storage
    asset: Asset

    async def check(self) -> None:
        """Raises Gone and ChecksumMismatch where the object is not there, or not of its size."""
        size_bytes = await self.storage.size(self.asset.storage_key)
        if size_bytes is None:
            raise Gone("the asset's bytes are gone from the store")
        if size_bytes != self.asset.size_bytes:
            raise self._mismatch()

    async def chunks(self, piece: Piece) -> AsyncIterator[bytes]:
        """The bytes of one piece, each chunk held back until the next is there; of a whole, the last until
        it is proven. Raises Gone, ChecksumMismatch, StorageUnavailable, before the first chunk or after any.
        """
        if self.asset.size_bytes <= PROVEN_BYTES:
            yield (await self._proven())[piece.start : piece.end]
            return
        digest, held, sent = hashlib.sha256(), b"", 0
        whole = piece.size_bytes == self.asset.size_bytes
        try:
            async for chunk in self.storage.read(self.asset.storage_key, start=piece.start, end=piece.end):
                if held:
                    yield held
                if whole:
                    digest.update(chunk)
                held, sent = chunk, sent + len(chunk)
        except NotFound as exc:
            raise Gone("the asset's bytes are gone from the store") from exc
        measured = digest.hexdigest() if whole else self.asset.sha256
        if sent != piece.size_bytes or measured != self.asset.sha256:
            raise self._mismatch()
        yield held

    async def _proven(self) -> bytes:
        """All of a small file."""
        try:
            content = b"".join([
                chunk async for chunk in self.storage.read(self.asset.storage_key, end=PROVEN_BYTES)
            ])  # fmt: skip
        except NotFound as exc:
            raise Gone("the asset's bytes are gone from the store") from exc
        measured = hashlib.sha256(content).hexdigest()
        if measured != self.asset.sha256:
            raise self._mismatch()
        return content

    def _mismatch(self) -> ChecksumMismatch:
        log.error("asset.damaged", asset_id=self.asset.id, key=self.asset.storage_key)
        return ChecksumMismatch("the store has other bytes than those that were stored")


async def send_file(shelf: Shelf, pieces: Sequence[Piece], headers: dict[str, str]) -> Response:
    """The whole where there are no `pieces`, a piece, or several of them as `multipart/byteranges`.

    Raises as `Shelf`, while it can still be answered with a problem.
    """
    await shelf.check()
    size, media_type, status = shelf.asset.size_bytes, shelf.asset.media_type, 206 if pieces else 200
    if len(pieces) > 1:
        parts = _Parts(shelf, pieces)
        media_type, length, chunks = parts.media_type, parts.size_bytes, parts.chunks()
    else:
        piece = pieces[0] if pieces else Piece(0, size)
        length, chunks = piece.size_bytes, shelf.chunks(piece)
        if pieces:
            headers["Content-Range"] = piece.content_range(size)
    headers["Content-Length"] = str(length)
    return _Cut(await _begun(chunks), status_code=status, headers=headers, media_type=media_type)


class _Parts:
    """Several pieces as one body (RFC 9110 §14.6)."""

    def __init__(self, shelf: Shelf, pieces: Sequence[Piece]) -> None:
        self._shelf = shelf
        self._pieces = pieces
        # Random, so that no stored file can hold it by design.
        self._boundary = secrets.token_hex(16)

    @property
    def media_type(self) -> str:
        return f"multipart/byteranges; boundary={self._boundary}"

    @property
    def size_bytes(self) -> int:
        heads = sum(len(self._head(piece)) + piece.size_bytes for piece in self._pieces)
        return heads + len(self._end)

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            head = self._head(piece)
            async for chunk in self._shelf.chunks(piece):
                yield head + chunk
                head = b""
        yield self._end

    def _head(self, piece: Piece) -> bytes:
        asset = self._shelf.asset
        return (
            f"\r\n--{self._boundary}\r\nContent-Type: {asset.media_type}\r\n"
            f"Content-Range: {piece.content_range(asset.size_bytes)}\r\n\r\n"
        ).encode("ascii")

    @property
    def _end(self) -> bytes:
        return f"\r\n--{self._boundary}--\r\n".encode("ascii")


class _Cut(StreamingResponse):
    """Ends without an end when its body fails: the caller sees that less came than was declared."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except AppError as exc:
            log.warning("asset.cut", path=scope["path"], code=exc.code, reason=exc.message)


async def _begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks with the first one read: what fails at once can still be answered with a problem."""
    first = await anext(chunks, b"")

    async def rest() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return rest()
