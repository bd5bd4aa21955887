"""Assets by content: the same bytes are stored once, under a key made of their SHA-256.

One async port over obstore. Promises: an object that `put` returned for is whole and durable (on local
files: written aside, renamed, synced); reads come in bounded chunks. Raises StorageUnavailable for what
may pass, NotFound for what is not there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from app.errors import NotFound, StartupError, StorageUnavailable

CHUNK_BYTES = 256 * 1024


class Storage:
    """One bucket or folder of objects."""

    def __init__(self, url: str) -> None:
        """`file://PATH`; a relative path is taken from the working folder. Raises StartupError."""
        path = Path(url.removeprefix("file://")).resolve()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._store: ObjectStore = LocalStore(str(path))
        except (OSError, BaseError) as exc:
            raise StartupError(f"STORAGE_URL: {path} cannot be used: {exc}") from exc
        self._root = path

    async def put(self, source: Path, key: str) -> None:
        """Store a file's bytes under a key that names them; nothing to do when they are there."""
        if await self.exists(key):
            return
        try:
            await obstore.put_async(self._store, key, source, use_multipart=False)
            await asyncio.to_thread(self._sync, key)
        except (BaseError, OSError) as exc:
            raise StorageUnavailable(f"the object could not be stored: {type(exc).__name__}") from exc

    async def put_bytes(self, content: bytes, key: str) -> None:
        """The same for bytes at hand."""
        try:
            await obstore.put_async(self._store, key, content, use_multipart=False)
            await asyncio.to_thread(self._sync, key)
        except (BaseError, OSError) as exc:
            raise StorageUnavailable(f"the object could not be stored: {type(exc).__name__}") from exc

    async def exists(self, key: str) -> bool:
        try:
            await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return False
        except BaseError as exc:
            raise StorageUnavailable("the object store does not answer") from exc
        return True

    async def read(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, not including, `end`. Raises NotFound before the first chunk."""
        try:
            size = (await obstore.head_async(self._store, key))["size"]
            stop = size if end is None else min(end, size)
            for at in range(start, stop, CHUNK_BYTES):
                chunk = await obstore.get_range_async(
                    self._store, key, start=at, end=min(stop, at + CHUNK_BYTES)
                )
                yield bytes(chunk)
        except FileNotFoundError as exc:
            raise NotFound("the object is gone from the store") from exc
        except BaseError as exc:
            raise StorageUnavailable("the object store does not answer") from exc

    def local_path(self, key: str) -> Path | None:
        """Where the object lies on this machine, when it does."""
        path = self._root / key
        return path if path.is_file() else None

    async def check(self) -> str | None:
        """None when an object can be written, read and removed; else what is wrong."""
        key = f"health/{os.getpid()}"
        try:
            await obstore.put_async(self._store, key, b"ok", use_multipart=False)
            await obstore.delete_async(self._store, key)
        except (BaseError, OSError) as exc:
            return f"{type(exc).__name__}: the object store cannot be written"
        return None

    def _sync(self, key: str) -> None:
        # obstore writes aside and renames, but does not sync: a power cut could leave an empty file
        # behind a row that says it is there.
        path = self._root / key
        for target in (path, path.parent):
            handle = os.open(target, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def measure(path: Path) -> tuple[str, int]:
    """The file's SHA-256 and its size in bytes; blocking, so call it in a thread."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest(), path.stat().st_size


def content_key(sha256: str, suffix: str) -> str:
    """`ab/abcdef….wav`: two letters of the digest as the folder, so that no folder grows without end."""
    return f"{sha256[:2]}/{sha256}{suffix}"
