"""The HTTP side of the GPU worker: Cog's own protocol, with a queue where Cog has none.

Owns what a caller may ask and is told at once. A prediction that cannot begin yet is `starting`, with its
place in `metrics.queue_position`; only a full queue is refused, in Cog's words. A PUT is idempotent: of one
in flight it returns the state, of one that has ended it sends the last word again, as long as that is kept.
Cog's refusal of an input is passed on where its server is up and free; later it is a `failed` last word.

`/kinds/KIND/…` has the same routes for callers that do not name the kind in the input.
Leaves the carrying to `app.gpu.lanes` and the sending to `app.gpu.couriers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from app.gpu.couriers import Couriers
from app.gpu.groups import Group, find_group
from app.gpu.lanes import Lane
from app.gpu.tickets import (
    AT_CAPACITY,
    EVENTS,
    Ticket,
    failed_word,
    refused_word,
    running_word,
    waiting_word,
)

MOST_BODY_BYTES = 100 * 1024 * 1024
"""Cog's own limit."""
MOST_HOOK_BYTES = 150 * 1024 * 1024
MOST_HELD_BYTES = 512 * 1024 * 1024
"""Inputs that wait, and last words that nobody has heard yet."""
MOST_KEPT_BYTES = 64 * 1024 * 1024
MOST_KEPT = 1024
HAND_OVER_S = 5.0
"""How long a create waits for a free server's answer, so that a refused input is refused at once."""
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", re.ASCII)  # it stands in a path: never `..`


class Front:
    """Made with its lanes; `app` is what is served."""

    def __init__(
        self, *, groups: Sequence[Group], couriers: Couriers, queue: int, lanes: Mapping[str, Lane]
    ) -> None:
        """`queue` is how many predictions may wait in each group."""
        self._groups = groups
        self._couriers = couriers
        self._queue = queue
        self._lanes = lanes
        self._live: dict[str, Ticket] = {}
        self._kept: OrderedDict[str, Ticket] = OrderedDict()
        self._kept_bytes = 0
        self._secret = secrets.token_urlsafe(24)
        self._stopping = False
        routes = self._routes()
        self.app = Starlette(
            routes=[
                Route("/hooks/{secret}/{id}", self._hook, methods=["POST"]),
                Mount("/kinds/{kind}", routes=routes),
                *routes,
            ]
        )

    @property
    def hook_path(self) -> str:
        """Where Cog servers of ours report; the prediction's id follows."""
        return f"/hooks/{self._secret}"

    @property
    def live(self) -> list[Ticket]:
        return list(self._live.values())

    def close_intake(self) -> None:
        """Take nothing new."""
        self._stopping = True

    def tell(self, ticket: Ticket, event: str, word: bytes) -> None:
        """Pass a word to the caller, where it wants this event. `waiting` carries the position."""
        if event == "completed":
            self._live.pop(ticket.id, None)
            self._keep(ticket)
            if ticket.webhook is not None and not ticket.is_refused_at_once:
                self._couriers.tell_last(ticket.id, ticket.webhook, word)
        elif ticket.webhook is not None and event == "waiting" and ticket.wants("start"):
            self._couriers.tell(ticket.id, ticket.webhook, waiting_word(ticket.id, int(word)))
        elif ticket.webhook is not None and ticket.wants(event):
            self._couriers.tell(ticket.id, ticket.webhook, word)

    def _routes(self) -> list[BaseRoute]:
        return [
            Route("/", self._index, methods=["GET"]),
            Route("/health-check", self._health, methods=["GET", "HEAD"]),
            Route("/predictions", self._create, methods=["POST"]),
            Route("/predictions/{id}", self._create, methods=["PUT"]),
            Route("/predictions/{id}/cancel", self._cancel, methods=["POST"]),
        ]

    async def _index(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "predictions_url": "/predictions",
                "predictions_idempotent_url": "/predictions/{prediction_id}",
                "predictions_cancel_url": "/predictions/{prediction_id}/cancel",
                "healthcheck_url": "/health-check",
                "kinds": [kind for group in self._groups for kind in group.kinds],
            }
        )

    async def _health(self, _request: Request) -> Response:
        full = all(lane.waiting >= self._queue for lane in self._lanes.values())
        status = "DEFUNCT" if self._stopping else "BUSY" if full else "READY"
        groups = {
            name: {"state": lane.state, "waiting": lane.waiting, "running": lane.current is not None}
            for name, lane in self._lanes.items()
        }
        return JSONResponse({"status": status, "groups": groups})

    async def _create(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return Response("Expected request with `Content-Type: application/json`", 415)
        body = await _read(request, MOST_BODY_BYTES)
        if body is None:
            return JSONResponse({"error": "the body is too large", "status": "failed"}, 413)
        asked = await _parse(body)
        if isinstance(asked, str):
            return _invalid(asked, "body")
        prediction_id = str(
            request.path_params.get("id") or asked.get("id") or f"pred_{secrets.token_hex(12)}"
        )
        if _ID.fullmatch(prediction_id) is None:
            return _invalid("an id has letters, digits, `_`, `-` and then `.`, at most 128", "body", "id")
        if known := self._known(prediction_id):
            return Response(known, 202, media_type="application/json")
        if (refusal := self._refusal()) is not None:
            return refusal
        made = self._make(prediction_id, asked, request.path_params.get("kind"), len(body))
        if isinstance(made, Response):
            return made
        return await self._accept(made, request)

    def _make(
        self, prediction_id: str, asked: dict[str, Any], kind: str | None, size_bytes: int
    ) -> Ticket | Response:
        given = asked.get("input") or {}
        if not isinstance(given, dict):
            return _invalid("must be an object", "body", "input")
        kind_asked = kind if kind is not None else given.get("kind")
        group = find_group(self._groups, kind_asked)
        if group is None:
            known = ", ".join(each for group in self._groups for each in group.kinds)
            return _invalid(f"{kind_asked!r} is not one of {known}", "body", "input", "kind")
        events = asked.get("webhook_events_filter", sorted(EVENTS))
        if not isinstance(events, list) or not set(map(str, events)) <= EVENTS:
            return Response("webhook_events_filter: unknown event", 422)
        if self._lanes[group.name].waiting >= self._queue:
            return Response(refused_word(AT_CAPACITY), 409, media_type="application/json")
        webhook = asked.get("webhook")
        return Ticket(
            id=prediction_id,
            group=group.name,
            input={**given, "kind": kind} if kind is not None else given,
            webhook=webhook if isinstance(webhook, str) and webhook.startswith("http") else None,
            events=frozenset(events),
            size_bytes=size_bytes,
        )

    async def _accept(self, ticket: Ticket, request: Request) -> Response:
        lane = self._lanes[ticket.group]
        at_once = lane.is_loaded and lane.length == 0
        self._live[ticket.id] = ticket
        ticket.is_awaited = request.headers.get("prefer") != "respond-async"
        position = lane.offer(ticket)
        if request.headers.get("prefer") != "respond-async":
            return await self._await_end(ticket, request)
        if at_once:
            ticket.is_awaited = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ticket.handed_over.wait(), HAND_OVER_S)
            ticket.is_awaited = False
        if ticket.is_refused_at_once and ticket.refusal is not None:
            status, said = ticket.refusal
            return Response(said, status, media_type="application/json")
        return Response(waiting_word(ticket.id, position), 202, media_type="application/json")

    async def _await_end(self, ticket: Ticket, request: Request) -> Response:
        """Without `respond-async` Cog answers at the end, and cancels for a caller that leaves."""
        gone = asyncio.ensure_future(_until_gone(request))
        ended = asyncio.ensure_future(ticket.ended.wait())
        try:
            await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            ended.cancel()
        if not ticket.ended.is_set():
            self._lanes[ticket.group].cancel(ticket)
        if ticket.refusal is not None:
            status, said = ticket.refusal
            return Response(said, status, media_type="application/json")
        return Response(ticket.last_word or b"{}", 200, media_type="application/json")

    async def _cancel(self, request: Request) -> Response:
        ticket = self._live.get(request.path_params["id"])
        if ticket is None:
            return JSONResponse({}, 404)
        self._lanes[ticket.group].cancel(ticket)
        return JSONResponse({})

    async def _hook(self, request: Request) -> Response:
        given = request.path_params["secret"].encode()
        if not hmac.compare_digest(given, self._secret.encode()):
            return Response(status_code=404)
        body = await _read(request, MOST_HOOK_BYTES)
        ticket = self._live.get(request.path_params["id"])
        if ticket is not None and ticket.phase == "running":
            too_large = f"the output is larger than the {MOST_HOOK_BYTES} bytes of one callback"
            self._put_down(ticket, failed_word(ticket.id, too_large) if body is None else body)
        return Response()

    def _put_down(self, ticket: Ticket, body: bytes) -> None:
        """Where the lane hears it: what is old makes way for what is new."""
        if ticket.heard.full():
            ticket.heard.get_nowait()
        ticket.heard.put_nowait(body)

    def _known(self, prediction_id: str) -> bytes | None:
        """The state of a prediction that need not be made; its last word is sent again where it has ended."""
        if (ticket := self._live.get(prediction_id)) is not None:
            return running_word(ticket.id) if ticket.phase == "running" else waiting_word(ticket.id, 0)
        if (ticket := self._kept.get(prediction_id)) is not None:
            if ticket.webhook is not None and ticket.last_word is not None:
                self._couriers.tell_last(ticket.id, ticket.webhook, ticket.last_word)
            return running_word(ticket.id)
        return None

    def _refusal(self) -> Response | None:
        if self._stopping:
            return Response(refused_word("the worker is stopping"), 503, media_type="application/json")
        held = self._couriers.undelivered_bytes + sum(ticket.size_bytes for ticket in self._live.values())
        if held > MOST_HELD_BYTES:
            return Response(refused_word(AT_CAPACITY), 409, media_type="application/json")
        return None

    def _keep(self, ticket: Ticket) -> None:
        """Remember an ended prediction for a repeated create; refused ones were never made."""
        if ticket.refusal is not None:
            return
        self._kept[ticket.id] = ticket
        self._kept_bytes += len(ticket.last_word or b"")
        while self._kept_bytes > MOST_KEPT_BYTES or len(self._kept) > MOST_KEPT:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.last_word or b"")


async def _read(request: Request, most_bytes: int) -> bytes | None:
    """The body; None where it is larger than that."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            return None
    return bytes(body)


async def _parse(body: bytes) -> dict[str, Any] | str:
    """The object in a body, or what is wrong with it."""
    try:
        value = await asyncio.to_thread(json.loads, body) if len(body) > 1 << 20 else json.loads(body)
    except (ValueError, RecursionError):
        return "not JSON"
    return value if isinstance(value, dict) else "not an object"


def _invalid(reason: str, *place: str) -> Response:
    problem = {"loc": list(place), "msg": reason, "type": "value_error"}
    return JSONResponse({"detail": [problem]}, 422)


async def _until_gone(request: Request) -> None:
    """Until the caller has hung up."""
    try:
        while (await request.receive())["type"] != "http.disconnect":
            pass
    except ClientDisconnect:
        return
