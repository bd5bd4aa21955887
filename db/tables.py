"""Every table on one page, without behaviour. Who may change a row, and how, is in the verbs beside this.

Times are aware UTC. JSON columns hold plain JSON values. Rows refer to each other by text ids made in
`db.ids`: a prefix that names the table and a UUIDv7, so that ids sort by the time they were made.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    func,
    inspect,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import configure_mappers
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, SQLModel

# A stable name for every constraint, so that a migration can drop it on any database.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


_MYSQL = ("mysql", "mariadb")
"""What the types are called by there: each is what the plain type is elsewhere, where MySQL's is smaller."""
REAL = Float().with_variant(mysql.DOUBLE(asdecimal=False), *_MYSQL)
LONG_TEXT = Text().with_variant(mysql.MEDIUMTEXT(), *_MYSQL)
KEY_BYTES = LargeBinary(length=16).with_variant(mysql.BINARY(16), *_MYSQL)
BODY_BYTES = LargeBinary(length=2**31 - 1).with_variant(mysql.LONGBLOB(), *_MYSQL)
EXACT_TEXT = Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)
EXACT_WORD = String(40).with_variant(mysql.VARCHAR(40, charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)
"""Compared by their characters: elsewhere MySQL takes letters with and without accents for the same."""
SECRET_TEXT = String().with_variant(String(128), *_MYSQL)


FOREVER = datetime(9999, 1, 1, tzinfo=UTC)
"""When an upload expires that never does."""


class UtcDateTime(TypeDecorator[datetime]):
    """A time that is aware UTC on both sides, to the microsecond; SQLite and MySQL know no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        # Without the six digits MySQL rounds to seconds, into the future.
        column = mysql.DATETIME(fsp=6) if dialect.name in _MYSQL else self.impl_instance
        return dialect.type_descriptor(column)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive time reached the database")
        value = value.astimezone(UTC)
        # SQLite keeps text and compares it as text: one zone, one shape. MySQL's column knows no zone.
        return value.replace(tzinfo=None) if dialect.name in ("sqlite", *_MYSQL) else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(SQLModel):
    """The base of all tables here: its own metadata, so that two schemas never mix."""

    metadata = MetaData(naming_convention=NAMING)

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """A whole row as the database gave it: the constructor sets a job's columns one by one through
        three libraries, which takes ten times as long (69 µs, measured)."""
        loaded: Self = inspect(cls).class_manager.new_instance()
        loaded.__dict__.update(row)
        return loaded


def _partial(condition: str) -> dict[str, Any]:
    """For an index over these rows alone, where the database has such."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Job(Table, table=True):
    """What a caller asked for. Exactly one terminal outcome."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_due", "state", "run_after"),
        Index("ix_jobs_deadline", "state", "deadline_at"),
        # Without those that wait for a slot: a hundred thousand may stand before the next one that is due.
        Index("ix_jobs_turn", "state", "tenant", "turn_at", "run_after", **_partial("waiting_for IS NULL")),
        Index("ix_jobs_waiting", "waiting_for", "tenant", "turn_at", **_partial("waiting_for IS NOT NULL")),
        Index("ix_jobs_started", "tenant", "started_at"),
        # A tenant's lists, newest first, by whatever narrows them: with any of these left out, a page of a
        # rare kind or state would be looked for among all jobs. To the id, so that a place is found in them.
        Index("ix_jobs_listed", "tenant", "created_at", "id"),
        Index("ix_jobs_listed_state", "tenant", "state", "created_at", "id"),
        Index("ix_jobs_listed_kind", "tenant", "kind", "created_at", "id"),
        Index("ix_jobs_listed_kind_state", "tenant", "kind", "state", "created_at", "id"),
        # How long a kind usually takes, of all tenants.
        Index("ix_jobs_kind_state_created_at", "kind", "state", "created_at"),
        Index("ix_jobs_expiry", "expires_at", "finished_at"),
        Index("ix_jobs_unsaid", "id", **_partial("said IS NULL")),
        # A step of a family is one job, whoever plans it how often.
        Index(
            "uq_jobs_parent_id_step", "parent_id", "step", unique=True, **_partial("parent_id IS NOT NULL")
        ),
        Index("ix_jobs_plan_at", "plan_at", **_partial("plan_at IS NOT NULL")),
        Index("ix_jobs_tenant_recipe", "tenant", "recipe", **_partial("recipe IS NOT NULL")),
    )

    id: str = Field(primary_key=True, max_length=64)
    kind: str = Field(max_length=64)
    tenant: str = Field(default="default", max_length=64, sa_column_kwargs={"server_default": "default"})
    """Whose job it is; tenants take turns."""
    state: str = Field(max_length=16)
    stage: str | None = Field(default=None, max_length=64)
    progress: float = Field(default=0.0, sa_type=REAL)
    waiting_reason: str | None = Field(default=None, sa_type=LONG_TEXT)
    input: dict[str, Any] = Field(sa_type=JSON)
    caller_metadata: dict[str, Any] = Field(sa_type=JSON)
    provider: str = Field(max_length=32)
    """What the caller asked for: `auto` or a provider's name."""
    priority: int = 0
    turn_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()})
    """Its place in its tenant's line, the earliest first: when it was made, earlier by its priority."""
    created_at: datetime = Field(sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    deadline_at: datetime = Field(sa_type=UtcDateTime)
    run_after: datetime = Field(sa_type=UtcDateTime)
    """When a `queued` or `finishing` job is due next."""
    waiting_for: str | None = Field(default=None, max_length=32)
    """The provider whose next free slot this job is waiting for; of a parent, the recipe of another's child,
    or that it waits for none (`db.families`)."""
    lease: str | None = Field(default=None, max_length=64)
    """The token of whoever works on it; a commit without the right token changes nothing."""
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    leased_by: str | None = Field(default=None, max_length=64)
    """The process of the lease's holder: when that dies, nobody needs to wait for `lease_until`."""
    crashes: int = 0
    """Steps begun and not ended since the last one that ended: the poison counter."""
    seq: int = 0
    """The `seq` of the newest event."""
    error_code: str | None = Field(default=None, max_length=64)
    error_message: str | None = Field(default=None, sa_type=LONG_TEXT)
    retry_of: str | None = Field(default=None, max_length=64)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """From then on it may be deleted with all that hangs on it; None: never, or it has not ended."""
    reserved_micros: int | None = Field(default=None, sa_type=BigInteger)
    """What its tenant's budget is held for while it lives, in micro-dollars."""
    callback_url: str | None = Field(default=None, sa_type=LONG_TEXT)
    """Where its end is announced; None: nowhere."""
    said: str | None = Field(default=None, sa_type=EXACT_TEXT)
    """The words of its prompt or text, as `db.search.words` spells them; None: not read for words yet."""
    retention_s: float | None = Field(default=None, sa_type=REAL)
    """How long after its end it expires; None: as long as the installation keeps jobs."""
    rerun_of: str | None = Field(default=None, max_length=64)
    """The job of which it is another end, from one of its steps on."""
    result_of: str | None = Field(default=None, max_length=64)
    """The job whose stored prediction it is made of; None: its own."""
    expunged_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When all that it said and made was deleted; the row stays for its state and cost."""
    parent_id: str | None = Field(default=None, max_length=64)
    """The job of whose work this one is a part; None: a caller asked for it."""
    step: str | None = Field(default=None, max_length=32)
    """Which part, by the word of the parent's kind."""
    plan_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When a parent is to be looked at for what follows; None: when its next child ends, or it is none."""
    recipe: str | None = Field(default=None, max_length=32)
    """A digest of all that its result depends on; None where results are not used again."""
    measured: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    """What was measured of the result, by name."""


class Voice(Table, table=True):
    """A voice profile: whose recording it is, and what was measured of it."""

    __tablename__ = "voices"
    __table_args__ = (Index("ix_voices_tenant", "tenant", "id"),)

    id: str = Field(primary_key=True, max_length=64)
    tenant: str = Field(max_length=64)
    name: str = Field(max_length=100)
    created_at: datetime = Field(sa_type=UtcDateTime)
    asset_id: str = Field(max_length=64)
    """Its recording."""
    upload_id: str = Field(max_length=64)
    """An upload that is nobody's but this voice's and never expires: by that it has the asset."""
    duration_s: float = Field(sa_type=REAL)
    snr_db: float | None = Field(default=None, sa_type=REAL)
    silence_share: float | None = Field(default=None, sa_type=REAL)
    clipped_share: float | None = Field(default=None, sa_type=REAL)
    consistency: float | None = Field(default=None, sa_type=REAL)
    """How alike its parts are, by the cosine of their embeddings."""
    lowest_hz: float | None = Field(default=None, sa_type=REAL)
    median_hz: float | None = Field(default=None, sa_type=REAL)
    highest_hz: float | None = Field(default=None, sa_type=REAL)
    embedding_model: str = Field(max_length=64)
    """What made the embedding: only those of one model are compared."""
    embedding: bytes = Field(sa_type=BODY_BYTES)
    """256 numbers of length one, float32, the lowest byte first."""


class JobWord(Table, table=True):
    """A word of a job's prompt or text. Its key is the index: a word's jobs stand in it by age."""

    __tablename__ = "job_words"
    # On SQLite the key is the table itself: one tree is written, not two.
    __table_args__ = ({"sqlite_with_rowid": False},)

    tenant: str = Field(primary_key=True, max_length=64)
    word: str = Field(primary_key=True, sa_type=EXACT_WORD)
    created_at: datetime = Field(primary_key=True, sa_type=UtcDateTime)
    """The job's."""
    job_id: str = Field(primary_key=True, max_length=64)
    """No foreign key: it would need an index of its own. A word without its job is found by nobody."""


class BulkAct(Table, table=True):
    """Something done to many jobs, one after the other, by whichever process has the lease."""

    __tablename__ = "bulk_acts"
    __table_args__ = (
        Index("ix_bulk_acts_due", "finished_at", "lease_until"),
        Index("ix_bulk_acts_listed", "tenant", "created_at", "id"),
    )

    id: str = Field(primary_key=True, max_length=64)
    tenant: str = Field(max_length=64)
    action: str = Field(max_length=16)
    state: str = Field(max_length=16)
    query: str | None = Field(default=None, sa_type=LONG_TEXT)
    """The search as it was given; None where the jobs were named."""
    total: int = 0
    """How many jobs it is about: its items."""
    is_whole: bool = True
    """Whether these are all that the search finds: there is a limit."""
    changed: int = 0
    skipped: int = 0
    failed: int = 0
    created_at: datetime = Field(sa_type=UtcDateTime)
    abort_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When somebody asked it to stop."""
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    lease: str | None = Field(default=None, max_length=64)
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)


class BulkItem(Table, table=True):
    """One job of a bulk act, chosen when that was asked for, and what became of it."""

    __tablename__ = "bulk_items"

    act_id: str = Field(primary_key=True, foreign_key="bulk_acts.id", ondelete="CASCADE", max_length=64)
    number: int = Field(primary_key=True)
    job_id: str = Field(max_length=64)
    outcome: str | None = Field(default=None, max_length=16)
    detail: str | None = Field(default=None, max_length=200)
    """Why it was skipped or failed; for a retry, the new job."""


class Attempt(Table, table=True):
    """One numbered try at a job at one provider."""

    __tablename__ = "attempts"
    __table_args__ = (
        Index("uq_attempts_job_id_number", "job_id", "number", unique=True),
        Index("ix_attempts_check", "status", "check_at"),
        # What was spent since then, by whom and where: read from the index alone.
        Index("ix_attempts_billed", "billed_at", "tenant", "provider", "cost_micros"),
        Index("ix_attempts_told_by", "told_by", "id"),
    )

    id: str = Field(primary_key=True, max_length=64)
    job_id: str = Field(foreign_key="jobs.id", max_length=64)
    number: int
    provider: str = Field(max_length=32)
    model: str = Field(max_length=256)
    owner: str | None = Field(default=None, max_length=64)
    """The process whose own worker does it, and dies with it; None at a provider that outlives us."""
    begun_by: str | None = Field(default=None, max_length=64)
    """The process that asks the provider while it is `pending`."""
    status: str = Field(max_length=16)
    prediction_id: str | None = Field(default=None, index=True, max_length=128)
    engine: str | None = Field(default=None, max_length=256)
    created_at: datetime = Field(sa_type=UtcDateTime)
    heard_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When news of it last came."""
    check_at: datetime = Field(sa_type=UtcDateTime)
    """When recovery asks about it, if it is still alive."""
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    error: str | None = Field(default=None, sa_type=LONG_TEXT)
    metrics: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    result_delivery_id: str | None = Field(default=None, max_length=64)
    """The delivery that carries the output; the finisher reads it from there."""
    told_by: str | None = Field(default=None, max_length=16)
    """Which postman brought the news that ended it; None: it has not ended, or not by news."""
    completed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When the provider says that it ended it: its clock of keeping the output runs from there."""
    start_by: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When it must have begun: from then on another provider is asked. None: it may wait to its limit."""
    limit_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When it must have ended, and still leave the job time for another provider where it has one."""
    differently: bool | None = None
    """Whether it was asked for with the other parameters that its kind names."""
    trouble: str | None = Field(default=None, max_length=32)
    """What ended it, in the words of `app.routing.recovery`."""
    action: str | None = Field(default=None, max_length=32)
    """What was done about that."""
    billed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When it ended and its cost was booked; None: not yet, or by a release that kept no books."""
    tenant: str | None = Field(default=None, max_length=64)
    """Who pays: its job's tenant, written with the bill."""
    run_ms: int | None = Field(default=None, sa_type=BigInteger)
    """How long the prediction ran, by the provider or else by our clock; `cost_basis` says which."""
    characters: int | None = Field(default=None, sa_type=BigInteger)
    output_ms: int | None = Field(default=None, sa_type=BigInteger)
    """What was asked for, in the units that providers bill."""
    price: str | None = Field(default=None, max_length=128)
    """The price that was applied, in words; None where none is known."""
    cost_micros: int | None = Field(default=None, sa_type=BigInteger)
    """Micro-dollars; None where no price is known."""
    cost_basis: str | None = Field(default=None, max_length=16)


class Circuit(Table, table=True):
    """What is held against a provider, by all processes together. No row: nothing ever was."""

    __tablename__ = "circuits"

    provider: str = Field(primary_key=True, max_length=32)
    failures: int = Field(default=0)
    opened: int = Field(default=0)
    trouble: str | None = Field(default=None, max_length=32)
    reason: str | None = Field(default=None, max_length=500)
    open_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    probe_until: datetime | None = Field(default=None, sa_type=UtcDateTime)


class PastCost(Table, table=True):
    """What deleted jobs had cost, added up by day: the books are kept longer than the jobs."""

    __tablename__ = "past_costs"

    day: str = Field(primary_key=True, max_length=10)
    """In UTC, as ISO 8601."""
    tenant: str = Field(primary_key=True, max_length=64)
    provider: str = Field(primary_key=True, max_length=32)
    kind: str = Field(primary_key=True, max_length=64)
    model: str = Field(primary_key=True, max_length=256)
    attempts: int = Field(sa_type=BigInteger)
    jobs: int = Field(sa_type=BigInteger)
    """Each job once, where its first attempt was."""
    unpriced: int = Field(sa_type=BigInteger)
    estimated: int = Field(sa_type=BigInteger)
    run_ms: int = Field(sa_type=BigInteger)
    characters: int = Field(sa_type=BigInteger)
    output_ms: int = Field(sa_type=BigInteger)
    cost_micros: int = Field(sa_type=BigInteger)


class Process(Table, table=True):
    """A process that works for this database, and when it was last heard of."""

    __tablename__ = "processes"

    id: str = Field(primary_key=True, max_length=64)
    heard_at: datetime = Field(sa_type=UtcDateTime)


class Delivery(Table, table=True):
    """One piece of outside news, stored raw before it is understood."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("uq_deliveries_dedupe_key", "dedupe_key", unique=True),
        Index("ix_deliveries_due", "settled_at", "run_after"),
        Index("ix_deliveries_attempt_id", "attempt_id"),
    )

    id: str = Field(primary_key=True, max_length=64)
    source: str = Field(max_length=16)
    provider: str = Field(max_length=32)
    attempt_id: str = Field(max_length=64)
    """As named by the callback URL; there may be no such attempt."""
    job_id: str | None = Field(default=None, index=True, max_length=64)
    """Known from the start for news of our own, else found while applying."""
    message_id: str | None = Field(default=None, max_length=256)
    """The provider's id of the message, where it has one."""
    dedupe_key: bytes = Field(sa_type=KEY_BYTES)
    """128 bits that are the same for the same news by the same postman; the first 48 say when its attempt was
    made. Short, because every webhook writes the index over it."""
    headers: dict[str, str] = Field(sa_type=JSON)
    body: bytes = Field(sa_type=BODY_BYTES)
    received_at: datetime = Field(sa_type=UtcDateTime)
    run_after: datetime = Field(sa_type=UtcDateTime)
    tries: int = 0
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    outcome: str | None = Field(default=None, max_length=16)
    detail: str | None = Field(default=None, sa_type=LONG_TEXT)
    told: str | None = Field(default=None, max_length=32)
    """The status word in it, `silence` for a limit of ours; None until it is understood."""
    conflicts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """Later messages under its message id, authentic too, with another body: it was the first, and stays."""


class Asset(Table, table=True):
    """A stored file, once per content."""

    __tablename__ = "assets"

    id: str = Field(primary_key=True, max_length=64)
    sha256: str = Field(max_length=64, unique=True)
    storage_key: str = Field(max_length=256)
    peaks_key: str = Field(max_length=256)
    media_type: str = Field(max_length=64)
    size_bytes: int
    duration_s: float = Field(sa_type=REAL)
    sample_rate: int
    channels: int
    created_at: datetime = Field(sa_type=UtcDateTime)


class Output(Table, table=True):
    """A job's named output and the asset that holds it."""

    __tablename__ = "outputs"

    job_id: str = Field(primary_key=True, foreign_key="jobs.id", max_length=64)
    name: str = Field(primary_key=True, max_length=32)
    asset_id: str = Field(foreign_key="assets.id", index=True, max_length=64)


class Upload(Table, table=True):
    """A file that a caller sent, waiting to be named by jobs; they keep its asset themselves then."""

    __tablename__ = "uploads"

    id: str = Field(primary_key=True, max_length=64)
    tenant: str = Field(max_length=64)
    """Who sent it: nobody else may name it."""
    asset_id: str = Field(foreign_key="assets.id", index=True, max_length=64)
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(index=True, sa_type=UtcDateTime)


class PartialUpload(Table, table=True):
    """A resumable upload that has not all come. Its id is the upload's, which takes its place in the end."""

    __tablename__ = "partial_uploads"

    id: str = Field(primary_key=True, max_length=64)
    tenant: str = Field(index=True, max_length=64)
    size_bytes: int = Field(sa_type=BigInteger)
    """As it was announced."""
    offset_bytes: int = Field(default=0, sa_type=BigInteger)
    """What is in the store, as pieces without a gap: always less than the size."""
    pieces: int = 0
    about: str = Field(default="", sa_type=LONG_TEXT)
    """`Upload-Metadata` as it came."""
    lease: str | None = Field(default=None, max_length=64)
    """Of whoever writes to it."""
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(index=True, sa_type=UtcDateTime)


class UploadPiece(Table, table=True):
    """A piece of a partial upload, an object of its own in the store until all have come."""

    __tablename__ = "upload_pieces"

    upload_id: str = Field(
        primary_key=True, foreign_key="partial_uploads.id", ondelete="CASCADE", max_length=64
    )
    start_bytes: int = Field(primary_key=True, sa_type=BigInteger)
    size_bytes: int
    storage_key: str = Field(max_length=160)


class JobInput(Table, table=True):
    """A job's named input file and the asset that holds it: kept for as long as the job is."""

    __tablename__ = "inputs"

    # By the database: a release that does not know this table deletes jobs too.
    job_id: str = Field(primary_key=True, foreign_key="jobs.id", ondelete="CASCADE", max_length=64)
    name: str = Field(primary_key=True, max_length=32)
    asset_id: str = Field(foreign_key="assets.id", index=True, max_length=64)


class Tombstone(Table, table=True):
    """Objects that are being deleted, or were: no row may come to point at these keys again."""

    __tablename__ = "tombstones"

    sha256: str = Field(primary_key=True, max_length=64)
    mark: str = Field(max_length=16)
    """Goes into the keys of the same bytes when they are stored again."""
    keys: list[str] = Field(sa_type=JSON)
    asset_id: str | None = Field(default=None, index=True, max_length=64)
    """The asset that had them, where one had."""
    laid_at: datetime = Field(sa_type=UtcDateTime)
    removed_at: datetime | None = Field(default=None, index=True, sa_type=UtcDateTime)
    """When the last of the objects was gone; until then the next round tries again."""


class Chore(Table, table=True):
    """Something that one process at a time does now and then, and when it is due again."""

    __tablename__ = "chores"

    name: str = Field(primary_key=True, max_length=32)
    due_at: datetime = Field(sa_type=UtcDateTime)


class RecoveryRun(Table, table=True):
    """A recovery or a replay of many deliveries, asked for once and worked on in the background."""

    __tablename__ = "recoveries"
    __table_args__ = (
        Index("ix_recoveries_state", "state", "id"),
        Index("ix_recoveries_tenant", "tenant", "id"),
    )

    id: str = Field(primary_key=True, max_length=64)
    tenant: str = Field(max_length=64)
    task: str = Field(max_length=16)
    """`recover`: ask the providers about live attempts; `replay`: send stored deliveries again."""
    state: str = Field(max_length=16)
    since: datetime = Field(sa_type=UtcDateTime)
    until: datetime = Field(sa_type=UtcDateTime)
    wanted: dict[str, Any] = Field(sa_type=JSON)
    """What else narrows it: `kind`, `outcome`, `source`, `limit`."""
    total: int
    created_at: datetime = Field(sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    lease: str | None = Field(default=None, max_length=64)
    """The token of whoever works on it; a commit without the right token changes nothing."""
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    leased_by: str | None = Field(default=None, max_length=64)


class RecoveryItem(Table, table=True):
    """One attempt to ask about, or one delivery to send again; chosen when the recovery was asked for."""

    __tablename__ = "recovery_items"

    recovery_id: str = Field(primary_key=True, max_length=64)
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    """Its place: what expires soonest at the provider comes first."""
    row_id: str = Field(max_length=64)
    """The attempt's id, or the delivery's."""
    attempt_id: str = Field(max_length=64)
    job_id: str | None = Field(default=None, max_length=64)
    provider: str = Field(max_length=32)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """The earliest moment at which its output may be gone at the provider."""
    tries: int = Field(default=0)
    begun_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    effect: str | None = Field(default=None, max_length=16)
    finding: str | None = Field(default=None, max_length=16)
    detail: str | None = Field(default=None, max_length=300)
    delivery_id: str | None = Field(default=None, max_length=64)
    """What was stored because of it."""
    rerun_micros: int | None = Field(default=None, sa_type=BigInteger)
    """For an output that has expired: what another attempt is expected to cost, in micro-dollars."""


class Refusal(Table, table=True):
    """A request at the webhook door that was refused: which check failed, and nothing of its body."""

    __tablename__ = "refusals"
    __table_args__ = (Index("ix_refusals_tenant", "tenant", "id"),)

    id: str = Field(primary_key=True, max_length=64)
    at: datetime = Field(sa_type=UtcDateTime)
    provider: str = Field(max_length=32)
    attempt_id: str | None = Field(default=None, max_length=64)
    """The attempt that its address named, where that is one of ours."""
    tenant: str = Field(max_length=64)
    """That attempt's; the default one where there is none."""
    failed: str = Field(max_length=32)
    """The check, in a word of `app.provider.signature` or the error's code."""
    detail: str = Field(max_length=300)
    skew_s: float | None = Field(default=None, sa_type=REAL)
    """How far the signed time was from our clock; above zero: in the past."""
    secret: int | None = None
    """The number of the secret that fits, counted from 1; 0: none does; None: it was not looked."""
    left_out: int = Field(default=0)
    """Refusals before this one that were too many to be written down."""


class Event(Table, table=True):
    """An appended fact about a job; `seq` counts from 1 without gaps within the job."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_feed", "tenant", "position"),)

    job_id: str = Field(primary_key=True, foreign_key="jobs.id", max_length=64)
    seq: int = Field(primary_key=True)
    type: str = Field(max_length=32)
    data: dict[str, Any] = Field(sa_type=JSON)
    at: datetime = Field(sa_type=UtcDateTime)
    tenant: str | None = Field(default=None, max_length=64)
    """Whose feed it is in; None: it is older than the feed."""
    position: int | None = Field(default=None, sa_type=BigInteger)
    """Where in that feed, given by the database: see `db.feed`."""


class FeedMark(Table, table=True):
    """Up to where a tenant's feed is no longer whole; of no tenant (empty): the last number given."""

    __tablename__ = "feed_marks"

    tenant: str = Field(primary_key=True, max_length=64)
    position: int = Field(sa_type=BigInteger)


class IdempotencyKey(Table, table=True):
    """A caller's `Idempotency-Key` and what it made."""

    __tablename__ = "idempotency_keys"

    # The tenant comes first: the same key of another one has nothing to do with it.
    tenant: str = Field(
        default="default", primary_key=True, max_length=64, sa_column_kwargs={"server_default": "default"}
    )
    key: str = Field(primary_key=True, max_length=255)
    fingerprint: str = Field(max_length=64)
    """SHA-256 of the canonical request; of an upload, of its bytes, or who has claimed the key meanwhile."""
    job_id: str = Field(max_length=64)
    """The job, or the upload; empty while `open_until` is set."""
    created_at: datetime = Field(sa_type=UtcDateTime, index=True)
    open_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """While its first request is under way: from then on that is taken for dead."""


class AccessKey(Table, table=True):
    """A key that proves a caller. Its text is shown once and kept nowhere."""

    __tablename__ = "access_keys"
    __table_args__ = (Index("ix_access_keys_tenant_id", "tenant", "id"),)

    id: str = Field(primary_key=True, max_length=64)
    prefix: str = Field(max_length=32)
    """How its text begins: enough to tell which key it is, and of no use to anybody."""
    digest: str = Field(max_length=64, unique=True)
    """SHA-256 of the whole text: 256 random bits need no slow hash."""
    name: str = Field(max_length=100)
    tenant: str = Field(max_length=64)
    scopes: list[str] = Field(sa_type=JSON)
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """To the minute."""
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Audit(Table, table=True):
    """Who did what. Written with the act, never changed, deleted by age."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_tenant_id", "tenant", "id"),)

    id: str = Field(primary_key=True, max_length=64)
    tenant: str = Field(max_length=64)
    key_id: str | None = Field(default=None, max_length=64)
    """None: in an open house, or by a command on the database itself."""
    request_id: str | None = Field(default=None, max_length=64)
    """None: by a command on the database itself."""
    act: str = Field(max_length=32)
    subject: str = Field(max_length=128)
    """The id of what it was done to."""
    at: datetime = Field(index=True, sa_type=UtcDateTime)


class Secret(Table, table=True):
    """A secret of the installation itself, made once, shared by all its processes."""

    __tablename__ = "secrets"

    name: str = Field(primary_key=True, max_length=64)
    value: str = Field(max_length=128, sa_type=SECRET_TEXT)
    created_at: datetime = Field(sa_type=UtcDateTime)


class RateCounter(Table, table=True):
    """What a caller has used of a budget, on PostgreSQL. Not logged: empty after a crash of the server."""

    __tablename__ = "rate_counters"

    key: str = Field(primary_key=True, max_length=255)
    window_no: int = Field(sa_type=BigInteger)
    """By the server's clock: its seconds since 1970, divided by the window's."""
    current: int
    previous: int
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)


class Announcement(Table, table=True):
    """A job's end that its caller is to be told of. The id is the `webhook-id` of every try."""

    __tablename__ = "announcements"
    __table_args__ = (
        Index("ix_announcements_due", "state", "receiver", "run_after"),
        Index("ix_announcements_endpoint", "endpoint_id", "state"),
        Index("ix_announcements_list", "tenant", "id"),
        Index("ix_announcements_state", "tenant", "state", "id"),
        Index("ix_announcements_job_id", "job_id"),
    )

    id: str = Field(primary_key=True, max_length=64)
    tenant: str = Field(max_length=64)
    # By the database: a release that does not know this table deletes jobs too.
    job_id: str = Field(foreign_key="jobs.id", ondelete="CASCADE", max_length=64)
    endpoint_id: str = Field(max_length=64)
    receiver: str = Field(max_length=64)
    """Whom it goes to, as far as taking turns goes: the tenant's endpoints at one host are one receiver."""
    url: str = Field(sa_type=LONG_TEXT)
    type: str = Field(max_length=32)
    payload: str = Field(sa_type=LONG_TEXT)
    """The body, byte for byte the same at every try, as UTF-8."""
    state: str = Field(max_length=16)
    created_at: datetime = Field(sa_type=UtcDateTime)
    run_after: datetime = Field(sa_type=UtcDateTime)
    lease: str | None = Field(default=None, max_length=64)
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    crashes: int = 0
    """Tries begun and not ended since the last one that ended: the poison counter."""
    tries: int = 0
    """Tries since it was made or last asked for again: its place in the schedule."""
    attempts: int = 0
    """Tries ever: the number of the last one."""
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    error: str | None = Field(default=None, sa_type=LONG_TEXT)
    """What its last try came to, in words; None once it was delivered."""


class AnnouncementAttempt(Table, table=True):
    """One try at an announcement: what was sent besides the body, and what came back, cut."""

    __tablename__ = "announcement_attempts"

    announcement_id: str = Field(
        primary_key=True, foreign_key="announcements.id", ondelete="CASCADE", max_length=64
    )
    number: int = Field(primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime)
    outcome: str = Field(max_length=16)
    status: int | None = None
    latency_ms: int
    error: str | None = Field(default=None, sa_type=LONG_TEXT)
    request_headers: dict[str, str] = Field(sa_type=JSON)
    """Without the signature."""
    response_headers: dict[str, str] = Field(sa_type=JSON)
    response_body: bytes = Field(sa_type=BODY_BYTES)
    next_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Endpoint(Table, table=True):
    """An address that announcements go to, and how it does. No row: nothing was sent there yet."""

    __tablename__ = "endpoints"
    __table_args__ = (Index("ix_endpoints_list", "tenant", "id"),)

    id: str = Field(primary_key=True, max_length=64)
    tenant: str = Field(max_length=64)
    url: str = Field(sa_type=LONG_TEXT)
    """Scheme, host, port and path, without the query."""
    created_at: datetime = Field(sa_type=UtcDateTime)
    failures: int = 0
    """In a row, since the last success."""
    failing_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_success_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_failure_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_error: str | None = Field(default=None, sa_type=LONG_TEXT)
    paused_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Nothing is sent there before, because it asked for that or did not answer."""
    disabled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    disabled_reason: str | None = Field(default=None, max_length=16)


class WebhookSecret(Table, table=True):
    """A secret that signs a tenant's announcements, until it expires."""

    __tablename__ = "webhook_secrets"

    tenant: str = Field(primary_key=True, max_length=64)
    number: int = Field(primary_key=True)
    """From 1; the highest is the current one."""
    value: str = Field(max_length=128, sa_type=SECRET_TEXT)
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When it stops signing, once another has taken its place."""


class Lyrics(Table, table=True):
    """The words of a song in time. What they say is in their versions."""

    __tablename__ = "lyrics"
    __table_args__ = (Index("ix_lyrics_listed", "tenant", "id"),)

    id: str = Field(primary_key=True, max_length=64)
    tenant: str = Field(max_length=64)
    title: str = Field(max_length=200)
    language: str | None = Field(default=None, max_length=64)
    source: str = Field(max_length=16)
    """What the first version was made of: `transcription` or `lrc`."""
    job_id: str | None = Field(default=None, max_length=64)
    """The transcription, where it was named."""
    duration_ms: int | None = None
    """The recording's; None: not known."""
    version: int
    """The number of the newest version."""
    created_at: datetime = Field(sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)


class LyricsVersion(Table, table=True):
    """Lyrics as they once stood. Never changed; the oldest go when there are too many."""

    __tablename__ = "lyrics_versions"

    lyrics_id: str = Field(primary_key=True, foreign_key="lyrics.id", ondelete="CASCADE", max_length=64)
    number: int = Field(primary_key=True)
    lines: list[dict[str, Any]] = Field(sa_type=JSON)
    """As `app.karaoke.lyrics.lines` writes them."""
    figures: dict[str, Any] = Field(sa_type=JSON)
    """How sure they were when they were made of a transcript; empty where nothing was measured."""
    made_by: str = Field(max_length=64)
    """What made it, in words: `transcription`, `lrc`, `shift +250 ms`, `fix`, …"""
    made_at: datetime = Field(sa_type=UtcDateTime)


class Performance(Table, table=True):
    """One state that all devices of an evening share, and the singers who wait. Moved by `version`."""

    __tablename__ = "performances"
    __table_args__ = (Index("ix_performances_listed", "tenant", "id"),)

    id: str = Field(primary_key=True, max_length=64)
    tenant: str = Field(max_length=64)
    default_of: str | None = Field(default=None, max_length=64, unique=True)
    """The tenant whose performance it is where none is named."""
    title: str = Field(max_length=200)
    song: dict[str, Any] = Field(sa_type=JSON)
    """What is played; empty: nothing yet."""
    vocal_volume: float = Field(sa_type=REAL)
    instrumental_volume: float = Field(sa_type=REAL)
    lyrics_size: str = Field(max_length=16)
    lyrics_offset: int
    """Milliseconds."""
    is_playing: bool
    position_s: float = Field(sa_type=REAL)
    """Where the song was at `position_at`; while it plays it has gone on since."""
    position_at: datetime = Field(sa_type=UtcDateTime)
    duration_s: float = Field(sa_type=REAL)
    """0: not known."""
    version: int
    """Goes up with each change of what stands above."""
    moved_version: int
    """The version in which the position was last set: who has not seen it cannot say where the song is."""
    queue: dict[str, Any] = Field(sa_type=JSON)
    """Who sings and who waits, as `app.karaoke.stage.singers` writes it."""
    queue_version: int
    created_at: datetime = Field(sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)


class SchemaMark(Table, table=True):
    """A migration that this database has had, and the oldest release that still works with what it made."""

    __tablename__ = "schema_marks"

    revision: str = Field(primary_key=True, max_length=32)
    serves_code_of: str = Field(max_length=32)
    """The newest revision that the release must know."""


# Otherwise the first row to be constructed does it, and a process may well read one before (`Table.of`).
configure_mappers()
