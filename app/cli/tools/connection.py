"""Where the service is: the running one, or one opened in this process for as long as a command lasts.

Commands speak HTTP either way. `REPRISE_URL` wins; then the process that owns this database; then, with
nothing running, reading commands get the routes over the database without a server, and commands that need
work done get a whole service on a free port. Two commands that start at once share one service. The key in
`REPRISE_API_KEY` goes with every request; where the service has no keys yet, none is needed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum
from typing import Any

import httpx

from app import __version__
from app.access.keys import looks_like_key
from app.cli.tools.calls import CommandError, Exit, Json, call
from app.errors import StartupError
from app.logs import configure_logs
from app.main import create_app
from app.outbound.addresses import is_loopback
from app.ownership import find_owner
from app.serve import running_service
from app.settings import Settings, load_settings
from app.wiring import open_runtime

URL_VARIABLE = "REPRISE_URL"
KEY_VARIABLE = "REPRISE_API_KEY"
TIMEOUT = httpx.Timeout(15.0, read=75.0)
"""A wait route answers after at most 60 s, an event stream pings every 15 s."""
_STARTING_S = 15.0
_LOOK_EVERY_S = 0.1


class Origin(Enum):
    """Whose service a client speaks to."""

    RUNNING = "running"
    """One that was there before, and stays."""
    PASSING = "passing"
    """Another command's, found while we were about to open one: it may end with that command."""
    OURS = "ours"
    """One that ends with this command."""
    IN_PROCESS = "in process"
    """No service at all: rows can be read and written, nothing is worked on."""


class ServiceClient(httpx.AsyncClient):
    """An HTTP client that knows whose service it speaks to."""

    def __init__(self, origin: Origin, url: str, **more: Any) -> None:
        super().__init__(
            base_url=url,
            timeout=TIMEOUT,
            headers={"User-Agent": f"reprise/{__version__}", **_key_header()},
            # A proxy from the environment must never see a request to this machine.
            trust_env=origin is Origin.RUNNING and not is_loopback(httpx.URL(url).host),
            **more,
        )
        self.origin = origin


def _key_header() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if key and not looks_like_key(key):
        raise CommandError(f"{KEY_VARIABLE}: not a key; `reprise keys create` makes one", Exit.USAGE)
    return {"Authorization": f"Bearer {key}"} if key else {}


@asynccontextmanager
async def service_client(settings: Settings, *, stations: bool) -> AsyncIterator[ServiceClient]:
    """A client of the service; `stations` when work must be done before the command ends."""
    async with AsyncExitStack() as stack:
        url = running_url(settings)
        if url is not None:
            client = ServiceClient(Origin.RUNNING, url)
        elif stations:
            client = await _open_service(settings, stack)
        else:
            # The promise of an embedded worker: a job asked for here may wait for `reprise serve`.
            runtime = await stack.enter_async_context(
                open_runtime(settings, embedded_worker=not settings.cog_urls)
            )
            transport = httpx.ASGITransport(create_app(runtime), raise_app_exceptions=False)
            # A name of ours: any other would be refused at the gate.
            client = ServiceClient(Origin.IN_PROCESS, "http://in-process.localhost", transport=transport)
        yield await stack.enter_async_context(client)


def read_settings(*, serving: bool = False) -> Settings:
    """The settings, with logs set up by them. Raises StartupError.

    A command that prints a result shows warnings only, unless LOG_LEVEL says otherwise. Called by each
    command and not before all of them, so that `--help` answers also when a setting is wrong.
    """
    settings = load_settings()
    was_chosen = "log_level" in settings.model_fields_set
    configure_logs(settings.log_format, settings.log_level if serving or was_chosen else "warning")
    return settings


async def ask(
    settings: Settings, method: str, path: str, *, needs_work: bool = False, **request: Any
) -> Json:
    """One request that needs no stations; `needs_work` when stations must follow it up some time."""
    async with service_client(settings, stations=False) as client:
        answer = await call(client, method, path, **request)
        if needs_work and client.origin is Origin.IN_PROCESS:
            sys.stderr.write("No service is running: the rest is done by the next `reprise serve`.\n")
        return answer


def running_url(settings: Settings) -> str | None:
    """The address of the service that commands speak to, if one runs. Raises CommandError."""
    given = os.environ.get(URL_VARIABLE)
    if given:
        if not given.startswith(("http://", "https://")):
            raise CommandError(f"{URL_VARIABLE}: must begin with http:// or https://", Exit.USAGE)
        return given.rstrip("/")
    owner = find_owner(settings)
    return owner.url if owner else None


async def _open_service(settings: Settings, stack: AsyncExitStack) -> ServiceClient:
    try:
        service = await stack.enter_async_context(running_service(settings))
    except StartupError as exc:
        # Only a lock that somebody else holds is worth a wait.
        if not isinstance(exc.__cause__, BlockingIOError):
            raise
        return ServiceClient(Origin.PASSING, await _await_neighbour(settings))
    return ServiceClient(Origin.OURS, service.url)


async def _await_neighbour(settings: Settings) -> str:
    """Another command took the database a moment ago: use its service once it says where it listens."""
    for _ in range(round(_STARTING_S / _LOOK_EVERY_S)):
        url = running_url(settings)
        if url is not None:
            return url
        await asyncio.sleep(_LOOK_EVERY_S)
    raise CommandError(f"another process holds the database and said no address within {_STARTING_S:g} s")
