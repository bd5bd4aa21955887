"""How uvicorn serves here: on a socket that is bound before, without signals of its own, with limits.

Used by the service and by the front of the GPU worker. uvicorn with httptools waits for ever and keeps a head
of any length: five hundred callers that drip a byte a second would hold every connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request as Handshake

from app.errors import StartupError
from app.web.problems import problem
from db.ids import make_id


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens until the block ends; port 0 takes a free one. Raises StartupError."""
    # Bound before anything is told about the address: the port is known, and connections that come
    # early wait in the backlog instead of being refused.
    try:
        listener = socket.create_server((host, port), backlog=2048, reuse_port=False)
    except OSError as exc:
        raise StartupError(f"--host/--port: cannot listen on {host}:{port}: {exc.strerror}") from exc
    with listener:
        yield listener


def reached_at(listener: socket.socket) -> str:
    """`host:port`, where a process of this machine reaches it."""
    host, port = listener.getsockname()[:2]
    return f"{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"  # noqa: S104 - read, not bound


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket, **options: Any) -> AsyncIterator[None]:
    """Serve the app there until the block ends; `options` are uvicorn's."""
    sockets: dict[str, Any] = {
        "ws": PatientSocket,
        # Nothing that is told is long, and a compressor for each of thousands of lines is.
        "ws_per_message_deflate": False,
        # Socket.IO has a heartbeat of its own.
        "ws_ping_interval": None,
        # In its lesser remarks it quotes frames, and so tokens.
        "log_level": "warning",
    }
    options = sockets | options
    config = uvicorn.Config(app, log_config=None, access_log=False, http=PatientHttp, **options)
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the command decides what a signal means."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


CUT = "reprise.cut"
"""The extension of a WebSocket's scope that ends its line at once."""


class PatientSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket with a way out: a client that reads nothing would hold its line for ever.

    A close that waits for what was written before waits as long as the client likes.
    """

    def handle_connect(self, event: Handshake) -> None:
        super().handle_connect(event)
        if self.handshake_initiated and not self.close_sent:
            # Before the app sees it: that begins at the loop's next turn.
            extensions = cast("dict[str, Any]", self.scope["extensions"])
            extensions[CUT] = self.transport.abort


class OnePacket:
    """What answers are written through: a head waits for its body, at most until the loop's next turn.

    uvicorn writes the two one after the other, and each write is a call to the kernel and a packet: to the
    answer of a webhook that is a tenth of its cost.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(b"HTTP/"):
            self._held = data
            self._loop.call_soon(self.flush)
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Nothing came: a stream has nothing to tell yet, or an answer has no body."""
        if self._held:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class PatientHttp(HttpToolsProtocol):
    """uvicorn's HTTP with an end to its patience: who drips is cut off, and no head grows for ever."""

    head_limit_s = 15.0
    body_limit_s = 300.0
    """For a whole request: the largest body that is accepted, over a poor line."""
    most_head_bytes = 64 * 1024

    _limit: asyncio.TimerHandle | None = None
    _head_bytes: int | None = 0
    """Of the head that is being read; None while a body is."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._answers = OnePacket(transport, self.loop)
        self._allow(self.head_limit_s)

    def data_received(self, data: bytes) -> None:
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        # Judged afterwards: a body may have come in the same piece as its head.
        if self._head_bytes is not None and self._head_bytes > self.most_head_bytes:
            self._refuse("head_too_large", "the request's head is too long")

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read: answered as every other failure is."""
        self._refuse("bad_request", "this is no HTTP that is understood here")

    def _refuse(self, code: str, detail: str) -> None:
        """A problem without a request, and the end of the connection."""
        if self.transport.is_closing():
            return
        self._answers.flush()
        scope = {"type": "http", "request_id": make_id("req")}
        answer = problem(Request(scope), code=code, detail=detail)
        self.transport.write(
            b"HTTP/1.1 %d %s\r\n" % (answer.status_code, HTTPStatus(answer.status_code).phrase.encode())
            + b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
            + b"x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
            + bytes(answer.body)
        )
        self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        # No request any more: another protocol has the line from here on.
        self._allow(None)
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._allow(self.head_limit_s)

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        self._allow(self.body_limit_s)
        super().on_headers_complete()
        if self.cycle is not None:
            # Before the app runs, which begins at the loop's next turn.
            self.cycle.transport = cast("asyncio.Transport", self._answers)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._allow(None)
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._allow(None)
        super().connection_lost(exc)

    def _allow(self, limit_s: float | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = None if limit_s is None else self.loop.call_later(limit_s, self.transport.close)
