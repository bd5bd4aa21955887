"""tus 1.0: what its protocol says, as tables, over the real app and every kind of database."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect

from app.housekeeping import OWNER_KEY
from app.intake import resumable
from app.intake.resumable.pieces import PIECE_BYTES
from app.intake.resumable.writer import LEASE_S
from db.tables import Asset, Audit, PartialUpload, Upload, UploadPiece
from tests.flow.conftest import OpenStage, Stage, open_stage, tone
from tests.flow.test_full_disk import Disk, disk, is_refused

__all__ = ["disk"]
"""A fixture."""

PAST = timedelta(seconds=1)
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {"Content-Type": "application/offset+octet-stream"}
SONG = tone(60.0)
"""960 kB."""
LONG = tone(600.0)
"""9.6 MB: more than two pieces."""


def told(reply: httpx.Response, name: str) -> str | None:
    value: str | None = reply.headers.get(name)
    return value


async def begin(line: Stage, size_bytes: int, **headers: str) -> str:
    """The address of a fresh upload."""
    reply = await line.client.post(
        "/v1/uploads", headers={**TUS, "Upload-Length": str(size_bytes), **headers}
    )
    assert reply.status_code == 201, reply.text
    return reply.headers["location"]


async def append(line: Stage, url: str, offset: int, content: Any, **headers: str) -> httpx.Response:
    sent = {**TUS, **BYTES, "Upload-Offset": str(offset), **headers}
    return await line.client.patch(url, content=content, headers=sent)


async def offset(line: Stage, url: str) -> int:
    reply = await line.client.head(url, headers=TUS)
    assert reply.status_code == 200
    return int(reply.headers["upload-offset"])


def checksum(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"


def stored(line: Stage) -> list[str]:
    root = line.runtime.bench.storage.root
    assert root is not None
    found = (path for path in root.rglob("*") if path.is_file() and path.name != OWNER_KEY)
    return sorted(str(path.relative_to(root)) for path in found)


def pieces(line: Stage) -> list[str]:
    return [name for name in stored(line) if name.startswith("partial/")]


def leftovers(line: Stage) -> list[str]:
    return [path.name for path in line.runtime.bench.workspace.root.iterdir() if path.name != "lock"]


async def cut_after(content: bytes) -> AsyncIterator[bytes]:
    """Bytes, and then what Starlette says of a connection that is gone."""
    for at in range(0, len(content), 65_536):
        yield content[at : at + 65_536]
    raise ClientDisconnect


async def test_what_the_server_can_do_is_told_by_options(sqlite_line: Stage) -> None:
    url = await begin(sqlite_line, 10)
    for path in ("/v1/uploads", url):
        reply = await sqlite_line.client.options(path)
        assert reply.status_code == 204
        assert {name: told(reply, name) for name in ("Tus-Version", "Tus-Resumable", "Tus-Max-Size")} == {
            "Tus-Version": "1.0.0",
            "Tus-Resumable": "1.0.0",
            "Tus-Max-Size": "95000000",
        }
        assert told(reply, "Tus-Extension") == (
            "creation,creation-with-upload,termination,expiration,checksum"
        )
        assert told(reply, "Tus-Checksum-Algorithm") == "sha256,sha1"


async def test_an_upload_in_requests_of_any_size_is_the_file_that_multipart_makes(line: Stage) -> None:
    whole = await line.client.post("/v1/uploads", files={"file": ("a.wav", SONG, "audio/wav")})
    url = await begin(line, len(SONG), **{"Upload-Metadata": "filename dGFsay53YXY=,private"})
    at = 0
    for size in (1, 7, 100_000, len(SONG)):
        reply = await append(line, url, at, SONG[at : at + size])
        at = min(at + size, len(SONG))
        assert (reply.status_code, told(reply, "Upload-Offset")) == (204, str(at)), reply.text
        assert reply.content == b""
        assert told(reply, "Tus-Resumable") == "1.0.0"
        head = await line.client.head(url, headers=TUS)
        assert (head.status_code, head.content, told(head, "Cache-Control")) == (200, b"", "no-store")
        assert (told(head, "Upload-Offset"), told(head, "Upload-Length")) == (str(at), str(len(SONG)))
        if at < len(SONG):
            assert told(head, "Upload-Metadata") == "filename dGFsay53YXY=,private"
            shown = (await line.client.get(url)).json()
            assert (shown["state"], shown["offset_bytes"], shown["size_bytes"]) == ("partial", at, len(SONG))
    made = (await line.client.get(url)).json()
    assert made["upload_id"] == url.rpartition("/")[2]
    same = ("state", "sha256", "duration_s", "size_bytes", "media_type")
    assert {name: made[name] for name in same} == {name: whole.json()[name] for name in same}
    assert made["sha256"] == hashlib.sha256(SONG).hexdigest()
    assert stored(line) == [f"{made['sha256'][:2]}/{made['sha256']}.wav"], "once, and no pieces"
    assert (await line.count(Asset), await line.count(Upload)) == (1, 2)
    assert (await line.count(PartialUpload), await line.count(UploadPiece), leftovers(line)) == (0, 0, [])
    job = {"kind": "transcription", "input": {"audio": made["upload_id"]}}
    assert (await line.client.post("/v1/jobs", json=job)).status_code == 202


async def test_a_body_of_the_creation_is_its_first_piece(line: Stage) -> None:
    sent = {**TUS, **BYTES, "Upload-Length": str(len(SONG))}
    part = await line.client.post("/v1/uploads", headers=sent, content=SONG[:1000])
    assert (part.status_code, told(part, "Upload-Offset")) == (201, "1000")
    assert await offset(line, part.headers["location"]) == 1000
    whole = await line.client.post("/v1/uploads", headers=sent, content=SONG)
    assert (whole.status_code, told(whole, "Upload-Offset")) == (201, str(len(SONG)))
    assert whole.json()["sha256"] == hashlib.sha256(SONG).hexdigest()
    assert (await line.client.get(whole.headers["location"])).json() == whole.json()


async def test_a_cut_connection_keeps_what_came(line: Stage) -> None:
    """Fault 33: and an upload goes on from there."""
    url = await begin(line, len(LONG))
    kept = PIECE_BYTES + 65_536 * 2
    assert (await append(line, url, 0, cut_after(LONG[:kept]))).json()["code"] == "cut_short"
    assert await offset(line, url) == kept
    assert len(pieces(line)) == 2
    assert (await append(line, url, kept, LONG[kept:])).status_code == 204
    assert (await line.client.get(url)).json()["sha256"] == hashlib.sha256(LONG).hexdigest()
    assert pieces(line) == []


async def test_no_upload_is_told_to_be_complete_that_is_not_stored(
    line: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 45: all bytes came and the end could not be made: the last of them are asked for again."""
    url = await begin(line, len(LONG))
    storage, put = line.runtime.bench.storage, line.runtime.bench.storage.put

    async def full(*_args: object, **_more: object) -> None:
        raise resumable.pieces.StorageUnavailable("no space is left on the store's disk")

    monkeypatch.setattr(storage, "put", full)
    refused = await append(line, url, 0, LONG)
    assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
    assert refused.headers["retry-after"]
    monkeypatch.setattr(storage, "put", put)
    at = await offset(line, url)
    assert at == 2 * PIECE_BYTES < len(LONG)
    assert (await line.client.get(url)).json()["state"] == "partial"
    job = {"kind": "transcription", "input": {"audio": url.rpartition("/")[2]}}
    assert (await line.client.post("/v1/jobs", json=job)).status_code == 422
    assert (await append(line, url, at, LONG[at:])).status_code == 204
    assert await offset(line, url) == len(LONG)
    again = await append(line, url, len(LONG), b"")
    assert (again.status_code, told(again, "Upload-Offset")) == (204, str(len(LONG)))


async def test_a_full_store_refuses_a_piece_and_heals(line: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 43."""
    url = await begin(line, len(LONG))
    storage, put = line.runtime.bench.storage, line.runtime.bench.storage.put_bytes
    puts = 0

    async def soon_full(content: bytes, key: str) -> None:
        nonlocal puts
        puts += 1
        if puts > 1:
            raise resumable.pieces.StorageUnavailable("no space is left on the store's disk")
        await put(content, key)

    monkeypatch.setattr(storage, "put_bytes", soon_full)
    refused = await append(line, url, 0, LONG)
    assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
    monkeypatch.setattr(storage, "put_bytes", put)
    assert await offset(line, url) == PIECE_BYTES, "what was stored by then is kept"
    assert (await append(line, url, PIECE_BYTES, LONG[PIECE_BYTES:])).status_code == 204
    assert (await line.client.get(url)).json()["sha256"] == hashlib.sha256(LONG).hexdigest()


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412, "unsupported_tus_version"),
        ({}, 400, "invalid_header"),
        ({"Upload-Length": "many"}, 400, "invalid_header"),
        ({"Upload-Length": "-1"}, 400, "invalid_header"),
        ({"Upload-Length": "0"}, 422, "invalid_input"),
        ({"Upload-Length": "95000001"}, 413, "too_large"),
        ({"Upload-Defer-Length": "1"}, 400, "invalid_header"),
        ({"Upload-Length": "10", "Upload-Concat": "partial"}, 400, "invalid_header"),
        ({"Upload-Length": "10", "Upload-Metadata": "filename not~base64"}, 400, "invalid_header"),
        ({"Upload-Length": "10", "Upload-Metadata": "a QQ==,a QQ=="}, 400, "invalid_header"),
        ({"Upload-Length": "10", "Upload-Metadata": "x" * 5000}, 400, "invalid_header"),
    ],
    ids=str,
)
async def test_a_creation_that_makes_no_sense_makes_nothing(
    sqlite_line: Stage, headers: dict[str, str], status: int, code: str
) -> None:
    reply = await sqlite_line.client.post("/v1/uploads", headers={**TUS, **headers})
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    assert told(reply, "Tus-Resumable") == "1.0.0"
    assert (told(reply, "Tus-Version") == "1.0.0") is (status == 412)
    assert await sqlite_line.count(PartialUpload) == 0


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Tus-Resumable": "2.0.0"}, 412, "unsupported_tus_version"),
        ({"Tus-Resumable": ""}, 412, "unsupported_tus_version"),
        ({"Content-Type": "application/octet-stream"}, 415, "unsupported_media_type"),
        ({"Content-Encoding": "gzip"}, 415, "unsupported_encoding"),
        ({"Upload-Offset": "x"}, 400, "invalid_header"),
        ({"Upload-Offset": "4"}, 409, "offset_mismatch"),
        ({"Upload-Offset": "0"}, 409, "offset_mismatch"),
        ({"Upload-Checksum": "md5 QQ=="}, 400, "invalid_header"),
        ({"Upload-Checksum": "sha1 QQ=="}, 400, "invalid_header"),
        ({"Upload-Checksum": "sha1 ?"}, 400, "invalid_header"),
        ({"Upload-Checksum": checksum(b"other")}, 460, "upload_checksum_mismatch"),
        ({"Upload-Checksum": checksum(b"other", "sha1")}, 460, "upload_checksum_mismatch"),
    ],
    ids=str,
)
async def test_a_piece_that_does_not_fit_changes_nothing(
    sqlite_line: Stage, headers: dict[str, str], status: int, code: str
) -> None:
    url = await begin(sqlite_line, 20)
    assert (await append(sqlite_line, url, 0, b"12345")).status_code == 204
    reply = await append(sqlite_line, url, 5, b"678", **headers)
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert await offset(sqlite_line, url) == 5
    assert len(pieces(sqlite_line)) == 1
    assert (await append(sqlite_line, url, 5, b"678")).status_code == 204, "nor is it locked"


async def test_bytes_under_a_checksum_count_when_it_is_reached_and_not_before(line: Stage) -> None:
    url = await begin(line, len(LONG))
    await append(line, url, 0, cut_after(LONG[:-1]), **{"Upload-Checksum": checksum(LONG)})
    bad = await append(line, url, 0, LONG[:-1], **{"Upload-Checksum": checksum(LONG)})
    assert bad.status_code == 460
    assert (await offset(line, url), pieces(line)) == (0, [])
    for part, algorithm in ((LONG[:9_000_000], "sha1"), (LONG[9_000_000:], "sha256")):
        at = await offset(line, url)
        good = await append(line, url, at, part, **{"Upload-Checksum": checksum(part, algorithm)})
        assert good.status_code == 204, good.text
    assert (await line.client.get(url)).json()["sha256"] == hashlib.sha256(LONG).hexdigest()


async def test_more_than_was_announced_is_refused_while_it_comes(sqlite_line: Stage) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            assert sent < 100, "it was read on and on"
            yield b"\0" * 65_536

    url = await begin(sqlite_line, 1_000_000)
    reply = await append(sqlite_line, url, 0, endless())
    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")
    assert (await offset(sqlite_line, url), pieces(sqlite_line)) == (0, [])


async def test_an_upload_may_be_larger_than_any_one_request(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(max_upload_bytes=2_000_000, max_content_length=500_000) as line:
        url, at = await begin(line, len(SONG)), 0
        refused = await append(line, url, 0, SONG)
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
        while at < len(SONG):
            assert (await append(line, url, at, SONG[at : at + 400_000])).status_code == 204
            at = await offset(line, url)
        assert (await line.client.get(url)).json()["state"] == "stored"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"This is a text that somebody has named talk.wav. " * 40, "it looks like text"),
        (tone()[:6000], "cut short"),
    ],
    ids=["text", "cut"],
)
async def test_what_is_no_whole_sound_is_refused_at_its_end_and_leaves_nothing(
    line: Stage, content: bytes, words: str
) -> None:
    url = await begin(line, len(content))
    assert (await append(line, url, 0, content[:1000])).status_code == 204
    reply = await append(line, url, 1000, content[1000:])
    assert (reply.status_code, reply.json()["field"]) == (422, "file")
    assert words in reply.json()["detail"]
    assert (await line.count(PartialUpload), await line.count(Upload), await line.count(Asset)) == (0, 0, 0)
    assert (stored(line), leftovers(line)) == ([], [])
    assert (await line.client.head(url, headers=TUS)).status_code == 404


async def test_one_request_at_a_time_writes(line: Stage) -> None:
    url, waits, go_on = await begin(line, len(SONG)), asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield SONG[:1000]
        waits.set()
        await go_on.wait()
        yield SONG[1000:]

    first = asyncio.create_task(append(line, url, 0, slowly()))
    await waits.wait()
    # However long this machine stalls, the first one's lease holds.
    later = datetime.now(UTC) + timedelta(hours=1)
    await line.change(PartialUpload, url.rpartition("/")[2], lease_until=later)
    second = await append(line, url, 0, SONG)
    assert (second.status_code, second.json()["code"]) == (423, "upload_locked")
    assert await offset(line, url) == 0, "whoever asks is told while another writes"
    go_on.set()
    assert (await first).status_code == 204
    assert (await line.client.get(url)).json()["sha256"] == hashlib.sha256(SONG).hexdigest()


async def test_a_writer_that_fell_silent_is_overtaken_and_spoils_nothing(line: Stage) -> None:
    """Fault 33: its connection is dead and nobody has told it."""
    url, waits, go_on = await begin(line, len(LONG)), asyncio.Event(), asyncio.Event()

    async def dying() -> AsyncIterator[bytes]:
        yield LONG[: PIECE_BYTES + 1]
        waits.set()
        await go_on.wait()
        yield b"\xff" * (2 * PIECE_BYTES)

    dead = asyncio.create_task(append(line, url, 0, dying()))
    await waits.wait()
    assert await offset(line, url) == PIECE_BYTES
    upload_id = url.rpartition("/")[2]
    past = datetime.now(UTC) - timedelta(seconds=2 * LEASE_S)
    await line.change(PartialUpload, upload_id, lease_until=past)
    assert (await append(line, url, PIECE_BYTES, LONG[PIECE_BYTES:-10])).status_code == 204
    go_on.set()
    late = await dead
    assert (late.status_code, late.json()["code"]) in ((423, "upload_locked"), (413, "too_large"))
    assert await offset(line, url) == len(LONG) - 10
    assert (await append(line, url, len(LONG) - 10, LONG[-10:])).status_code == 204
    assert (await line.client.get(url)).json()["sha256"] == hashlib.sha256(LONG).hexdigest()
    assert pieces(line) == []


async def test_an_upload_can_be_ended_however_far_it_is(line: Stage) -> None:
    url = await begin(line, len(SONG))
    await append(line, url, 0, SONG[:1000])
    whole = await begin(line, len(SONG))
    await append(line, whole, 0, SONG)
    job = {"kind": "transcription", "input": {"audio": whole.rpartition("/")[2]}}
    asset_id = (await line.client.post("/v1/jobs", json=job)).json()["input"]["audio"]
    for each in (url, whole):
        assert (await line.client.delete(each, headers={"Tus-Resumable": "0.1"})).status_code == 412
        assert (await line.client.delete(each, headers=TUS)).status_code == 204
        assert (await line.client.head(each, headers=TUS)).status_code == 404
        assert (await append(line, each, 1000, SONG[1000:])).status_code == 404
        assert (await line.client.delete(each, headers=TUS)).status_code == 404
    assert pieces(line) == []
    assert (await line.client.post("/v1/jobs", json=job)).status_code == 422
    await line.runtime.housekeeper.expire_uploads()
    assert (await line.client.get(f"/v1/assets/{asset_id}/content")).content == SONG, "a job has it"
    assert [each.act for each in await line.rows(Audit)].count("upload.deleted") == 2


async def test_an_upload_that_is_not_finished_in_its_time_goes_with_its_pieces(line: Stage) -> None:
    url, other = await begin(line, len(SONG)), await begin(line, len(SONG))
    reply = await append(line, url, 0, SONG[:1000])
    assert "GMT" in str(told(reply, "Upload-Expires"))
    await append(line, other, 0, SONG[:1000])
    await line.change(PartialUpload, url.rpartition("/")[2], expires_at=datetime.now(UTC) - PAST)
    for gone in (await line.client.head(url, headers=TUS), await append(line, url, 1000, SONG[1000:])):
        assert gone.status_code == 410
        assert "upload-offset" not in gone.headers
    assert await line.runtime.housekeeper.keep() >= 1
    assert (await line.client.head(url, headers=TUS)).status_code == 404
    assert (await line.count(PartialUpload), len(pieces(line))) == (1, 1)
    assert (await append(line, other, 1000, SONG[1000:])).status_code == 204


async def test_the_sweep_takes_pieces_of_no_upload_and_no_others(stage_on_sqlite: OpenStage) -> None:
    """Fault 45: a process died between the piece and its row, or between the rows' end and the pieces'."""
    async with stage_on_sqlite(orphan_age_s=0) as line:
        whole = await begin(line, len(SONG))
        await append(line, whole, 0, SONG)
        url = await begin(line, len(SONG))
        await append(line, url, 0, SONG[:1000])
        storage = line.runtime.bench.storage
        kept = pieces(line)
        lost = f"partial/upl_{'0' * 32}-{0:015d}-0123abcd"
        await storage.put_bytes(b"x", lost)
        assert (await line.runtime.housekeeper.sweep(dry_run=True)).count == 1
        assert (await line.runtime.housekeeper.sweep()).count == 1
        assert pieces(line) == kept
        assert (await append(line, url, 1000, SONG[1000:])).status_code == 204


async def test_a_piece_that_the_store_lost_is_said_to_be_lost(line: Stage) -> None:
    url = await begin(line, len(SONG))
    await append(line, url, 0, SONG[:1000])
    [name] = pieces(line)
    await line.runtime.bench.storage.delete(name)
    reply = await append(line, url, 1000, SONG[1000:])
    assert (reply.status_code, reply.json()["code"]) == (410, "gone")
    assert await line.count(PartialUpload) == 0


async def test_a_creation_under_a_key_makes_one_upload_and_finds_it_again(line: Stage) -> None:
    """Fault 19."""
    key = {"Idempotency-Key": "song-1"}
    both = await asyncio.gather(begin(line, len(SONG), **key), begin(line, len(SONG), **key))
    assert both[0] == both[1]
    await append(line, both[0], 0, SONG[:1000])
    again = await line.client.post(
        "/v1/uploads", headers={**TUS, **BYTES, **key, "Upload-Length": str(len(SONG))}, content=SONG[:500]
    )
    assert (again.headers["location"], told(again, "Upload-Offset")) == (both[0], "1000")
    other = await line.client.post("/v1/uploads", headers={**TUS, **key, "Upload-Length": "99"})
    assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")
    await append(line, both[0], 1000, SONG[1000:])
    assert await begin(line, len(SONG), **key) == both[0]
    await line.client.delete(both[0], headers=TUS)
    assert await begin(line, len(SONG), **key) != both[0], "what the key made is gone"


async def test_unfinished_uploads_of_a_tenant_are_bounded(
    sqlite_line: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "MOST_UNFINISHED", 2)
    monkeypatch.setattr(resumable, "MOST_SHORT_PIECES", 2)
    url = await begin(sqlite_line, 100)
    await begin(sqlite_line, 100)
    refused = await sqlite_line.client.post("/v1/uploads", headers={**TUS, "Upload-Length": "100"})
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_unfinished_uploads")
    for at in range(2):
        assert (await append(sqlite_line, url, at, b"x")).status_code == 204
    assert (await append(sqlite_line, url, 2, b"x")).status_code == 413


async def test_pages_of_allowed_origins_may_send_and_read_its_headers(stage_on_sqlite: OpenStage) -> None:
    origin = "https://studio.example"
    async with stage_on_sqlite(cors_allowed_origins=(origin,)) as line:
        url = await begin(line, 10, Origin=origin)
        asked = "tus-resumable,upload-offset,upload-checksum,content-type,authorization,upload-metadata"
        allowed = await line.client.options(
            url,
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "PATCH",
                "Access-Control-Request-Headers": asked,
            },
        )
        assert allowed.status_code == 200, allowed.text
        may_send = {
            each.strip().lower() for each in allowed.headers["access-control-allow-headers"].split(",")
        }
        assert set(asked.split(",")) <= may_send
        head = await line.client.head(url, headers={**TUS, "Origin": origin})
        assert head.headers["access-control-allow-origin"] == origin
        shown = {each.strip() for each in head.headers["access-control-expose-headers"].split(",")}
        assert {"Location", "Upload-Offset", "Upload-Length", "Upload-Expires", "Tus-Resumable"} <= shown


async def test_a_disk_that_fills_up_refuses_and_heals_at_every_write(
    tmp_path: Path, sqlite_url: str, disk: Disk
) -> None:
    """Fault 43: with the pieces, and the whole, on a disk with no room."""
    song = tone(60.0)
    settings = {"storage_url": f"file://{disk.path}/assets", "min_free_bytes": 0}
    async with open_stage(tmp_path, sqlite_url, **settings) as line:
        url = await begin(line, len(song))
        disk.fill()
        is_refused(await append(line, url, 0, song[:500_000]))
        assert (await offset(line, url), pieces(line)) == (0, [])
        disk.empty()
        assert (await append(line, url, 0, song[:500_000])).status_code == 204
        disk.fill(left_bytes=300_000)
        is_refused(await append(line, url, 500_000, song[500_000:]))
        assert await offset(line, url) == 500_000, "what was told before still holds"
        assert leftovers(line) == []
        disk.empty()
        assert (await append(line, url, 500_000, song[500_000:])).status_code == 204
        assert (await line.client.get(url)).json()["sha256"] == hashlib.sha256(song).hexdigest()
        assert len(stored(line)) == 1


async def test_a_full_disk_of_temporary_files_refuses_the_end_and_heals(
    tmp_path: Path, sqlite_url: str, disk: Disk
) -> None:
    """Fault 43: where the whole is put together."""
    song = tone(60.0)
    async with open_stage(tmp_path, sqlite_url, var_dir=disk.path / "var", min_free_bytes=0) as line:
        url = await begin(line, len(song))
        disk.fill(left_bytes=100_000)
        is_refused(await append(line, url, 0, song))
        assert (await offset(line, url), leftovers(line)) == (0, [])
        disk.empty()
        assert (await append(line, url, 0, song)).status_code == 204
