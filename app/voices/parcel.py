"""A voice to take along: one zip with its figures, its embedding and its recording.

Built in a temporary file and sent in pieces, since a recording may be as large as an upload; the file goes
when the sending ends, however it does.
"""

from __future__ import annotations

import asyncio
import json
import struct
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from app.storage import Storage
from app.voices.registry import fetch
from app.workspace import Workspace
from db.tables import Asset, Voice

_CHUNK_BYTES = 1 << 18


async def wrap(
    voice: Voice, recording: Asset, profile: dict[str, Any], *, storage: Storage, workspace: Workspace
) -> AsyncIterator[bytes]:
    """The zip's bytes; what can go wrong is raised before the first. `profile` is what callers are shown.

    Raises StorageUnavailable, NotFound.
    """
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(workspace.folder())
        copy, parcel = folder / "recording", folder / "voice.zip"
        await fetch(storage, recording, copy)
        said = {
            **profile,
            "recording": {
                "file": f"recording{Path(recording.storage_key).suffix}",
                "sha256": recording.sha256,
                "media_type": recording.media_type,
            },
            "embedding_model": voice.embedding_model,
            "embedding": list(struct.unpack(f"<{len(voice.embedding) // 4}f", voice.embedding)),
        }
        await asyncio.to_thread(_pack, parcel, copy, said)
        kept = stack.pop_all()
    return _sent(parcel, kept)


def _pack(parcel: Path, recording: Path, said: dict[str, Any]) -> None:
    with zipfile.ZipFile(parcel, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("voice.json", json.dumps(said, ensure_ascii=False, indent=2))
        packed.write(recording, said["recording"]["file"])


async def _sent(parcel: Path, kept: AsyncExitStack) -> AsyncIterator[bytes]:
    async with kept:
        with parcel.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield chunk
