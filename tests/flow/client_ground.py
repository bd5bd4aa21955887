"""Where the client is tried: a service over real HTTP, a spoiled network between, one suite for both.

`Awaited` lets the blocking client be awaited, each call on a thread of its own, so that a story is written
once. `Front` stands before the app and does what networks and proxies do; it says what it saw.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.client import AsyncReprise, Reprise
from app.client.models import Page
from app.main import create_app
from tests.fakes.provider import served
from tests.fakes.proxy import FaultProxy, proxied
from tests.flow.conftest import TONE, Stage

ENDLESS = object()
THREADS = ThreadPoolExecutor(32)
"""Of the callers: those of the event loop are the service's, which must not wait for its own callers."""


async def _on_a_thread(act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(THREADS, partial(act, *args, **kwargs))


class Awaited:
    """A blocking client, job or output, whose methods are awaited and whose generators are asynchronous."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.ismethod(found):
            return _awaited(found)

        if inspect.isgeneratorfunction(found) or name == "events":
            return lambda *args, **kwargs: _iterated(found(*map(_plain, args), **kwargs))

        async def call(*args: Any, **kwargs: Any) -> Any:
            return _awaited(await _on_a_thread(found, *map(_plain, args), **kwargs))

        return call

    async def aclose(self) -> None:
        await _on_a_thread(self._inner.close)


async def _iterated(generator: Any) -> AsyncIterator[Any]:
    try:
        while (found := await _on_a_thread(next, generator, ENDLESS)) is not ENDLESS:
            yield _awaited(found)
    finally:
        await _on_a_thread(generator.close)


def _awaited(found: Any) -> Any:
    if isinstance(found, Page):
        return found.model_copy(update={"items": [_awaited(each) for each in found.items]})
    if isinstance(found, Mapping):
        return {name: _awaited(each) for name, each in found.items()}
    ours = type(found).__module__.startswith("app.client.blocking")
    return Awaited(found) if ours else found


def _plain(given: Any) -> Any:
    return given._inner if isinstance(given, Awaited) else given


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, as it came in."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Front:
    """Before the app. Each trouble meets one request whose method and path it names, in their order."""

    app: ASGIApp
    seen: list[Seen] = field(default_factory=list)
    proxy: FaultProxy | None = None
    is_hasty: bool = False
    """Nothing that a caller would wait for is waited for, as by a service that is about to stop."""
    _troubles: list[tuple[str, str, int, dict[str, str], str]] = field(default_factory=list)

    def refuse(
        self,
        method: str,
        path: str,
        status: int = 503,
        *,
        body: str = "<h1>from a proxy</h1>",
        **headers: str,
    ) -> None:
        """Answer with this instead of the app."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._troubles.append((method, path, status, named, body))

    def lose(self, method: str, path: str) -> None:
        """Let the app do it, and cut the connection instead of its answer."""
        self._troubles.append((method, path, 0, {}, ""))

    def asked(self, method: str, path: str) -> list[Seen]:
        """The requests of this method whose path ends so."""
        return [each for each in self.seen if each.method == method and each.path.endswith(path)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append(Seen(scope["method"], scope["path"], headers))
        for trouble in self._troubles:
            method, path, status, given, body = trouble
            if scope["method"] == method and scope["path"].endswith(path):
                self._troubles.remove(trouble)
                if status:
                    await self._refuse(send, status, given, body)
                else:
                    await self._lose(scope, receive, send)
                return
        await self.app({**scope, "query_string": b""} if self.is_hasty else scope, receive, send)

    async def _refuse(self, send: Send, status: int, headers: dict[str, str], body: str = "") -> None:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body.encode()})

    async def _lose(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def swallow(message: Message) -> None:
            del message

        await self.app(scope, receive, swallow)
        assert self.proxy is not None
        assert self.proxy.reset() > 0
        await self._refuse(send, 500, {})


@dataclass(frozen=True, slots=True)
class Ground:
    """A service, the network before it, and its client."""

    stage: Stage
    front: Front
    proxy: FaultProxy
    url: str
    client: Any
    """An `AsyncReprise`, or a `Reprise` that is awaited."""
    connect: Callable[..., Any]
    """Another client; takes what the class takes."""

    async def finish(self, output: str = TONE) -> None:
        """Let every job that was asked for be made."""
        await self.stage.drain()
        for prediction_id in self.stage.fake.live():
            await self.stage.fake.finish(prediction_id, output=output)
        await self.stage.drain()

    async def fail(self) -> None:
        """Let every job that was asked for fail, whatever is tried."""
        await self.stage.drain()
        while live := self.stage.fake.live():
            for prediction_id in live:
                await self.stage.fake.finish(prediction_id, status="failed", error="NSFW content detected")
            await self.stage.hurry()
            await self.stage.drain()


@asynccontextmanager
async def ground_on(stage: Stage, flavour: str) -> AsyncIterator[Ground]:
    """Serve the stage on loopback, a proxy before it, and open a client on that."""
    front = Front(create_app(stage.runtime))
    opened: list[Any] = []

    def connect(*args: Any, **kwargs: Any) -> Any:
        made = AsyncReprise(*args, **kwargs) if flavour == "async" else Awaited(Reprise(*args, **kwargs))
        opened.append(made)
        return made

    async with served(front) as direct, proxied(urlsplit(direct).port or 0) as proxy:
        front.proxy = proxy
        url = f"http://127.0.0.1:{proxy.port}"
        try:
            yield Ground(stage, front, proxy, url, connect(url), connect)
        finally:
            for client in opened:
                await client.aclose()
