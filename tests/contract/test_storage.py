"""What the store promises: whole and durable once `put` returned, the same bytes once, typed ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.errors import NotFound, StartupError, StorageUnavailable
from app.storage import CHUNK_BYTES, Storage, content_key, measure


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/assets")


async def put(storage: Storage, folder: Path, content: bytes) -> str:
    path = folder / "source"
    path.write_bytes(content)
    key = content_key(measure(path)[0], ".wav")
    await storage.put(path, key, size_bytes=len(content))
    return key


async def read(storage: Storage, key: str, **span: int) -> bytes:
    return b"".join([chunk async for chunk in storage.read(key, **span)])


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7])
async def test_what_was_put_is_read_back_in_bounded_chunks(
    storage: Storage, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    key = await put(storage, tmp_path, content)
    chunks = [chunk async for chunk in storage.read(key)]
    assert b"".join(chunks) == content
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)
    assert await storage.exists(key)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (5, 10), (0, 10**9), (99, 100), (100, 100), (100, 200)])
async def test_a_part_is_read_as_a_slice(storage: Storage, tmp_path: Path, start: int, end: int) -> None:
    content = os.urandom(100)
    key = await put(storage, tmp_path, content)
    assert await read(storage, key, start=start, end=end) == content[start:end]
    assert await read(storage, key, start=start) == content[start:]


async def test_the_same_content_is_stored_once_and_not_written_again(
    storage: Storage, tmp_path: Path
) -> None:
    key = await put(storage, tmp_path, b"sound")
    path = tmp_path / "assets" / key
    before = path.stat().st_mtime_ns, path.stat().st_ino
    assert await put(storage, tmp_path, b"sound") == key
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    other = await put(storage, tmp_path, b"other")
    assert other != key
    assert await read(storage, key) == b"sound"


async def test_an_object_is_proven_durable_before_put_returns(storage: Storage, tmp_path: Path) -> None:
    proven: list[str] = []

    class Watched(Storage):
        async def _prove(self, key: str, size_bytes: int) -> None:
            await super()._prove(key, size_bytes)
            proven.append(key)

    watched = Watched(f"file://{tmp_path}/assets")
    key = await put(watched, tmp_path, b"sound")
    await watched.put_bytes(b"outline", "ab/outline.json")
    assert proven == [key, "ab/outline.json"]
    assert await read(storage, "ab/outline.json") == b"outline"


async def test_what_is_gone_is_not_found_and_not_an_error(storage: Storage, tmp_path: Path) -> None:
    key = await put(storage, tmp_path, b"sound")
    (tmp_path / "assets" / key).unlink()
    assert not await storage.exists(key)
    with pytest.raises(NotFound):
        await read(storage, key)
    with pytest.raises(NotFound):
        await read(storage, "ab/never")


async def test_a_source_that_is_gone_is_unavailable_and_leaves_nothing(
    storage: Storage, tmp_path: Path
) -> None:
    with pytest.raises(StorageUnavailable):
        await storage.put(tmp_path / "nothing", "ab/x.wav", size_bytes=1)
    assert not await storage.exists("ab/x.wav")


async def test_a_store_that_cannot_be_written_says_so(storage: Storage, tmp_path: Path) -> None:
    assert await storage.check() is None
    root = tmp_path / "assets"
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    root.rmdir()
    root.write_text("a file where the folder was")
    assert "cannot be written" in str(await storage.check())
    with pytest.raises(StorageUnavailable):
        await storage.put_bytes(b"x", "ab/x")


def test_a_place_that_cannot_be_a_store_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StartupError, match="STORAGE_URL"):
        Storage(f"file://{tmp_path}/file/assets")


async def test_a_kept_check_leaves_no_file(storage: Storage, tmp_path: Path) -> None:
    await storage.check()
    assert not [path for path in (tmp_path / "assets").rglob("*") if path.is_file()]
