"""`/v1/deliveries` as a stream: each delivery as it is stored, to whoever may replay it.

A message is named `delivery` and has the delivery's id as its own; `position` says how far a stream has come
that had nothing to tell, `closed` is its last word.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import Depends, Header, Query
from pydantic import Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from app.access.callers import DEFAULT_TENANT, Scope
from app.errors import Forbidden, InvalidInput
from app.feed.arrivals import Arrival, Arrived, Quiet
from app.feed.told import End
from app.web.parts import Part, Reader
from app.web.schemas import DeliveryOut
from db.session import DatabaseUnavailable

KEEPALIVE_S = 15
SEND_LIMIT_S = 60.0
_DELIVERY_ID = re.compile(r"dlv_[0-9a-f]{32}", re.ASCII)


class ArrivalOut(DeliveryOut):
    """A delivery as it was stored."""

    headers: dict[str, str] | None = Field(description="As they came; with `body=1`")
    body_base64: str | None = Field(description="As it came; with `body=1`, and at most 10 MB")
    size_bytes: int


async def _watch(
    runtime: Part,
    caller: Reader,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[
        str | None, Header(description="Of a stream: the delivery to go on after")
    ] = None,
    body: Annotated[bool, Query(description="Of a stream: with headers and body")] = False,
) -> EventSourceResponse | None:
    """The stream, where one was asked for. Raises Forbidden, InvalidInput."""
    after_id = _checked(last_event_id)
    if "text/event-stream" not in accept:
        return None
    if not caller.may(Scope.DELIVERIES_REPLAY):
        raise Forbidden(f"the key lacks the scope {Scope.DELIVERIES_REPLAY.value}")
    # What belongs to no job is the installation's own business.
    with_strays = caller.tenant == DEFAULT_TENANT and caller.may(Scope.ADMIN)
    told = runtime.arrivals.follow(caller.tenant, after_id=after_id, body=body, with_strays=with_strays)
    return EventSourceResponse(_stream(told, body=body), ping=KEEPALIVE_S, send_timeout=SEND_LIMIT_S)


Watch = Annotated[EventSourceResponse | None, Depends(_watch)]


def _checked(last_event_id: str | None) -> str | None:
    if last_event_id is None:
        return None
    if not _DELIVERY_ID.fullmatch(last_event_id):
        raise InvalidInput("Last-Event-ID must be the id of a delivery", field="Last-Event-ID")
    return last_event_id


async def _stream(told: AsyncGenerator[Arrived, None], *, body: bool) -> AsyncIterator[ServerSentEvent]:
    async with aclosing(told) as arrived:
        try:
            async for each in arrived:
                yield _message(each, body=body)
        except DatabaseUnavailable:
            yield ServerSentEvent(json.dumps({"reason": "unavailable"}), event="closed")


def _message(arrived: Arrived, *, body: bool) -> ServerSentEvent:
    match arrived:
        case Arrival(delivery, size_bytes):
            is_whole = body and len(delivery.body) == size_bytes
            out = ArrivalOut(
                **DeliveryOut.of(delivery).model_dump(),
                headers=delivery.headers if body else None,
                body_base64=base64.b64encode(delivery.body).decode() if is_whole else None,
                size_bytes=size_bytes,
            )
            return ServerSentEvent(out.model_dump_json(), event="delivery", id=delivery.id)
        case Quiet(last_id):
            return ServerSentEvent("{}", event="position", id=last_id)
        case End():
            return ServerSentEvent(json.dumps({"reason": arrived.value}), event="closed")
