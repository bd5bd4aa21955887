"""A network that can be spoiled: a TCP proxy on loopback between us and PostgreSQL, S3 or a provider.

`proxied(port)` opens one in front of a server; what stands on `FaultProxy.toxics` is applied to every chunk
from then on, and may be changed at any time. The toxics are Toxiproxy's: latency with jitter, bandwidth,
slicer, limit_data, half-open (nothing passes, nobody is told), reset and down. Bounded: at most one chunk
a direction is held, and no more than `MOST_LINKS` connections. Everything it does ends with its block.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

CHUNK_BYTES = 65_536
MOST_LINKS = 256
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Toxics:
    """What the network does; by default nothing. Both directions, unless said otherwise."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    """Up to so much more, each chunk anew."""
    bandwidth_bytes_s: float | None = None
    slice_bytes: int | None = None
    """The most bytes that are sent in one piece."""
    limit_bytes: int | None = None
    """The connection is closed once so many bytes of answers have passed."""
    half_open: bool = False
    """Whatever is sent is lost, and no connection ends."""


class Link:
    """One connection through the proxy: two streams and what has passed."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.answered_bytes = 0
        self.is_dead = False
        """Half-open for ever: what a peer that vanished leaves behind."""
        self.is_deaf = False
        """Half-open for answers alone."""

    def reset(self) -> None:
        """End it with RST on both sides."""
        for writer in (self.client, self.server):
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
                )
            writer.transport.abort()

    def close(self) -> None:
        for writer in (self.client, self.server):
            writer.close()


class FaultProxy:
    """In front of one server. Made by `proxied`."""

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self.toxics = Toxics()
        self.port = 0
        self.accepted = 0
        """How many connections were taken since the start."""
        self.target = (host, port)
        self._dice = random.Random(seed)
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def spoil(self, **toxics: float | bool | None) -> None:
        """From now on exactly these toxics."""
        self.toxics = replace(Toxics(), **toxics)  # type: ignore[arg-type]

    def heal(self) -> None:
        """No toxics; links that are dead stay so."""
        self.toxics = Toxics()

    def reset(self) -> int:
        """RST on every connection there is; how many."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def silence(self) -> int:
        """Make every connection there is half-open for ever; new ones are well. How many."""
        for link in self._links:
            link.is_dead = True
        return len(self._links)

    def lose_answers(self) -> int:
        """The same, but what is sent still arrives: only the answers are lost. How many connections."""
        for link in self._links:
            link.is_deaf = True
        return len(self._links)

    async def down(self) -> None:
        """Refuse new connections, and reset those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()

    async def up(self) -> None:
        """Listen, on the port of before."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, limit=CHUNK_BYTES, backlog=MOST_LINKS
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        await self.down()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if len(self._links) >= MOST_LINKS:
            writer.transport.abort()
            return
        back, forth = await asyncio.open_connection(*self.target, limit=CHUNK_BYTES)
        link = Link(writer, forth)
        self._links.add(link)
        pumps = [
            asyncio.ensure_future(self._pump(link, reader, forth, is_answer=False)),
            asyncio.ensure_future(self._pump(link, back, writer, is_answer=True)),
        ]
        try:
            # Either side that ends ends both, as soon as what was under way has arrived.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            with suppress(OSError):
                await asyncio.gather(writer.drain(), forth.drain())
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._links.discard(link)
            link.close()

    async def _pump(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                link.is_dead = link.is_dead or self.toxics.half_open
                if link.is_dead or (is_answer and link.is_deaf):
                    continue
                if not await self._pass_on(link, chunk, writer, is_answer=is_answer):
                    return
        if link.is_dead:
            # The one side has gone, and nobody tells the other.
            await asyncio.Event().wait()

    async def _pass_on(
        self, link: Link, chunk: bytes, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> bool:
        """Send a chunk as the toxics have it; False when the connection is to end."""
        toxics = self.toxics
        if toxics.latency_s or toxics.jitter_s:
            await asyncio.sleep(toxics.latency_s + self._dice.uniform(0, toxics.jitter_s))
        if is_answer and toxics.limit_bytes is not None:
            chunk = chunk[: max(0, toxics.limit_bytes - link.answered_bytes)]
        most = toxics.slice_bytes or CHUNK_BYTES
        for at in range(0, len(chunk), most):
            piece = chunk[at : at + most]
            if toxics.bandwidth_bytes_s is not None:
                await asyncio.sleep(len(piece) / toxics.bandwidth_bytes_s)
            writer.write(piece)
            await writer.drain()
        if is_answer:
            link.answered_bytes += len(chunk)
        return toxics.limit_bytes is None or link.answered_bytes < toxics.limit_bytes


@asynccontextmanager
async def proxied(port: int, *, host: str = "127.0.0.1", seed: int = 0) -> AsyncIterator[FaultProxy]:
    """A proxy in front of this server, on a free loopback port, until the block ends."""
    proxy = FaultProxy(host, port, seed=seed)
    await proxy.up()
    try:
        yield proxy
    finally:
        await proxy.aclose()
