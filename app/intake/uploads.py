"""Files that callers send: on disk under a cap while they come, proven to be sound, stored once.

Promises: what is not sound, cut short, too long or too large leaves nothing behind; the bytes that are
stored are those that were sent; an upload that no job names is deleted after UPLOAD_LIFE_S. Leaves how the
bytes come over the wire to the web, uploads in many requests to `resumable`, and what a job does with a
file to `files`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from app.audio import Audio
from app.errors import AudioRejected, InvalidInput, Overloaded, StorageUnavailable, TooLarge
from app.intake.once import Claim, Once
from app.intake.shelf import Described, described_sound, shelve
from app.line import Line
from app.storage import Storage, measure
from app.workspace import Disks, Workspace
from db.assets import ObjectsDoomed, insert_asset
from db.ids import make_id
from db.session import Transaction
from db.tables import Asset, Upload
from db.uploads import find_upload, insert_upload

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


async def _nothing_else(_tx: Transaction) -> None:
    pass


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
        self._once = Once(line=line)
        self._under_way = 0

    async def receive(
        self, chunks: AsyncIterator[bytes], *, tenant: str = "default", idempotency_key: str | None = None
    ) -> Received:
        """Take a file to its end and store it; with a key once, however often it is sent.

        Raises TooLarge, InvalidInput, UnderWay, Overloaded, StorageUnavailable, DatabaseUnavailable, and
        whatever `chunks` raises; nothing is stored then.
        """
        async with (
            self.room(),
            self._once.claim(tenant, idempotency_key) as claim,
            self._workspace.folder() as folder,
        ):
            path = folder / "upload"
            await self._write(chunks, path)
            described = await self.prove(path)
            if claim is not None and (known := await self._find_known(claim, path)):
                return known
            return await self.store(path, described, tenant=tenant, claim=claim)

    @asynccontextmanager
    async def room(self) -> AsyncIterator[None]:
        """Be one of the uploads under way. Raises Overloaded: too many, or no room on a disk."""
        if self._under_way >= AT_ONCE:
            raise Overloaded("too many uploads are under way", retry_after_s=5)
        shortage = await self._disks.find_shortage()
        if shortage is not None:
            raise Overloaded(f"the disk is nearly full ({shortage})", retry_after_s=30)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def prove(self, path: Path) -> Described:
        """What a file that has come is. Raises InvalidInput for what is no whole sound within the limits."""
        try:
            return described_sound(await self._audio.prove(path))
        except AudioRejected as exc:
            raise InvalidInput(f"file: {exc.message}", field="file") from exc

    async def store(
        self,
        path: Path,
        described: Described,
        *,
        tenant: str,
        upload_id: str | None = None,
        claim: Claim | None = None,
        settle: Callable[[Transaction], Awaitable[None]] = _nothing_else,
    ) -> Received:
        """Make an upload of a proven file; under another key where its bytes are just being deleted.

        `settle` is run in the transaction that makes it. Raises StorageUnavailable, DatabaseUnavailable, and
        what `settle` raises.
        """
        upload_id = upload_id or make_id("upl")
        for _ in range(TRIES):
            now = self._line.clock.now()
            asset = await shelve(self._storage, self._line.database, path, described, now=now)

            async def insert(tx: Transaction, asset: Asset = asset) -> Received:
                received = await self._insert(tx, asset, upload_id, tenant)
                if claim is not None:
                    await claim.settle(tx, asset.sha256, upload_id)
                await settle(tx)
                return received

            with suppress(ObjectsDoomed):
                return await self._line.database.transact(insert)
        raise StorageUnavailable("its bytes are being deleted again and again", retry_after_s=1)

    async def _find_known(self, claim: Claim, path: Path) -> Received | None:
        """The upload that the key made of these bytes before, if it is still there. Raises InvalidInput."""
        sha256, _ = await asyncio.to_thread(measure, path)
        upload_id = claim.find_known(sha256)
        if upload_id is None:
            return None
        async with self._line.database.reading() as tx:
            found = await find_upload(tx, upload_id, tenant=claim.tenant, now=self._line.clock.now())
        return Received(found[0].id, found[1], found[0].expires_at) if found else None

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

    async def _insert(self, tx: Transaction, asset: Asset, upload_id: str, tenant: str) -> Received:
        now = self._line.clock.now()
        stored = await insert_asset(tx, asset)
        expires_at = now + timedelta(seconds=self._line.settings.upload_life_s)
        upload = Upload(
            id=upload_id, tenant=tenant, asset_id=stored.id, created_at=now, expires_at=expires_at
        )
        await insert_upload(tx, upload)
        return Received(upload.id, stored, expires_at)
