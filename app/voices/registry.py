"""The verbs on voice profiles.

Promises: a recording that is not good enough leaves nothing behind; an `Idempotency-Key` makes one voice; a
voice keeps its recording until it is deleted, whatever becomes of the upload or job that it came from; what
another tenant has is not there. Leaves what is measured to `examiner`, what is enough to `judging`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from app.access.callers import Caller
from app.access.trail import Act, note_act
from app.engines.voice.examining import Examined
from app.errors import AudioRejected, Conflict, Gone, InvalidInput, NotFound, StorageUnavailable
from app.intake.once import Claim, Once
from app.line import Line
from app.storage import Storage
from app.voices.examiner import Examiner
from app.voices.judging import VoiceUnfit, check_length, judge
from app.voices.likeness import Duplicate, find_duplicates
from app.workspace import Workspace
from db import voices as rows
from db.ids import make_id
from db.session import Transaction
from db.tables import Asset, Voice
from db.uploads import hold_asset, hold_upload

MOST_VOICES = 1000
"""Of a tenant: all are compared with a new one."""


class TooManyVoices(Conflict):
    """The tenant has as many voices as there may be: delete one."""

    code = "too_many_voices"


@dataclass(frozen=True, slots=True)
class Made:
    """A voice and those that sound like it."""

    voice: Voice
    duplicates: list[Duplicate] = field(default_factory=list)


class Voices:
    """One object a runtime."""

    def __init__(self, *, line: Line, storage: Storage, workspace: Workspace, examiner: Examiner) -> None:
        self._line = line
        self._storage = storage
        self._workspace = workspace
        self._examiner = examiner
        self._once = Once(line=line)

    async def create(self, by: Caller, *, name: str, file_id: str, key: str | None = None) -> Made:
        """A voice made from an upload or an asset of the tenant's; with a key once.

        Raises InvalidInput, VoiceUnfit, TooManyVoices, UnderWay, EngineUnavailable, Overloaded,
        StorageUnavailable, DatabaseUnavailable.
        """
        fingerprint = hashlib.sha256(f"voice\n{file_id}\n{name}".encode()).hexdigest()
        async with self._once.claim(by.tenant, key) as claim:
            if claim is not None and (known := claim.find_known(fingerprint)) is not None:
                with suppress(NotFound):
                    return await self.get(known, by=by)
            named = "upload_id" if file_id.startswith("upl_") else "asset"
            async with self._line.database.transaction() as tx:
                asset = await self._hold(tx, file_id, named, by)
            check_length(asset.duration_s, field=named)
            examined = await self._examine(asset, named)
            judge(examined, field=named)
            voice = _voice_of(examined, tenant=by.tenant, name=name, asset=asset)
            store = partial(
                self._store, voice=voice, file_id=file_id, named=named, by=by, claim=claim, mark=fingerprint
            )
            await self._line.database.transact(store)
        return await self.get(voice.id, by=by)

    async def list_voices(self, by: Caller, *, before_id: str | None, limit: int) -> list[Made]:
        """Newest first."""
        async with self._line.database.reading() as tx:
            found = await rows.list_voices(tx, by.tenant, before_id=before_id, limit=limit)
            return await self._compared(tx, found, by)

    async def get(self, voice_id: str, *, by: Caller) -> Made:
        """Raises NotFound."""
        async with self._line.database.reading() as tx:
            voice = await rows.find_voice(tx, voice_id, tenant=by.tenant)
            if voice is None:
                raise NotFound("there is no such voice")
            return (await self._compared(tx, [voice], by))[0]

    async def rename(self, voice_id: str, name: str, *, by: Caller) -> Made:
        """Raises NotFound."""
        now = self._line.clock.now()

        async def rename(tx: Transaction) -> None:
            if not await rows.rename_voice(tx, voice_id, name, tenant=by.tenant):
                raise NotFound("there is no such voice")
            await note_act(tx, by, Act.VOICE_RENAMED, voice_id, at=now)

        await self._line.database.transact(rename)
        return await self.get(voice_id, by=by)

    async def delete(self, voice_id: str, *, by: Caller) -> None:
        """Delete it: what was made with it stays, jobs that wait for it fail. Raises NotFound."""
        now = self._line.clock.now()

        async def remove(tx: Transaction) -> None:
            if not await rows.delete_voice(tx, voice_id, tenant=by.tenant, now=now):
                raise NotFound("there is no such voice")
            await note_act(tx, by, Act.VOICE_DELETED, voice_id, at=now)

        await self._line.database.transact(remove)

    async def recording_of(self, voice: Voice) -> Asset:
        """Raises Gone."""
        async with self._line.database.reading() as tx:
            asset = await rows.find_recording_asset(tx, voice)
        if asset is None:
            raise Gone("the voice's recording is gone")
        return asset

    async def _hold(self, tx: Transaction, file_id: str, named: str, by: Caller) -> Asset:
        now = self._line.clock.now()
        if named == "upload_id":
            asset = await hold_upload(tx, file_id, tenant=by.tenant, now=now)
        else:
            asset = await hold_asset(tx, file_id, tenant=by.tenant)
        if asset is None:
            raise InvalidInput(f"{named}: there is no such upload or asset", field=named)
        if not asset.channels:
            raise InvalidInput(f"{named}: this asset is not sound", field=named)
        return asset

    async def _examine(self, asset: Asset, named: str) -> Examined:
        async with self._workspace.folder() as folder:
            copy = folder / "recording"
            await fetch(self._storage, asset, copy)
            try:
                return await self._examiner.examine(copy)
            except AudioRejected as exc:
                raise VoiceUnfit(f"the recording cannot be a voice: {exc.message}", field=named) from exc

    async def _store(
        self,
        tx: Transaction,
        *,
        voice: Voice,
        file_id: str,
        named: str,
        by: Caller,
        claim: Claim | None,
        mark: str,
    ) -> None:
        voice.created_at = self._line.clock.now()
        # Held again: it may have expired while it was examined.
        await self._hold(tx, file_id, named, by)
        if await rows.count_voices(tx, by.tenant) >= MOST_VOICES:
            raise TooManyVoices(f"there may be at most {MOST_VOICES} voices")
        await rows.insert_voice(tx, voice)
        await note_act(tx, by, Act.VOICE_CREATED, voice.id, at=voice.created_at)
        if claim is not None:
            await claim.settle(tx, mark, voice.id)

    async def _compared(self, tx: Transaction, found: Sequence[Voice], by: Caller) -> list[Made]:
        alike: dict[str, list[Duplicate]] = {}
        for model in {voice.embedding_model for voice in found}:
            others = await rows.list_embeddings(tx, by.tenant, model=model, limit=MOST_VOICES)
            own = {voice.id: voice.embedding for voice in found if voice.embedding_model == model}
            alike |= await asyncio.to_thread(find_duplicates, own, others)
        return [Made(voice, alike[voice.id]) for voice in found]


async def fetch(storage: Storage, asset: Asset, into: Path) -> None:
    """Copy an asset out of the store. Raises StorageUnavailable, NotFound."""
    try:
        with into.open("wb") as file:
            async for chunk in storage.read(asset.storage_key):
                await asyncio.to_thread(file.write, chunk)
    except OSError as exc:
        raise StorageUnavailable(f"no room for temporary files: {exc.strerror}") from exc


def _voice_of(examined: Examined, *, tenant: str, name: str, asset: Asset) -> Voice:
    return Voice(
        id=make_id("voi"),
        tenant=tenant,
        name=name,
        created_at=asset.created_at,
        asset_id=asset.id,
        upload_id=make_id("upl"),
        duration_s=examined.duration_s,
        snr_db=examined.snr_db,
        silence_share=examined.silence_share,
        clipped_share=examined.clipped_share,
        consistency=examined.consistency,
        lowest_hz=examined.lowest_hz,
        median_hz=examined.median_hz,
        highest_hz=examined.highest_hz,
        embedding_model=examined.embedding_model,
        embedding=base64.b64decode(examined.embedding or ""),
    )
