"""A whole service in one process: web, stations, and the Cog server of ours beside it.

`running_service` is what `reprise serve`, the demo and the pipeline scripts stand on: it opens a runtime,
listens, works, and takes everything down again in the right order, whatever ends it.
"""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import socket
import time
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog
from starlette.types import ASGIApp

from app.backoff import backoff_s
from app.crash_points import Reach, pass_by
from app.engines.supervisor import CogSupervisor
from app.errors import AppError, StartupError
from app.main import Front, create_app, create_watch
from app.outbound.addresses import is_loopback
from app.ownership import Ownership, sole_use
from app.provider.base import Provider
from app.provider.cog import Cog
from app.settings import Settings
from app.web.server import listening, reached_at, serving
from app.wiring import Runtime, open_runtime
from app.work import Station
from db.attempts import count_live_attempts
from db.session import DatabaseUnavailable

log = structlog.get_logger()

ENGINE_END_S = 2.0
"""How long the engine may take to end once its steps have."""
LOOK_S = 0.1
"""How often it is looked whether the last predictions have ended, at a stop."""
KEEP_ALIVE_S = 20
KEEP_TIME_S = 5.0
"""How often the database's clock is compared with ours."""
PREPARE_FIRST_S = 5.0
"""How long the start waits for providers to be prepared; after that they go on beside the service."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is up."""

    url: str
    app: Front
    runtime: Runtime


class Stop:
    """The time that a stop may take, from when it began: steps and predictions share it."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._until = math.inf

    def begin(self) -> None:
        self._until = time.monotonic() + self._limit_s

    def left_s(self) -> float:
        return max(0.0, self._until - time.monotonic())


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
        if not is_loopback(host):
            await _need_keys(runtime, host)
        listener = stack.enter_context(listening(host, port))
        url = f"http://{reached_at(listener)}"
        runtime.callbacks.listen_at(url)
        app = create_app(runtime)
        await stack.enter_async_context(_watching(runtime))
        await stack.enter_async_context(_preparing(runtime))
        await stack.enter_async_context(_serving(app, listener, settings))
        if ownership is not None:
            ownership.publish(url)
            await runtime.worker.adopt()
        stop = Stop(settings.shutdown_s)
        if worker:
            await stack.enter_async_context(runtime.worker.alive())
        if embedded:
            await stack.enter_async_context(_supervised(runtime, stop))
        if worker:
            await stack.enter_async_context(_working(runtime, stop))
        stack.callback(_close, app, runtime, stop)
        _spare_the_collector()
        log.info("service.up", url=url, providers=sorted(runtime.providers), process_id=runtime.process_id)
        yield Service(url, app, runtime)
    log.info("service.down")


@asynccontextmanager
async def running_worker(
    settings: Settings,
    *,
    stations: Collection[Station] = tuple(Station),
    gpu_worker: bool = False,
    watch_port: int | None = None,
) -> AsyncIterator[Runtime]:
    """Stations without the web, beside any number of others on one PostgreSQL, until the block ends.

    With `gpu_worker` and no `COG_URLS`, our own engines run beside it. With `watch_port`, `/healthz`,
    `/readyz` and `/metrics` of this process are served on loopback. Raises StartupError with one line.
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
        await stack.enter_async_context(_watching(runtime))
        if not runtime.worker.stations:
            raise StartupError("--stations: dispatch alone needs a provider that this process can ask")
        if watch_port is not None:
            listener = stack.enter_context(listening("127.0.0.1", watch_port))
            await stack.enter_async_context(_serving(create_watch(runtime), listener, settings))
            log.info("worker.watched", url=f"http://{reached_at(listener)}")
        stop = Stop(settings.shutdown_s)
        await stack.enter_async_context(runtime.worker.alive())
        if embedded:
            await stack.enter_async_context(_supervised(runtime, stop))
        await stack.enter_async_context(_working(runtime, stop))
        stack.callback(stop.begin)
        _spare_the_collector()
        log.info(
            "worker.up",
            stations=[station.value for station in runtime.worker.stations],
            process_id=runtime.process_id,
        )
        yield runtime
    log.info("worker.down")


async def _need_keys(runtime: Runtime, host: str) -> None:
    """From here on every request needs a key. Raises StartupError while there is none."""
    if await runtime.keyring.is_open():
        raise StartupError(
            f"--host: {host} is not a loopback address, and without a key whoever reaches the service may "
            "use it: make one with `reprise keys create`, or listen on 127.0.0.1"
        )
    runtime.keyring.close_house()


def _close(app: Front, runtime: Runtime, stop: Stop) -> None:
    """The stop begins: nothing new comes in, nobody is kept waiting; what was begun gets to end."""
    stop.begin()
    app.close_intake()
    runtime.feed.release()
    runtime.arrivals.release()
    runtime.jobs.release_waiters()
    log.info("service.stopping")


def _end_this_process() -> None:
    # As an operator would: what has begun gets to end, and fails where another process has taken it.
    signal.raise_signal(signal.SIGTERM)


def _spare_the_collector() -> None:
    # Half a million objects of modules and schemas live for ever. Walking them took 50-100 ms each time a
    # flood of webhooks filled the oldest generation, and every webhook in flight waited for it.
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def _watching(runtime: Runtime) -> AsyncIterator[None]:
    """Keep the database's time, and see whether the event loop answers."""

    async def keep_time() -> None:
        while True:
            await asyncio.sleep(KEEP_TIME_S)
            await runtime.line.clock.keep_time(runtime.line.database)

    keeping = asyncio.create_task(keep_time())
    runtime.figures.loop_watch.start()
    runtime.history.start()
    try:
        yield
    finally:
        runtime.figures.loop_watch.stop()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


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


def _serving(app: ASGIApp, listener: socket.socket, settings: Settings) -> AbstractAsyncContextManager[None]:
    return serving(
        app,
        listener,
        ws_max_size=settings.socket_message_bytes,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=10,
    )


@asynccontextmanager
async def _supervised(runtime: Runtime, stop: Stop) -> AsyncIterator[None]:
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
    runtime.recovery.condemn = supervisor.condemn
    watching = asyncio.create_task(supervisor.run())
    try:
        await _take_over(runtime)
        yield
        await _last_predictions(runtime, stop)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        # Before the end of the server, which calls what it has in hand failed then.
        await _hand_back(runtime)
        await supervisor.stop()


async def _last_predictions(runtime: Runtime, stop: Stop) -> None:
    """Let what our worker has in hand come to its end, and its news in, for as long as the stop may take."""
    with suppress(DatabaseUnavailable):
        while stop.left_s() > 0:
            await runtime.worker.catch_up()
            async with runtime.line.database.reading() as tx:
                if not await count_live_attempts(tx, "cog", owner=runtime.process_id):
                    return
            await asyncio.sleep(LOOK_S)


async def _hand_back(runtime: Runtime) -> None:
    """What our worker has in hand goes with it: its jobs are due again, without a try lost."""
    with suppress(DatabaseUnavailable):
        await runtime.worker.catch_up()
        if await runtime.recovery.hand_back(runtime.process_id):
            await runtime.worker.catch_up()


async def _give_up(runtime: Runtime, gone_at: datetime) -> None:
    """What our dead worker had in hand went with it, except what it had told us: that news goes first."""
    await runtime.worker.catch_up()
    await runtime.recovery.forget(runtime.process_id, runtime.line.clock.of_wall(gone_at))


async def _take_over(runtime: Runtime) -> None:
    """The owner of an embedded database knows that every other process is dead, and need not wait to see."""
    if not runtime.settings.is_shared:
        await runtime.worker.catch_up()
        await runtime.recovery.forget_orphans(silent_since=await runtime.worker.beat())


@asynccontextmanager
async def _working(runtime: Runtime, stop: Stop) -> AsyncIterator[None]:
    task = asyncio.create_task(runtime.worker.run())
    task.add_done_callback(_tell_of_failure)
    try:
        yield
    finally:
        runtime.worker.stop()
        _, late = await asyncio.wait([task], timeout=stop.left_s())
        if late:
            await runtime.worker.hand_back()
            await asyncio.wait([task], timeout=ENGINE_END_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _tell_of_failure(working: asyncio.Task[None]) -> None:
    # The routes go on answering: without this line nobody would know why no job moves any more.
    if not working.cancelled() and (failure := working.exception()) is not None:
        log.critical("worker.died", exc_info=failure)
