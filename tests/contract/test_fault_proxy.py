"""What the proxy of the fault tests does to a connection: each toxic is what it says, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.fakes.proxy import FaultProxy, proxied

LIMIT_S = 5.0
SOON_S = 0.05


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that says back whatever it hears; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def proxy(echo: int) -> AsyncIterator[FaultProxy]:
    async with proxied(echo) as proxy:
        yield proxy


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, words: bytes) -> bytes:
        self.writer.write(words)
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.readexactly(len(words))

    async def hears_nothing(self) -> bool:
        try:
            async with asyncio.timeout(SOON_S):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


@pytest.fixture
async def caller(proxy: FaultProxy) -> AsyncIterator[Caller]:
    caller = await call(proxy)
    yield caller
    caller.writer.close()


async def call(proxy: FaultProxy) -> Caller:
    return Caller(*await asyncio.open_connection("127.0.0.1", proxy.port))


async def test_without_toxics_everything_passes_as_it_is(caller: Caller) -> None:
    words = bytes(range(256)) * 4000
    sending = asyncio.ensure_future(caller.say(words))
    assert await sending == words


async def test_a_reset_is_felt_as_one_and_the_next_connection_is_well(
    proxy: FaultProxy, caller: Caller
) -> None:
    await caller.say(b"a")
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        await caller.say(b"b")
    again = await call(proxy)
    assert await again.say(b"c") == b"c"
    again.writer.close()


async def test_a_half_open_connection_neither_answers_nor_ends(proxy: FaultProxy, caller: Caller) -> None:
    await caller.say(b"a")
    assert proxy.silence() == 1
    caller.writer.write(b"b")
    assert await caller.hears_nothing()
    proxy.heal()
    caller.writer.write(b"c")
    assert await caller.hears_nothing(), "what was lost is lost for good"
    again = await call(proxy)
    assert await again.say(b"d") == b"d"
    proxy.spoil(half_open=True)
    again.writer.write(b"e")
    assert await again.hears_nothing()
    again.writer.close()


async def test_down_refuses_and_up_listens_at_the_same_port(proxy: FaultProxy, caller: Caller) -> None:
    await caller.say(b"a")
    port = proxy.port
    await proxy.down()
    with pytest.raises(ConnectionRefusedError):
        await call(proxy)
    await proxy.up()
    assert proxy.port == port
    again = await call(proxy)
    assert await again.say(b"b") == b"b"
    again.writer.close()


async def test_latency_and_bandwidth_take_their_time(proxy: FaultProxy, caller: Caller) -> None:
    now = asyncio.get_running_loop().time
    proxy.spoil(latency_s=0.02, jitter_s=0.01)
    began = now()
    await caller.say(b"a")
    assert now() - began >= 0.04, "there and back"
    proxy.spoil(bandwidth_bytes_s=10_000)
    began = now()
    await caller.say(b"x" * 500)
    assert now() - began >= 0.05


async def test_the_slicer_cuts_and_loses_nothing(proxy: FaultProxy, caller: Caller) -> None:
    proxy.spoil(slice_bytes=3)
    assert await caller.say(b"0123456789" * 50) == b"0123456789" * 50


async def test_limit_data_ends_the_connection_after_so_many_bytes(proxy: FaultProxy, caller: Caller) -> None:
    proxy.spoil(limit_bytes=7)
    caller.writer.write(b"0123456789")
    async with asyncio.timeout(LIMIT_S):
        assert await caller.reader.read() == b"0123456"


async def test_the_end_of_the_block_ends_every_connection(echo: int) -> None:
    async with proxied(echo) as proxy:
        caller = await call(proxy)
        await caller.say(b"a")
        proxy.silence()
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(ConnectionResetError):
            await caller.reader.readexactly(1)
    caller.writer.close()
