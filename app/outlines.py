"""The outline of an asset for a player: drawn when it is first asked for, then kept beside the asset.

Most assets of a pipeline are never looked at, and drawing one costs a tenth of all processor time that
finishing takes. Promises: many who ask for one outline at once wait for one drawing; a few are drawn at
once, in threads; a store that cannot keep it does not stop it from being shown. Leaves the drawing itself
to `app.audio`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from app.audio import Audio
from app.errors import NotFound, StorageUnavailable
from app.storage import Storage
from app.workspace import Workspace
from db.tables import Asset

DRAWN_AT_ONCE = 2


class Outlines:
    """Reads and draws outlines. One object a runtime."""

    def __init__(self, *, audio: Audio, storage: Storage, workspace: Workspace) -> None:
        self._audio = audio
        self._storage = storage
        self._workspace = workspace
        self._turns = asyncio.Semaphore(DRAWN_AT_ONCE)
        self._drawing: dict[str, asyncio.Task[bytes]] = {}

    async def get(self, asset: Asset) -> bytes:
        """audiowaveform's JSON, version 2; some kB. Raises NotFound, StorageUnavailable, AudioRejected."""
        with suppress(NotFound):
            return b"".join([chunk async for chunk in self._storage.read(asset.peaks_key)])
        task = self._drawing.get(asset.id)
        if task is None:
            task = self._drawing[asset.id] = asyncio.create_task(self._draw(asset))
            task.add_done_callback(lambda _: self._drawing.pop(asset.id, None))
        # Shielded: one who goes away must not take the drawing from the others.
        return await asyncio.shield(task)

    async def _draw(self, asset: Asset) -> bytes:
        async with self._turns, self._workspace.folder() as folder:
            copy = folder / "asset"
            try:
                with copy.open("wb") as file:
                    async for chunk in self._storage.read(asset.storage_key):
                        await asyncio.to_thread(file.write, chunk)
            except OSError as exc:
                raise StorageUnavailable(f"no room for temporary files: {exc.strerror}") from exc
            outline = await self._audio.peaks(copy)
        with suppress(StorageUnavailable):
            await self._storage.put_bytes(outline, asset.peaks_key)
        return outline
