"""A stream of the service that outlives its connection: it comes again with the last id that it saw.

Promises: no message is told twice, and none is left out that the service still has; a service that is away is
waited for, with growing pauses that differ from one command to the next. Only what would not be better the
next time (a wrong parameter, a key that may not) ends it, and a service that was never there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx

from app.backoff import backoff_s, jittered
from app.cli.tools import show
from app.cli.tools.calls import CommandError, Json, problem_of
from app.cli.tools.connection import Origin, ServiceClient, running_url
from app.settings import Settings

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 15.0
_NOT_BETTER_NEXT_TIME = frozenset({400, 401, 403, 404, 405, 422})


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream."""

    name: str
    id: str
    data: Json


async def follow_stream(
    settings: Settings, path: str, params: dict[str, Any], *, last_id: str | None = None
) -> AsyncGenerator[Message, None]:
    """The stream's messages, for ever. Raises CommandError."""
    failures, was_up = 0, False
    while True:
        # Asked each time: the service may have come back on another port.
        url = running_url(settings)
        trouble = "no service is running: start `reprise serve`, or set REPRISE_URL"
        if url is not None:
            async with ServiceClient(Origin.RUNNING, url) as client:
                try:
                    async with aclosing(_messages(client, path, params, last_id)) as messages:
                        async for message in messages:
                            if failures > 1:
                                show.err().print("[dim]connected again[/]")
                            failures, was_up = 0, True
                            last_id = message.id or last_id
                            yield message
                    trouble = "the stream ended"
                except httpx.TransportError as exc:
                    trouble = f"the service at {url} does not answer: {exc or type(exc).__name__}"
        if not was_up:
            raise CommandError(trouble)
        failures += 1
        if failures == 2:
            show.err().print(f"[yellow]{show.plain(trouble)}; trying again[/]")
        await asyncio.sleep(jittered(backoff_s(failures, first_s=FIRST_PAUSE_S, most_s=LONGEST_PAUSE_S)))


async def _messages(
    client: httpx.AsyncClient, path: str, params: dict[str, Any], last_id: str | None
) -> AsyncGenerator[Message, None]:
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
    async with client.stream("GET", path, params=params, headers=headers) as response:
        if response.is_error:
            await response.aread()
            if response.status_code in _NOT_BETTER_NEXT_TIME:
                raise problem_of(response)
            raise httpx.RemoteProtocolError(f"it answers {response.status_code}")
        async for message in _parsed(response.aiter_lines()):
            yield message


async def _parsed(lines: AsyncIterator[str]) -> AsyncIterator[Message]:
    """What the lines say. Each message has one line of data here: JSON has no line ends."""
    name, message_id, data = "message", "", None
    async for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                name = value
            case "id":
                message_id = value
            case "data":
                data = value
            case "" if not line and data is not None:
                yield Message(name, message_id, json.loads(data))
                name, message_id, data = "message", "", None
