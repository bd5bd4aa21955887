"""The one place where live objects are made: clients, database, engine, notifier, store, stations.

`open_runtime(settings, **replacements)` is how the web, the worker, the commands, the scripts and the tests
get a service; `openers` makes the single parts. Tests replace ports by name here; nothing is patched by
path, nothing is a module-level singleton, and two runtimes in one process do not know of each other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from app.access.desk import KeyDesk
from app.access.keyring import Keyring
from app.access.links import Links, keeping_links
from app.access.sessions import Sessions
from app.announcing.outbox import Outbox
from app.announcing.signing import WebhookKeys
from app.announcing.station import Announcer
from app.audio import Audio, default_binary
from app.bulk.acts import BulkActs
from app.bulk.runner import BulkRunner
from app.costs.books import Books
from app.crash_points import Reach, pass_by
from app.dispatch import Dispatcher, Route
from app.ended.expunge import Expunger
from app.ended.rerun import Reruns
from app.families.station import FamilyStation
from app.feed import Arrivals, Feed
from app.finish import Bench, Finisher
from app.housekeeping import Housekeeper
from app.inbox import Inbox
from app.intake.resumable import Resumable
from app.intake.uploads import Uploads
from app.jobs import Jobs
from app.karaoke.wiring import Karaoke, make_karaoke
from app.kinds import KINDS
from app.ledger.desk import Ledger, make_ledger
from app.ledger.replay import Replay
from app.line import Line
from app.notify import Notifier
from app.outbound import Outbound
from app.outlines import Outlines
from app.provider.base import Provider
from app.rates.limiter import Rates
from app.recovery import Recovery
from app.routing.router import Router
from app.settings import Settings
from app.tokens import Callbacks, Cursors, Tickets
from app.voices import Voices
from app.voices.examiner import Examiner, ProcessExaminer
from app.watch.clocks import Clock, LineClock
from app.watch.figures import Figures
from app.watch.history import History
from app.watch.looks import make_dependencies
from app.watch.metrics import Metrics
from app.wiring.openers import (
    check_schema,
    claim_own_secret,
    disks_of,
    make_routes,
    open_bench,
    open_database,
    open_engine,
    open_notifier,
)
from app.work import Station, WorkEngine
from app.worker import StationRoom, Worker
from app.workspace import Disks
from db.feed import settle_feed
from db.ids import make_id

log = structlog.get_logger()

STARTING_S = 60.0
"""How long a start waits for a database server that is coming up itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """What signs the addresses and tokens that the service hands out."""

    callbacks: Callbacks
    links: Links
    cursors: Cursors
    tickets: Tickets
    sessions: Sessions


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
    tickets: Tickets
    keyring: Keyring
    key_desk: KeyDesk
    bench: Bench
    karaoke: Karaoke
    outlines: Outlines
    disks: Disks
    jobs: Jobs
    feed: Feed
    arrivals: Arrivals
    reruns: Reruns
    expunger: Expunger
    bulk: BulkActs
    bulk_runner: BulkRunner
    uploads: Uploads
    voices: Voices
    resumable: Resumable
    inbox: Inbox
    dispatcher: FamilyStation
    finisher: Finisher
    announcer: Announcer
    outbox: Outbox
    webhook_keys: WebhookKeys
    recovery: Recovery
    replay: Replay
    ledger: Ledger
    housekeeper: Housekeeper
    worker: Worker
    figures: Figures
    history: History
    books: Books
    rates: Rates


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
    examiner: Examiner | None = None,
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
        await settle_feed(database)
        line_clock = LineClock(clock)
        await line_clock.measure(database)
        if routes is None:
            owner = process_id if embedded_worker else None
            routes = await make_routes(settings, embedded_by=owner, workers_elsewhere=workers_elsewhere)
        line = Line(
            settings=settings,
            database=database,
            engine=engine or open_engine(settings),
            notifier=notifier or await open_notifier(settings, stack),
            metrics=Metrics(),
            clock=line_clock,
            router=Router(settings, list(routes)),
            process_id=process_id,
            reach=reach,
        )
        for route in routes.values():
            stack.push_async_callback(route.provider.aclose)
        bench = open_bench(settings, outbound, stack)
        secret = await claim_own_secret(database)
        links = await stack.enter_async_context(keeping_links(database, life_s=settings.asset_url_s))
        signers = _make_signers(settings, secret, links, embedded_worker=embedded_worker)
        voices = Voices(
            line=line,
            storage=bench.storage,
            workspace=bench.workspace,
            examiner=examiner or ProcessExaminer(timeout_s=settings.voice_examine_timeout_s),
        )
        karaoke = make_karaoke(line, bench.storage, secret=secret)
        runtime = _join(line, routes, bench, signers, karaoke=karaoke, voices=voices)
        await _begin(runtime, routes, stations, stack)
        yield runtime


def _make_signers(settings: Settings, secret: str, links: Links, *, embedded_worker: bool) -> Signers:
    local = frozenset({"cog"}) if embedded_worker else frozenset()
    return Signers(
        callbacks=Callbacks(secret=secret, public_url=settings.public_url, local=local),
        links=links,
        cursors=Cursors(secret=secret),
        tickets=Tickets(secret=secret, life_s=settings.socket_token_s),
        sessions=Sessions(secret=secret, life_s=settings.session_s),
    )


async def _begin(
    runtime: Runtime, routes: Mapping[str, Route], stations: Collection[Station], stack: AsyncExitStack
) -> None:
    """Let the worker have its stations, and close what is open when all is over."""
    if runtime.settings.is_shared and not any(route.is_asked for route in routes.values()):
        # Its items would be taken from those that can begin something.
        stations = [station for station in stations if station is not Station.DISPATCH]
    runtime.worker.keep_to(stations)
    parts = (runtime.inbox, runtime.jobs, runtime.figures, runtime.keyring, runtime.rates, runtime.ledger)
    for part in (*parts, runtime.history):
        stack.push_async_callback(part.aclose)
    await runtime.rates.start()


def _join(
    line: Line,
    routes: Mapping[str, Route],
    bench: Bench,
    signers: Signers,
    *,
    karaoke: Karaoke,
    voices: Voices,
) -> Runtime:
    """The stations, each with what it works with."""
    providers = {name: route.provider for name, route in routes.items()}
    inbox = Inbox(line=line, providers=providers)
    dispatcher = FamilyStation(
        line=line,
        dispatcher=Dispatcher(
            line=line, routes=routes, callbacks=signers.callbacks, links=signers.links, inbox=inbox
        ),
    )
    finisher = Finisher(line=line, providers=providers, bench=bench)
    announcer = Announcer(line=line, outbound=bench.outbound)
    recovery = Recovery(line=line, providers=providers, inbox=inbox)
    ledger = make_ledger(line=line, providers=providers, inbox=inbox, recovery=recovery)
    disks = Disks(disks_of(line.settings), floor_bytes=line.settings.min_free_bytes)
    jobs = Jobs(
        line=line,
        providers={name: route.slots for name, route in routes.items()},
        disks=disks,
        outbound=bench.outbound,
    )
    bulk_runner = BulkRunner(line=line, jobs=jobs)
    figures = _make_figures(line, providers, bench, disks)
    housekeeper = Housekeeper(
        settings=line.settings, database=line.database, storage=bench.storage, reach=line.reach
    )
    uploads = _make_uploads(line, bench, disks)
    stations: dict[Station, StationRoom] = {
        Station.DISPATCH: dispatcher,
        Station.APPLY: inbox,
        Station.FINISH: finisher,
        Station.ANNOUNCE: announcer,
    }
    return Runtime(
        settings=line.settings,
        process_id=line.process_id,
        line=line,
        providers=providers,
        callbacks=signers.callbacks,
        links=signers.links,
        cursors=signers.cursors,
        tickets=signers.tickets,
        keyring=Keyring(
            database=line.database,
            now=line.clock.now,
            life_s=line.settings.access_cache_s,
            sessions=signers.sessions,
        ),
        key_desk=KeyDesk(database=line.database, now=line.clock.now),
        bench=bench,
        karaoke=karaoke,
        outlines=Outlines(audio=bench.audio, storage=bench.storage, workspace=bench.workspace),
        disks=disks,
        jobs=jobs,
        reruns=Reruns(line=line, jobs=jobs, providers=providers),
        expunger=Expunger(line=line, jobs=jobs, housekeeper=housekeeper),
        bulk=BulkActs(line=line),
        bulk_runner=bulk_runner,
        feed=Feed(line=line),
        arrivals=Arrivals(line=line),
        uploads=uploads,
        voices=voices,
        resumable=Resumable(line=line, uploads=uploads, storage=bench.storage, workspace=bench.workspace),
        inbox=inbox,
        dispatcher=dispatcher,
        finisher=finisher,
        announcer=announcer,
        outbox=Outbox(line=line),
        webhook_keys=WebhookKeys(line=line),
        recovery=recovery,
        replay=Replay(line=line, inbox=inbox),
        ledger=ledger,
        housekeeper=housekeeper,
        worker=Worker(
            line=line,
            stations=stations,
            recovery=recovery,
            recoveries=ledger.recoveries,
            housekeeper=housekeeper,
            bulk=bulk_runner,
        ),
        figures=figures,
        history=History(figures),
        books=Books(line.database),
        rates=Rates(line.settings, line.database),
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
