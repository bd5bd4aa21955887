"""The guarded door out against real sockets: what is fetched, what is resumed, and what receives no byte
(faults 21, 22, 30-34, 36)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import shutil
import socket
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.errors import OutputExpired, OutputRejected, ProviderUnavailable, StorageUnavailable
from app.outbound import Outbound, decode_data_uri
from app.outbound import door as room
from app.provider.base import DownloadRules

BODY = bytes(range(256)) * 400
ANYWHERE = DownloadRules(hosts=())


@dataclass
class Call:
    line: str
    headers: dict[str, str]


@dataclass
class Server:
    """A loopback server that answers each request with the next of `answers`; the last one repeats."""

    port: int = 0
    calls: list[Call] = field(default_factory=list)
    connections: int = 0
    answers: list[Answer] = field(default_factory=list)
    open: list[tuple[asyncio.Task[None], asyncio.StreamWriter]] = field(default_factory=list)

    def url(self, path: str = "/out.wav?signature=canary", host: str = "worker") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.append((asyncio.current_task(), writer))
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self.answer(reader, writer)
        finally:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        answer = self.answers[min(len(self.calls), len(self.answers) - 1)]
        self.calls.append(Call(head[0], headers))
        await answer(writer, headers)
        await writer.drain()

    @contextlib.asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        listener = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=tls)
        self.port = listener.sockets[0].getsockname()[1]
        async with listener:
            yield
        for task, writer in self.open:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with contextlib.suppress(OSError):
                await writer.wait_closed()


Answer = Callable[[asyncio.StreamWriter, dict[str, str]], Awaitable[None]]


def says(status: str, body: bytes = b"", **headers: object) -> Answer:
    async def answer(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
        named = {
            "content-length": len(body),
            **{key.replace("_", "-"): value for key, value in headers.items()},
        }
        lines = "".join(f"{key}: {value}\r\n" for key, value in named.items() if value is not None)
        writer.write(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)

    return answer


def cut_after(size: int, *, etag: str | None = '"v1"', stall: bool = False) -> Answer:
    """Promises all of BODY, or of the range that was asked for, and stops after `size` bytes of it."""

    async def answer(writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
        start = int(headers.get("range", "bytes=0-")[6:-1])
        matches = headers.get("if-range") in (None, etag)
        start = start if matches else 0
        rest = BODY[start:]
        status = "206 Partial Content" if start else "200 OK"
        tag = f"etag: {etag}\r\n" if etag else ""
        span = f"content-range: bytes {start}-{len(BODY) - 1}/{len(BODY)}\r\n" if start else ""
        writer.write(
            f"HTTP/1.1 {status}\r\ncontent-length: {len(rest)}\r\n{tag}{span}\r\n".encode() + rest[:size]
        )
        await writer.drain()
        if stall and size < len(rest):
            await asyncio.Event().wait()  # until the server of the test ends

    return answer


async def endless(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x" * 65536)
        await writer.drain()


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PAUSE_S", 0.0)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    it = Server()
    async with it.listening():
        yield it


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@pytest.fixture
async def door() -> AsyncIterator[Outbound]:
    """Lets `worker` and `other` through to the loopback server."""
    it = Outbound(allow=("worker", "other"), resolver=loopback, connect_timeout_s=20, idle_timeout_s=20)
    yield it
    await it.aclose()


@pytest.fixture
async def impatient() -> AsyncIterator[Outbound]:
    """The same for a test about silence: it gives up on a byte that does not come."""
    it = Outbound(allow=("worker",), resolver=loopback, connect_timeout_s=20, idle_timeout_s=1)
    yield it
    await it.aclose()


async def fetch(
    door: Outbound, url: str, into: Path, *, rules: DownloadRules = ANYWHERE, max_bytes: int = 1 << 20
) -> room.Download:
    return await door.download(url, into, rules=rules, max_bytes=max_bytes, timeout_s=60)


# ── a transfer ──────────────────────────────────────────────────────────────────────────────────────────


async def test_an_output_arrives_whole(door: Outbound, server: Server, tmp_path: Path) -> None:
    server.answers = [says("200 OK", BODY, content_type="Audio/WAV; rate=44100", set_cookie="a=b")]
    for _ in range(2):
        download = await fetch(door, server.url(), tmp_path / "out")
        assert (download.size_bytes, download.media_type) == (len(BODY), "audio/wav")
        assert (tmp_path / "out").read_bytes() == BODY
        assert "canary" not in repr(download)
    sent = server.calls[1]
    assert sent.line == "GET /out.wav?signature=canary HTTP/1.1"
    assert sent.headers["host"] == f"worker:{server.port}"
    assert sent.headers["accept-encoding"] == "identity"
    assert "cookie" not in sent.headers


async def test_chunks_of_unknown_length_arrive_whole(door: Outbound, server: Server, tmp_path: Path) -> None:
    """Fault 32."""

    async def chunked(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for start in range(0, len(BODY), 999):
            piece = BODY[start : start + 999]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        writer.write(b"0\r\n\r\n")

    server.answers = [chunked]
    assert (await fetch(door, server.url(), tmp_path / "out")).size_bytes == len(BODY)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("404 Not Found", OutputExpired),
        ("403 Forbidden", OutputExpired),
        ("410 Gone", OutputExpired),
        ("401 Unauthorized", OutputRejected),
        ("204 No Content", OutputRejected),
        ("300 Choices", OutputRejected),
        ("418 Teapot", OutputRejected),
        ("500 Oops", ProviderUnavailable),
        ("503 Later", ProviderUnavailable),
        ("429 Slow down", ProviderUnavailable),
    ],
)
async def test_every_status_has_its_error(
    door: Outbound, server: Server, tmp_path: Path, status: str, error: type[Exception]
) -> None:
    """Fault 34."""
    server.answers = [says(status, b"{}" if status[:3] != "204" else b"")]
    with pytest.raises(error) as caught:
        await fetch(door, server.url(), tmp_path / "out")
    assert "canary" not in str(caught.value)
    assert len(server.calls) == (3 if error is ProviderUnavailable else 1)
    assert not (tmp_path / "out").exists()


async def test_a_wait_that_was_asked_for_is_passed_on_at_once(
    door: Outbound, server: Server, tmp_path: Path
) -> None:
    server.answers = [says("429 Slow down", retry_after="7")]
    with pytest.raises(ProviderUnavailable) as caught:
        await fetch(door, server.url(), tmp_path / "out")
    assert caught.value.retry_after_s == 7
    assert len(server.calls) == 1
    server.answers = [says("503 Later", retry_after="Fri, 31 Dec 1999 23:59:59 GMT")]
    with pytest.raises(ProviderUnavailable) as caught:
        await fetch(door, server.url(), tmp_path / "out")
    assert caught.value.retry_after_s == 0


async def test_an_empty_output_is_refused(door: Outbound, server: Server, tmp_path: Path) -> None:
    """Fault 35."""
    server.answers = [says("200 OK")]
    with pytest.raises(OutputRejected, match="empty"):
        await fetch(door, server.url(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_a_disk_that_cannot_be_written_is_our_fault(
    door: Outbound, server: Server, tmp_path: Path
) -> None:
    server.answers = [says("200 OK", BODY)]
    with pytest.raises(StorageUnavailable):
        await fetch(door, server.url(), tmp_path / "missing" / "out")


# ── cut, stalled, resumed ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stall", [False, True])
async def test_a_cut_or_stalled_body_is_resumed(
    door: Outbound, impatient: Outbound, server: Server, tmp_path: Path, *, stall: bool
) -> None:
    """Fault 33."""
    server.answers = [cut_after(60_000, stall=stall), cut_after(10_000, stall=stall), cut_after(1 << 20)]
    await fetch(impatient if stall else door, server.url(), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == BODY
    assert [call.headers.get("range") for call in server.calls] == [None, "bytes=60000-", "bytes=70000-"]
    assert server.calls[1].headers["if-range"] == '"v1"'


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
async def test_without_a_strong_version_it_starts_afresh(
    door: Outbound, server: Server, tmp_path: Path, etag: str | None
) -> None:
    """Fault 33."""
    server.answers = [cut_after(60_000, etag=etag), cut_after(1 << 20, etag=etag)]
    await fetch(door, server.url(), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == BODY
    assert "range" not in server.calls[1].headers


async def test_a_changed_output_is_not_mixed_with_the_old(
    door: Outbound, server: Server, tmp_path: Path
) -> None:
    """Fault 33."""
    server.answers = [cut_after(60_000), cut_after(1 << 20, etag='"v2"')]
    await fetch(door, server.url(), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == BODY


@pytest.mark.parametrize(
    "wrong",
    [
        says("206 Partial", BODY[50:], content_range=f"bytes 50-{len(BODY) - 1}/{len(BODY)}"),
        says("206 Partial", BODY[50:]),
        says("416 Range"),
    ],
)
async def test_a_wrong_resumption_starts_afresh(
    door: Outbound, server: Server, tmp_path: Path, wrong: Answer
) -> None:
    """Fault 33."""
    server.answers = [cut_after(60_000), wrong, cut_after(1 << 20)]
    await fetch(door, server.url(), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == BODY
    assert "range" not in server.calls[2].headers


async def test_a_short_body_is_never_a_success(door: Outbound, server: Server, tmp_path: Path) -> None:
    """Fault 32."""
    server.answers = [cut_after(60_000, etag=None)]
    with pytest.raises(ProviderUnavailable, match="worker broke off"):
        await fetch(door, server.url(), tmp_path / "out")
    assert len(server.calls) == 3
    assert not (tmp_path / "out").exists()


async def test_the_whole_transfer_ends_in_time(door: Outbound, server: Server, tmp_path: Path) -> None:
    """Fault 33."""

    async def drip(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(100):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    server.answers = [drip]
    with pytest.raises(ProviderUnavailable, match="longer than"):
        await door.download(server.url(), tmp_path / "out", rules=ANYWHERE, max_bytes=1 << 20, timeout_s=0.15)
    assert not (tmp_path / "out").exists()


async def test_cancelling_leaves_no_file(door: Outbound, server: Server, tmp_path: Path) -> None:
    arrived = asyncio.Event()

    async def hang(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nsome")
        await writer.drain()
        arrived.set()
        await asyncio.Event().wait()

    server.answers = [hang]
    task = asyncio.create_task(fetch(door, server.url(), tmp_path / "out"))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "out").exists()


async def test_a_closed_port_is_transient(door: Outbound, tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable, match="cannot be connected"):
        await fetch(door, f"http://worker:{free_port()}/x", tmp_path / "out")


# ── size ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("answer", [says("200 OK", BODY), says("200 OK", BODY, content_length=None), endless])
async def test_over_the_cap_is_refused(
    door: Outbound, server: Server, tmp_path: Path, answer: Answer
) -> None:
    """Fault 32."""
    server.answers = [answer]
    with pytest.raises(OutputRejected, match="larger than 1000 bytes"):
        await fetch(door, server.url(), tmp_path / "out", max_bytes=1000)
    assert len(server.calls) == 1
    assert not (tmp_path / "out").exists()


async def test_exactly_the_cap_is_let_in(door: Outbound, server: Server, tmp_path: Path) -> None:
    """Fault 32."""
    server.answers = [says("200 OK", BODY)]
    assert (await fetch(door, server.url(), tmp_path / "out", max_bytes=len(BODY))).size_bytes == len(BODY)


async def test_a_compressed_answer_is_inflated_under_the_cap(
    door: Outbound, server: Server, tmp_path: Path
) -> None:
    """Fault 36."""
    server.answers = [says("200 OK", gzip.compress(BODY), content_encoding="gzip")]
    assert (await fetch(door, server.url(), tmp_path / "out", max_bytes=len(BODY))).size_bytes == len(BODY)
    assert (tmp_path / "out").read_bytes() == BODY
    bomb = gzip.compress(bytes(50 << 20))
    server.answers = [says("200 OK", bomb, content_encoding="x-gzip")]
    with pytest.raises(OutputRejected, match="larger"):
        await fetch(door, server.url(), tmp_path / "out")


@pytest.mark.parametrize(
    ("body", "encoding", "error"),
    [
        (BODY, "br", OutputRejected),
        (BODY, "zstd", OutputRejected),
        (BODY, "compress", OutputRejected),
        (gzip.compress(BODY), "gzip, br", OutputRejected),
        (BODY, "x" * 5000, OutputRejected),
        (BODY, "gzip, gzip", OutputRejected),
        (BODY, "gzip", OutputRejected),
        (gzip.compress(BODY) + b"more", "gzip", OutputRejected),
        (gzip.compress(BODY)[:-20], "gzip", ProviderUnavailable),
        (zlib.compress(BODY), "deflate", OutputRejected),
    ],
)
async def test_other_and_damaged_encodings_are_refused(
    door: Outbound, server: Server, tmp_path: Path, body: bytes, encoding: str, error: type[Exception]
) -> None:
    """Fault 36."""
    server.answers = [says("200 OK", body, content_encoding=encoding)]
    with pytest.raises(error):
        await fetch(door, server.url(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ── redirects ───────────────────────────────────────────────────────────────────────────────────────────


async def test_three_redirects_are_walked_and_a_fourth_is_not(
    door: Outbound, server: Server, tmp_path: Path
) -> None:
    """Fault 31."""
    hop = says("302 Found", location="/next?signature=canary")
    server.answers = [hop, hop, hop, says("200 OK", BODY)]
    assert (await fetch(door, server.url(), tmp_path / "out")).url.endswith("/next?signature=canary")
    server.calls.clear()
    server.answers = [hop] * 20
    with pytest.raises(OutputRejected, match="more than 3 times"):
        await fetch(door, server.url(), tmp_path / "out")
    assert len(server.calls) == 4


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://worker/x",
        "data:,x",
        "https://worker/x",
        "http://10.0.0.1/x",
        "",
        "http://[/",
    ],
)
async def test_a_redirect_is_judged_like_any_address(
    door: Outbound, server: Server, tmp_path: Path, location: str
) -> None:
    """Fault 31."""
    server.answers = [says("302 Found", location=location), says("200 OK", BODY)]
    with pytest.raises(OutputRejected):
        await fetch(door, server.url(), tmp_path / "out")
    assert len(server.calls) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "127.1", "stranger"])
async def test_a_redirect_inwards_is_refused_and_no_byte_is_sent(
    door: Outbound, server: Server, tmp_path: Path, host: str
) -> None:
    """Fault 31: from a host that is exempt to another listener of this machine, which is not."""
    inner = Server(answers=[says("200 OK", BODY)])
    async with inner.listening():
        target = f"http://{host}:{inner.port}/latest/meta-data/"
        server.answers = [says("302 Found", location=target), says("200 OK", BODY)]
        with pytest.raises(OutputRejected):
            await fetch(door, server.url(), tmp_path / "out")
        server.answers = [says("307 Go on", location=target)]
        assert (await door.post(server.url(), content=b"{}", headers={}, timeout_s=30)).status == 307
    assert (inner.connections, inner.calls) == (0, [])
    assert not (tmp_path / "out").exists()


async def test_a_chain_of_twenty_hops_is_left_after_the_third(
    door: Outbound, server: Server, tmp_path: Path
) -> None:
    """Fault 31."""
    server.answers = [says("302 Found", location=f"/hop/{nth}") for nth in range(20)] + [says("200 OK", BODY)]
    with pytest.raises(OutputRejected, match="more than 3 times"):
        await fetch(door, server.url(), tmp_path / "out")
    assert [call.line.split()[1] for call in server.calls[1:]] == ["/hop/0", "/hop/1", "/hop/2"]


@pytest.mark.parametrize(("host", "kept"), [("worker", True), ("other", False)])
async def test_a_token_does_not_follow_to_another_host(
    door: Outbound, server: Server, tmp_path: Path, host: str, *, kept: bool
) -> None:
    pairs = (f"worker:{server.port}", f"other:{server.port}")
    rules = DownloadRules(hosts=(), headers={"Authorization": "Bearer canary"}, plain_http=pairs)
    back = says("302 Found", location=server.url("/back"))
    server.answers = [says("302 Found", location=server.url("/x", host)), back, says("200 OK", BODY)]
    await fetch(door, server.url(), tmp_path / "out", rules=rules)
    seen = ["authorization" in call.headers for call in server.calls]
    assert seen == [True, kept, kept]  # and coming back does not bring it back


async def test_a_token_is_not_sent_to_a_host_that_the_rules_do_not_name(
    door: Outbound, server: Server, tmp_path: Path
) -> None:
    server.answers = [says("200 OK", BODY)]
    await fetch(door, server.url(), tmp_path / "out", rules=DownloadRules((), {"Authorization": "canary"}))
    assert "authorization" not in server.calls[0].headers


# ── no byte to a blocked address ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "0"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_blocked_address_gets_no_connection(
    server: Server, tmp_path: Path, host: str, scheme: str
) -> None:
    """Fault 30."""
    door = Outbound()
    for url in (f"{scheme}://{host}:{server.port}/x", f"{scheme}://{host}/x"):
        with pytest.raises(OutputRejected):
            await fetch(door, url, tmp_path / "out")
        with pytest.raises(OutputRejected):
            await door.post(url, content=b"{}", headers={}, timeout_s=30)
        with pytest.raises(OutputRejected):
            await door.check(url)
    await door.aclose()
    assert server.connections == 0


async def test_a_second_dns_answer_changes_nothing(server: Server, tmp_path: Path) -> None:
    """Fault 31: the first answer is let in (and nobody listens there), the next would be the private one."""
    asked: list[str] = []

    async def rebinds(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    door = Outbound(allow=("127.0.0.2",), resolver=rebinds, connect_timeout_s=0.2)
    with pytest.raises(OutputRejected):
        await fetch(door, f"http://rebinding.example:{server.port}/x", tmp_path / "out")
    await door.aclose()
    assert len(asked) == 2  # once a try; the second try's answer is judged anew, and refused
    assert server.connections == 0


async def test_an_announcement_is_judged_anew_each_time_it_is_sent(server: Server) -> None:
    """Faults 21, 31: what a name was when it was given says nothing about what it is now."""
    asked: list[str] = []

    async def rebinds(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.3", "127.0.0.1"]

    door = Outbound(allow=("127.0.0.1",), resolver=rebinds)
    url = f"http://rebinding.example:{server.port}/hook"
    await door.check(url)
    with pytest.raises(OutputRejected):
        await door.post(url, content=b"{}", headers={}, timeout_s=30)
    await door.aclose()
    assert server.connections == 0


async def test_a_bomb_in_the_answer_to_an_announcement_stays_packed(door: Outbound, server: Server) -> None:
    """Faults 22, 36: what is kept is what came, cut."""
    bomb = gzip.compress(bytes(50 << 20))
    server.answers = [says("200 OK", bomb, content_encoding="gzip")]
    reply = await door.post(server.url(), content=b"{}", headers={}, timeout_s=30, max_response_bytes=100)
    assert reply.body == bomb[:100]


async def test_the_judged_address_is_the_one_that_is_connected_to(server: Server, tmp_path: Path) -> None:
    """Fault 31: The name does not exist in DNS at all: only the pinned address can have been used."""
    server.answers = [says("200 OK", BODY)]
    door = Outbound(allow=("nowhere.invalid",), resolver=loopback)
    await fetch(door, server.url(host="nowhere.invalid"), tmp_path / "out")
    await door.aclose()
    assert server.calls[0].headers["host"] == f"nowhere.invalid:{server.port}"


async def test_a_dead_address_is_passed_over_for_the_next(server: Server, tmp_path: Path) -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]  # nothing listens on the first

    server.answers = [says("200 OK", BODY)]
    door = Outbound(allow=("worker",), resolver=two)
    await fetch(door, server.url(), tmp_path / "out")
    await door.aclose()


async def test_the_environments_proxy_is_not_used(
    door: Outbound, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    server.answers = [says("200 OK", BODY)]
    await fetch(door, server.url(), tmp_path / "out")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
async def test_the_certificate_is_checked_for_the_name_and_not_the_address(tmp_path: Path) -> None:
    key, cert = make_certificate(tmp_path, "worker")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(cert, key)
    names: list[str | None] = []
    serving.sni_callback = lambda _socket, name, _context: names.append(name)
    it = Server(answers=[says("200 OK", BODY)])
    trusting = ssl.create_default_context(cafile=str(cert))
    door = Outbound(allow=("worker", "other"), resolver=loopback, tls=trusting)
    async with it.listening(serving):
        download = await fetch(door, f"https://worker:{it.port}/x", tmp_path / "out")
        with pytest.raises(ProviderUnavailable, match="certificate"):
            await fetch(door, f"https://other:{it.port}/x", tmp_path / "out")
    await door.aclose()
    assert download.size_bytes == len(BODY)
    assert names[0] == "worker"
    assert len(it.calls) == 1


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", cert]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


# ── announcements ───────────────────────────────────────────────────────────────────────────────────────


async def test_an_announcement_is_posted_once_with_its_headers(door: Outbound, server: Server) -> None:
    server.answers = [says("200 OK", b"thanks")]
    reply = await door.post(
        server.url("/hook"),
        content=b'{"a":1}',
        headers={"Webhook-Id": "m1", "User-Agent": "us"},
        timeout_s=30,
    )
    assert (reply.status, reply.body, reply.retry_after_s) == (200, b"thanks", None)
    sent = server.calls[0]
    assert sent.line == "POST /hook HTTP/1.1"
    assert sent.headers["webhook-id"] == "m1"
    assert sent.headers["user-agent"] == "us"
    assert sent.headers["content-length"] == "7"


async def test_an_announcement_follows_no_redirect(door: Outbound, server: Server) -> None:
    """Fault 22."""
    server.answers = [says("302 Found", location=server.url("/elsewhere")), says("200 OK")]
    assert (await door.post(server.url(), content=b"{}", headers={}, timeout_s=30)).status == 302
    assert len(server.calls) == 1


async def test_an_announcement_reports_the_wait_it_is_asked_for(door: Outbound, server: Server) -> None:
    """Fault 22."""
    server.answers = [says("429 Slow down", retry_after="30")]
    assert (await door.post(server.url(), content=b"{}", headers={}, timeout_s=30)).retry_after_s == 30


async def test_an_endless_answer_is_cut(door: Outbound, server: Server) -> None:
    """Fault 22."""
    server.answers = [endless]
    reply = await door.post(server.url(), content=b"{}", headers={}, timeout_s=30, max_response_bytes=100)
    assert reply.body == b"x" * 100


async def test_endless_headers_are_cut(door: Outbound, server: Server) -> None:
    """Fault 22."""

    async def headers(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"x: " + b"y" * 60_000 + b"\r\n")
            await writer.drain()

    server.answers = [headers]
    with pytest.raises(ProviderUnavailable):
        await door.post(server.url(), content=b"{}", headers={}, timeout_s=30)


async def test_a_silent_receiver_is_left_in_time(door: Outbound, server: Server) -> None:
    """Fault 22."""

    async def silent(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
        await asyncio.Event().wait()

    async def hang_up(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
        writer.close()

    server.answers = [silent]
    with pytest.raises(ProviderUnavailable, match="no answer within"):
        await door.post(server.url(), content=b"{}", headers={}, timeout_s=0.2)
    server.answers = [hang_up]
    with pytest.raises(ProviderUnavailable, match="broke off"):
        await door.post(server.url(), content=b"{}", headers={}, timeout_s=30)


async def test_a_header_cannot_be_split(door: Outbound, server: Server) -> None:
    """Fault 23."""
    server.answers = [says("200 OK")]
    with pytest.raises(OutputRejected):
        await door.post(server.url(), content=b"", headers={"X": "a\r\nHost: evil"}, timeout_s=30)


# ── data URIs ───────────────────────────────────────────────────────────────────────────────────────────

ENCODED = base64.b64encode(b"RIFF!").decode()


@pytest.mark.parametrize(
    ("uri", "content", "media_type"),
    [
        (f"data:audio/wav;base64,{ENCODED}", b"RIFF!", "audio/wav"),
        (f"data:audio/wav;base64,{ENCODED.rstrip('=')}", b"RIFF!", "audio/wav"),
        (f"DATA:Audio/X-Wav;rate=8000;BASE64,{ENCODED}", b"RIFF!", "audio/x-wav"),
        (f"data:;base64,{ENCODED.replace('=', '%3D')}", b"RIFF!", None),
        ("data:,a%20b%00", b"a b\0", None),
        ("data:text/plain;charset=utf-8,a,b", b"a,b", "text/plain"),
    ],
)
async def test_a_data_uri_is_written(
    tmp_path: Path, uri: str, content: bytes, media_type: str | None
) -> None:
    download = await decode_data_uri(uri, tmp_path / "out", max_bytes=100)
    assert (tmp_path / "out").read_bytes() == content
    assert (download.size_bytes, download.media_type) == (len(content), media_type)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "data:",
        "data:audio/wav;base64",
        "https://example.com/,",
        "data:audio/wav;base64,",
        "data:,",
        "data:;base64,A",
        "data:;base64,AA AA",
        "data:;base64,AA==AA",
        "data:;base64,äää",
        "data:;base64," + "A" * 200,
        "data:," + "A" * 101,
        "data:," + "%41" * 101,
    ],
)
async def test_a_bad_or_large_data_uri_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(OutputRejected):
        await decode_data_uri(uri, tmp_path / "out", max_bytes=100)
    assert not (tmp_path / "out").exists()


async def test_a_data_uri_of_exactly_the_cap_is_let_in(tmp_path: Path) -> None:
    """Fault 32."""
    for size in (98, 99, 100):
        uri = "data:;base64," + base64.b64encode(bytes(size)).decode()
        assert (await decode_data_uri(uri, tmp_path / "out", max_bytes=100)).size_bytes == size
