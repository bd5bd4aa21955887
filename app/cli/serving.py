"""`reprise serve`, `worker`, `gpu-worker` and `migrate`: the commands that keep running, and the schema.

The first SIGINT or SIGTERM ends a server gracefully: what has begun gets `SHUTDOWN_S` to end and is handed
back otherwise. The second ends the process at once; what was under way is taken up by the next one. `serve`
binds to loopback only while no key has been made.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import closing
from typing import Annotated, Any

import structlog
import typer
import uvloop
from alembic.util.exc import CommandError as MigrationError

from app.cli.tools import show
from app.cli.tools.calls import CommandError, Exit, run
from app.cli.tools.connection import read_settings
from app.engines.neural.catalog import BY_KIND
from app.gpu.groups import groups_for
from app.gpu.memory import FreeMemory
from app.gpu.running import running_gpu_worker
from app.kinds import KINDS
from app.serve import running_service, running_worker
from app.settings import Settings
from app.wiring.openers import open_database
from app.work import Station
from app.workspace import Workspace
from db import schema

log = structlog.get_logger()


def serve(
    host: Annotated[str, typer.Option(help="Loopback only, until a key has been made.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8000,
    worker: Annotated[bool, typer.Option(help="Run the stations in this process.")] = True,
    gpu_worker: Annotated[
        bool, typer.Option(help="Run our own engines beside it, unless COG_URLS is set.")
    ] = True,
) -> None:
    """Serve HTTP, work on jobs and run our engines, all in one process tree, until a signal."""
    uvloop.run(_serve(read_settings(serving=True), host, port, worker=worker, gpu_worker=gpu_worker))


def worker(
    stations: Annotated[
        str | None, typer.Option(help="By comma: dispatch, apply, finish, announce. All of them by default.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=64, help="Rows that each station works on at once.")
    ] = None,
    gpu_worker: Annotated[
        bool, typer.Option(help="Run our own engines beside it, unless COG_URLS is set.")
    ] = False,
    watch_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="Serve /healthz, /readyz and /metrics on 127.0.0.1; 0: a free one."
        ),
    ] = None,
) -> None:
    """Run stations without the web, beside any number of others on one PostgreSQL, until a signal."""
    settings = read_settings(serving=True)
    if concurrency is not None:
        limits = [f"{station}_concurrency" for station in Station]
        settings = settings.model_copy(update=dict.fromkeys(limits, concurrency))
    uvloop.run(_work(settings, _named_stations(stations), gpu_worker=gpu_worker, watch_port=watch_port))


def gpu_worker(
    engines: Annotated[str | None, typer.Option(help="Kinds to serve, by comma. All by default.")] = None,
    host: Annotated[str, typer.Option(help="Whoever reaches it may use it: there is no key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 5000,
) -> None:
    """Run our engines behind one address that speaks Cog's protocol and queues, until a signal.

    The service finds it by COG_URLS. Each group of engines is a Cog server of its own, loaded at first use.
    """
    uvloop.run(_supervise(read_settings(serving=True), _named_kinds(engines), host, port))


def migrate(
    revision: Annotated[str, typer.Option(help="A revision, head, or base for an empty database.")] = "head",
) -> None:
    """Bring the database's schema up or down to a revision."""
    before, after = run(_migrate(read_settings(), revision))
    show.print_line(
        f"The schema is at {after}." if before == after else f"The schema went from {before} to {after}."
    )


def stop_signals() -> asyncio.Event:
    """Set by the first signal; the second does not return."""
    stopped = asyncio.Event()

    def hear(number: int) -> None:
        if stopped.is_set():
            os._exit(128 + number)
        stopped.set()
        show.err().print("Stopping; once more to stop at once.")

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, hear, number)
    return stopped


async def _serve(settings: Settings, host: str, port: int, *, worker: bool, gpu_worker: bool) -> None:
    stopped = stop_signals()
    async with running_service(
        settings, host=host, port=port, worker=worker, gpu_worker=gpu_worker
    ) as service:
        show.out().print(f"Reprise {_bold(service.url)}  API: {service.url}/docs  Stop: Ctrl-C")
        await stopped.wait()


async def _work(
    settings: Settings, stations: list[Station], *, gpu_worker: bool, watch_port: int | None
) -> None:
    stopped = stop_signals()
    async with running_worker(settings, stations=stations, gpu_worker=gpu_worker, watch_port=watch_port):
        named = ", ".join(station.value for station in stations)
        show.out().print(f"Working: {_bold(named)}  Stop: Ctrl-C")
        await stopped.wait()


async def _supervise(settings: Settings, kinds: list[str], host: str, port: int) -> None:
    stopped = stop_signals()
    groups = groups_for(settings, kinds)
    if not groups:
        raise CommandError(
            f"--engines: no engine here makes {', '.join(kinds)}: see NEURAL_MODELS", Exit.USAGE
        )
    with closing(Workspace(settings.var_dir)) as workspace:
        async with running_gpu_worker(
            settings,
            groups=groups,
            tmp=workspace.root / "engines",
            free_bytes=FreeMemory(),
            log=log,
            host=host,
            port=port,
        ) as worker:
            show.out().print(f"Engines {_bold(worker.url)}  For the service: COG_URLS={worker.url}")
            await stopped.wait()


async def _migrate(settings: Settings, revision: str) -> tuple[str, str]:
    database = open_database(settings)
    try:
        before = await schema.current_revision(database)
        await _move(database, before, revision)
        return before or "base", await schema.current_revision(database) or "base"
    finally:
        await database.aclose()


async def _move(database: Any, before: str | None, revision: str) -> None:
    """Revisions are numbered, so the way is known; `head` is up, `base` is down."""
    down = revision == "base" or (before is not None and revision != "head" and revision < before)
    try:
        await (schema.downgrade if down else schema.upgrade)(database, revision)
    except MigrationError as exc:
        raise CommandError(f"--revision: {exc}", Exit.USAGE) from exc


def _named_stations(stations: str | None) -> list[Station]:
    if stations is None:
        return list(Station)
    named = [name.strip() for name in stations.split(",") if name.strip()]
    known = [station.value for station in Station]
    unknown = [name for name in named if name not in known]
    if unknown or not named:
        told = ", ".join(unknown) or "none named"
        raise CommandError(f"--stations: {told}; there are {', '.join(known)}", Exit.USAGE)
    return [Station(name) for name in dict.fromkeys(named)]


def _named_kinds(engines: str | None) -> list[str]:
    """The kinds that were named, else all that this worker can make."""
    known = list(dict.fromkeys([*KINDS, *BY_KIND]))
    if engines is None:
        return known
    named = [name.strip() for name in engines.split(",") if name.strip()]
    unknown = sorted(set(named) - set(known))
    if unknown or not named:
        told = ", ".join(unknown) or "none named"
        raise CommandError(f"--engines: {told}; there are {', '.join(known)}", Exit.USAGE)
    return list(dict.fromkeys(named))


def _bold(text: str) -> str:
    return f"[bold]{text}[/]"
