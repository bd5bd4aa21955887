"""`reprise listen`: what providers send, or callers are told, forwarded to a port of this machine.

The news is in the service already; a receiver that fails here costs nobody anything. What is
forwarded comes from a `Source`, so that other news can be forwarded in the same way: each in its order, one
after another, from a queue that is bounded. Whoever cannot keep up gets it later, not less of it: the stream
is read no faster than the receiver takes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import httpx
import typer
from rich.text import Text

from app.cli.live.announced import AnnouncedNews, read_secrets
from app.cli.live.forwards import Forward, Source
from app.cli.live.streaming import follow_stream
from app.cli.live.tail import AfterCount, AsLines
from app.cli.tools import show
from app.cli.tools.calls import CommandError, Exit, Json, run
from app.cli.tools.connection import read_settings
from app.settings import Settings

FORWARD_LIMIT_S = 30.0
MOST_QUEUED = 100
_BARE_PORT = re.compile(r":?(\d{1,5})(/.*)?")
_UNSENT = frozenset({"host", "content-length", "transfer-encoding", "connection"})


@dataclass(frozen=True, slots=True)
class ProviderNews:
    """Webhooks of providers, as the service stores them."""

    settings: Settings
    provider: str | None
    events: frozenset[str]

    async def messages(self) -> AsyncIterator[Forward]:
        async with aclosing(follow_stream(self.settings, "/v1/deliveries", {"body": "1"})) as stream:
            async for message in stream:
                if message.name != "delivery" or message.data["source"] != "webhook":
                    continue
                forward = _forward_of(message.data)
                is_of_provider = self.provider in (None, message.data["provider"])
                if is_of_provider and (not self.events or forward.name in self.events):
                    yield forward


def listen(
    forward_to: Annotated[
        str | None, typer.Option("--forward-to", metavar="URL", help="Where to: 3000/hook, or a whole URL.")
    ] = None,
    announcements: Annotated[
        bool,
        typer.Option("--announcements", help="What callers are told of their jobs, not what providers send."),
    ] = False,
    provider: Annotated[str | None, typer.Option(help="Only this provider's webhooks.")] = None,
    events: Annotated[
        list[str] | None,
        typer.Option("--events", help="Only these: prediction.succeeded, or job.failed. Repeatable."),
    ] = None,
    print_secret: Annotated[
        bool,
        typer.Option("--print-secret", help="Print the secrets that the receiver verifies with, and end."),
    ] = False,
    skip_verify: Annotated[
        bool, typer.Option("--skip-verify", help="Take any certificate of the receiver's.")
    ] = False,
    limit: AfterCount = None,
    as_lines: AsLines = False,
) -> None:
    """Forward webhooks to a port of this machine, until Ctrl-C: the providers', or the service's own."""
    settings = read_settings()
    if announcements and provider is not None:
        raise CommandError("--provider: announcements are the service's own", Exit.USAGE)
    if print_secret:
        _print_secrets(run(read_secrets(settings)) if announcements else _provider_secrets(settings))
        return
    if forward_to is None:
        raise CommandError("--forward-to: say where to, such as http://localhost:3000/hook", Exit.USAGE)
    wanted = frozenset(name for each in events or [] for name in each.replace(",", " ").split())
    source: Source = ProviderNews(settings, provider, wanted)
    if announcements:
        source = AnnouncedNews(settings, wanted)
    run(_listen(source, _target(forward_to), limit, verify=not skip_verify, as_lines=as_lines))


async def _listen(source: Source, target: str, limit: int | None, *, verify: bool, as_lines: bool) -> None:
    queue: asyncio.Queue[Forward] = asyncio.Queue(MOST_QUEUED)

    async def read() -> None:
        async for forward in source.messages():
            await queue.put(forward)

    show.err().print(f"[dim]Forwarding to {show.plain(target)}. Ctrl-C ends it.[/]")
    reading = asyncio.create_task(read())
    try:
        # trust_env off: a proxy from the environment must never see what goes to this machine.
        async with httpx.AsyncClient(verify=verify, timeout=FORWARD_LIMIT_S, trust_env=False) as client:
            forwarded = 0
            while forwarded != limit:
                forward = await _next(queue, reading)
                _tell(forward, await _post(client, target, forward), as_lines=as_lines)
                forwarded += 1
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _next(queue: asyncio.Queue[Forward], reading: asyncio.Task[None]) -> Forward:
    """The next one, or what ended the reading. Raises CommandError."""
    getting = asyncio.create_task(queue.get())
    await asyncio.wait({getting, reading}, return_when=asyncio.FIRST_COMPLETED)
    if getting.done():
        return getting.result()
    getting.cancel()
    reading.result()
    raise CommandError("the stream ended")


async def _post(client: httpx.AsyncClient, target: str, forward: Forward) -> dict[str, Any]:
    """What became of it: `status` and `latency_ms`, or `error`. Never raises for the receiver's sake."""
    if forward.body is None:
        return {"error": "its body is too large to be forwarded"}
    began = time.perf_counter()
    try:
        answer = await client.post(target, content=forward.body, headers=forward.headers)
    except httpx.HTTPError as exc:
        return {"error": str(exc) or type(exc).__name__}
    return {"status": answer.status_code, "latency_ms": round((time.perf_counter() - began) * 1000, 1)}


def _tell(forward: Forward, became: dict[str, Any], *, as_lines: bool) -> None:
    if as_lines:
        facts = {"id": forward.id, "event": forward.name, "at": forward.at.isoformat(), **forward.facts}
        show.print_live(json.dumps({**facts, **became}))
        return
    at = forward.at.astimezone()
    line = Text(f"{at:%H:%M:%S}  ", style="dim").append(f"{forward.name:<24} ", style="default")
    if "error" in became:
        line.append(str(became["error"]), style="red")
    else:
        good = 200 <= became["status"] < 300
        line.append(str(became["status"]), style="green" if good else "red")
        line.append(f"  {became['latency_ms']:.0f} ms", style="default")
    show.print_live(line.append(f"  {forward.id}", style="dim"))


def _forward_of(delivery: Json) -> Forward:
    encoded = delivery["body_base64"]
    body = None if encoded is None else base64.b64decode(encoded)
    return Forward(
        id=delivery["id"],
        name=_name_of(body),
        at=datetime.fromisoformat(delivery["received_at"]),
        headers={name: value for name, value in delivery["headers"].items() if name not in _UNSENT},
        body=body,
        facts={name: delivery[name] for name in ("provider", "attempt_id", "job_id")},
    )


def _name_of(body: bytes | None) -> str:
    """`prediction.STATUS`, where the body says one."""
    try:
        status = json.loads(body or b"")["status"]
    except (ValueError, KeyError, TypeError):
        return "prediction"
    return f"prediction.{status}"[:64] if isinstance(status, str) and status.isalpha() else "prediction"


def _target(given: str) -> str:
    """A URL of what was given: a port, a host, or a URL. Raises CommandError."""
    if bare := _BARE_PORT.fullmatch(given):
        given = f"127.0.0.1:{bare[1]}{bare[2] or ''}"
    try:
        url = httpx.URL(given if "://" in given else f"http://{given}")
    except httpx.InvalidURL as exc:
        raise CommandError(f"--forward-to: {exc}", Exit.USAGE) from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise CommandError("--forward-to: must be a port, or a URL with http:// or https://", Exit.USAGE)
    return str(url)


def _provider_secrets(settings: Settings) -> list[str]:
    secret = settings.replicate_webhook_secret
    if secret is None:
        raise CommandError("REPLICATE_WEBHOOK_SECRET is not set: the service fetches it from the API")
    return secret.get_secret_value().split()


def _print_secrets(secrets: list[str]) -> None:
    for each in secrets:
        show.print_line(each)
