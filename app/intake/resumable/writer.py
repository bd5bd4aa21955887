"""One request that writes to a resumable upload: it holds a lease, gathers pieces, moves the offset.

The order is: the piece into the store, then the row that counts it; so the offset that is told is never more
than what is durable. A cut connection keeps what came, unless it came under a checksum that was not reached.
The last bytes of an upload are never counted as a piece: they are in memory until the whole is stored as an
asset, so that no upload is ever told to be complete that is not. Whoever is overtaken, because it was silent
for longer than its lease, moves nothing any more.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial as bind

from app.crash_points import CrashPoint
from app.errors import TooLarge
from app.intake.resumable.pieces import PIECE_BYTES, Pieces
from app.intake.resumable.standing import Check, Checksum, UploadLocked
from app.line import Line
from db import partial_uploads as rows
from db.session import DatabaseUnavailable, Transaction
from db.tables import PartialUpload, UploadPiece

LEASE_S = 6.0
"""Silence after which another request may write. Shorter than clients go on asking after a dead connection:
tus-js-client does so for 9 s."""
RENEWALS = 3
"""Within a lease, while bytes come."""


def make_lease() -> str:
    return secrets.token_hex(16)


class Writer:
    """Made with the lease taken. `held` gives it back."""

    def __init__(self, partial: PartialUpload, lease: str, *, line: Line, pieces: Pieces) -> None:
        self.upload_id = partial.id
        self.tenant = partial.tenant
        self.lease = lease
        self.expires_at = partial.expires_at
        self.offset_bytes = partial.offset_bytes
        """What the row counts."""
        self._partial = partial
        self._line = line
        self._pieces = pieces
        self._pending: list[UploadPiece] = []
        """In the store, and not counted yet."""
        self._rest = bytearray()
        self._stored_bytes = partial.offset_bytes
        self._renewed_s = time.monotonic()

    @property
    def is_whole(self) -> bool:
        """Whether every byte has come."""
        return self._stored_bytes + len(self._rest) == self._partial.size_bytes

    @property
    def tail(self) -> bytes:
        """The last bytes, in no piece."""
        return bytes(self._rest)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Give the lease back at the end, and drop what was stored and never counted."""
        try:
            yield
        finally:
            await self._pieces.remove([each.storage_key for each in self._pending])
            with suppress(DatabaseUnavailable):
                async with self._line.database.transaction() as tx:
                    await rows.release_lease(tx, self.upload_id, lease=self.lease)

    async def take(self, chunks: AsyncIterator[bytes], checksum: Checksum | None) -> None:
        """Write the bytes of one request. Raises TooLarge, PieceDamaged, UploadLocked, StorageUnavailable,
        DatabaseUnavailable; and whatever `chunks` raises, after what came until then has been kept."""
        check = Check(checksum)
        stream = aiter(chunks)
        while True:
            try:
                chunk = await anext(stream, None)
            except Exception:
                if checksum is None:
                    await self._put_rest()
                raise
            if chunk is None:
                break
            check.update(chunk)
            await self._add(chunk, is_proven=checksum is None)
        check.prove()
        await self._count()
        if not self.is_whole:
            await self._put_rest()

    async def _add(self, chunk: bytes, *, is_proven: bool) -> None:
        if self._stored_bytes + len(self._rest) + len(chunk) > self._partial.size_bytes:
            raise TooLarge(f"more came than the {self._partial.size_bytes} bytes of Upload-Length")
        self._rest += chunk
        # Strictly more: what may be the end of the upload stays here.
        while len(self._rest) > PIECE_BYTES:
            await self._put(PIECE_BYTES)
            if is_proven:
                await self._count()
        if time.monotonic() - self._renewed_s >= LEASE_S / RENEWALS:
            await self._renew()

    async def _put_rest(self) -> None:
        if self._rest:
            await self._put(len(self._rest))
        await self._count()

    async def _put(self, size_bytes: int) -> None:
        piece = await self._pieces.put(self.upload_id, self._stored_bytes, bytes(self._rest[:size_bytes]))
        self._pending.append(piece)
        del self._rest[:size_bytes]
        self._stored_bytes += size_bytes

    async def _count(self) -> None:
        """Let the row count what is in the store."""
        if not self._pending:
            return
        # Not pending any more, whatever comes of it: after a commit nobody answered they may be counted.
        pieces, self._pending = self._pending, []
        expires_at = self._line.clock.now() + timedelta(seconds=self._line.settings.upload_life_s)
        count = bind(rows.append_pieces, pieces=pieces, lease=self.lease, expires_at=expires_at)
        if not await self._line.database.transact(count, is_idempotent=True):
            self._pending = pieces
            raise UploadLocked("another request has taken this upload over")
        self._line.reach(CrashPoint.PIECE_COUNTED)
        self.offset_bytes, self.expires_at = self._stored_bytes, expires_at

    async def settle(self, tx: Transaction) -> None:
        """Take the rows out, in the transaction that makes something else of them. Raises UploadLocked."""
        if not await rows.delete_partial(tx, self.upload_id, lease=self.lease):
            raise UploadLocked("another request has taken this upload over")

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew the lease while the block works on what has come."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _keep(self) -> None:
        # Losing it stops nothing here: the commit will not find it.
        with suppress(UploadLocked):
            while True:
                with suppress(DatabaseUnavailable):
                    await self._renew()
                await asyncio.sleep(LEASE_S / RENEWALS)

    async def _renew(self) -> None:
        now = self._line.clock.now()
        async with self._line.database.transaction() as tx:
            kept = await rows.renew_lease(tx, self.upload_id, lease=self.lease, now=now, lease_s=LEASE_S)
        if not kept:
            raise UploadLocked("another request has taken this upload over")
        self._renewed_s = time.monotonic()
