"""What commands say to a service, and how they end: HTTP verbs, exit codes, one line for every failure.

Exit codes: 0 ok · 1 failed · 2 usage · 3 not found · 4 job failed · 5 timed out.

Promises: a problem that the service answers, a service that goes away and a wrong setting each become a
`CommandError` or `AppError`, and those become one line on stderr and the code in `ending`. Leaves where the
service is to `connection`, what is printed of an answer to `show`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import httpx

from app.cli.tools.inert import inert
from app.client.aio.files import AsyncUploads
from app.client.aio.transport import AsyncTransport
from app.client.errors import RepriseError, Unavailable
from app.errors import AppError
from db.session import DatabaseUnavailable

Json = Any
"""A value as `json.loads` gives it."""

T = TypeVar("T")

ENDS = frozenset({"job.succeeded", "job.failed", "job.canceled"})
_MOST_RECONNECTS = 5
_RECONNECT_S = 0.5
_SILENCE_S = 30.0
_RETRY_FOR_S = 60.0


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    JOB_FAILED = 4
    TIMED_OUT = 5


class CommandError(Exception):
    """The command ends here: one line for people, and the exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@contextlib.contextmanager
def ending(name: str) -> Iterator[None]:
    """Turn what went wrong inside into `NAME: reason` on stderr and the exit code."""
    try:
        yield
    except CommandError as exc:
        code, message = exc.code, exc.message
    except AppError as exc:
        code, message = Exit.FAILED, exc.message
    except DatabaseUnavailable as exc:
        code, message = Exit.FAILED, f"DATABASE_URL: the database cannot be used: {exc}"
    except BrokenPipeError:
        # `reprise jobs list | head`: the reader has gone, which is no failure. Nothing more is flushed.
        sys.stdout = None
        raise SystemExit(Exit.OK) from None
    except OSError as exc:
        code, message = Exit.FAILED, f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc)
    else:
        return
    sys.stderr.write(f"{name}: {inert(message)}\n")
    raise SystemExit(code)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; SIGTERM unwinds it as Ctrl-C does, so that nothing it started is left."""
    return asyncio.run(_cancelable(main))


async def call(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> Json:
    """One request; the answer's JSON. Raises CommandError with the problem's own words."""
    try:
        response = await client.request(method, path, **request)
    except httpx.InvalidURL as exc:
        raise CommandError(f"{path}: no address can have that in it", Exit.USAGE) from exc
    except httpx.TransportError as exc:
        raise _unreachable(client, exc) from exc
    if response.is_error:
        raise problem_of(response)
    return response.json()


async def submit(client: httpx.AsyncClient, body: Json, *, idempotency_key: str | None = None) -> Json:
    """Ask for a job; it as it stands."""
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    return await call(client, "POST", "/v1/jobs", json=body, headers=headers)


async def upload(client: httpx.AsyncClient, path: Path) -> str:
    """Send a file, a large one in many requests; the id that a job's input names it by."""
    transport = AsyncTransport(
        base_url=str(client.base_url).rstrip("/"),
        api_key=None,
        timeout_s=_SILENCE_S,
        retry_for_s=_RETRY_FOR_S,
        http=client,
    )
    try:
        return (await AsyncUploads(transport).create(path)).upload_id
    except OSError as exc:
        raise CommandError(f"{path}: {exc.strerror or exc}", Exit.USAGE) from exc
    except RepriseError as exc:
        if exc.status is None and isinstance(exc, Unavailable):
            raise CommandError(f"the service does not answer: {exc.message}") from exc
        raise _problem_ending(exc.status or 0, exc.message) from exc


async def follow(
    client: httpx.AsyncClient, job_id: str, note: Callable[[Json], None] = lambda _event: None
) -> list[Json]:
    """Every event of a job, told to `note` as it comes, until the job has ended. Survives a cut stream."""
    events: list[Json] = []
    failures = 0
    while not any(event["type"] in ENDS for event in events):
        known = len(events)
        try:
            async for event in _stream(client, job_id, after_seq=events[-1]["seq"] if events else 0):
                events.append(event)
                note(event)
        except httpx.TransportError as exc:
            failures = failures + 1 if len(events) == known else 1
            if failures > _MOST_RECONNECTS:
                raise _unreachable(client, exc, f"; job {job_id} is stored and goes on with it") from exc
            await asyncio.sleep(_RECONNECT_S)
    return events


async def download(client: httpx.AsyncClient, url: str, path: Path) -> None:
    """Fetch an output into a file: whole, or not there."""
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        async with client.stream("GET", url) as response:
            if response.is_error:
                await response.aread()
                raise problem_of(response)
            with partial.open("wb") as target:
                async for chunk in response.aiter_bytes():
                    target.write(chunk)
        partial.replace(path)
    except httpx.TransportError as exc:
        raise _unreachable(client, exc) from exc
    except OSError as exc:
        raise CommandError(f"{path}: cannot be written: {exc.strerror}") from exc
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


async def _stream(client: httpx.AsyncClient, job_id: str, *, after_seq: int) -> AsyncIterator[Json]:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after_seq)}
    async with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
        if response.is_error:
            await response.aread()
            raise problem_of(response)
        async for line in response.aiter_lines():
            # One event has one `data:` line here: JSON without line ends. The rest of it says the same.
            if line.startswith("data:"):
                yield json.loads(line.removeprefix("data:"))


def problem_of(response: httpx.Response) -> CommandError:
    """The end of the command that this answer is, in the problem's own words."""
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the service answered {response.status_code} {response.reason_phrase}"
    return _problem_ending(response.status_code, detail)


def _problem_ending(status: int, detail: str) -> CommandError:
    match status:
        case 401:
            hint = "set REPRISE_API_KEY to a key that holds; `reprise keys create` makes one"
            return CommandError(f"the service asks for a key: {hint}")
        case 404:
            return CommandError(detail, Exit.NOT_FOUND)
        case 400 | 422:
            return CommandError(detail, Exit.USAGE)
        case _:
            return CommandError(detail, Exit.FAILED)


def _unreachable(client: httpx.AsyncClient, exc: httpx.TransportError, more: str = "") -> CommandError:
    reason = str(exc) or type(exc).__name__
    return CommandError(f"the service at {client.base_url} does not answer: {reason}{more}")


async def _cancelable(main: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(main)
    heard: list[signal.Signals] = []

    def hear(number: signal.Signals) -> None:
        heard.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, hear, number)
    try:
        return await task
    except asyncio.CancelledError:
        raise SystemExit(128 + heard[0] if heard else Exit.FAILED) from None
