"""Whether live clients get through: Socket.IO of the service that runs, by WebSocket and by polling."""

from __future__ import annotations

import json
from typing import Any, Literal

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from app.cli.doctor.finding import Check, Finding
from app.cli.tools.connection import Origin, ServiceClient, running_url
from app.outbound.addresses import is_loopback
from app.settings import Settings
from app.web.socket.server import PATH

ANSWER_S = 5.0
"""How long either way may take to open."""
_POLLING = {"EIO": "4", "transport": "polling"}


async def _check_sockets(settings: Settings) -> list[Finding]:
    """Open a connection as a browser does, up to where it would show its key, and close it."""
    url = running_url(settings)
    if url is None:
        return [Finding.ok("sockets", "no service runs here: nothing to ask")]
    by_polling = await _poll(url)
    if by_polling is not None:
        return [Finding.fail("sockets", f"{url}{PATH} does not answer: {by_polling}", _ROUTE_HINT)]
    by_websocket = await _upgrade(url)
    if by_websocket is not None:
        return [Finding.warn("sockets", f"only polling gets through: {by_websocket}", _UPGRADE_HINT)]
    return [Finding.ok("sockets", f"{url}{PATH} answers, by WebSocket and by polling")]


async def _poll(url: str) -> str | None:
    """What is wrong with long polling; None: nothing."""
    async with ServiceClient(Origin.RUNNING, url) as client:
        try:
            reply = await client.get(f"{PATH}/", params=_POLLING, timeout=ANSWER_S)
            if reply.status_code != httpx.codes.OK:
                return f"HTTP {reply.status_code}"
            opened = _opened(reply.text)
            if opened is None:
                return "what answers is no Socket.IO"
            # Else it would be kept until it has shown no key for long enough.
            bye = {**_POLLING, "sid": opened["sid"]}
            await client.post(f"{PATH}/", params=bye, content="1", timeout=ANSWER_S)
        except httpx.TransportError as exc:
            return type(exc).__name__
    return None


async def _upgrade(url: str) -> str | None:
    """What is wrong with WebSocket; None: nothing."""
    # As for all that the commands ask: a proxy from the environment never sees a request to this machine.
    proxy: Literal[True] | None = None if is_loopback(httpx.URL(url).host) else True
    address = f"ws{url.removeprefix('http')}{PATH}/?EIO=4&transport=websocket"
    try:
        async with connect(
            address, open_timeout=ANSWER_S, close_timeout=1, max_size=65_536, proxy=proxy
        ) as socket:
            first = await socket.recv()
    except (WebSocketException, OSError, TimeoutError) as exc:
        return str(exc) or type(exc).__name__
    return None if isinstance(first, str) and _opened(first) else "it is not Socket.IO that answers there"


def _opened(text: str) -> dict[str, Any] | None:
    """What the service says first; None where it is something else."""
    try:
        said = json.loads(text[1:]) if text.startswith("0{") else None
    except ValueError:
        return None
    return said if isinstance(said, dict) and isinstance(said.get("sid"), str) else None


_ROUTE_HINT = "A proxy before the service must pass /socket.io on; see how to put it behind a proxy."
_UPGRADE_HINT = "Let the proxy pass `Upgrade` and `Connection` on: polling works, later and at more cost."

SOCKET_CHECKS = (Check("sockets", _check_sockets, 15, _ROUTE_HINT),)
