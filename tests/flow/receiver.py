"""A caller's own server on loopback, a plain one, so that it can answer in every nasty way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Writes what a receiver answers once it has the whole request."""


@dataclass(frozen=True, slots=True)
class Post:
    """One request as a receiver saw it."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


def says(status: str, body: bytes = b"", **headers: str) -> Answer:
    """A whole answer; underscores in the names of headers are dashes."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", *lines, "", ""])
        writer.write(head.encode() + body)
        await writer.drain()

    return answer


@dataclass
class Receiver:
    """A caller's own server on loopback: keeps what it gets, answers from a list and then always the last."""

    answers: list[Answer] = field(default_factory=lambda: [says("204 No Content")])
    posts: list[Post] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        me = asyncio.current_task()
        assert me is not None
        self.serving.add(me)
        me.add_done_callback(self.serving.discard)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.posts.append(Post(head[0].split(" ")[1], headers, body))
            await (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def leave(self) -> None:
        """Let go of whoever is still connected."""
        left = list(self.serving)
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[Receiver]:
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await receiver.leave()


async def hangs(_writer: asyncio.StreamWriter) -> None:
    """Says nothing; left when the other side goes."""
    await asyncio.Event().wait()


async def hangs_up(writer: asyncio.StreamWriter) -> None:
    """Closes without a word."""
    writer.close()


async def never_ends(writer: asyncio.StreamWriter) -> None:
    """An answer of as many bytes as are taken."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x" * 65_536)
        await writer.drain()


async def never_ends_its_headers(writer: asyncio.StreamWriter) -> None:
    """Headers, and never the line after them."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while not writer.is_closing():
        writer.write(b"x: " + b"y" * 60_000 + b"\r\n")
        await writer.drain()
