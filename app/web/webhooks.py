"""`/v1/webhooks/{provider}/{attempt_id}`: the providers' postman's door. The hot path.

Raw bytes in, verified, stored, 2xx after the commit, the same for new and duplicate news. Nothing is
parsed here, and no framework stands in front: a plain ASGI app, because every layer costs each webhook.
Never a redirect: a provider that does not follow it would lose the news.
"""

from __future__ import annotations

import re
import time
from functools import cache

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from app.errors import AppError, MethodNotAllowed, NotFound, RequestError, TooLarge, Unauthenticated
from app.incoming import Incoming
from app.web.limits import refusal_of, request_id_of
from app.web.problems import problem, render_error
from app.wiring import Runtime
from db.session import DatabaseUnavailable
from db.states import DeliverySource

log = structlog.get_logger()

PREFIX = "/v1/webhooks/"
MOST_STRANGE_BYTES = 1_000_000
"""The body that is read from somebody who does not have our token, before its signature is checked."""

_KEPT_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature", "content-type", "user-agent")
_MOST_HEADER_BYTES = 1024
_READ_HEADERS = {
    name.encode("ascii"): name
    for name in (*_KEPT_HEADERS, "content-length", "content-encoding", "x-request-id")
}
_TOKEN = re.compile(rb"(?:\A|&)token=([0-9a-f]+)(?=&|\Z)")
"""As `app.tokens` writes it: nothing in it is ever escaped."""


class WebhookDoor:
    """Takes every request under `PREFIX`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        metrics = runtime.line.metrics
        # By provider: finding a metric by its labels costs each webhook a lock and a text.
        self._ack_seconds = cache(metrics.ack_seconds.labels)
        self._clock_skew = cache(metrics.clock_skew.labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        headers = _joined_headers(scope)
        scope["request_id"] = request_id_of(headers.get("x-request-id", ""))
        try:
            delivery_id = await self._receive(scope, headers, receive)
        except ClientDisconnect:
            return
        except (AppError, DatabaseUnavailable) as exc:
            answer = render_error(Request(scope), exc)
            if isinstance(exc, MethodNotAllowed):
                answer.headers["Allow"] = "POST"
            await answer(scope, receive, send)
        except Exception as exc:
            log.error("webhook.failed", request_id=scope["request_id"], exc_info=exc)
            answer = problem(Request(scope), code="internal", detail="an error of ours")
            await answer(scope, receive, send)
        else:
            await _accept(send, delivery_id, scope["request_id"])
            provider = scope["path"].removeprefix(PREFIX).partition("/")[0]
            self._ack_seconds(provider).observe(time.perf_counter() - began)

    async def _receive(self, scope: Scope, headers: dict[str, str], receive: Receive) -> str:
        """Check one callback and store it; returns after the commit."""
        name, _, attempt_id = scope["path"].removeprefix(PREFIX).partition("/")
        try:
            incoming = await self._check(scope, headers, receive, name, attempt_id)
        except RequestError as exc:
            reason = str(getattr(exc, "reason", exc.code))
            label = name if name in self._runtime.providers else "unknown"
            self._runtime.line.metrics.deliveries_refused.labels(label, exc.code).inc()
            # Into memory: nothing is written on a stranger's account while a provider may be waiting.
            self._runtime.ledger.refusals.note(exc, provider=label, attempt_id=attempt_id)
            request_id = scope["request_id"]
            log.warning(
                "webhook.refused",
                request_id=request_id,
                provider=label,
                attempt_id=attempt_id[:64],
                reason=reason,
            )
            raise
        return (await self._runtime.inbox.receive(incoming)).delivery_id

    async def _check(
        self, scope: Scope, headers: dict[str, str], receive: Receive, name: str, attempt_id: str
    ) -> Incoming:
        provider = self._runtime.providers.get(name)
        if provider is None or not attempt_id or "/" in attempt_id:
            raise NotFound("there is nothing here")
        if scope["method"] != "POST":
            raise MethodNotAllowed("webhooks are posted")
        most_bytes = self._runtime.settings.max_content_length
        refusal = refusal_of(headers, most_bytes)
        if refusal is not None:
            raise refusal
        token = _TOKEN.search(scope["query_string"])
        ours = token is not None and self._runtime.callbacks.is_ours(attempt_id, token[1].decode("ascii"))
        if not ours and not provider.signs_callbacks:
            raise _NoToken("the callback could not be verified")
        # A stranger may be a provider with news of nothing of ours, but has no claim to our memory.
        body = await _read(receive, most_bytes if ours else min(most_bytes, MOST_STRANGE_BYTES))
        now = self._runtime.line.clock.wall()
        proof = provider.verify(headers, body, now=now)
        if provider.signs_callbacks:
            # Verified, so digits within the tolerance. The hook's own way here is part of the difference.
            skew_s = now.timestamp() - int(headers["webhook-timestamp"])
            self._clock_skew(name).set(round(skew_s, 1))
        return Incoming(
            DeliverySource.WEBHOOK,
            name,
            # Signed, but not for this attempt: real news that answers to nothing of ours, kept as an orphan.
            attempt_id if ours else "",
            body,
            message_id=proof.message_id,
            headers={key: headers[key][:_MOST_HEADER_BYTES] for key in _KEPT_HEADERS if key in headers},
        )


class _NoToken(Unauthenticated):
    """Nobody signs for this provider, and the token in the address is not ours."""

    failed = "token"


def _joined_headers(scope: Scope) -> dict[str, str]:
    """Those that are read here, by lower-case name; one that came twice is joined by a comma, as RFC 9110
    §5.3 reads it."""
    joined: dict[str, str] = {}
    for raw_key, raw_value in scope["headers"]:
        key = _READ_HEADERS.get(raw_key)
        if key is not None:
            value = raw_value.decode("latin-1")
            joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


async def _read(receive: Receive, most_bytes: int) -> bytes:
    """The whole body, or TooLarge as soon as it is past the cap."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most_bytes:
            raise TooLarge(f"the body may have at most {most_bytes} bytes")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _accept(send: Send, delivery_id: str, request_id: str) -> None:
    body = f'{{"delivery_id":"{delivery_id}"}}'.encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
