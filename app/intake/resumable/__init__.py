"""Uploads in many requests: made, written to from where they are, ended; stored like others once all is here.

How far one is stands in a row, and what has come lies in the store as `pieces`: any process goes on with it,
also after a death. Promises: the offset that is told is durable; one request at a time writes; an upload is
told to be complete when it is a stored upload, and not before; what is no sound leaves nothing behind; one
of which nothing comes for UPLOAD_LIFE_S is deleted. Leaves headers and statuses to the web, the judging and
storing of files to `uploads`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from app.access.callers import Caller
from app.access.trail import Act, note_act
from app.crash_points import CrashPoint
from app.errors import Gone, InvalidInput, NotFound, TooLarge
from app.intake.once import UnderWay
from app.intake.resumable.pieces import PIECE_BYTES, Pieces
from app.intake.resumable.standing import (
    Checksum,
    OffsetMismatch,
    Standing,
    TooManyUnfinished,
    UploadLocked,
)
from app.intake.resumable.writer import LEASE_S, Writer, make_lease
from app.intake.uploads import Received, Uploads
from app.line import Line
from app.storage import Storage
from app.workspace import Workspace
from db import partial_uploads as rows
from db.ids import make_id
from db.keys import insert_idempotency_key, settle_idempotency_key
from db.session import Transaction
from db.tables import IdempotencyKey, PartialUpload
from db.uploads import expire_upload, find_upload

MOST_UNFINISHED = 1000
"""Of one tenant."""
MOST_SHORT_PIECES = 10_000
"""Requests, or cuts, that may leave a piece shorter than PIECE_BYTES."""


class Resumable:
    """The verbs. One object a runtime."""

    def __init__(self, *, line: Line, uploads: Uploads, storage: Storage, workspace: Workspace) -> None:
        self._line = line
        self._uploads = uploads
        self._workspace = workspace
        self._pieces = Pieces(database=line.database, storage=storage, reach=line.reach)

    async def create(
        self, tenant: str, size_bytes: int, *, about: str = "", idempotency_key: str | None = None
    ) -> Standing:
        """An upload of so many bytes, of which none has come; with a key the one that it made before.

        Raises TooLarge, InvalidInput, UnderWay, TooManyUnfinished, DatabaseUnavailable.
        """
        most_bytes = self._line.settings.max_upload_bytes
        if size_bytes > most_bytes:
            raise TooLarge(f"an upload may have at most {most_bytes} bytes")
        if size_bytes <= 0:
            raise InvalidInput("Upload-Length: the upload is empty", field="Upload-Length")
        now = self._line.clock.now()
        fresh = PartialUpload(
            id=make_id("upl"),
            tenant=tenant,
            size_bytes=size_bytes,
            about=about,
            created_at=now,
            expires_at=now + timedelta(seconds=self._line.settings.upload_life_s),
        )

        async def insert(tx: Transaction) -> Standing:
            known = await self._find_known(tx, fresh, idempotency_key)
            if known is not None:
                return known
            if await rows.count_partials(tx, tenant) >= MOST_UNFINISHED:
                raise TooManyUnfinished(f"there are {MOST_UNFINISHED} unfinished uploads")
            await rows.insert_partial(tx, fresh)
            return _standing_of(fresh)

        return await self._line.database.transact(insert)

    async def find(self, tenant: str, upload_id: str) -> Standing:
        """How far it is. Raises NotFound, Gone, DatabaseUnavailable."""
        async with self._line.database.reading() as tx:
            found = await self._find(tx, tenant, upload_id)
        if found is None:
            raise NotFound("no such upload")
        if found.expires_at <= self._line.clock.now():
            raise Gone("the upload was not finished in its time")
        return found

    async def append(
        self,
        tenant: str,
        upload_id: str,
        chunks: AsyncIterator[bytes],
        *,
        offset_bytes: int,
        checksum: Checksum | None = None,
    ) -> Standing:
        """Write bytes from `offset_bytes` on; once the last is here, prove and store the whole.

        Raises NotFound, Gone, OffsetMismatch, UploadLocked, TooLarge, PieceDamaged, InvalidInput for what is
        not sound, Overloaded, StorageUnavailable, DatabaseUnavailable; and whatever `chunks` raises.
        """
        found = await self.find(tenant, upload_id)
        if found.offset_bytes != offset_bytes:
            raise OffsetMismatch(f"the upload is at {found.offset_bytes}, not at {offset_bytes}")
        if found.stored is not None:
            # Asked again by whoever did not hear that it is complete: there is nothing left to send.
            return found
        async with self._uploads.room(), self._writing(tenant, upload_id, offset_bytes) as writer:
            await writer.take(chunks, checksum)
            if writer.is_whole:
                return _standing_of_stored(await self._finish(writer))
            return Standing(upload_id, found.size_bytes, writer.offset_bytes, writer.expires_at, found.about)

    async def remove(self, by: Caller, upload_id: str) -> None:
        """End it, however far it is; a job that has a stored one keeps the file. Raises NotFound."""

        async def end(tx: Transaction) -> list[str]:
            now = self._line.clock.now()
            keys = await rows.end_partial(tx, upload_id, tenant=by.tenant)
            if keys is None and not await expire_upload(tx, upload_id, tenant=by.tenant, now=now):
                raise NotFound("no such upload")
            await note_act(tx, by, Act.UPLOAD_DELETED, upload_id, at=now)
            return keys or []

        await self._pieces.remove(await self._line.database.transact(end))

    @asynccontextmanager
    async def _writing(self, tenant: str, upload_id: str, offset_bytes: int) -> AsyncIterator[Writer]:
        """Be the one that writes to it."""
        lease = make_lease()

        async def take(tx: Transaction) -> PartialUpload:
            now = self._line.clock.now()
            partial = await rows.take_lease(tx, upload_id, lease=lease, now=now, lease_s=LEASE_S)
            if partial is None:
                there = await rows.find_partial(tx, upload_id, tenant=tenant)
                raise UploadLocked("another request writes to it") if there else NotFound("no such upload")
            if partial.offset_bytes != offset_bytes:
                raise OffsetMismatch(f"the upload is at {partial.offset_bytes}, not at {offset_bytes}")
            most = MOST_SHORT_PIECES + partial.size_bytes // PIECE_BYTES
            if partial.pieces >= most:
                raise TooLarge(f"it came in {most} pieces: begin again with larger ones")
            return partial

        partial = await self._line.database.transact(take, is_idempotent=True)
        writer = Writer(partial, lease, line=self._line, pieces=self._pieces)
        async with writer.held():
            yield writer

    async def _finish(self, writer: Writer) -> Received:
        """Make a stored upload of all that came."""
        async with writer.kept(), self._workspace.folder() as folder:
            async with self._line.database.reading() as tx:
                pieces = await rows.list_pieces(tx, writer.upload_id)
            keys = [each.storage_key for each in pieces]
            path = folder / "upload"
            try:
                await self._pieces.assemble(pieces, writer.tail, path)
                described = await self._uploads.prove(path)
            except (InvalidInput, Gone):
                # It never will be: whoever asks for it is told that it is not there.
                await self._line.database.transact(writer.settle)
                await self._pieces.remove(keys)
                raise
            received = await self._uploads.store(
                path, described, tenant=writer.tenant, upload_id=writer.upload_id, settle=writer.settle
            )
        self._line.reach(CrashPoint.UPLOAD_COMMITTED)
        await self._pieces.remove(keys)
        return received

    async def _find(self, tx: Transaction, tenant: str, upload_id: str) -> Standing | None:
        # In this order: the partial one goes in the transaction that makes the stored one.
        partial = await rows.find_partial(tx, upload_id, tenant=tenant)
        if partial is not None:
            return _standing_of(partial)
        found = await find_upload(tx, upload_id, tenant=tenant, now=self._line.clock.now())
        if found is None:
            return None
        return _standing_of_stored(Received(found[0].id, found[1], found[0].expires_at))

    async def _find_known(self, tx: Transaction, fresh: PartialUpload, key: str | None) -> Standing | None:
        """What the key made before, if it is still there; else the key is the fresh one's."""
        if key is None:
            return None
        fingerprint = hashlib.sha256(f"{fresh.size_bytes} {fresh.about}".encode()).hexdigest()
        ours = IdempotencyKey(
            tenant=fresh.tenant,
            key=key,
            fingerprint=fingerprint,
            job_id=fresh.id,
            created_at=fresh.created_at,
        )
        known = await insert_idempotency_key(tx, ours)
        if known is ours:
            return None
        if known.open_until is not None:
            raise UnderWay("the first request with this Idempotency-Key is still under way")
        if known.fingerprint != fingerprint:
            raise InvalidInput("this Idempotency-Key was used for another request", field="Idempotency-Key")
        found = await self._find(tx, fresh.tenant, known.job_id)
        if found is not None and found.expires_at > fresh.created_at:
            return found
        await settle_idempotency_key(
            tx, fresh.tenant, key, mark=fingerprint, fingerprint=fingerprint, made_id=fresh.id
        )
        return None


def _standing_of(partial: PartialUpload) -> Standing:
    return Standing(partial.id, partial.size_bytes, partial.offset_bytes, partial.expires_at, partial.about)


def _standing_of_stored(received: Received) -> Standing:
    size_bytes = received.asset.size_bytes
    return Standing(received.upload_id, size_bytes, size_bytes, received.expires_at, stored=received)
