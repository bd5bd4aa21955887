"""Callers that drip: fault 12. They are cut off in the end, and everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn

from app.main import create_app
from app.web.server import PatientHttp
from db.tables import Delivery
from tests.flow.conftest import Stage


class Impatient(PatientHttp):
    head_limit_s = 0.3
    body_limit_s = 0.6


@pytest.fixture
async def address(sqlite_line: Stage) -> AsyncIterator[tuple[str, int]]:
    """The stage's app on a loopback port, served as in production but with little patience."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(sqlite_line.runtime), http=Impatient, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        await task
        listener.close()


async def drip(address: tuple[str, int], *pieces: bytes) -> bytes:
    """Send the pieces, then nothing more; what the other side says until it closes."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(60):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


HEAD = b"POST /v1/webhooks/replicate/att_1?token=x HTTP/1.1\r\nhost: x\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"P",),
        (HEAD, b"x-a: 1\r\n"),
        (HEAD, b"content-length: 100\r\n\r\n", b"{"),
        (HEAD, b"transfer-encoding: chunked\r\n\r\n", b"1\r\n{\r\n"),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" + HEAD,),
    ],
    ids=["nothing", "a-letter", "half-a-head", "half-a-body", "half-a-chunked-body", "second-request"],
)
async def test_fault_12_who_drips_is_cut_off_and_nothing_is_stored(
    sqlite_line: Stage, address: tuple[str, int], pieces: tuple[bytes, ...]
) -> None:
    await drip(address, *pieces)
    assert await sqlite_line.count(Delivery) == 0


async def test_fault_12_good_requests_are_served_while_many_drip(
    sqlite_line: Stage, address: tuple[str, int]
) -> None:
    slow = [asyncio.create_task(drip(address, HEAD)) for _ in range(100)]
    body = b'{"status": "starting"}'
    host, port = address
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
        for number in range(20):
            token = sqlite_line.runtime.callbacks.token("att_1")
            reply = await client.post(
                f"/v1/webhooks/replicate/att_1?token={token}",
                content=body,
                headers=sqlite_line.fake.signed(f"m{number}", body),
            )
            assert reply.status_code == 200
    await asyncio.gather(*slow)
    assert await sqlite_line.count(Delivery) == 20


@pytest.mark.parametrize("size", [65 * 1024, 1024 * 1024])
async def test_fault_13_a_head_without_an_end_is_refused(
    sqlite_line: Stage, address: tuple[str, int], size: int
) -> None:
    pieces = [b"x" * 16_384] * (size // 16_384 + 1)
    told = await drip(address, HEAD, b"x-a: ", *pieces)
    assert told == b"" or told.startswith(b"HTTP/1.1 400")
    assert await sqlite_line.count(Delivery) == 0


async def test_a_large_body_in_one_go_is_no_long_head(sqlite_line: Stage, address: tuple[str, int]) -> None:
    body = b'{"status": "starting", "logs": "%s"}' % (b"x" * 300_000)
    host, port = address
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
        reply = await client.post(
            f"/v1/webhooks/replicate/att_1?token={sqlite_line.runtime.callbacks.token('att_1')}",
            content=body,
            headers=sqlite_line.fake.signed("m", body),
        )
    assert reply.status_code == 200
