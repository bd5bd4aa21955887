"""The wire under the official Replicate client: one origin, explicit timeouts, every answer kept raw.

The client cannot pass a header on one call, has no timeout on create, and loses most of what an error
says; a wire below it can. An exchange is the note that both ends of one call share.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

import httpx

from app.provider import reading
from app.provider.reading import Answer

MAX_REPLY_BYTES = 32 * 1024 * 1024
"""Replies past this are cut and refused: logs of 30 MB were seen, inline outputs are not asked for."""

_TIMEOUT = httpx.Timeout(connect=5.0, read=20.0, write=20.0, pool=5.0)
# The statuses on which the client's RetryTransport would sleep, uncapped, and repeat up to ten times.
_CLIENT_WOULD_RETRY = frozenset({429, 503, 504})


@dataclass(slots=True)
class Exchange:
    """One call: what goes along that the client cannot say, and what came back that it would lose."""

    headers: Mapping[str, str]
    begun: bool = False
    answer: Answer | None = None


EXCHANGE: ContextVar[Exchange] = ContextVar("replicate_exchange")


class ForeignHost(httpx.TransportError):
    """A request for a host that is not the base URL's: it would have carried the token there."""


class PastTheClient(httpx.TransportError):
    """Thrown past the client's RetryTransport; the answer stands in the exchange."""


NEVER_SENT = (
    ForeignHost,
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
)


class Wire(httpx.AsyncBaseTransport):
    """The transport under the client: one origin, explicit timeouts, every answer kept raw and capped."""

    def __init__(self, inner: httpx.AsyncBaseTransport, base: httpx.URL) -> None:
        self._inner = inner
        self._origin = origin_of(base)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if origin_of(request.url) != self._origin:
            raise ForeignHost("refused: the request would carry the token to another host")
        exchange = EXCHANGE.get()
        request.headers.update(exchange.headers)
        request.headers["accept-encoding"] = "identity"
        # Without this a create has no timeout at all.
        request.extensions = {**request.extensions, "timeout": _TIMEOUT.as_dict()}
        exchange.begun = True
        answer = await reading.read_capped(
            await self._inner.handle_async_request(request), max_bytes=MAX_REPLY_BYTES
        )
        exchange.answer = answer
        if answer.status in _CLIENT_WOULD_RETRY or answer.cut:
            raise PastTheClient(f"status {answer.status}")
        return httpx.Response(answer.status, content=answer.body)

    async def aclose(self) -> None:
        await self._inner.aclose()


def origin_of(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)
