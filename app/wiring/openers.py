"""The parts that a runtime is made of, each by the settings: also alone, for commands that need no more.

Opens and connects; wires nothing to anything. What is wrong with a setting is a StartupError that names it.
"""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from app.audio import Audio, default_binary
from app.dispatch import Route
from app.errors import StartupError
from app.finish import Bench
from app.notify import InProcessNotifier, Notifier
from app.outbound import Outbound
from app.ownership import lock_path
from app.provider.cog import Cog
from app.provider.replicate import Replicate
from app.settings import Settings
from app.storage import BucketLimits, Storage
from app.work import WorkEngine
from app.work.embedded import EmbeddedEngine
from app.workspace import Workspace
from db import schema
from db.engines import PoolLimits
from db.keys import claim_secret
from db.session import Database

log = structlog.get_logger()


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


def open_bench(settings: Settings, outbound: Outbound | None, stack: AsyncExitStack) -> Bench:
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


def open_engine(settings: Settings) -> WorkEngine:
    if not settings.is_shared:
        return EmbeddedEngine()
    from app.work.postgres import PostgresEngine

    return PostgresEngine(settings.database_url)


async def open_notifier(settings: Settings, stack: AsyncExitStack) -> Notifier:
    if not settings.is_shared:
        return InProcessNotifier()
    from app.notify.postgres import PostgresHints

    hints = PostgresHints(settings.database_url)
    await hints.start()
    stack.push_async_callback(hints.aclose)
    return hints


async def claim_own_secret(database: Database) -> str:
    """The installation's secret: made by whichever process comes first, the same for all."""
    async with database.transaction() as tx:
        return await claim_secret(tx, "callbacks", secrets.token_hex(32), now=await tx.now())
