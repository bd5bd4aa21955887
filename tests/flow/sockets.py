"""What the tests of Socket.IO stand on: the app behind a real server, clients that keep what they hear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import socketio

from app.main import Front, create_app
from app.web.server import listening, reached_at, serving
from app.wiring import Runtime

LIMIT_S = 60.0


@asynccontextmanager
async def served(runtime: Runtime, *, port: int = 0) -> AsyncIterator[tuple[str, Front]]:
    """The app as the service serves it: its address, and itself."""
    app = create_app(runtime)
    with listening("127.0.0.1", port) as listener:
        most = runtime.settings.socket_message_bytes
        async with serving(app, listener, ws_max_size=most, timeout_graceful_shutdown=10):
            try:
                yield f"http://{reached_at(listener)}", app
            finally:
                app.close_intake()


class Listener:
    """A client in one namespace, and everything that it was told, in order."""

    def __init__(self, namespace: str = "/jobs", **options: Any) -> None:
        self.namespace = namespace
        self.heard: list[tuple[str, Any]] = []
        self.refusals: list[Any] = []
        self.client = socketio.AsyncClient(reconnection=False, **options)
        self._changed = asyncio.Condition()
        self.client.on("*", self._hear, namespace=namespace)
        self.client.on("connect_error", self._refused, namespace=namespace)
        self.client.on("disconnect", self._gone, namespace=namespace)

    async def connect(
        self, url: str, *, token: str | None = None, transport: str = "websocket", **more: Any
    ) -> None:
        """Raises the library's ConnectionError where it is refused."""
        await self.client.connect(
            url,
            namespaces=[self.namespace],
            auth={"token": token} if token else None,
            transports=[transport],
            wait_timeout=LIMIT_S,
            **more,
        )

    async def ask(self, event: str, payload: Any = None) -> Any:
        """Send a message; what was answered."""
        return await self.client.call(event, payload, namespace=self.namespace, timeout=LIMIT_S)

    def named(self, *events: str) -> list[Any]:
        return [payload for event, payload in self.heard if event in events]

    async def until(self, holds: Callable[[], object]) -> None:
        """Returns once that holds; looked at whenever something is heard."""
        async with asyncio.timeout(LIMIT_S), self._changed:
            await self._changed.wait_for(holds)

    async def wait_for(self, event: str, count: int = 1) -> Any:
        """The payload of that event, when it was heard so often."""
        await self.until(lambda: len(self.named(event)) >= count)
        return self.named(event)[count - 1]

    async def _hear(self, event: str, payload: Any = None) -> None:
        async with self._changed:
            self.heard.append((event, payload))
            self._changed.notify_all()

    async def _refused(self, payload: Any) -> None:
        self.refusals.append(payload)

    async def _gone(self, reason: str) -> None:
        await self._hear("disconnect", reason)


@asynccontextmanager
async def listening_to(url: str, **how: Any) -> AsyncIterator[Listener]:
    """A listener that is connected, for the length of the block."""
    options = {name: how.pop(name) for name in ("namespace",) if name in how}
    listener = Listener(**options)
    await listener.connect(url, **how)
    try:
        yield listener
    finally:
        await listener.client.disconnect()
