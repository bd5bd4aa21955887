"""The pieces of uploads that have not all come: objects in the store, beside those of assets.

Each has a key that is never used again, so that whoever writes late spoils nothing. Promises: a piece is
durable when `put` returns; an object of an upload that has a row is never swept, one without a row always is
in the end. Leaves which pieces count to the rows (`db.partial_uploads`).
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from app.crash_points import CrashPoint, Reach, pass_by
from app.errors import Gone, NotFound, StorageUnavailable
from app.storage import Storage
from db.partial_uploads import delete_expired_partials, find_partial_ids
from db.session import Database, Transaction
from db.tables import UploadPiece

log = structlog.get_logger()

PIECE_BYTES = 4 * 1024 * 1024
"""What is gathered in memory before it is stored, for each upload under way; what a killed process loses."""
REMOVED_AT_ONCE = 8
BATCH = 20
MOST_A_ROUND = 1000
_KEY = re.compile(r"partial/(upl_[0-9a-f]{32})-\d{15}-[0-9a-f]{8}")


def upload_of(key: str) -> str | None:
    """The upload to which the object of this key belongs; None for what is no piece."""
    found = _KEY.fullmatch(key)
    return found[1] if found else None


class Pieces:
    """The objects. Stateless: whoever needs one makes one."""

    def __init__(self, *, database: Database, storage: Storage, reach: Reach = pass_by) -> None:
        self._database = database
        self._storage = storage
        self._reach = reach

    async def put(self, upload_id: str, start_bytes: int, content: bytes) -> UploadPiece:
        """Store a piece; the row to be inserted for it. Raises StorageUnavailable."""
        key = f"partial/{upload_id}-{start_bytes:015d}-{secrets.token_hex(4)}"
        await self._storage.put_bytes(content, key)
        self._reach(CrashPoint.PIECE_STORED)
        return UploadPiece(
            upload_id=upload_id, start_bytes=start_bytes, size_bytes=len(content), storage_key=key
        )

    async def assemble(self, pieces: Sequence[UploadPiece], tail: bytes, path: Path) -> None:
        """Write them into a file, one after the other, and the tail. Raises StorageUnavailable, Gone."""
        try:
            with path.open("wb") as file:
                for piece in pieces:
                    async for chunk in self._storage.read(piece.storage_key):
                        await asyncio.to_thread(file.write, chunk)
                    if file.tell() != piece.start_bytes + piece.size_bytes:
                        raise Gone("a piece of this upload was damaged in the store: begin again")
                await asyncio.to_thread(file.write, tail)
        except NotFound as exc:
            raise Gone("a piece of this upload was lost by the store: begin again") from exc
        except OSError as exc:
            raise StorageUnavailable(f"no room for temporary files: {exc.strerror}") from exc

    async def remove(self, keys: Sequence[str]) -> None:
        """Delete the objects; those that cannot be deleted now are left to the sweep."""
        for at in range(0, len(keys), REMOVED_AT_ONCE):
            async with asyncio.TaskGroup() as deletes:
                for key in keys[at : at + REMOVED_AT_ONCE]:
                    deletes.create_task(self._remove(key))

    async def _remove(self, key: str) -> None:
        with suppress(StorageUnavailable):
            await self._storage.delete(key)

    async def expire(self) -> int:
        """Delete uploads of which nothing has come for UPLOAD_LIFE_S; how many."""

        async def delete(tx: Transaction) -> tuple[int, list[str]]:
            return await delete_expired_partials(tx, now=await tx.now(), limit=BATCH)

        expired, gone = 0, BATCH
        while gone == BATCH and expired < MOST_A_ROUND:
            gone, keys = await self._database.transact(delete)
            expired += gone
            await self.remove(keys)
        if expired:
            log.info("uploads.abandoned", uploads=expired)
        return expired

    async def find_orphans(self, keys: Sequence[str]) -> set[str]:
        """Those of these keys whose upload has no row any more: nobody will ask for them."""
        by_key = {key: upload_id for key in keys if (upload_id := upload_of(key)) is not None}
        if not by_key:
            return set()
        async with self._database.reading() as tx:
            there = await find_partial_ids(tx, set(by_key.values()))
        return {key for key, upload_id in by_key.items() if upload_id not in there}
