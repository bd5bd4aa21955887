"""Assets by content: the same bytes are stored once, under a key made of their SHA-256.

One async port over obstore: local files, or a bucket at S3, Google or Azure. Promises: an object that `put`
returned for is whole and durable (on local files: written aside, renamed, synced; in a bucket: checked by
the store against a SHA-256 and looked up again); reads come in bounded chunks. Raises StorageUnavailable
for what may pass, NotFound for what is not there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from app.errors import NotFound, StartupError, StorageUnavailable

CHUNK_BYTES = 256 * 1024
MULTIPART_BYTES = 16 * 1024 * 1024
"""From this size on a bucket takes the object in parts."""
BUCKET_SCHEMES = ("s3://", "gs://", "az://")


class Storage:
    """One bucket or folder of objects."""

    def __init__(self, url: str) -> None:
        """`file://PATH` (a relative path is taken from the working folder), or a bucket's URL.

        Credentials, region and endpoint of a bucket come from its own usual environment variables.
        Raises StartupError.
        """
        self._root = None if url.startswith(BUCKET_SCHEMES) else Path(url.removeprefix("file://")).resolve()
        try:
            self._store = _open_bucket(url) if self._root is None else _open_folder(self._root)
        except (OSError, BaseError, ValueError) as exc:
            raise StartupError(f"STORAGE_URL: cannot be used: {exc}") from exc

    async def put(self, source: Path, key: str, *, size_bytes: int) -> None:
        """Store a file's bytes under a key that names them; nothing to do when they are there."""
        try:
            if await self._size(key) == size_bytes:
                # There by its name is not there on the disk: whoever wrote it may have died before the sync.
                await self._prove(key, size_bytes)
                return
            in_parts = self._root is None and size_bytes >= MULTIPART_BYTES
            await obstore.put_async(self._store, key, source, use_multipart=in_parts)
            await self._prove(key, size_bytes)
        except (BaseError, OSError) as exc:
            raise StorageUnavailable(f"the object could not be stored: {type(exc).__name__}") from exc

    async def put_bytes(self, content: bytes, key: str) -> None:
        """The same for bytes at hand."""
        try:
            await obstore.put_async(self._store, key, content, use_multipart=False)
            await self._prove(key, len(content))
        except (BaseError, OSError) as exc:
            raise StorageUnavailable(f"the object could not be stored: {type(exc).__name__}") from exc

    async def exists(self, key: str) -> bool:
        try:
            return await self._size(key) is not None
        except BaseError as exc:
            raise StorageUnavailable("the object store does not answer") from exc

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

    def place_of(self, key: str) -> str:
        """Where the object lies, for people: a path, or the key in the bucket."""
        return key if self._root is None else str(self._root / key)

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except BaseError as exc:
            raise StorageUnavailable("the object store does not answer") from exc

    async def check(self) -> str | None:
        """None when an object can be written, read and removed; else what is wrong."""
        key = f"health/{os.getpid()}"
        try:
            await obstore.put_async(self._store, key, b"ok", use_multipart=False)
            # Another check of this process may have removed it first.
            with suppress(FileNotFoundError):
                await obstore.delete_async(self._store, key)
        except (BaseError, OSError) as exc:
            return f"{type(exc).__name__}: the object store cannot be written"
        return None

    async def _size(self, key: str) -> int | None:
        try:
            return (await obstore.head_async(self._store, key))["size"]
        except FileNotFoundError:
            return None

    async def _prove(self, key: str, size_bytes: int) -> None:
        """No row may point at an object that is not whole."""
        if self._root is not None:
            await asyncio.to_thread(_sync, self._root / key)
        if (await obstore.head_async(self._store, key))["size"] != size_bytes:
            raise StorageUnavailable("the object store kept less than it was given")


def _open_folder(root: Path) -> ObjectStore:
    root.mkdir(parents=True, exist_ok=True)
    return LocalStore(str(root))


def _open_bucket(url: str) -> ObjectStore:
    checked = {"aws_checksum_algorithm": "sha256"} if url.startswith("s3://") else {}
    return from_url(  # type: ignore[call-overload,no-any-return]
        url,
        config=checked,
        client_options={"timeout": "60s", "connect_timeout": "5s", "allow_http": True},
        retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=30)},
    )


def _sync(path: Path) -> None:
    # obstore writes aside and renames, but does not sync: a power cut could leave an empty file behind a
    # row that says it is there.
    for target in (path, path.parent, path.parent.parent):
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
