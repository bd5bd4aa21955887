"""The Socket.IO server of one app: who may connect, how much they may send, and how it ends.

One python-socketio server on the same ASGI app, under `/socket.io`: WebSocket first, long polling where that
cannot be had. It stands behind the gate of the API, which has seen to `Host`, `Origin` and what is in the
address; keys are proven when a client enters a namespace. Promises: connections are bounded, per process and
per caller; a client that shows no key, sends too much, or does not read, is told why and closed; at a stop
all are told to come again, and nobody is waited for. Started by the first connection, ended by `release`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

import structlog
from engineio.async_socket import AsyncSocket
from engineio.exceptions import SocketIsClosedError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from app.errors import Overloaded, Stopping, TransientError
from app.web.problems import render_error
from app.web.server import CUT
from app.web.socket.connections import COME_AGAIN, Allowance, Connection, Goodbye
from app.web.socket.library import Library, Outgoing, encode, is_plain, is_readable, make_library
from app.web.socket.namespace import CONNECTION, Namespace
from app.web.socket.proof import ended_keys
from app.wiring import Runtime
from db.ids import make_id
from db.session import DatabaseUnavailable

log = structlog.get_logger()

PATH = "/socket.io"
LOOK_S = 5.0
"""How often connections are looked over: keys that have ended, clients that are gone."""
SHOW_KEY_S = 15.0
"""How long a connection may stand in no namespace."""
PARTING_S = 5.0
"""How long a client that was told good-bye may take to hear it."""
POLL_S = 1.0
"""How long a client that polls may take to come for it."""
FRAMES_A_MESSAGE = 4.0
"""Frames that carry no message, such as pongs, are allowed beside as many times the messages."""
AT_ONCE = 200
"""Connections that are looked at before others get their turn on the event loop."""
WORDS = {
    Goodbye.STOPPING: "the service is stopping; connect again",
    Goodbye.TOO_SLOW: "too much waited for you for too long; connect again with the last seq",
    Goodbye.RATE_LIMITED: "more messages than are taken from one client",
    Goodbye.BAD_MESSAGE: "this is no message of this protocol",
    Goodbye.UNAUTHENTICATED: "the key that proved you holds no more",
    Goodbye.UNAVAILABLE: "this cannot go on now; connect again with the last seq",
}


class Sockets:
    """The server; an ASGI app for what comes to `PATH`."""

    def __init__(self, runtime: Runtime, namespaces: Sequence[Namespace]) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._namespaces = {each.name: each for each in namespaces}
        self._connections: dict[str, Connection] = {}
        self._callers: Counter[str] = Counter()
        self._watching: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self.library = self._make_library(namespaces)

    def _make_library(self, namespaces: Sequence[Namespace]) -> Library:
        library = make_library(list(self._namespaces), most_bytes=self._settings.socket_message_bytes)
        for each in namespaces:
            each.count_of = self._callers.__getitem__
            each.hang_up = self.hang_up
            library.register_namespace(each)
        engine = library.eio
        self._library_connect = engine.handlers["connect"]
        self._library_message = engine.handlers["message"]
        self._library_disconnect = engine.handlers["disconnect"]
        engine.on("connect", self._on_connect)
        engine.on("message", self._on_message)
        engine.on("disconnect", self._on_disconnect)
        return library

    @property
    def count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line = _line_of(scope)
        refusal = self._refusal(line)
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
            return
        if scope["type"] == "websocket":
            if line in self._connections:
                # It has begun with polling, and goes on here.
                self._connections[line].cut = scope["extensions"].get(CUT)
            receive = self._checked(receive, send)
        await self.library.handle_request(scope, receive, send)

    def release(self) -> None:
        """From now on nobody gets in; everybody is told to come again, and closed. Waits for nothing."""
        if self._is_closing:
            return
        self._is_closing = True
        for each in self._namespaces.values():
            each.is_closing = True
        if self._watching is not None:
            self._watching.cancel()
            self._begin(self._send_away())

    def hang_up(self, connection: Connection, reason: Goodbye) -> None:
        """`close`, soon: for whoever would be ended by it."""
        self._begin(self.close(connection, reason))

    async def close(self, connection: Connection, reason: Goodbye) -> None:
        """Say why, and close: nothing is waited for. A client takes its time at most for `PARTING_S`."""
        socket = self.library.eio.sockets.get(connection.id)
        if connection.is_closing or socket is None:
            return
        connection.is_closing = True
        log.info("socket.closed", reason=reason.value, members=sorted(connection.members))
        for name in list(connection.members):
            farewell = encode(name, "closed", {"reason": reason.value, "message": WORDS[reason]})
            # Past the queue's own limit, which may be why we close.
            socket.queue.put_nowait(farewell)
            if reason not in COME_AGAIN:
                await self.library.disconnect(connection.members[name].sid, namespace=name)
        if not socket.upgraded:
            await self._let_poll(socket)
        with suppress(SocketIsClosedError):
            await socket.close(wait=False, reason=reason.value)
        if connection.cut is not None:
            asyncio.get_running_loop().call_later(PARTING_S, connection.cut)

    async def _let_poll(self, socket: AsyncSocket) -> None:
        """Let a client that polls come for its last words: once closed, nobody is answered."""
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await socket.queue.join()

    async def look(self) -> None:
        """Look everybody over: end what is silent or proven no more. Raises DatabaseUnavailable."""
        await self._end_silent()
        await self._end_unproven()

    def _refusal(self, line: str) -> TransientError | None:
        if self._is_closing and line not in self._connections:
            return Stopping("the service is stopping; connect again", retry_after_s=5)
        if not line and len(self._connections) >= self._settings.socket_connections:
            return Overloaded("too many connections are open here", retry_after_s=5)
        return None

    def _checked(self, receive: Receive, send: Send) -> Receive:
        """Frames as they come, until one that the library could not read, or too many."""
        allowance = Allowance(self._settings.socket_messages_per_s * FRAMES_A_MESSAGE)

        async def checked() -> Message:
            message = await receive()
            if message["type"] != "websocket.receive" or (allowance.take() and is_readable(dict(message))):
                return message
            log.info("socket.closed", reason=Goodbye.BAD_MESSAGE.value, members=[])
            await send({"type": "websocket.close", "code": 1008, "reason": Goodbye.BAD_MESSAGE.value})
            return {"type": "websocket.disconnect", "code": 1008}

        return checked

    async def _on_connect(self, line: str, environ: dict[str, Any]) -> Any:
        scope = environ["asgi.scope"]
        given = Headers(scope=scope).getlist("authorization")
        connection = self._connections[line] = Connection(
            id=line,
            address=scope["client"][0] if scope.get("client") else "",
            authorization=given[0] if len(given) == 1 else None,
            allowance=Allowance(self._settings.socket_messages_per_s),
            opened_s=time.monotonic(),
            cut=scope.get("extensions", {}).get(CUT),
        )
        self._runtime.line.metrics.sockets.inc()
        queue: Outgoing = self.library.eio.sockets[line].queue
        queue.on_full = lambda: self.hang_up(connection, Goodbye.TOO_SLOW)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        # In place of the request's whole environment, which would be kept as long as the connection.
        return await self._library_connect(line, {CONNECTION: connection})

    async def _on_message(self, line: str, data: object) -> None:
        connection = self._connections.get(line)
        if connection is None or connection.is_closing:
            return
        reason = None
        if not connection.allowance.take():
            reason = Goodbye.RATE_LIMITED
        elif not is_plain(data):
            reason = Goodbye.BAD_MESSAGE
        else:
            was_inside = connection.caller is not None
            try:
                await self._library_message(line, data)
            except asyncio.CancelledError:
                raise
            except Exception as exc:  # noqa: BLE001 - whatever the library makes of what it cannot read
                log.info("socket.unreadable", reason=type(exc).__name__)
                reason = Goodbye.BAD_MESSAGE
            if not was_inside and connection.caller is not None and line in self._connections:
                self._callers[connection.counted_as] += 1
        if reason is not None:
            await self.close(connection, reason)

    async def _on_disconnect(self, line: str, reason: str) -> None:
        socket = self.library.eio.sockets.get(line)
        if socket is not None:
            # Its writer, and a poll that waits, would go on waiting. Soon, since its last word comes first.
            asyncio.get_running_loop().call_soon(socket.queue.put_nowait, None)
        await self._library_disconnect(line, reason)
        connection = self._connections.pop(line, None)
        if connection is None:
            return
        self._runtime.line.metrics.sockets.dec()
        # The library's own reasons have blanks in them; ours are words.
        self._runtime.line.metrics.sockets_closed.labels(reason.replace(" ", "_")).inc()
        if connection.caller is not None:
            self._callers[connection.counted_as] -= 1
            if self._callers[connection.counted_as] <= 0:
                del self._callers[connection.counted_as]

    def _begin(self, closing: Any) -> None:
        task = asyncio.create_task(closing)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _send_away(self) -> None:
        everybody = list(self._connections.values())
        for at in range(0, len(everybody), AT_ONCE):
            await asyncio.gather(
                *(self.close(each, Goodbye.STOPPING) for each in everybody[at : at + AT_ONCE])
            )
        for each in self._namespaces.values():
            await each.stop()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except DatabaseUnavailable as exc:
                # Who is in stays in: nothing can be told without the database, and requests are refused.
                log.warning("socket.keys_not_seen", reason=str(exc))
            except Exception:
                log.exception("socket.watch_failed")

    async def _end_silent(self) -> None:
        """Let go of clients that answer no ping, and of those that never entered a namespace."""
        now = time.monotonic()
        for number, (line, socket) in enumerate(list(self.library.eio.sockets.items())):
            connection = self._connections.get(line)
            if connection is not None and not connection.members and now - connection.opened_s > SHOW_KEY_S:
                await self.close(connection, Goodbye.UNAUTHENTICATED)
            with suppress(SocketIsClosedError):
                if not await socket.check_ping_timeout():
                    socket.queue.put_nowait(None)
                    if connection is not None and connection.cut is not None:
                        connection.cut()
            if socket.closed:
                self.library.eio.sockets.pop(line, None)
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)

    async def _end_unproven(self) -> None:
        """Close whoever came with a key that has ended since, or with none before there was one."""
        inside = [each for each in self._connections.values() if each.caller is not None]
        keys = {each.caller.key_id for each in inside if each.caller and each.caller.key_id}
        ended = await ended_keys(self._runtime, keys) if keys else set()
        has_open = any(each.caller is not None and each.caller.key_id is None for each in inside)
        is_open = await self._runtime.keyring.is_open() if has_open else True
        for each in inside:
            key_id = each.caller.key_id if each.caller else None
            if key_id in ended or (key_id is None and not is_open):
                await self.close(each, Goodbye.UNAUTHENTICATED)


def _line_of(scope: Scope) -> str:
    """The line that a request belongs to; empty for one that would open another."""
    query: str = scope["query_string"].decode("latin-1")
    return parse_qs(query).get("sid", [""])[0]


async def _refuse(refusal: TransientError, scope: Scope, receive: Receive, send: Send) -> None:
    # A handshake is a request too, and can be answered as one.
    as_request = {**scope, "type": "http", "method": scope.get("method", "GET")}
    as_request.setdefault("request_id", make_id("req"))
    await render_error(Request(as_request), refusal)(scope, receive, send)
