"""`/v1/webhooks/{provider}/{attempt_id}`: the providers' postman's door. The hot path.

Raw bytes in, verified, stored, 2xx after the commit, the same for new and duplicate news. Nothing is
parsed here. Never a redirect: a provider that does not follow it would lose the news.
"""

from __future__ import annotations

from datetime import UTC, datetime

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.errors import NotFound, RequestError, TooLarge, Unauthenticated
from app.inbox import Incoming
from app.web.limits import TooLong
from app.wiring import Runtime
from db.states import DeliverySource

log = structlog.get_logger()

_KEPT_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature", "content-type", "user-agent")
_MOST_HEADER_BYTES = 1024


async def receive_webhook(request: Request) -> Response:
    """Store one callback. 2xx only after a durable commit."""
    runtime: Runtime = request.app.state.runtime
    name, attempt_id = request.path_params["provider"], request.path_params["attempt_id"]
    try:
        incoming = await _check(request, runtime, name, attempt_id)
    except RequestError as exc:
        reason = str(getattr(exc, "reason", exc.code))
        label = name if name in runtime.providers else "unknown"
        runtime.line.metrics.deliveries_refused.labels(label, exc.code).inc()
        log.warning("webhook.refused", provider=label, attempt_id=attempt_id[:64], reason=reason)
        raise
    receipt = await runtime.inbox.receive(incoming)
    return JSONResponse({"delivery_id": receipt.delivery_id}, status_code=200)


async def _check(request: Request, runtime: Runtime, name: str, attempt_id: str) -> Incoming:
    provider = runtime.providers.get(name)
    if provider is None:
        raise NotFound(f"no provider {name[:32]} is configured")
    ours = runtime.callbacks.is_ours(attempt_id, request.query_params.get("token", ""))
    if not ours and not provider.signs_callbacks:
        raise Unauthenticated("the callback could not be verified")
    try:
        body = await request.body()
    except TooLong as exc:
        limit = runtime.settings.max_content_length
        raise TooLarge(f"the body may have at most {limit} bytes") from exc
    proof = provider.verify(_joined_headers(request), body, now=datetime.now(UTC))
    kept = {key: request.headers.get(key, "")[:_MOST_HEADER_BYTES] for key in _KEPT_HEADERS}
    return Incoming(
        DeliverySource.WEBHOOK,
        name,
        # Signed, but not for this attempt: real news that answers to nothing of ours. Kept as an orphan.
        attempt_id if ours else "",
        body,
        message_id=proof.message_id,
        headers={key: value for key, value in kept.items() if value},
    )


def _joined_headers(request: Request) -> dict[str, str]:
    """Lower-case names; one that came twice is joined by a comma, as RFC 9110 §5.3 reads it."""
    joined: dict[str, str] = {}
    for key, value in request.headers.items():
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


webhook_route = Route("/v1/webhooks/{provider}/{attempt_id}", receive_webhook, methods=["POST"])
