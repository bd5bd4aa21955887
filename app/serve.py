"""A whole service in one process: web, stations, and the Cog server of ours beside it.

`running_service` is what `reprise serve`, the demo and the pipeline scripts stand on: it opens a runtime,
listens, works, and takes everything down again in the right order, whatever ends it.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog
import uvicorn

from app.backoff import backoff_s
from app.crash_points import Reach, pass_by
from app.engines.supervisor import CogSupervisor
from app.errors import AppError, StartupError
from app.main import Front, create_app
from app.ownership import Ownership, sole_use
from app.provider.base import Provider
from app.provider.cog import Cog
from app.settings import Settings
from app.web.patience import PatientHttp
from app.wiring import Runtime, open_runtime
from app.work import Station

log = structlog.get_logger()

STOP_LIMIT_S = 30.0
"""How long steps that have begun get to end when the service stops."""
KEEP_ALIVE_S = 20
PREPARE_FIRST_S = 5.0
"""How long the start waits for providers to be prepared; after that they go on beside the service."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is up."""

    url: str
    app: Front
    runtime: Runtime


@asynccontextmanager
async def running_service(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    worker: bool = True,
    gpu_worker: bool = True,
    reach: Reach = pass_by,
) -> AsyncIterator[Service]:
    """Serve until the block ends. Port 0 takes a free one. Raises StartupError with one line."""
    embedded = worker and gpu_worker and not settings.cog_urls
    async with AsyncExitStack() as stack:
        ownership = None
        if not (worker or settings.is_shared or settings.is_sqlite):
            # Its hints would reach nobody: whoever works is in another process.
            raise StartupError(
                "DATABASE_URL: a web without stations needs PostgreSQL; on MySQL `serve` is both"
            )
        if worker and not settings.is_shared:
            ownership = Ownership(settings)
            stack.callback(ownership.close)
            await stack.enter_async_context(sole_use(settings, on_loss=_end_this_process))
        runtime = await stack.enter_async_context(
            open_runtime(settings, embedded_worker=embedded, workers_elsewhere=not worker, reach=reach)
        )
        listener = stack.enter_context(_listening(host, port))
        url = f"http://{_name_of(listener)}"
        runtime.callbacks.listen_at(url)
        app = create_app(runtime)
        await stack.enter_async_context(_preparing(runtime))
        await stack.enter_async_context(_serving(app, listener))
        if ownership is not None:
            ownership.publish(url)
            await runtime.worker.adopt()
        if embedded:
            await stack.enter_async_context(_supervised(runtime))
        if worker:
            await runtime.worker.beat()
            await stack.enter_async_context(_working(runtime))
        _spare_the_collector()
        log.info("service.up", url=url, providers=sorted(runtime.providers))
        yield Service(url, app, runtime)
    log.info("service.down")


@asynccontextmanager
async def running_worker(
    settings: Settings, *, stations: Collection[Station] = tuple(Station), gpu_worker: bool = False
) -> AsyncIterator[Runtime]:
    """Stations without the web, beside any number of others on one PostgreSQL, until the block ends.

    With `gpu_worker` and no `COG_URLS`, our own engines run beside it. Raises StartupError with one line.
    """
    if not settings.is_shared:
        raise StartupError("DATABASE_URL: workers of their own need PostgreSQL; elsewhere `serve` works")
    if settings.public_url is None and Station.DISPATCH in stations:
        raise StartupError("PUBLIC_URL: needed, so that providers can call the web processes back")
    embedded = gpu_worker and not settings.cog_urls
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(
            open_runtime(settings, embedded_worker=embedded, workers_elsewhere=True, stations=stations)
        )
        await runtime.worker.beat()
        if embedded:
            await stack.enter_async_context(_supervised(runtime))
        await stack.enter_async_context(_working(runtime))
        _spare_the_collector()
        log.info("worker.up", stations=[station.value for station in stations])
        yield runtime
    log.info("worker.down")


def _end_this_process() -> None:
    # As an operator would: what has begun gets to end, and fails where another process has taken it.
    signal.raise_signal(signal.SIGTERM)


def _spare_the_collector() -> None:
    # Half a million objects of modules and schemas live for ever. Walking them took 50-100 ms each time a
    # flood of webhooks filled the oldest generation, and every webhook in flight waited for it.
    gc.collect()
    gc.freeze()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    # Bound before anything is told about the address: the port is known, and connections that come
    # early wait in the backlog instead of being refused.
    try:
        listener = socket.create_server((host, port), backlog=2048, reuse_port=False)
    except OSError as exc:
        raise StartupError(f"--host/--port: cannot listen on {host}:{port}: {exc.strerror}") from exc
    with listener:
        yield listener


def _name_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"  # noqa: S104 - read, not bound


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the command decides what a signal means."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _preparing(runtime: Runtime) -> AsyncIterator[None]:
    """Let the providers learn their webhook secrets, however long their APIs are away."""

    async def prepare(provider: Provider) -> None:
        failures = 0
        while True:
            try:
                await provider.prepare()
            except AppError as exc:
                # Callbacks are answered 503 until then, and recovery polls.
                failures += 1
                log.warning("provider.unprepared", provider=provider.name, reason=exc.message)
                await asyncio.sleep(backoff_s(failures))
            else:
                return

    tasks = [asyncio.create_task(prepare(provider)) for provider in runtime.providers.values()]
    # The first try comes before the first request, as long as it answers at once.
    if tasks:
        await asyncio.wait(tasks, timeout=PREPARE_FIRST_S)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _serving(app: Front, listener: socket.socket) -> AsyncIterator[None]:
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            http=PatientHttp,
            ws="websockets-sansio",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=10,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def _supervised(runtime: Runtime) -> AsyncIterator[None]:
    """Our own Cog server beside the service. Raises StartupError when it does not come up."""
    cog = runtime.providers["cog"]
    if not isinstance(cog, Cog):
        raise StartupError("the embedded worker needs the cog provider")
    supervisor = CogSupervisor(
        tmp=runtime.bench.workspace.root / "worker",
        on_restart=partial(_give_up, runtime),
        log=log,
    )
    try:
        await supervisor.start()
    except AppError as exc:
        log.error("worker.unavailable", reason=exc.message)
        await supervisor.stop()
        raise StartupError(f"the embedded worker did not start: {exc.message}") from exc
    cog.point("*", supervisor.url, takes_kind=True)
    watching = asyncio.create_task(supervisor.run())
    try:
        await _take_over(runtime)
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await supervisor.stop()


async def _give_up(runtime: Runtime, gone_at: datetime) -> None:
    """What our dead worker had in hand went with it, except what it had told us: that news goes first."""
    await runtime.worker.catch_up()
    await runtime.recovery.forget(runtime.process_id, gone_at)


async def _take_over(runtime: Runtime) -> None:
    """The owner of an embedded database knows that every other process is dead, and need not wait to see."""
    if not runtime.settings.is_shared:
        await runtime.worker.catch_up()
        await runtime.recovery.forget_orphans(silent_since=await runtime.worker.beat())


@asynccontextmanager
async def _working(runtime: Runtime) -> AsyncIterator[None]:
    task = asyncio.create_task(runtime.worker.run())
    task.add_done_callback(_tell_of_failure)
    try:
        yield
    finally:
        runtime.worker.stop()
        _, late = await asyncio.wait([task], timeout=STOP_LIMIT_S)
        for each in late:
            log.warning("worker.cut_short", limit_s=STOP_LIMIT_S)
            each.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _tell_of_failure(working: asyncio.Task[None]) -> None:
    # The routes go on answering: without this line nobody would know why no job moves any more.
    if not working.cancelled() and (failure := working.exception()) is not None:
        log.critical("worker.died", exc_info=failure)
