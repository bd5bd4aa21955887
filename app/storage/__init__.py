"""Assets by content: the same bytes are stored once, under a key made of their SHA-256.

One async port over a folder of ours (`app.storage.folder`) and, through obstore, a bucket at S3, Google or
Azure. Promises: an object that `put` returned for is whole, durable and the bytes that were given, also when
it was there before (a folder's is compared byte by byte; a bucket's by its MD5, and sent again where the
store does not tell one); reads come in bounded chunks, and go to their end in a folder even when the object
is deleted meanwhile. Raises StorageUnavailable for what may pass, NotFound for what is not there.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import (
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, ObjectStore, from_url

from app.errors import NotFound, StartupError, StorageUnavailable
from app.storage import folder

CHUNK_BYTES = 256 * 1024
MULTIPART_BYTES = 16 * 1024 * 1024
"""From this size on a bucket takes the object in parts."""
BUCKET_SCHEMES = ("s3://", "gs://", "az://")
LISTED_AT_ONCE = 1000
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class BucketLimits:
    """How patient a bucket's client is; every figure comes from the setting `STORAGE_…` of the same name."""

    timeout_s: float = 60.0
    connect_timeout_s: float = 5.0
    retries: int = 4
    retry_s: float = 30.0


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the store lists it. `changed_at` is by the store's own clock."""

    key: str
    size_bytes: int
    changed_at: datetime


class Storage:
    """One bucket or folder of objects."""

    def __init__(self, url: str, limits: BucketLimits | None = None) -> None:
        """`file://PATH` (a relative path is taken from the working folder), or a bucket's URL.

        Credentials, region and endpoint of a bucket come from its own usual environment variables.
        Raises StartupError.
        """
        self._root = None if url.startswith(BUCKET_SCHEMES) else Path(url.removeprefix("file://")).resolve()
        try:
            self._store = (
                _open_bucket(url, limits or BucketLimits())
                if self._root is None
                else _open_folder(self._root)
            )
        except (OSError, BaseError, ValueError) as exc:
            raise StartupError(f"STORAGE_URL: cannot be used: {exc}") from exc

    @property
    def root(self) -> Path | None:
        """The folder; None for a bucket."""
        return self._root

    async def put(self, source: Path, key: str, *, size_bytes: int) -> None:
        """Store a file's bytes under a key that names them; nothing to do when they are there."""
        try:
            if not await self._holds(key, source, size_bytes):
                await self._write(key, source, in_parts=size_bytes >= MULTIPART_BYTES)
            if await self.size(key) != size_bytes:
                raise StorageUnavailable("the object store kept less than it was given")
        except (BaseError, OSError) as exc:
            raise StorageUnavailable(f"the object could not be stored: {_reason(exc)}") from exc

    async def put_bytes(self, content: bytes, key: str) -> None:
        """The same for bytes at hand, which replace what is there."""
        try:
            await self._write(key, content, in_parts=False)
            if await self.size(key) != len(content):
                raise StorageUnavailable("the object store kept less than it was given")
        except (BaseError, OSError) as exc:
            raise StorageUnavailable(f"the object could not be stored: {_reason(exc)}") from exc

    async def exists(self, key: str) -> bool:
        return await self.size(key) is not None

    async def size(self, key: str) -> int | None:
        """The object's size in bytes; None when it is not there."""
        try:
            return (await obstore.head_async(self._store, key))["size"]
        except FileNotFoundError:
            return None
        except BaseError as exc:
            raise StorageUnavailable(_reason(exc)) from exc

    async def read(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, not including, `end`. Raises NotFound before the first chunk.

        An object that goes or changes while it is read from a bucket ends the reading as NotFound.
        """
        read = self._read_bucket if self._root is None else self._read_file
        try:
            async for chunk in read(key, start, end):
                yield chunk
        except (FileNotFoundError, PreconditionError) as exc:
            raise NotFound("the object is gone from the store") from exc
        except (BaseError, OSError) as exc:
            raise StorageUnavailable(_reason(exc)) from exc

    def place_of(self, key: str) -> str:
        """Where the object lies, for people: a path, or the key in the bucket."""
        return key if self._root is None else str(self._root / key)

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as exc:
            raise StorageUnavailable(_reason(exc)) from exc

    async def list_objects(self) -> AsyncIterator[list[StoredObject]]:
        """All objects, a page of at most LISTED_AT_ONCE at a time, in no order that counts."""
        try:
            async for page in obstore.list(self._store, chunk_size=LISTED_AT_ONCE):
                yield [StoredObject(each["path"], each["size"], each["last_modified"]) for each in page]
        except (BaseError, OSError) as exc:
            raise StorageUnavailable(_reason(exc)) from exc

    async def find_aside(self, *, before: datetime, limit: int) -> list[Path]:
        """Unfinished files of killed writers in a folder, last written before then; a bucket shows none."""
        if self._root is None:
            return []
        root = self._root

        def find() -> list[Path]:
            found = (path for path, changed_at in folder.list_aside(root) if changed_at < before)
            return [path for path, _ in zip(found, range(limit), strict=False)]

        try:
            return await asyncio.to_thread(find)
        except OSError as exc:
            raise StorageUnavailable(_reason(exc)) from exc

    async def check(self) -> str | None:
        """None when an object can be written, read and removed; else what is wrong."""
        key = f"health/{os.getpid()}"
        try:
            await obstore.put_async(self._store, key, b"ok", use_multipart=False)
            # Another check of this process may have removed it first.
            with suppress(FileNotFoundError):
                await obstore.delete_async(self._store, key)
        except (BaseError, OSError) as exc:
            return f"the object store cannot be written: {_reason(exc)}"
        return None

    async def _holds(self, key: str, source: Path, size_bytes: int) -> bool:
        """Whether the very bytes are there already: a row may come to point at them."""
        if self._root is not None:
            return await asyncio.to_thread(folder.holds, self._root / key, source)
        try:
            found = await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return False
        # An object sent in parts, or encrypted by a key service, has another tag: it is sent again.
        tag = (found["e_tag"] or "").strip('"')
        return found["size"] == size_bytes and tag == await asyncio.to_thread(_md5, source)

    async def _write(self, key: str, content: Path | bytes, *, in_parts: bool) -> None:
        if self._root is not None:
            await asyncio.to_thread(folder.write, self._root / key, content)
            return
        await obstore.put_async(self._store, key, content, use_multipart=in_parts)

    async def _read_file(self, key: str, start: int, end: int | None) -> AsyncIterator[bytes]:
        file, size = await asyncio.to_thread(folder.open_object, Path(self.place_of(key)))
        with file:
            at, stop = start, size if end is None else min(end, size)
            while at < stop:
                wanted = min(stop - at, CHUNK_BYTES)
                chunk = await asyncio.to_thread(os.pread, file.fileno(), wanted, at)
                if not chunk:
                    raise FileNotFoundError(errno.ENOENT, "the file was cut short")
                at += len(chunk)
                yield chunk

    async def _read_bucket(self, key: str, start: int, end: int | None) -> AsyncIterator[bytes]:
        found = await obstore.head_async(self._store, key)
        stop = found["size"] if end is None else min(end, found["size"])
        for at in range(start, stop, CHUNK_BYTES):
            # Each chunk of the same object, or none: the key may be written anew between two of them.
            options: Any = {"range": (at, min(stop, at + CHUNK_BYTES)), "if_match": found["e_tag"]}
            yield bytes(await (await obstore.get_async(self._store, key, options=options)).bytes_async())


def _open_folder(root: Path) -> ObjectStore:
    root.mkdir(parents=True, exist_ok=True)
    return LocalStore(str(root))


def _open_bucket(url: str, limits: BucketLimits) -> ObjectStore:
    checked = {"aws_checksum_algorithm": "sha256"} if url.startswith("s3://") else {}
    return from_url(  # type: ignore[call-overload,no-any-return]
        url,
        config=checked,
        client_options={
            "timeout": f"{limits.timeout_s:g}s",
            "connect_timeout": f"{limits.connect_timeout_s:g}s",
            "allow_http": True,
        },
        retry_config={
            "max_retries": limits.retries,
            "retry_timeout": timedelta(seconds=limits.retry_s),
        },
    )


def _reason(exc: Exception) -> str:
    """What went wrong, in words that hold no address and no credential."""
    text = str(exc)
    said = re.search(r"<Code>(\w{1,64})</Code>", text)
    full = re.search(r"No space left|quota exceeded|File too large|os error (28|122|27)\b", text)
    match exc:
        case _ if full or getattr(exc, "errno", None) in _FULL:
            return "no space is left on the store's disk"
        case _ if said:
            return f"the object store answered {said[1]}"
        case PermissionDeniedError() | UnauthenticatedError():
            return "the object store refuses our credentials"
        case OSError():
            return f"the object store does not answer: {exc.strerror or type(exc).__name__}"
        case _:
            status = re.search(r"\b[45]\d\d [A-Z][A-Za-z ]{2,30}", text)
            return f"the object store does not answer: {status[0] if status else type(exc).__name__}"


def _md5(path: Path) -> str:
    """What S3 calls the entity tag of an object that was sent whole. No safety hangs on it."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def measure(path: Path) -> tuple[str, int]:
    """The file's SHA-256 and its size in bytes; blocking, so call it in a thread."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest(), path.stat().st_size


_KEY = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})\.[0-9a-z.]{1,40}")


def content_key(sha256: str, suffix: str, *, mark: str = "") -> str:
    """`ab/abcdef….wav`: two letters of the digest as the folder, so that no folder grows without end.

    A `mark` makes another key for the same bytes, where the plain one is being removed.
    """
    return f"{sha256[:2]}/{sha256}{mark and f'.{mark}'}{suffix}"


def digest_of(key: str) -> str | None:
    """The SHA-256 in a key that `content_key` made; None for anything else in the store."""
    found = _KEY.fullmatch(key)
    return found[2] if found else None
