"""Stored files: whole, in ranges, unchanged, by links nobody can alter, to one tenant, gone without error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from app.access.callers import Caller, Scope
from app.access.links import Links, keeping_links, rotate_links
from app.errors import Forbidden
from app.web.content.sending import PROVEN_BYTES
from db.tables import Asset, Job
from tests.flow.conftest import TONE, OpenStage, Stage, tone


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
        "bytes=" + "0-0," * 1000 + "0-0",
        "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(9)),
        "bytes=0-5,3-9",
        "bytes=0-1,5-2",
        "bytes=" + "9" * 600 + "-",
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


async def test_a_few_ranges_are_sent_as_parts(shelf: tuple[Stage, str, bytes]) -> None:
    """Fault 25."""
    line, url, content = shelf
    size = len(content)
    wanted = [
        "bytes=0-0,5-9,-1",
        "bytes=5-9 , ,0-0",
        "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(8)),
    ]
    spans = [[(0, 1), (5, 10), (size - 1, size)], [(5, 10), (0, 1)], [(2 * n, 2 * n + 1) for n in range(8)]]
    for header, pieces in zip(wanted, spans, strict=True):
        reply = await line.client.get(url, headers={"range": header})
        assert reply.status_code == 206
        assert reply.headers["content-length"] == str(len(reply.content))
        message = f"Content-Type: {reply.headers['content-type']}\r\n\r\n".encode() + reply.content
        parts = list(message_from_bytes(message, policy=HTTP).iter_parts())
        assert [part["content-range"] for part in parts] == [f"bytes {a}-{b - 1}/{size}" for a, b in pieces]
        assert {part.get_content_type() for part in parts} == {"audio/wav"}
        assert [part.get_payload(decode=True) for part in parts] == [content[a:b] for a, b in pieces]
    # Of several that were asked for, the one that is there comes as it is.
    reply = await line.client.get(url, headers={"range": f"bytes=0-0,{size}-"})
    assert (reply.status_code, reply.content) == (206, content[:1])
    assert reply.headers["content-range"] == f"bytes 0-0/{size}"


async def test_ranges_of_a_large_file_are_its_slices(stage_on_sqlite: OpenStage) -> None:
    """Fault 25: a file that is not read whole for them, one chunk of the store at a time."""
    content = tone(90.0)
    assert len(content) > PROVEN_BYTES
    async with stage_on_sqlite() as line:
        sent = await line.client.post("/v1/uploads", files={"file": ("x", content)})
        asset_id = (await line.rows(Asset))[0].id
        assert sent.status_code == 201
        address = f"/v1/assets/{asset_id}/content"
        whole = await line.client.get(address)
        assert whole.content == content
        reply = await line.client.get(address, headers={"range": "bytes=-70000,0-600000,700000-700000"})
        assert reply.status_code == 206
        assert int(reply.headers["content-length"]) == len(reply.content)
        for piece in (content[-70000:], content[:600001], content[700000:700001]):
            assert b"\r\n\r\n" + piece + b"\r\n--" in reply.content


async def test_a_head_knows_no_ranges(shelf: tuple[Stage, str, bytes]) -> None:
    line, url, content = shelf
    head = await line.client.head(url, headers={"range": "bytes=0-0"})
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(content)))


async def test_ranges_are_for_who_has_this_very_version(shelf: tuple[Stage, str, bytes]) -> None:
    """Fault 25: by tag or by time, strongly compared."""
    line, url, content = shelf
    head = (await line.client.head(url)).headers
    etag, modified = head["etag"], head["last-modified"]
    stale = [
        f"W/{etag}",
        '"other"',
        "Sat, 01 Jan 2000 00:00:00 GMT",
        "yesterday",
        "",
        "\x00",
        f"{etag}, {etag}",
    ]
    for given, status in [(etag, 206), (modified, 206), *((each, 200) for each in stale)]:
        reply = await line.client.get(url, headers={"range": "bytes=0-0", "if-range": given})
        assert (reply.status_code, len(reply.content)) == (status, 1 if status == 206 else len(content)), (
            given
        )


async def test_other_conditions_are_kept_too(shelf: tuple[Stage, str, bytes]) -> None:
    line, url, _ = shelf
    head = (await line.client.head(url)).headers
    for name, given, status in [
        ("if-match", '"other"', 412),
        ("if-match", f"W/{head['etag']}", 412),
        ("if-match", head["etag"], 200),
        ("if-match", "*", 200),
        ("if-modified-since", head["last-modified"], 304),
        ("if-modified-since", "Sat, 01 Jan 2000 00:00:00 GMT", 200),
        ("if-modified-since", "never", 200),
    ]:
        reply = await line.client.get(url, headers={name: given})
        assert reply.status_code == status, (name, given)


async def test_a_file_has_a_name_of_our_own_words(shelf: tuple[Stage, str, bytes]) -> None:
    """Fault 24."""
    line, url, _ = shelf
    asset = (await line.rows(Asset))[0]
    name = f'filename="sound_effect-{asset.id}.wav"'
    assert (await line.client.get(url)).headers["content-disposition"] == f"inline; {name}"
    kept = await line.client.get(f"{url}&download=1")
    assert kept.headers["content-disposition"] == f"attachment; {name}"


def parts_of(url: str) -> tuple[str, dict[str, str]]:
    path, _, query = url.partition("?")
    return path, dict(parse_qsl(query))


async def test_an_altered_or_expired_link_is_refused(shelf: tuple[Stage, str, bytes]) -> None:
    """Fault 26: nothing of it can be changed, and none of it left out."""
    line, url, _ = shelf
    path, given = parts_of(url)
    altered: list[dict[str, str]] = [
        {**given, "expires": str(int(given["expires"]) + 1)},
        {**given, "signature": given["signature"][:-1] + "x"},
        {**given, "tenant": "other"},
        {**given, "tenant": ""},
        {**given, "expires": "1_0"},
        {**given, "expires": "9" * 5000},
        {**given, "signature": "é" * 1000},
        *({name: value for name, value in given.items() if name != left_out} for left_out in given),
        *({name: ""} for name in given),
    ]
    for query in altered:
        reply = await line.client.get(path, params=query)
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden"), query
        assert (await line.client.head(path, params=query)).status_code == 403
    assert (await line.client.get("/v1/assets/ast_other/content", params=given)).status_code == 403
    assert (await line.client.post(url)).status_code == 405
    past = Links(secrets=line.runtime.links._secrets, life_s=-10).url(path.split("/")[3], tenant="default")
    reply = await line.client.get(past)
    assert (reply.status_code, reply.json()["code"]) == (403, "link_expired")


async def test_a_link_is_for_one_method_and_its_head(shelf: tuple[Stage, str, bytes]) -> None:
    """Fault 26."""
    line, url, _ = shelf
    path, given = parts_of(url)
    asset_id = path.split("/")[3]
    for method in ("GET", "HEAD"):
        await line.runtime.links.check(asset_id, **given, method=method)
    for method in ("DELETE", "PUT", "POST", "get"):
        with pytest.raises(Forbidden):
            await line.runtime.links.check(asset_id, **given, method=method)


async def test_a_link_outlives_one_rotation_of_the_secret_and_not_the_next(line: Stage) -> None:
    """Fault 26."""
    asset_id = await stored_asset(line)
    links, database = line.runtime.links, line.runtime.line.database
    first = links.url(asset_id, tenant="default")
    await rotate_links(database, at_once=False)
    await links.look()
    second = links.url(asset_id, tenant="default")
    assert second != first
    assert [(await line.client.get(url)).status_code for url in (first, second)] == [200, 200]
    await rotate_links(database, at_once=False)
    await links.look()
    assert [(await line.client.get(url)).status_code for url in (first, second)] == [403, 200]
    await rotate_links(database, at_once=True)
    await links.look()
    assert (await line.client.get(second)).status_code == 403
    assert (await line.client.get(links.url(asset_id, tenant="default"))).status_code == 200


async def test_a_link_of_a_process_that_saw_the_rotation_first_is_good_at_once(line: Stage) -> None:
    asset_id = await stored_asset(line)
    await rotate_links(line.runtime.line.database, at_once=True)
    line.runtime.links._looked_at -= 3600
    async with keeping_links(line.runtime.line.database, life_s=60) as elsewhere:
        url = elsewhere.url(asset_id, tenant="default")
    assert (await line.client.get(url)).status_code == 200


async def stored_asset(line: Stage) -> str:
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    return str((await line.read(job_id))["outputs"]["audio"]["asset_id"])


async def test_a_tenant_sees_an_asset_only_while_something_of_its_own_has_it(line: Stage) -> None:
    """Fault 18: the bytes are stored once for all tenants; what is another's are answered as not there."""
    asset_id = await stored_asset(line)
    job = (await line.rows(Job))[0]
    links = line.runtime.links
    addresses = [f"/v1/assets/{asset_id}{part}" for part in ("", "/content", "/peaks")]
    assert [(await line.client.get(address)).status_code for address in addresses] == [200, 200, 200]
    await line.change(Job, job.id, tenant="other")
    assert [(await line.client.get(address)).status_code for address in addresses] == [404, 404, 404]
    assert (await line.client.get(links.url(asset_id, tenant="other"))).status_code == 200
    # A link that was ours is proof that there was one, and no more than that.
    assert (await line.client.get(links.url(asset_id, tenant="default"))).status_code == 410
    # The same bytes by an upload of our own: the same asset, and now it is ours as well.
    stored = Path(line.runtime.bench.storage.place_of((await line.rows(Asset))[0].storage_key)).read_bytes()
    assert (await line.client.post("/v1/uploads", files={"file": ("x", stored)})).status_code == 201
    assert [(await line.client.get(address)).status_code for address in addresses] == [200, 200, 200]
    assert (await line.client.get(links.url(asset_id, tenant="default"))).status_code == 200
    named = (await line.client.get(addresses[1])).headers["content-disposition"]
    assert named == f'inline; filename="upload-{asset_id}.wav"'


@pytest.mark.breaks("I1")
async def test_after_its_time_a_link_is_answered_by_gone(stage_on_sqlite: OpenStage) -> None:
    """Fault 26: while the bytes are still there, and once they were deleted."""
    async with stage_on_sqlite(retention_s=3600) as line:
        url = line.runtime.links.url(await stored_asset(line), tenant="default")
        assert (await line.client.get(url)).status_code == 200
        job = (await line.rows(Job))[0]
        await line.change(Job, job.id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        assert (await line.client.get(url)).status_code == 410
        assert await line.runtime.housekeeper.expire() == 1
        assert await line.count(Asset) == 0
        reply = await line.client.get(url)
        assert (reply.status_code, reply.json()["code"]) == (410, "gone")


async def test_without_a_link_a_key_that_may_read_opens(shelf: tuple[Stage, str, bytes]) -> None:
    """Fault 26: what the door lets in is told by the caller that it proved, and by nothing in the address."""
    line, url, content = shelf
    path, _ = parts_of(url)
    for tenant, scope, status in (
        ("default", Scope.JOBS_READ, 200),
        ("other", Scope.ADMIN, 404),
        ("default", Scope.JOBS_WRITE, 403),
    ):
        by = Caller(tenant, frozenset(Scope))
        issued = await line.runtime.key_desk.create(by, name="a caller", scopes=[scope])
        headers = {"authorization": f"Bearer {issued.text}"}
        assert (await line.client.get(path, headers=headers)).status_code == status, (tenant, scope)
        # With a link the key says nothing.
        assert (await line.client.get(url, headers=headers)).content == content
    assert (await line.client.get(path)).status_code == 401
    assert (await line.client.get(url)).content == content


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
