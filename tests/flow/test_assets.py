"""Stored files: whole, in ranges, unchanged, by a link nobody can alter, and gone without an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.tokens import Links
from db.tables import Asset
from tests.flow.conftest import TONE, OpenStage, Stage


@pytest.fixture
async def shelf(stage_on_sqlite: OpenStage) -> AsyncIterator[tuple[Stage, str, bytes]]:
    """A stage with one asset, its signed address and its bytes."""
    async with stage_on_sqlite() as line:
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=TONE)
        await line.drain()
        url = (await line.read(job_id))["outputs"]["audio"]["url"]
        reply = await line.client.get(url)
        assert reply.status_code == 200
        yield line, url, reply.content


async def test_the_whole_is_sent_with_what_a_player_needs(shelf: tuple[Stage, str, bytes]) -> None:
    line, url, content = shelf
    reply = await line.client.get(url)
    assert reply.headers["content-length"] == str(len(content))
    assert reply.headers["content-type"] == "audio/wav"
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["cache-control"].startswith("private")
    assert reply.headers["x-content-type-options"] == "nosniff"


async def test_a_head_tells_the_same_without_the_bytes(shelf: tuple[Stage, str, bytes]) -> None:
    line, url, content = shelf
    head, got = await line.client.head(url), await line.client.get(url)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(content))
    for name in ("etag", "content-type", "accept-ranges", "content-disposition"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=-1", -1, None),
        ("bytes=100-", 100, None),
        ("bytes=0-99999999999", 0, None),
        ("bytes=-99999999999", 0, None),
    ],
)
async def test_a_range_is_sent_as_asked(
    shelf: tuple[Stage, str, bytes], wanted: str, start: int, end: int | None
) -> None:
    """Fault 25."""
    line, url, content = shelf
    reply = await line.client.get(url, headers={"range": wanted})
    assert (reply.status_code, reply.content) == (206, content[start:end])
    first = start if start >= 0 else len(content) + start
    assert reply.headers["content-range"] == f"bytes {first}-{first + len(reply.content) - 1}/{len(content)}"
    assert reply.headers["content-length"] == str(len(reply.content))


@pytest.mark.parametrize("wanted", ["bytes={size}-", "bytes=99999999999-", "bytes=-0"])
async def test_a_range_past_the_end_is_416(shelf: tuple[Stage, str, bytes], wanted: str) -> None:
    """Fault 25."""
    line, url, content = shelf
    reply = await line.client.get(url, headers={"range": wanted.format(size=len(content))})
    assert reply.status_code == 416
    assert reply.headers["content-range"] == f"bytes */{len(content)}"
    assert reply.content == b""


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=5-2",
        "bytes=-",
        "bytes=a-b",
        "items=0-1",
        "bytes=0-1,3-4",
        "bytes=" + "0-0," * 1000 + "0-0",
        "",
        "x",
    ],
)
async def test_a_range_that_cannot_be_read_is_answered_with_the_whole(
    shelf: tuple[Stage, str, bytes], wanted: str
) -> None:
    """Fault 25."""
    line, url, content = shelf
    reply = await line.client.get(url, headers={"range": wanted})
    assert (reply.status_code, len(reply.content)) == (200, len(content))


async def test_an_unchanged_file_is_not_sent_again(shelf: tuple[Stage, str, bytes]) -> None:
    line, url, content = shelf
    etag = (await line.client.head(url)).headers["etag"]
    for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        reply = await line.client.get(url, headers={"if-none-match": given})
        assert (reply.status_code, reply.content) == (304, b""), given
    reply = await line.client.get(url, headers={"if-none-match": '"other"'})
    assert reply.status_code == 200
    stale = await line.client.get(url, headers={"range": "bytes=0-0", "if-range": '"other"'})
    fresh = await line.client.get(url, headers={"range": "bytes=0-0", "if-range": etag})
    assert (stale.status_code, len(stale.content)) == (200, len(content))
    assert (fresh.status_code, len(fresh.content)) == (206, 1)


async def test_an_altered_or_expired_link_is_refused(shelf: tuple[Stage, str, bytes]) -> None:
    """Fault 26."""
    line, url, _ = shelf
    path, _, query = url.partition("?")
    expires, signature = (part.split("=")[1] for part in query.split("&"))
    altered = [
        f"{path}?expires={int(expires) + 1}&signature={signature}",
        f"{path}?expires={expires}&signature={signature[:-1]}x",
        f"{path}?expires={expires}",
        f"{path}?signature={signature}",
        f"{path}?expires=&signature=",
        f"{path}?expires=1_0&signature={signature}",
        f"{path}?expires={expires}&signature=%C3%A9",
        f"/v1/assets/ast_other/content?{query}",
    ]
    for link in altered:
        reply = await line.client.get(link)
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden"), link
        assert (await line.client.head(link)).status_code == 403
    asset = (await line.rows(Asset))[0]
    past = Links(secret=line.runtime.links._secret.decode(), life_s=-10).url(asset.id)
    assert (await line.client.get(past)).status_code == 403


async def test_what_is_gone_from_the_store_is_a_problem_and_not_an_error(
    shelf: tuple[Stage, str, bytes],
) -> None:
    line, url, _ = shelf
    asset = (await line.rows(Asset))[0]
    outline = await line.client.get(f"/v1/assets/{asset.id}/peaks")
    assert outline.json()["version"] == 2
    for key in (asset.storage_key, asset.peaks_key):
        path = Path(line.runtime.bench.storage.place_of(key))
        assert path
        path.unlink()
    for address in (url, f"/v1/assets/{asset.id}/peaks"):
        reply = await line.client.get(address)
        assert (reply.status_code, reply.json()["code"]) == (410, "gone")
    assert (await line.client.get("/v1/assets/ast_nobody")).status_code == 404


async def test_an_outline_is_drawn_once_for_all_who_ask_and_then_kept(
    shelf: tuple[Stage, str, bytes],
) -> None:
    line, _, _ = shelf
    asset = (await line.rows(Asset))[0]
    storage = line.runtime.bench.storage
    assert not await storage.exists(asset.peaks_key), "nobody has asked for it yet"
    replies = await asyncio.gather(*(line.client.get(f"/v1/assets/{asset.id}/peaks") for _ in range(20)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.content for reply in replies}) == 1
    assert await storage.exists(asset.peaks_key)
    # What is kept is what is served from now on: the sound itself is not read again.
    Path(storage.place_of(asset.storage_key)).unlink()
    assert (await line.client.get(f"/v1/assets/{asset.id}/peaks")).content == replies[0].content
    assert not list(line.runtime.bench.workspace.root.glob("*/asset"))


async def test_the_same_bytes_are_stored_once_for_many_jobs(line: Stage) -> None:
    outputs = []
    for _ in range(2):
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=TONE)
        await line.drain()
        outputs.append((await line.read(job_id))["outputs"]["audio"])
    assert outputs[0]["asset_id"] == outputs[1]["asset_id"]
    assert await line.count(Asset) == 1
