"""A stateful Replicate: a real ASGI app that checks what it is asked, remembers it, signs and sends webhooks.

Owns the protocol as documented, written without looking at our adapter: its signatures are made by hand, so a
mistake of ours cannot cancel itself out. Mount it with `httpx.ASGITransport(app=fake)` or serve it on
loopback with `served(fake)`. Nothing in it sleeps: a test says what happens next (`begin`, `log`, `finish`)
and which misfortune meets it (`script`, the flags).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import re
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

TOKEN = "r8_fake_token"
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
OTHER_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
TERMINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})

_FIELDS = {"input", "version", "webhook", "webhook_events_filter", "stream"}
_EVENTS = {"start", "output", "logs", "completed"}
_CANCEL_AFTER = re.compile(r"^(\d+|(\d+h)?(\d+m)?(\d+s)?)$")


class Drop(Response):
    """The connection breaks instead of a reply; `after` the prediction was made, or before."""

    def __init__(
        self, *, after: bool, error: Callable[[str], httpx.TransportError] = httpx.ReadError
    ) -> None:
        super().__init__()
        self.after = after
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # httpx's ASGITransport passes an app's exception to the client as it is. uvicorn (the one that names
        # a spec version) closes the connection of a reply that stays shorter than announced.
        if "spec_version" not in scope["asgi"]:
            raise self._error("dropped by the fake")
        announced = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 201, "headers": announced})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


def throttled(wait_s: float, *, told_by: str = "header") -> Response:
    """A 429 whose wait is told by `header`, `date`, `body`, `text` or `nothing`."""
    headers = {}
    body: dict[str, Any] = {"detail": "Request was throttled.", "status": 429}
    if told_by == "header":
        headers["Retry-After"] = str(wait_s)
    elif told_by == "date":
        headers["Retry-After"] = format_datetime(datetime.now(UTC) + timedelta(seconds=wait_s), usegmt=True)
    elif told_by == "body":
        body["retry_after"] = wait_s
    elif told_by == "text":
        body["detail"] += f" Your rate limit resets in ~{wait_s:.0f}s."
    return JSONResponse(body, 429, headers)


def problem(status: int, title: str, detail: str, **more: Any) -> Response:
    return JSONResponse({"title": title, "detail": detail, "status": status, **more}, status)


def no_credit() -> Response:
    return problem(402, "Insufficient credit", "You have insufficient credit to run this model.")


def invalid(name: str, description: str) -> Response:
    row = {"type": "required", "field": name, "description": description}
    return problem(422, "Input validation failed", f"- {name}: {description}\n", invalid_fields=[row])


def bad_gateway() -> Response:
    return HTMLResponse("<html><body><h1>502 Bad Gateway</h1></body></html>", 502)


@dataclass(frozen=True)
class Seen:
    """One request that reached the fake."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Hook:
    """One webhook that was sent, and what the receiver said; status 0 when it could not be reached."""

    event: str
    prediction_id: str
    headers: Mapping[str, str]
    body: bytes
    status: int


@dataclass
class FakeReplicate:
    """The server. Fields below `predictions` may be changed at any time."""

    hooks: httpx.AsyncClient | None = None
    """Sends the webhooks, for example `AsyncClient(transport=ASGITransport(app=our_service))`."""
    base_url: str = "http://replicate.test"
    token: str = TOKEN
    secret: str = SECRET
    predictions: dict[str, dict[str, Any]] = field(default_factory=dict)
    page_size: int = 100
    flaky: bool = False
    """Every second API request is a 503, and does nothing."""
    lose_hooks: frozenset[str] = frozenset()
    """Events whose hooks never leave: `start`, `logs`, `completed`."""
    double_hooks: bool = False
    reorder: bool = False
    """`start` and `logs` hooks leave after `completed`."""
    forge: bool = False
    """Hooks are signed with another secret."""
    early: Any = None
    """When set: the output of a prediction that completes, hook included, before the create reply leaves."""
    odd: dict[str, Any] = field(default_factory=dict)
    """Merged into every new prediction (`{"status": "aborted"}`); `...` as a value removes the key."""
    input_types: dict[str, type] = field(default_factory=dict)
    """The model's input schema: another type is a 422 that names the field."""
    outputs_down: bool = False
    """Outputs are a 503."""
    next_host: str | None = None
    """When set, the list's `next` addresses are on this host."""
    hook_tries: int = 4
    """For the terminal hook, without pauses; the others are sent once."""
    clock: Callable[[], float] = time.time
    seen: list[Seen] = field(default_factory=list)
    sent: list[Hook] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._scripts: dict[str, deque[Response]] = {}
        self._held: list[tuple[str, str, bytes]] = []
        self._outputs: dict[str, tuple[bytes, str]] = {}
        self._count = 0
        self._app = Starlette(
            routes=[
                Route("/v1/predictions", self._create, methods=["POST"]),
                Route("/v1/models/{owner}/{name}/predictions", self._create, methods=["POST"]),
                Route("/v1/predictions", self._list, methods=["GET"]),
                Route("/v1/predictions/{id}", self._get, methods=["GET"]),
                Route("/v1/predictions/{id}/cancel", self._cancel, methods=["POST"]),
                Route("/v1/webhooks/default/secret", self._secret, methods=["GET"]),
                Route("/v1/account", self._account, methods=["GET"]),
                Route("/outputs/{name}", self._output, methods=["GET"]),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def script(self, call: str, *replies: Response) -> None:
        """What the next calls of `create`, `get`, `list`, `cancel`, `secret` or `account` meet instead."""
        self._scripts.setdefault(call, deque()).extend(replies)

    def live(self) -> list[str]:
        """Ids of predictions that have not ended, oldest first."""
        return [key for key, row in self.predictions.items() if row["status"] not in TERMINAL]

    def keep_output(self, name: str, content: bytes, media_type: str = "audio/wav") -> str:
        """Serve bytes at the URL returned, until `expire(name)`."""
        self._outputs[name] = (content, media_type)
        return f"{self.base_url}/outputs/{name}"

    def expire(self, name: str) -> None:
        self._outputs.pop(name, None)

    def remove_data(self, prediction_id: str) -> None:
        """What Replicate does after an hour."""
        self.predictions[prediction_id] |= {"input": {}, "output": None, "logs": None, "data_removed": True}

    async def begin(self, prediction_id: str) -> None:
        self.predictions[prediction_id] |= {"status": "processing", "started_at": self._now()}
        await self._announce("start", prediction_id)

    async def log(self, prediction_id: str, text: str) -> None:
        row = self.predictions[prediction_id]
        row["logs"] = (row["logs"] or "") + text
        await self._announce("logs", prediction_id)

    async def finish(
        self, prediction_id: str, *, output: Any = None, error: str | None = None, status: str | None = None
    ) -> None:
        """End it: `succeeded` with `output`, `failed` with `error`, or in the status given."""
        row = self.predictions[prediction_id]
        row |= {
            "status": status or ("failed" if error is not None else "succeeded"),
            "output": output,
            "error": error,
            "completed_at": self._now(),
            "metrics": {"predict_time": 1.25, "total_time": 2.5},
        }
        await self._announce("completed", prediction_id)

    async def send_hook(self, event: str, prediction_id: str, body: bytes | None = None) -> None:
        """Sign and post one webhook now, with the prediction as it is or with `body`."""
        row = self.predictions[prediction_id]
        if self.hooks is None or not row.get("webhook"):
            return
        content = json.dumps(row).encode() if body is None else body
        headers = self.signed(f"msg_{prediction_id}_{event}_{len(self.sent)}", content)
        for _ in range(self.hook_tries if event == "completed" else 1):
            if 200 <= await self._post(event, prediction_id, row["webhook"], headers, content) < 300:
                return

    def signed(self, message_id: str, body: bytes, *, at: float | None = None) -> dict[str, str]:
        """Standard Webhooks headers for a body, made by hand."""
        secret = OTHER_SECRET if self.forge else self.secret
        key = base64.b64decode(secret.removeprefix("whsec_"))
        timestamp = str(int(self.clock() if at is None else at))
        mac = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        return {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": "v1," + base64.b64encode(mac).decode(),
        }

    async def _announce(self, event: str, prediction_id: str) -> None:
        row = self.predictions[prediction_id]
        wanted = row.get("webhook_events_filter") or ["output", "completed"]
        if event not in wanted or event in self.lose_hooks:
            return
        if self.reorder and event != "completed":
            self._held.append((event, prediction_id, json.dumps(row).encode()))
            return
        for _ in range(2 if self.double_hooks else 1):
            await self.send_hook(event, prediction_id)
        held, self._held = self._held, []
        for late in reversed(held):
            await self.send_hook(*late)

    async def _post(self, event: str, key: str, url: str, headers: dict[str, str], body: bytes) -> int:
        assert self.hooks is not None
        try:
            reply = await self.hooks.post(url, content=body, headers=headers, follow_redirects=False)
            status = reply.status_code
        except httpx.HTTPError:
            status = 0
        self.sent.append(Hook(event, key, headers, body, status))
        return status

    async def _guard(self, call: str, request: Request) -> Response | None:
        """Everything that comes before a call's own work: None when it may be done."""
        body = await request.body()
        self.seen.append(Seen(request.method, request.url.path, dict(request.headers), body))
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return problem(401, "Unauthenticated", "You did not pass a valid authentication token")
        self._count += 1
        if self.flaky and self._count % 2 == 1:
            return problem(503, "Unavailable", "flaky")
        script = self._scripts.get(call)
        if script and not (isinstance(script[0], Drop) and script[0].after):
            return script.popleft()
        return None

    async def _create(self, request: Request) -> Response:
        refused = await self._guard("create", request) or self._check(request, await request.body())
        if refused is not None:
            return refused
        asked = json.loads(await request.body())
        row = self._row(request, asked)
        self.predictions[row["id"]] = row
        if self.early is not None:
            await self.finish(row["id"], output=self.early)
        script = self._scripts.get("create")
        if script:
            return script.popleft()
        return JSONResponse(row, 201, {"Location": f"{self.base_url}/v1/predictions/{row['id']}"})

    def _check(self, request: Request, body: bytes) -> Response | None:
        try:
            asked = json.loads(body)
        except ValueError:
            return problem(400, "Bad request", "not JSON")
        has_model = "name" in request.path_params
        allowed = _FIELDS - {"version"} if has_model else _FIELDS
        if extra := sorted(set(asked) - allowed):
            return problem(422, "Input validation failed", f"Additional property {extra[0]} is not allowed")
        if not isinstance(asked.get("input"), dict):
            return invalid("input", "input is required")
        for name, kind in self.input_types.items():
            if not isinstance(asked["input"].get(name, kind()), kind):
                return invalid(name, f"{name} must be {kind.__name__}")
        if not has_model and not isinstance(asked.get("version"), str):
            return invalid("version", "version is required")
        if not set(asked.get("webhook_events_filter", [])) <= _EVENTS:
            return invalid("webhook_events_filter", "unknown event")
        if not _CANCEL_AFTER.match(request.headers.get("cancel-after", "")):
            return problem(422, "Invalid header", "Cancel-After cannot be read")
        return None

    def _row(self, request: Request, asked: dict[str, Any]) -> dict[str, Any]:
        key = f"pred{len(self.predictions) + 1:022d}"
        path = request.path_params
        row: dict[str, Any] = {
            "id": key,
            "model": f"{path['owner']}/{path['name']}" if path else "meta/musicgen",
            "version": asked.get("version", VERSION),
            "status": "starting",
            "input": asked["input"],
            "output": None,
            "error": None,
            "logs": "",
            "created_at": self._now(),
            "started_at": None,
            "completed_at": None,
            "data_removed": False,
            "source": "api",
            "urls": {"get": f"{self.base_url}/v1/predictions/{key}", "cancel": f"{self.base_url}/c/{key}"},
        }
        row |= {name: asked[name] for name in ("webhook", "webhook_events_filter") if name in asked}
        row |= self.odd
        return {name: value for name, value in row.items() if value is not ...}

    async def _get(self, request: Request) -> Response:
        row = self.predictions.get(request.path_params["id"])
        found = JSONResponse(row) if row else problem(404, "Not found", "no such prediction")
        return await self._guard("get", request) or found

    async def _list(self, request: Request) -> Response:
        if refused := await self._guard("list", request):
            return refused
        start = int(request.query_params.get("cursor", "0"))
        rows = list(self.predictions.values())[::-1]
        end = start + self.page_size
        base = self.base_url if self.next_host is None else f"http://{self.next_host}"
        following = f"{base}/v1/predictions?cursor={end}" if end < len(rows) else None
        return JSONResponse({"next": following, "previous": None, "results": rows[start:end]})

    async def _cancel(self, request: Request) -> Response:
        if refused := await self._guard("cancel", request):
            return refused
        if (row := self.predictions.get(request.path_params["id"])) is None:
            return problem(404, "Not found", "no such prediction")
        if row["status"] not in TERMINAL:
            await self.finish(row["id"], status="canceled")
        return JSONResponse(row)

    async def _secret(self, request: Request) -> Response:
        return await self._guard("secret", request) or JSONResponse({"key": self.secret})

    async def _account(self, request: Request) -> Response:
        account = {"type": "user", "username": "fake", "name": "Fake", "github_url": ""}
        return await self._guard("account", request) or JSONResponse(account)

    async def _output(self, request: Request) -> Response:
        self.seen.append(Seen("GET", request.url.path, dict(request.headers), b""))
        if self.outputs_down:
            return problem(503, "Unavailable", "the outputs are away")
        found = self._outputs.get(request.path_params["name"])
        return Response("expired", 404) if found is None else Response(found[0], 200, media_type=found[1])

    def _now(self) -> str:
        return datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f789Z")


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI app on a free loopback port for the length of the block; yields `http://127.0.0.1:port`.

    The socket listens before the server runs, so nobody has to wait for it. A `FakeReplicate` learns its URL.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    if isinstance(app, FakeReplicate):
        app.base_url = url
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=2)
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield url
    finally:
        server.should_exit = True
        async with asyncio.timeout(10):
            await running
        listener.close()
