"""uvicorn's HTTP protocol with limits: how long a head and a request may take, how long a head may be.

uvicorn with httptools waits for ever and keeps a head of any length: five hundred callers that drip a byte
a second would hold every connection.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


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
        self._allow(self.head_limit_s)

    def data_received(self, data: bytes) -> None:
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        # Judged afterwards: a body may have come in the same piece as its head.
        if self._head_bytes is not None and self._head_bytes > self.most_head_bytes:
            self.send_400_response("the request's head is too long")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._allow(self.head_limit_s)

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        self._allow(self.body_limit_s)
        super().on_headers_complete()

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
