"""One address before several web processes: each connection goes to the first that takes it.

What an operator's load balancer does, without retries of its own: a connection that breaks in the middle is
the caller's to repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

CHUNK_BYTES = 65_536


class Balancer:
    """Pipes each connection to the next web that accepts one."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._turn = 0
        self._open: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._pipe_both(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def aclose(self) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _pipe_both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        web = await self._web()
        if web is None:
            return
        ours, theirs = web
        try:
            pipes = {asyncio.ensure_future(_pipe(reader, theirs)), asyncio.ensure_future(_pipe(ours, writer))}
            _, left = await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            for pipe in left:
                pipe.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        finally:
            theirs.close()

    async def _web(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._ports:
            self._turn += 1
            port = self._ports[self._turn % len(self._ports)]
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def balanced(ports: Sequence[int]) -> AsyncIterator[str]:
    """The one address, for the length of the block."""
    balancer = Balancer(ports)
    server = await asyncio.start_server(balancer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await balancer.aclose()
