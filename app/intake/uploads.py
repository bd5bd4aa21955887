"""Files that callers send: on disk under a cap while they come, proven to be sound, stored once.

Promises: what is not sound, cut short, too long or too large leaves nothing behind; the bytes that are
stored are those that were sent; an upload that no job names is deleted after UPLOAD_LIFE_S. Leaves how the
bytes come over the wire to the web, and what a job does with them to `files`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from app.audio import Audio
from app.errors import AudioRejected, InvalidInput, Overloaded, StorageUnavailable, TooLarge
from app.intake.shelf import Described, described_sound, shelve
from app.line import Line
from app.storage import Storage
from app.workspace import Disks, Workspace
from db.assets import ObjectsDoomed, insert_asset
from db.ids import make_id
from db.session import Transaction
from db.tables import Asset, Upload
from db.uploads import insert_upload

AT_ONCE = 8
"""Uploads on the disk at once; each may be as large as MAX_UPLOAD_BYTES."""
BLOCK_BYTES = 1 << 20
TRIES = 3


@dataclass(frozen=True, slots=True)
class Received:
    """An upload that is stored."""

    upload_id: str
    asset: Asset
    expires_at: datetime


class Uploads:
    """Takes files. One object a runtime."""

    def __init__(
        self, *, line: Line, audio: Audio, storage: Storage, workspace: Workspace, disks: Disks
    ) -> None:
        """`audio` holds uploads to their own limits."""
        self._line = line
        self._audio = audio
        self._storage = storage
        self._workspace = workspace
        self._disks = disks
        self._under_way = 0

    async def receive(self, chunks: AsyncIterator[bytes], *, tenant: str = "default") -> Received:
        """Take a file to its end and store it.

        Raises TooLarge, InvalidInput, Overloaded, StorageUnavailable, DatabaseUnavailable, and whatever
        `chunks` raises; nothing is stored then.
        """
        if self._under_way >= AT_ONCE:
            raise Overloaded("too many uploads are under way", retry_after_s=5)
        shortage = await self._disks.find_shortage()
        if shortage is not None:
            raise Overloaded(f"the disk is nearly full ({shortage})", retry_after_s=30)
        self._under_way += 1
        try:
            async with self._workspace.folder() as folder:
                path = folder / "upload"
                await self._write(chunks, path)
                try:
                    clip = await self._audio.prove(path)
                except AudioRejected as exc:
                    raise InvalidInput(f"file: {exc.message}", field="file") from exc
                return await self._store(path, described_sound(clip), tenant)
        finally:
            self._under_way -= 1

    async def _write(self, chunks: AsyncIterator[bytes], path: Path) -> None:
        most_bytes = self._line.settings.max_upload_bytes
        size_bytes, block = 0, bytearray()
        try:
            with path.open("wb") as file:
                async for chunk in chunks:
                    size_bytes += len(chunk)
                    if size_bytes > most_bytes:
                        raise TooLarge(f"an upload may have at most {most_bytes} bytes")
                    block += chunk
                    if len(block) >= BLOCK_BYTES:
                        await asyncio.to_thread(file.write, block)
                        block = bytearray()
                await asyncio.to_thread(file.write, block)
        except OSError as exc:
            raise StorageUnavailable(f"no room for temporary files: {exc.strerror}") from exc
        if not size_bytes:
            raise InvalidInput("file: the upload is empty", field="file")

    async def _store(self, path: Path, described: Described, tenant: str) -> Received:
        """Stored again, under another key, where its bytes are just being deleted."""
        for _ in range(TRIES):
            now = self._line.clock.now()
            asset = await shelve(self._storage, self._line.database, path, described, now=now)
            with suppress(ObjectsDoomed):
                return await self._line.database.transact(partial(self._insert, asset=asset, tenant=tenant))
        raise StorageUnavailable("its bytes are being deleted again and again", retry_after_s=1)

    async def _insert(self, tx: Transaction, *, asset: Asset, tenant: str) -> Received:
        now = self._line.clock.now()
        stored = await insert_asset(tx, asset)
        upload = Upload(
            id=make_id("upl"),
            tenant=tenant,
            asset_id=stored.id,
            created_at=now,
            expires_at=now + timedelta(seconds=self._line.settings.upload_life_s),
        )
        await insert_upload(tx, upload)
        return Received(upload.id, stored, upload.expires_at)
