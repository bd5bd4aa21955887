"""The shapes of the HTTP API: the same models that validate also make `/openapi.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.access.links import Links
from app.announcing.endpoints import without_query
from app.costs.prices import to_usd
from app.intake.forecast import Forecast
from app.kinds import KINDS
from app.kinds.base import JsonBody
from app.views import JobView, why_waiting
from db.tables import Attempt, Delivery, Event

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Without NUL, which PostgreSQL takes in no text."""
KindName = Annotated[Text, Field(examples=list(KINDS), max_length=64)]
StateName = Literal["queued", "running", "finishing", "succeeded", "failed", "canceled"]


class Asked(JsonBody):
    """The base of bodies that callers send: no unknown fields, and `0` is no truth value."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewJob(Asked):
    """A request for audio."""

    kind: KindName
    input: dict[str, Any] = Field(description="By kind; see the guide to job kinds")
    metadata: dict[str, Any] = Field(
        default_factory=dict, description="Yours; returned as given, at most 16 kB"
    )
    provider: str = Field("auto", max_length=32, description="`auto`, or the provider to keep to")
    deadline_s: float | None = Field(None, ge=1, le=86_400, description="When to give up on the whole job")
    priority: int = Field(0, ge=-100, le=100, description="Higher goes first")
    callback_url: str | None = Field(
        None, max_length=2048, description="Told when the job has ended, by a signed POST; https on 443"
    )
    retention_s: float | None = Field(
        None,
        ge=60,
        le=315_360_000,
        description="How long after its end it is kept with its files; by default as long as all are",
    )
    dry_run: bool = Field(
        False, description="Answer 200 with where it would run, why and how soon; nothing is stored"
    )


class OutputOut(BaseModel):
    """A stored file of a job."""

    asset_id: str
    url: str = Field(description="Signed and expiring; relative to the service's address")
    media_type: str
    duration_s: float | None = Field(description="Null for text")
    size_bytes: int
    sha256: str


class ErrorOut(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class AttemptOut(BaseModel):
    """One try at the job."""

    number: int
    id: str
    provider: str
    model: str
    prediction_id: str | None
    status: str
    engine: str | None
    created_at: datetime
    ended_at: datetime | None
    error: str | None
    trouble: str | None = Field(description="What went wrong, in one word of a fixed list")
    action: str | None = Field(description="What was done about it: `retry_same`, `fall_back`, …")
    differently: bool = Field(description="Asked for with the other parameters that the kind names")
    metrics: dict[str, Any]


class CostItemOut(BaseModel):
    """What one attempt cost, once it has ended."""

    attempt: int
    job_id: str = Field(description="This job, or the one that did a part of its work")
    provider: str
    model: str
    usd: float | None = Field(description="null where no price is known")
    price: str | None = Field(description="The price that was applied")
    basis: str = Field(description="How sure that is: `metered`, `clock`, `assumed`, `nothing`, `unpriced`")
    seconds: float | None = Field(description="Running time")
    characters: int | None
    output_seconds: float | None

    @classmethod
    def of(cls, attempt: Attempt) -> CostItemOut:
        return cls(
            attempt=attempt.number,
            job_id=attempt.job_id,
            provider=attempt.provider,
            model=attempt.model,
            usd=None if attempt.cost_micros is None else to_usd(attempt.cost_micros),
            price=attempt.price,
            basis=attempt.cost_basis or "",
            seconds=None if attempt.run_ms is None else attempt.run_ms / 1000,
            characters=attempt.characters,
            output_seconds=None if attempt.output_ms is None else attempt.output_ms / 1000,
        )


class CostOut(BaseModel):
    """What the job cost so far. `usd` is null while no price is known of any attempt that has ended."""

    usd: float | None = None
    items: list[CostItemOut] = Field(default_factory=list)

    @classmethod
    def of(cls, attempts: Sequence[Attempt]) -> CostOut:
        billed = [attempt for attempt in attempts if attempt.billed_at is not None]
        known = [attempt.cost_micros for attempt in billed if attempt.cost_micros is not None]
        return cls(usd=to_usd(sum(known)) if known else None, items=[CostItemOut.of(each) for each in billed])


class ChildOut(BaseModel):
    """A job that does a part of another's work."""

    id: str
    step: str
    kind: str
    state: StateName
    stage: str | None
    progress: float = Field(ge=0, le=1)
    reused: bool = Field(description="Whether an earlier job had made the same: nothing was made or paid")

    @classmethod
    def of(cls, view: JobView) -> ChildOut:
        job = view.job
        facts = job.model_dump(include={"id", "kind", "state", "stage", "progress"})
        return cls(**facts, step=job.step or "", reused=job.result_of is not None)


class JobOut(BaseModel):
    """A job as callers see it."""

    id: str
    kind: str
    state: StateName
    stage: str | None
    progress: float = Field(ge=0, le=1)
    waiting_reason: str | None
    input: dict[str, Any]
    metadata: dict[str, Any]
    provider: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime
    expires_at: datetime | None = Field(description="When it may be deleted with its files; null: not known")
    outputs: dict[str, OutputOut]
    error: ErrorOut | None
    cost: CostOut
    attempts: list[AttemptOut]
    retry_of: str | None
    callback_url: Annotated[str, AfterValidator(without_query)] | None = Field(
        description="Where its end is announced, without its query"
    )
    rerun_of: str | None = Field(description="The job of which it is another end")
    retention_s: float | None = Field(description="As it was asked for")
    expunged_at: datetime | None = Field(description="When all that it said and made was deleted")
    parent_id: str | None = Field(description="The job of whose work this one is a part")
    step: str | None = Field(description="Which part")
    children: list[ChildOut] = Field(description="The jobs that do its work, where its work is other jobs")
    measured: dict[str, Any] | None = Field(description="What was measured of its result, by name")

    @classmethod
    def of(cls, view: JobView, links: Links) -> JobOut:
        job = view.job
        error = ErrorOut(code=job.error_code, message=job.error_message or "") if job.error_code else None
        return cls(
            **job.model_dump(
                include=set(cls.model_fields) & set(type(job).model_fields) - {"waiting_reason"}
            ),
            metadata=job.caller_metadata,
            waiting_reason=why_waiting(view),
            outputs={
                name: OutputOut(
                    asset_id=asset.id,
                    url=links.url(asset.id, tenant=job.tenant),
                    duration_s=asset.duration_s if asset.channels else None,
                    **asset.model_dump(include={"media_type", "size_bytes", "sha256"}),
                )
                for name, asset in view.outputs.items()
            },
            error=error,
            cost=CostOut.of(view.all_attempts),
            children=[ChildOut.of(child) for child in view.children],
            attempts=[attempt_out(attempt) for attempt in view.attempts],
        )


class StageOut(BaseModel):
    """A provider on the route, as it stands."""

    provider: str
    model: str
    is_open: bool = Field(description="Whether it may be asked now")
    reason: str | None = Field(description="Why not")
    live: int = Field(description="Predictions that it is at work on")
    waiting: int = Field(description="Jobs that wait for a slot of it and would go first")
    slots: int | None = Field(description="How many predictions it takes at once; null: no limit of ours")
    usual_s: float | None = Field(description="How long one of this kind lately took there; null: not known")
    usd: float | None = Field(description="What one attempt is expected to cost; null: no price is known")
    usd_basis: str = Field(description="`units` of the input, a guess of `time`, or `unpriced`")


class ForecastOut(BaseModel):
    """Where a job would run if it were asked for now."""

    dry_run: Literal[True] = True
    kind: str
    provider: str | None = Field(description="Null: none that may take it is configured")
    model: str | None
    why: str
    wait_s: float | None = Field(description="Until it would begin, as an estimate; null: not known")
    wait_basis: str = Field(description="What the estimate is made of")
    route: list[StageOut]

    @classmethod
    def of(cls, kind: str, forecast: Forecast) -> ForecastOut:
        return cls(kind=kind, **asdict(forecast))


class JobPage(BaseModel):
    """Jobs, newest first."""

    items: list[JobOut]
    next_cursor: str | None


class EventOut(BaseModel):
    """A fact about a job."""

    seq: int
    type: str
    at: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> EventOut:
        return cls(seq=event.seq, type=event.type, at=event.at, data=event.data)


class EventPage(BaseModel):
    """A job's events, oldest first."""

    items: list[EventOut]


class DeliveryOut(BaseModel):
    """One piece of outside news in the ledger."""

    id: str
    source: str
    provider: str
    attempt_id: str
    job_id: str | None
    message_id: str | None
    received_at: datetime
    settled_at: datetime | None
    outcome: str | None
    detail: str | None
    told: str | None = Field(description="The status word in it; `silence` for a limit of ours")
    conflicts: int = Field(description="Authentic messages under the same id with another body, refused")

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryOut:
        return cls(**delivery.model_dump(include=set(cls.model_fields)))


class DeliveryDetail(DeliveryOut):
    """The same with what was received, byte for byte."""

    headers: dict[str, str]
    size_bytes: int
    body_base64: str = Field(description="The first 64 kB of the raw body")


class DeliveryPage(BaseModel):
    """The ledger, newest first."""

    items: list[DeliveryOut]
    next_cursor: str | None


class ReceiptOut(BaseModel):
    """News was stored."""

    delivery_id: str
    new: bool


class BudgetOut(BaseModel):
    """The budget that a new job would pass."""

    usd: float
    per: Literal["hour", "day", "month"]
    spent_usd: float
    reserved_usd: float = Field(description="Held by jobs under way, by estimate")
    resets_at: datetime


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    field: str | None = None
    column: int | None = Field(None, description="With `invalid_query`: where in `q`, from 1")
    expected: str | None = Field(None, description="With `invalid_query`: what would do there")
    retry_after_s: int | None = None
    budget: BudgetOut | None = Field(None, description="With `budget_exceeded`")


def attempt_out(attempt: Attempt) -> AttemptOut:
    facts = attempt.model_dump(include=set(AttemptOut.model_fields))
    return AttemptOut(**{**facts, "differently": bool(attempt.differently)})
