"""The one place where live objects are made: clients, database, engine, notifier, store, stations.

`open_runtime(settings, **replacements)` is how the web, the worker, the commands, the scripts and the tests
get a service. Tests replace ports by name here; nothing is patched by path, nothing is a module-level
singleton, and two runtimes in one process do not know of each other.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.audio import Audio, default_binary
from app.bulk.acts import BulkActs
from app.bulk.runner import BulkRunner
from app.costs.books import Books
from app.crash_points import Reach, pass_by
from app.dispatch import Dispatcher, Route
from app.ended.expunge import Expunger
from app.ended.rerun import Reruns
from app.errors import StartupError
from app.finish import Bench, Finisher
from app.housekeeping import Housekeeper
from app.inbox import Inbox
from app.intake.uploads import Uploads
from app.jobs import Jobs
from app.kinds import KINDS
from app.line import Line
from app.notify import InProcessNotifier, Notifier
from app.outbound import Outbound
from app.outlines import Outlines
from app.ownership import lock_path
from app.provider.base import Provider
from app.provider.cog import Cog
from app.provider.replicate import Replicate
from app.recovery import Recovery
from app.replay import Replay
from app.routing.router import Router
from app.settings import Settings
from app.storage import BucketLimits, Storage
from app.tokens import Callbacks, Cursors, Links
from app.watch.clocks import Clock, LineClock
from app.watch.figures import Figures
from app.watch.looks import make_dependencies
from app.watch.metrics import Metrics
from app.work import Station, WorkEngine
from app.work.embedded import EmbeddedEngine
from app.worker import StationRoom, Worker
from app.workspace import Disks, Workspace
from db import schema
from db.engines import PoolLimits
from db.ids import make_id
from db.keys import claim_secret
from db.session import Database

log = structlog.get_logger()

STARTING_S = 60.0
"""How long a start waits for a database server that is coming up itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Every live object of a service, made and wired."""

    settings: Settings
    process_id: str
    """Names this process to the others; new at every start."""
    line: Line
    providers: Mapping[str, Provider]
    callbacks: Callbacks
    links: Links
    cursors: Cursors
    bench: Bench
    outlines: Outlines
    disks: Disks
    jobs: Jobs
    reruns: Reruns
    expunger: Expunger
    bulk: BulkActs
    bulk_runner: BulkRunner
    uploads: Uploads
    inbox: Inbox
    dispatcher: Dispatcher
    finisher: Finisher
    recovery: Recovery
    replay: Replay
    housekeeper: Housekeeper
    worker: Worker
    figures: Figures
    books: Books


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    *,
    embedded_worker: bool = False,
    workers_elsewhere: bool = False,
    stations: Collection[Station] = tuple(Station),
    engine: WorkEngine | None = None,
    notifier: Notifier | None = None,
    routes: Mapping[str, Route] | None = None,
    outbound: Outbound | None = None,
    clock: Clock | None = None,
    reach: Reach = pass_by,
) -> AsyncIterator[Runtime]:
    """Make a service; the keyword arguments replace ports. Raises StartupError with one line.

    `embedded_worker` promises that a Cog server of ours will be pointed at once it is up,
    `workers_elsewhere` that other processes on this database may have one. `stations` are those that the
    worker runs.
    """
    async with AsyncExitStack() as stack:
        process_id = make_id("proc")
        database = open_database(settings)
        stack.push_async_callback(database.aclose)
        await database.wait_until_up(STARTING_S)
        await check_schema(database)
        line_clock = LineClock(clock)
        await line_clock.measure(database)
        if routes is None:
            owner = process_id if embedded_worker else None
            routes = await make_routes(settings, embedded_by=owner, workers_elsewhere=workers_elsewhere)
        line = Line(
            settings=settings,
            database=database,
            engine=engine or _make_engine(settings),
            notifier=notifier or await _make_notifier(settings, stack),
            metrics=Metrics(),
            clock=line_clock,
            router=Router(settings, list(routes)),
            process_id=process_id,
            reach=reach,
        )
        for route in routes.values():
            stack.push_async_callback(route.provider.aclose)
        bench = _make_bench(settings, outbound, stack)
        secret = await _own_secret(database)
        local = frozenset({"cog"}) if embedded_worker else frozenset()
        callbacks = Callbacks(secret=secret, public_url=settings.public_url, local=local)
        links = Links(secret=secret, life_s=settings.asset_url_s)
        runtime = _join(line, routes, bench, callbacks=callbacks, links=links, cursors=Cursors(secret=secret))
        if settings.is_shared and not any(route.is_asked for route in routes.values()):
            # Its items would be taken from those that can begin something.
            stations = [station for station in stations if station is not Station.DISPATCH]
        runtime.worker.keep_to(stations)
        stack.push_async_callback(runtime.inbox.aclose)
        stack.push_async_callback(runtime.jobs.aclose)
        stack.push_async_callback(runtime.figures.aclose)
        yield runtime


def _join(
    line: Line,
    routes: Mapping[str, Route],
    bench: Bench,
    *,
    callbacks: Callbacks,
    links: Links,
    cursors: Cursors,
) -> Runtime:
    """The stations, each with what it works with."""
    providers = {name: route.provider for name, route in routes.items()}
    inbox = Inbox(line=line, providers=providers)
    dispatcher = Dispatcher(line=line, routes=routes, callbacks=callbacks, links=links, inbox=inbox)
    finisher = Finisher(line=line, providers=providers, bench=bench)
    recovery = Recovery(line=line, providers=providers, inbox=inbox)
    disks = Disks(disks_of(line.settings), floor_bytes=line.settings.min_free_bytes)
    jobs = Jobs(line=line, providers={name: route.slots for name, route in routes.items()}, disks=disks)
    bulk_runner = BulkRunner(line=line, jobs=jobs)
    housekeeper = Housekeeper(
        settings=line.settings, database=line.database, storage=bench.storage, reach=line.reach
    )
    stations: dict[Station, StationRoom] = {
        Station.DISPATCH: dispatcher,
        Station.APPLY: inbox,
        Station.FINISH: finisher,
    }
    return Runtime(
        settings=line.settings,
        process_id=line.process_id,
        line=line,
        providers=providers,
        callbacks=callbacks,
        links=links,
        cursors=cursors,
        bench=bench,
        outlines=Outlines(audio=bench.audio, storage=bench.storage, workspace=bench.workspace),
        disks=disks,
        jobs=jobs,
        reruns=Reruns(line=line, jobs=jobs, providers=providers),
        expunger=Expunger(line=line, jobs=jobs, housekeeper=housekeeper),
        bulk=BulkActs(line=line),
        bulk_runner=bulk_runner,
        uploads=_make_uploads(line, bench, disks),
        inbox=inbox,
        dispatcher=dispatcher,
        finisher=finisher,
        recovery=recovery,
        replay=Replay(line=line, inbox=inbox),
        housekeeper=housekeeper,
        worker=Worker(
            line=line,
            stations=stations,
            recovery=recovery,
            housekeeper=housekeeper,
            bulk=bulk_runner,
            process_id=line.process_id,
        ),
        figures=_make_figures(line, providers, bench, disks),
        books=Books(line.database),
    )


def _make_uploads(line: Line, bench: Bench, disks: Disks) -> Uploads:
    settings = line.settings
    audio = Audio(
        binary=settings.ffmpeg_binary or default_binary(),
        timeout_s=settings.replicate_ffmpeg_timeout,
        max_duration_s=settings.max_upload_s,
        max_bytes=settings.max_upload_bytes,
        # Beside those of the finishers, which have a core each.
        jobs=1,
    )
    return Uploads(line=line, audio=audio, storage=bench.storage, workspace=bench.workspace, disks=disks)


def _make_figures(line: Line, providers: Mapping[str, Provider], bench: Bench, disks: Disks) -> Figures:
    return Figures(
        database=line.database,
        clock=line.clock,
        metrics=line.metrics,
        dependencies=make_dependencies(
            database=line.database,
            storage=bench.storage,
            providers=providers,
            engine=line.engine,
            notifier=line.notifier,
            router=line.router,
        ),
        disks=disks,
        kinds=list(KINDS),
    )


def disks_of(settings: Settings) -> dict[str, Path]:
    """The folders whose disks matter, by the word for them: `var`, and those of a store and database here."""
    places = {"var": settings.var_dir}
    if settings.storage_url.startswith("file://"):
        places["storage"] = Path(settings.storage_url.removeprefix("file://"))
    if settings.is_sqlite:
        places["database"] = lock_path(settings).parent
    return places


def open_database(settings: Settings) -> Database:
    """The database alone: for migrations and the doctor."""
    try:
        return Database(
            settings.database_url,
            PoolLimits(
                size=settings.db_pool_size,
                max_overflow=settings.db_max_overflow,
                recycle_s=settings.db_pool_recycle,
                timeout_s=settings.db_pool_timeout,
                held_limit_s=settings.db_held_limit,
                statement_timeout_s=settings.db_statement_timeout,
            ),
        )
    except OSError as exc:
        raise StartupError(f"DATABASE_URL: {exc.filename} cannot be made: {exc.strerror}") from exc
    except ModuleNotFoundError as exc:
        raise StartupError(f"DATABASE_URL: the driver {exc.name} is not installed") from exc


def open_storage(settings: Settings) -> Storage:
    """The object store alone: for the sweep and the doctor. Raises StartupError."""
    limits = BucketLimits(
        timeout_s=settings.storage_timeout_s,
        connect_timeout_s=settings.storage_connect_timeout_s,
        retries=settings.storage_retries,
        retry_s=settings.storage_retry_s,
    )
    return Storage(settings.storage_url, limits)


async def check_schema(database: Database) -> None:
    """A file is brought up to date here; a database on a server is its operators' to migrate."""
    standing, wanted = await schema.standing(database), schema.head_revision()
    match standing:
        case schema.Standing.CURRENT:
            return
        case schema.Standing.NEWER:
            log.info("schema.newer", here=await schema.current_revision(database), wanted=wanted)
        case schema.Standing.FOREIGN:
            here = await schema.current_revision(database)
            raise StartupError(
                f"DATABASE_URL: the schema is at {here}, which this release (at {wanted}) cannot work with: "
                "run the release that made it, or let that one take it back by `reprise migrate --revision`"
            )
        case schema.Standing.OLDER if database.is_sqlite:
            await schema.upgrade(database)
            log.info("schema.upgraded", revision=wanted)
        case schema.Standing.OLDER:
            here = await schema.current_revision(database)
            raise StartupError(f"DATABASE_URL: the schema is at {here}, not {wanted}: run `reprise migrate`")


async def make_routes(
    settings: Settings, *, embedded_by: str | None = None, workers_elsewhere: bool = False
) -> dict[str, Route]:
    """The providers that are configured, in the order in which `auto` prefers them.

    `embedded_by` is the process that runs a Cog server of ours as its child, if one does. With
    `workers_elsewhere` jobs for such servers are taken and their callbacks understood, none is asked here.
    """
    routes: dict[str, Route] = {}
    if settings.replicate_api_token is not None:
        if settings.public_url is None:
            raise StartupError("PUBLIC_URL: needed with REPLICATE_API_TOKEN, so that Replicate can call back")
        replicate = Replicate(
            token=settings.replicate_api_token.get_secret_value(),
            base_url=settings.replicate_base_url,
            secrets=_webhook_secrets(settings),
            tolerance_s=settings.webhook_tolerance_s,
        )
        routes["replicate"] = Route(replicate)
    if settings.cog_urls or embedded_by is not None or workers_elsewhere:
        urls = settings.cog_urls_by_kind
        cog = Cog(urls=urls)
        if "*" in urls:
            # One server for all kinds is a worker of ours: any other image makes one thing, told no kind.
            cog.point("*", urls["*"], takes_kind=True)
        routes["cog"] = Route(
            cog,
            slots=settings.gpu_worker_slots,
            owner=embedded_by,
            is_asked=bool(urls) or embedded_by is not None,
        )
    return routes


def _webhook_secrets(settings: Settings) -> list[str]:
    if settings.replicate_webhook_secret is None:
        return []
    return settings.replicate_webhook_secret.get_secret_value().split()


def _make_bench(settings: Settings, outbound: Outbound | None, stack: AsyncExitStack) -> Bench:
    workspace = Workspace(settings.var_dir)
    stack.callback(workspace.close)
    outbound = outbound or Outbound(allow=settings.outbound_allow)
    stack.push_async_callback(outbound.aclose)
    return Bench(
        outbound=outbound,
        audio=Audio(
            binary=settings.ffmpeg_binary or default_binary(),
            timeout_s=settings.replicate_ffmpeg_timeout,
            max_bytes=settings.replicate_max_file_size,
        ),
        storage=open_storage(settings),
        workspace=workspace,
    )


def _make_engine(settings: Settings) -> WorkEngine:
    if not settings.is_shared:
        return EmbeddedEngine()
    from app.work.postgres import PostgresEngine

    return PostgresEngine(settings.database_url)


async def _make_notifier(settings: Settings, stack: AsyncExitStack) -> Notifier:
    if not settings.is_shared:
        return InProcessNotifier()
    from app.notify.postgres import PostgresHints

    hints = PostgresHints(settings.database_url)
    await hints.start()
    stack.push_async_callback(hints.aclose)
    return hints


async def _own_secret(database: Database) -> str:
    """The installation's secret: made by whichever process comes first, the same for all."""
    async with database.transaction() as tx:
        return await claim_secret(tx, "callbacks", secrets.token_hex(32), now=await tx.now())
