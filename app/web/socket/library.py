"""python-socketio and python-engineio, bent in the two places where they have no bounds.

What they keep for a client that does not read has no end: `Outgoing` ends it, and tells when there is room
again. And a frame that they cannot read leaves its connection hanging: `is_readable` is asked before them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import engineio
import socketio
from engineio import packet as engine_packet
from socketio import packet

MOST_WAITING = 256
"""Packets that may wait for one client; past that it is closed, whatever they were."""
SHORT_FRAME = 16
"""Characters of a frame that carries no message: a probe, a pong."""

# Their informal lines quote packets, and so tokens.
_LOGS = {name: logging.getLogger(name) for name in ("socketio.server", "engineio.server")}


class Outgoing(asyncio.Queue[Any]):
    """What waits for one client: bounded, and heard of when it is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.on_room: Callable[[], None] | None = None
        self.on_full: Callable[[], None] | None = None

    async def put(self, item: Any) -> None:
        """Add a packet; one too many is dropped, and `on_full` closes the connection."""
        if item is not None and self.qsize() >= MOST_WAITING:
            if self.on_full is not None:
                self.on_full()
            return
        self.put_nowait(item)

    def _get(self) -> Any:
        item = super()._get()
        if self.on_room is not None and self.empty():
            self.on_room()
        return item


class _Engine(engineio.AsyncServer):  # type: ignore[misc]
    def create_queue(self, *_: object, **__: object) -> Outgoing:
        return Outgoing()


class Library(socketio.AsyncServer):  # type: ignore[misc]
    """The library's server, on our engine."""

    def _engineio_server_class(self) -> type[_Engine]:
        return _Engine


def make_library(namespaces: list[str], *, most_bytes: int) -> Library:
    """A server for these namespaces and no other: not even `/`, which would need no proof."""
    for log in _LOGS.values():
        log.setLevel(logging.WARNING)
    return Library(
        async_mode="asgi",
        namespaces=namespaces,
        # One message of a client after the other: in their order, and no more at once than clients.
        async_handlers=False,
        # Whose page asks, the gate has seen to.
        cors_allowed_origins=[],
        max_http_buffer_size=most_bytes,
        http_compression=False,
        monitor_clients=False,
        logger=_LOGS["socketio.server"],
        engineio_logger=_LOGS["engineio.server"],
    )


def encode(namespace: str, event: str, payload: object) -> engine_packet.Packet:
    """An event as it goes over the wire: made once, for however many clients."""
    text = packet.Packet(packet.EVENT, namespace=namespace, data=[event, payload]).encode()
    return engine_packet.Packet(engine_packet.MESSAGE, data=text)


def is_readable(frame: dict[str, Any]) -> bool:
    """Whether the library can read this WebSocket frame: text, a packet's digit first, and no bare JSON."""
    text = frame.get("text")
    if not text or text[0] not in "0123456":
        return False
    return len(text) <= SHORT_FRAME or (text[0] == "4" and text[1] in "01234")


def is_plain(message: object) -> bool:
    """Whether a message is one that we take: nobody sends us bytes, or says that some will follow."""
    return isinstance(message, str) and message[:1] in tuple("01234")
