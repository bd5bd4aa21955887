"""Every timeout, limit and secret has its name here, its default here, and is read nowhere else.

`Settings()` reads the environment (and a `.env` file beside the project) once; the object is frozen and is
handed to `app.wiring`. `load_settings` turns a wrong value into one line that names the variable.
`docs/reference/settings.md` is generated from the descriptions below.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.costs.budgets import Period, read_budgets
from app.costs.prices import list_prices
from app.errors import StartupError
from app.rates.policy import read_policy

Csv = Annotated[tuple[str, ...], NoDecode]
"""Read as a comma- or space-separated list."""
Figures = dict[str, str | float]
"""Figures by name, as JSON; as text they are exact."""


class RouteQuota(BaseModel):
    """What a provider may be used for in a period of the calendar before others are asked first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: Literal["characters", "seconds", "usd"]
    per: Period
    most: float = Field(gt=0)
    reserve: float = Field(0, ge=0)


class RouteStop(BaseModel):
    """One provider on a kind's route."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str
    weight: int | None = Field(None, ge=0, le=1_000_000)
    most_waiting: int | None = Field(None, ge=0)
    quota: RouteQuota | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"provider": value} if isinstance(value, str) else value


class Settings(BaseSettings):
    """The whole configuration, from the environment. Durations in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: str = Field(
        "sqlite+aiosqlite:///var/reprise.db",
        description="SQLite, `postgresql+asyncpg://…` for many processes, `mysql+asyncmy://…` for one",
    )
    storage_url: str = Field(
        "file://var/assets",
        description="Where assets are kept: `file://PATH`, `s3://BUCKET/PREFIX`, `gs://`, `az://`",
    )
    var_dir: Path = Field(Path("var"), description="Temporary files and the lock of the running service")
    public_url: str | None = Field(
        None, description="The https address at which providers reach this service; needed for Replicate"
    )

    replicate_api_token: SecretStr | None = Field(None, description="Turns the hosted provider on")
    replicate_base_url: str = Field("https://api.replicate.com", description="API address, without `/v1`")
    replicate_webhook_secret: SecretStr | None = Field(
        None, description="Space-separated `whsec_…` list; empty: fetched from the API once"
    )
    replicate_models: dict[str, str] = Field(
        default_factory=dict,
        description='Models by kind, as JSON: `{"speech": "owner/name[:version]"}`; over the built-in ones',
    )
    cog_urls: Csv = Field(
        (), description="`kind=url,…`, or one url for all kinds; empty: the embedded worker"
    )
    routing: dict[str, tuple[RouteStop, ...]] = Field(
        default_factory=dict,
        description='Providers by kind, as JSON: `{"speech": ["replicate", {"provider": "cog", "weight": 30, '
        '"most_waiting": 20}], "*": […]}`; empty: the hosted provider, then Cog',
    )
    fall_back_after_s: float = Field(
        60,
        ge=0,
        description="How long a job waits for a provider that is away before the next on its route has it",
    )
    circuit_s: float = Field(
        5,
        gt=0,
        le=60,
        description="How long a provider that did not answer thrice in a row is left alone; then twice as "
        "long, up to twelve times. Without credit or access it is twelve times as long",
    )
    starting_limit_s: float = Field(
        180,
        gt=0,
        description="How long a prediction may be `starting` before the next provider is asked instead",
    )
    webhook_tolerance_s: int = Field(
        300, ge=1, le=3600, description="How far a signed timestamp may be from our clock, both ways"
    )
    replicate_webhook_timeout: float = Field(
        300, gt=0, description="How long an attempt may take before it is given up as lost"
    )
    replicate_sound_effects_timeout: float = Field(300, gt=0, description="The same, for sound effects")
    replicate_download_timeout: float = Field(30, gt=0, description="Limit on fetching one output")
    replicate_ffmpeg_timeout: float = Field(30, gt=0, description="Limit on one ffmpeg run")
    replicate_output_life_s: float = Field(
        3600, gt=0, description="How long Replicate keeps an output after its prediction has ended"
    )
    replicate_max_file_size: int = Field(50_000_000, gt=0, description="Largest output that is accepted")
    replicate_silence_threshold: str = Field(
        "-60dB", pattern=r"^-\d{1,3}(\.\d+)?dB$", description="What counts as silence when trimming"
    )

    job_deadline_s: float = Field(3600, gt=0, description="Default limit on a whole job, waiting included")
    max_attempts: int = Field(3, ge=1, le=10, description="Attempts at one job before it fails")
    max_crashes: int = Field(
        3, ge=1, le=10, description="Times a step may die without ending before its job is failed"
    )
    finish_limit_s: float = Field(180, gt=0, description="Limit on finishing one job")
    lease_s: float = Field(
        15,
        gt=0.3,
        description="Silence of a finisher after which another takes its job; renewed thrice in it. Of a "
        "process that died, it is taken sooner",
    )
    silence_s: float = Field(30, gt=0, description="Silence after which recovery first asks the provider")
    recovery_interval_s: float = Field(10, gt=0, description="Pause between two looks for silent attempts")
    sweep_interval_s: float = Field(2, gt=0, description="Pause between looks for rows without a work item")
    max_queued_jobs: int = Field(10_000, gt=0, description="Live jobs beyond which new ones are refused")
    queue_age_s: float = Field(
        60,
        gt=0,
        description="Wait of the oldest queued job, from which on new ones are refused that could not begin "
        "before their own deadline",
    )
    shutdown_s: float = Field(
        20, ge=0, description="How long steps and predictions of ours get to end at a stop; then handed back"
    )
    retries_per_s: float = Field(
        10,
        gt=0,
        description="Retries, and as many questions about silent predictions, that one process sends to a "
        "provider a second; a tenth of the fresh work comes on top",
    )
    idempotency_s: float = Field(86_400, gt=0, description="How long an Idempotency-Key is remembered")

    access_cache_s: float = Field(
        5,
        gt=0,
        le=60,
        description="How long a key that was looked up is believed: a revoked one is refused so much later",
    )
    session_s: int = Field(
        43_200, gt=0, description="How long a browser that signed in with a key stays signed in"
    )
    audit_s: float = Field(
        7_776_000, gt=0, description="Age at which the audit log forgets what was done; 90 days"
    )

    dispatch_concurrency: int = Field(8, ge=1, le=256, description="Predictions being created at once")
    apply_concurrency: int = Field(
        8, ge=1, le=256, description="Steps of applying at once, each of up to 16 deliveries"
    )
    finish_concurrency: int | None = Field(
        None, ge=1, le=64, description="Jobs being finished at once; by default one more than processors"
    )
    announce_concurrency: int = Field(32, ge=1, le=256, description="Announcements being sent at once")
    announce_per_receiver: int = Field(
        4, ge=1, le=64, description="Of these, the most that go to one host of a tenant"
    )
    announce_timeout_s: float = Field(15, gt=0, le=60, description="Limit on one try at an announcement")
    announce_disable_after_s: float = Field(
        432_000, gt=0, description="Steady failure after which an endpoint is disabled"
    )
    gpu_worker_slots: int = Field(
        1, ge=1, le=64, description="Predictions at Cog servers at once, all together"
    )
    gpu_worker_queue: int = Field(
        16, ge=1, le=1024, description="Predictions that wait at `gpu-worker`, in each group of engines"
    )
    gpu_worker_setup_s: float = Field(
        600, gt=0, description="How long a group of engines may take to load its models"
    )
    gpu_worker_run_s: float = Field(
        900, gt=0, description="How long one prediction may run at `gpu-worker` before it is ended"
    )
    gpu_worker_quiet_s: float = Field(
        120, gt=0, description="Silence of a running engine after which it counts as hung, and is killed"
    )
    gpu_worker_idle_s: float = Field(300, gt=0, description="Time after which an unused group is unloaded")
    neural_models: dict[str, str] = Field(
        default_factory=dict,
        description='Neural models by kind for `gpu-worker`, as JSON: `{"speech": "FOLDER or hub name"}`',
    )
    neural_allow_noncommercial: bool = Field(
        False, description="Load weights whose licence does not allow every commercial use"
    )
    hf_token: SecretStr | None = Field(
        None, description="For gated models at the hub; told to their engine only"
    )
    webhook_auth_token: SecretStr | None = Field(
        None, description="Bearer token of the callbacks that `gpu-worker` makes, as in Cog"
    )

    prices: dict[str, dict[str, Figures]] = Field(
        default_factory=dict,
        description='Prices in dollars over the built-in ones, as JSON: `{"replicate": {"owner/name": '
        '{"second": "l40s"}}, "cog": {"*": {"hour": "0.50"}}}`; see the guide to costs',
    )
    budgets: dict[str, Figures] = Field(
        default_factory=dict,
        description='What may be spent, in dollars, as JSON: `{"default": {"day": "10", "month": "100"}}`; '
        "beyond it new jobs are refused; empty: no limit",
    )

    db_pool_size: int = Field(10, ge=1, le=500, description="Connections kept open")
    db_max_overflow: int = Field(10, ge=0, le=500, description="Connections beyond the pool under load")
    db_pool_recycle: int = Field(1800, ge=1, description="Age at which a connection is replaced")
    db_pool_timeout: float = Field(
        4, gt=0, le=60, description="Longest wait for a connection that answers, or for SQLite's writer"
    )
    db_held_limit: float = Field(
        60, gt=0, description="Time a transaction may hold a connection before it is logged as a leak"
    )
    db_statement_timeout: float = Field(30, gt=0, description="Limit on one statement, and on a lock")

    max_content_length: int = Field(100_000_000, gt=0, description="Largest request body, webhooks included")
    max_upload_bytes: int = Field(
        95_000_000,
        gt=0,
        description="Largest file that callers may send; in one request also within `MAX_CONTENT_LENGTH`",
    )
    max_upload_s: float = Field(3600, gt=0, description="Longest sound that callers may send")
    voice_examine_timeout_s: float = Field(
        60, gt=0, description="Limit on examining one recording that is to become a voice"
    )
    upload_life_s: float = Field(
        86_400,
        gt=0,
        description="How long an upload waits to be named by a job, and an unfinished one for more of its "
        "bytes; a job keeps it longer",
    )
    max_json_bytes: int = Field(
        8_000_000, gt=0, description="Largest JSON body of a request to the API; within `MAX_CONTENT_LENGTH`"
    )
    rate_limits: str = Field(
        "jobs:write=600/minute,jobs:read=6000/minute,deliveries:replay=60/minute",
        description="Requests that each caller may make, by budget: `NAME=COUNT/minute`, or second, hour, "
        "day; `none`: no limit. Webhooks of providers are not counted",
    )
    rate_limits_by: Literal["key", "tenant"] = Field(
        "key", description="Whose requests are counted together; without keys it is the client's address"
    )
    rate_limits_wait_s: float = Field(
        0.1,
        gt=0,
        le=2,
        description="Longest wait for the counters on PostgreSQL; then a process counts alone for a while",
    )
    socket_connections: int = Field(
        20_000, ge=1, description="Socket.IO connections that are open at once in one process"
    )
    socket_connections_per_caller: int = Field(
        1000, ge=1, description="Of these, the most of one key; without keys, of one address"
    )
    socket_message_bytes: int = Field(
        65_536, ge=1024, le=1_000_000, description="Largest message that a Socket.IO client may send"
    )
    socket_messages_per_s: float = Field(
        20, gt=0, le=1000, description="Messages that one Socket.IO client may send a second, for long"
    )
    socket_token_s: float = Field(
        60, ge=5, le=3600, description="Life of a token of `POST /v1/socket-tokens`: it has to begin in it"
    )
    remote_token_s: float = Field(
        14_400,
        ge=60,
        le=172_800,
        description="Life of a token that makes a guest's phone the remote control of one performance",
    )
    allowed_hosts: Csv = Field(
        (),
        description="Names that requests may give as `Host`, beside loopback and that of `PUBLIC_URL`; "
        "`*`: any",
    )
    cors_allowed_origins: Csv = Field((), description="Origins that browsers may call from; none by default")
    outbound_allow: Csv = Field(
        (), description="Hosts or networks exempt from the address guard; plain http is allowed to them"
    )
    min_free_bytes: int = Field(
        256 * 1024 * 1024,
        ge=0,
        description="Room on our disks below which new jobs are refused and `/readyz` says no",
    )
    storage_timeout_s: float = Field(60, gt=0, description="Limit on one request to a bucket")
    storage_connect_timeout_s: float = Field(5, gt=0, description="Limit on connecting to a bucket")
    storage_retries: int = Field(
        4, ge=0, le=10, description="Repetitions of a request that a bucket failed, with growing pauses"
    )
    storage_retry_s: float = Field(30, gt=0, description="Time after which no such repetition is begun")
    retention_s: float | None = Field(
        None,
        gt=0,
        description="Age, from their end, at which jobs and their files are deleted; empty: never",
    )
    housekeeping_interval_s: float = Field(
        60, gt=0, description="Pause between two rounds of deleting what has expired"
    )
    orphan_interval_s: float = Field(
        3600, gt=0, description="Pause between two searches of the store for objects that nothing points at"
    )
    orphan_age_s: float = Field(
        3600, ge=0, description="Age, by the store's clock, from which such an object is deleted"
    )
    asset_url_s: int = Field(86_400, gt=0, description="Life of a signed asset URL")
    ffmpeg_binary: str | None = Field(None, description="The ffmpeg to use; empty: the one in the wheel")
    log_format: Literal["console", "json"] = Field("console", description="For people or for machines")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The quietest shown")

    @field_validator("cog_urls", "cors_allowed_origins", "allowed_hosts", "outbound_allow", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        try:
            driver = make_url(value).drivername
        except ArgumentError as exc:
            raise ValueError("not a database URL") from exc
        if driver not in {"sqlite+aiosqlite", "postgresql+asyncpg", "mysql+asyncmy", "mariadb+asyncmy"}:
            raise ValueError("use sqlite+aiosqlite:///PATH, postgresql+asyncpg://… or mysql+asyncmy://…")
        return value

    @field_validator("storage_url")
    @classmethod
    def _known_storage(cls, value: str) -> str:
        scheme, _, rest = value.partition("://")
        if scheme not in {"file", "s3", "gs", "az"} or not rest:
            raise ValueError("use file://PATH, s3://BUCKET/PREFIX, gs://… or az://…")
        return value

    @field_validator("public_url", "replicate_base_url")
    @classmethod
    def _plain_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("https://", "http://")):
            raise ValueError("must begin with https:// (http:// only for a fake on this machine)")
        return value.rstrip("/") if value else value

    @field_validator("cog_urls")
    @classmethod
    def _cog_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            url = item.partition("=")[2] or item
            if not url.startswith(("http://", "https://")):
                raise ValueError("each must be url or kind=url, with http:// or https://")
        return value

    @field_validator("cors_allowed_origins")
    @classmethod
    def _plain_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not re.fullmatch(r"https?://[^/?#@*\s]+", origin):
                raise ValueError("name each as scheme://host or scheme://host:port; `*` is not taken")
        return value

    @field_validator("rate_limits")
    @classmethod
    def _known_limits(cls, value: str) -> str:
        read_policy(value)
        return value

    @field_validator("prices")
    @classmethod
    def _known_prices(cls, value: dict[str, dict[str, Figures]]) -> dict[str, dict[str, Figures]]:
        list_prices(value)
        return value

    @field_validator("budgets")
    @classmethod
    def _known_budgets(cls, value: dict[str, Figures]) -> dict[str, Figures]:
        read_budgets(value)
        return value

    @property
    def is_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite")

    @property
    def is_shared(self) -> bool:
        """Whether many processes may work on the database: hints and work items go through it too."""
        return self.database_url.startswith("postgresql")

    @property
    def finishers(self) -> int:
        """Jobs being finished at once: one fetches or stores while the others keep every processor busy."""
        return self.finish_concurrency or min(64, len(os.sched_getaffinity(0)) + 1)

    @property
    def cog_urls_by_kind(self) -> dict[str, str]:
        """`COG_URLS` as a table; the key `*` serves every kind without one of its own."""
        pairs = (item.split("=", 1) if "=" in item.split("://")[0] else ("*", item) for item in self.cog_urls)
        return {kind: url.rstrip("/") for kind, url in pairs}

    def attempt_limit_s(self, kind: str) -> float:
        """How long one attempt at a job of this kind may take."""
        if kind == "sound_effect":
            return self.replicate_sound_effects_timeout
        return self.replicate_webhook_timeout

    def output_life_s(self, provider: str) -> float | None:
        """How long the provider keeps an output after its end; None: its outputs come inline."""
        return self.replicate_output_life_s if provider == "replicate" else None


def load_settings(**overrides: object) -> Settings:
    """Read the settings. Raises StartupError with one line that names the first variable at fault."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"]).upper() or "settings"
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise StartupError(f"{name}: {reason}") from exc
    except SettingsError as exc:
        # A list or a table that is not JSON never reaches validation; the error quotes only the name.
        found = re.search(r'field "(\w+)"', str(exc))
        raise StartupError(f"{found[1].upper() if found else 'settings'}: not JSON") from exc
