"""What the store promises, in a folder and in a bucket: whole and durable once `put` returned, the same bytes
once, typed ends within bounded time.

The bucket is moto's, served on loopback in this process; what reaches it is seen, and spoiled, on the way.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from pathlib import Path

import pytest

from app.errors import NotFound, StartupError, StorageUnavailable
from app.storage import CHUNK_BYTES, MULTIPART_BYTES, Storage, content_key, measure
from tests.conftest import BUCKET, Asked, Bucket
from tests.second_s3 import URL_VARIABLE

BUCKET_URL = f"s3://{BUCKET}"


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/assets")


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest) -> Storage:
    if request.param == "folder":
        folder: Storage = request.getfixturevalue("folder")
        return folder
    request.getfixturevalue("bucket")
    return Storage(BUCKET_URL)


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


async def test_folder_the_same_content_is_stored_once_and_not_written_again(
    folder: Storage, tmp_path: Path
) -> None:
    key = await put(folder, tmp_path, b"sound")
    path = tmp_path / "assets" / key
    before = path.stat().st_mtime_ns, path.stat().st_ino
    assert await put(folder, tmp_path, b"sound") == key
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    other = await put(folder, tmp_path, b"other")
    assert other != key
    assert await read(folder, key) == b"sound"


async def test_folder_an_object_has_its_name_only_once_its_bytes_are_on_the_disk(
    folder: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is the promise: bytes synced under another name, then the name, then the name synced."""
    synced: list[tuple[str, bool]] = []
    key = content_key(hashlib.sha256(b"sound").hexdigest(), ".wav")
    path = tmp_path / "assets" / key
    sync = os.fsync

    def watch(handle: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{handle}").readlink()), path.exists()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    await put(folder, tmp_path, b"sound")
    (aside, had_name), *names = synced
    assert aside.startswith(f"{path}#")
    assert not had_name
    assert names == [(str(path.parent), True), (str(path.parent.parent), True)]


async def test_folder_what_is_gone_is_not_found_and_not_an_error(folder: Storage, tmp_path: Path) -> None:
    key = await put(folder, tmp_path, b"sound")
    (tmp_path / "assets" / key).unlink()
    assert not await folder.exists(key)
    with pytest.raises(NotFound):
        await read(folder, key)
    with pytest.raises(NotFound):
        await read(folder, "ab/never")


async def test_a_source_that_is_gone_is_unavailable_and_leaves_nothing(
    storage: Storage, tmp_path: Path
) -> None:
    with pytest.raises(StorageUnavailable):
        await storage.put(tmp_path / "nothing", "ab/x.wav", size_bytes=1)
    assert not await storage.exists("ab/x.wav")


async def test_folder_a_store_that_cannot_be_written_says_so(folder: Storage, tmp_path: Path) -> None:
    assert await folder.check() is None
    root = tmp_path / "assets"
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    root.rmdir()
    root.write_text("a file where the folder was")
    assert "cannot be written" in str(await folder.check())
    with pytest.raises(StorageUnavailable):
        await folder.put_bytes(b"x", "ab/x")


def test_a_place_that_cannot_be_a_store_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StartupError, match="STORAGE_URL"):
        Storage(f"file://{tmp_path}/file/assets")


async def test_folder_a_kept_check_leaves_no_file(folder: Storage, tmp_path: Path) -> None:
    await folder.check()
    assert not [path for path in (tmp_path / "assets").rglob("*") if path.is_file()]


async def test_bytes_at_hand_are_stored_and_replace_what_was_there(storage: Storage) -> None:
    await storage.put_bytes(b"first", "ab/outline.json")
    await storage.put_bytes(b"", "ab/outline.json")
    assert await read(storage, "ab/outline.json") == b""
    await storage.put_bytes(b"third", "ab/outline.json")
    assert await read(storage, "ab/outline.json") == b"third"


async def test_what_is_deleted_is_gone_and_deleting_it_again_is_no_error(
    storage: Storage, tmp_path: Path
) -> None:
    key = await put(storage, tmp_path, b"sound")
    await storage.delete(key)
    await storage.delete(key)
    assert not await storage.exists(key)
    with pytest.raises(NotFound):
        await read(storage, key)
    assert await put(storage, tmp_path, b"sound") == key
    assert await read(storage, key) == b"sound"


async def test_many_may_store_the_same_content_at_once(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"sound")
    await asyncio.gather(*(storage.put(source, "ab/x.wav", size_bytes=5) for _ in range(20)))
    assert await read(storage, "ab/x.wav") == b"sound"


async def test_an_object_that_was_left_half_written_is_written_anew(storage: Storage, tmp_path: Path) -> None:
    """A power cut may leave an empty file under the name of the whole one; no job may succeed with that."""
    content = b"the whole sound"
    key = content_key(hashlib.sha256(content).hexdigest(), ".wav")
    await storage.put_bytes(b"", key)
    await put(storage, tmp_path, content)
    assert await read(storage, key) == content


async def test_a_store_that_keeps_less_than_it_was_given_is_found_out(
    storage: Storage, tmp_path: Path
) -> None:
    """The finisher's promise at this port: `put` raises, so no row comes to point at the object."""
    source = tmp_path / "source"
    source.write_bytes(b"sound")
    with pytest.raises(StorageUnavailable, match="less"):
        await storage.put(source, "ab/x.wav", size_bytes=6)


async def test_checks_at_the_same_time_do_not_spoil_each_other(storage: Storage) -> None:
    assert await asyncio.gather(*(storage.check() for _ in range(20))) == [None] * 20
    assert not await storage.exists(f"health/{os.getpid()}")


async def test_the_place_of_an_object_is_where_a_person_would_look(storage: Storage, tmp_path: Path) -> None:
    key = await put(storage, tmp_path, b"sound")
    place = storage.place_of(key)
    assert place.endswith(key)
    assert (Path(place).read_bytes() == b"sound") if place != key else await storage.exists(key)


# ── a bucket alone ──────────────────────────────────────────────────────────────────────────────────────


async def test_bucket_the_same_content_is_sent_once(bucket: Bucket, tmp_path: Path) -> None:
    storage = Storage(BUCKET_URL)
    await put(storage, tmp_path, b"sound")
    sent = len(bucket.uploads())
    assert sent == 1
    await put(storage, tmp_path, b"sound")
    assert len(bucket.uploads()) == sent


async def test_bucket_the_server_is_given_a_checksum_to_hold_the_bytes_against(
    bucket: Bucket, tmp_path: Path
) -> None:
    storage = Storage(BUCKET_URL)
    await put(storage, tmp_path, b"sound")
    await storage.put_bytes(b"outline", "ab/outline.json")
    sent = [upload.headers.get("x-amz-checksum-sha256") for upload in bucket.uploads()]
    assert sent == [
        base64.b64encode(hashlib.sha256(each).digest()).decode() for each in (b"sound", b"outline")
    ]


async def test_bucket_a_large_object_goes_in_parts_each_with_its_checksum(
    bucket: Bucket, tmp_path: Path
) -> None:
    storage = Storage(BUCKET_URL)
    content = os.urandom(MULTIPART_BYTES + 4 * 1024 * 1024)
    key = await put(storage, tmp_path, content)
    parts = [upload for upload in bucket.uploads() if "partNumber" in upload.query]
    assert len(parts) > 1
    assert all("x-amz-checksum-sha256" in part.headers for part in parts)
    assert sum(part.size_bytes for part in parts) == len(content)
    assert hashlib.sha256(await read(storage, key)).digest() == hashlib.sha256(content).digest()


async def test_bucket_an_object_in_parts_that_fails_midway_is_not_there(
    bucket: Bucket, tmp_path: Path
) -> None:
    storage = Storage(BUCKET_URL)
    bucket.refuse = lambda asked: "partNumber=2" in asked.query
    with pytest.raises(StorageUnavailable):
        await put(storage, tmp_path, bytes(MULTIPART_BYTES))
    bucket.refuse = None
    assert bucket.objects() == []
    assert await put(storage, tmp_path, bytes(MULTIPART_BYTES))


async def test_bucket_a_hiccup_is_not_noticed(bucket: Bucket, tmp_path: Path) -> None:
    seen: list[str] = []

    def refuse_first(asked: Asked) -> bool:
        seen.append(asked.method)
        return seen.count(asked.method) == 1

    bucket.refuse = refuse_first
    storage = Storage(BUCKET_URL)
    key = await put(storage, tmp_path, b"sound")
    assert await read(storage, key) == b"sound"


@pytest.mark.parametrize("status", [403, 500, 503])
async def test_bucket_a_server_that_refuses_is_unavailable(
    bucket: Bucket, tmp_path: Path, status: int
) -> None:
    """403 is what wrong credentials get."""
    storage = Storage(BUCKET_URL)
    key = await put(storage, tmp_path, b"sound")
    bucket.refuse, bucket.status = (lambda _: True), status
    await everything_is_unavailable(storage, key, tmp_path)


async def test_bucket_a_server_that_is_away_is_unavailable_within_bounded_time(
    bucket: Bucket, tmp_path: Path
) -> None:
    storage = Storage(BUCKET_URL)
    key = await put(storage, tmp_path, b"sound")
    bucket.close()
    started = time.monotonic()
    await everything_is_unavailable(storage, key, tmp_path)
    assert time.monotonic() - started < 30


async def test_bucket_one_that_does_not_exist_takes_nothing_and_says_so(
    bucket: Bucket, tmp_path: Path
) -> None:
    if URL_VARIABLE in os.environ:
        pytest.skip("some servers make a bucket that is missing")
    storage = Storage("s3://another")
    with pytest.raises(StorageUnavailable):
        await put(storage, tmp_path, b"sound")
    with pytest.raises(StorageUnavailable):
        await storage.put_bytes(b"x", "ab/x")
    assert "cannot be written" in str(await storage.check())


async def test_bucket_a_chunk_that_fails_midway_ends_the_reading_with_a_typed_error(
    bucket: Bucket, tmp_path: Path
) -> None:
    storage = Storage(BUCKET_URL)
    key = await put(storage, tmp_path, bytes(3 * CHUNK_BYTES))
    chunks = storage.read(key)
    await anext(chunks)
    bucket.refuse = lambda asked: asked.method == "GET"
    with pytest.raises(StorageUnavailable):
        await anext(chunks)


async def everything_is_unavailable(storage: Storage, key: str, tmp_path: Path) -> None:
    """Each verb says so, and none takes "no answer" for "not there"."""
    asked = {
        "put": put(storage, tmp_path, b"other"),
        "put_bytes": storage.put_bytes(b"x", "ab/x"),
        "exists": storage.exists(key),
        "read": read(storage, key),
        "delete": storage.delete(key),
    }
    ended = await asyncio.gather(*asked.values(), return_exceptions=True)
    assert {name: type(end) for name, end in zip(asked, ended, strict=True)} == dict.fromkeys(
        asked, StorageUnavailable
    )
    assert "cannot be written" in str(await storage.check())
