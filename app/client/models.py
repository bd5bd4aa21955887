"""What the service answers, as frozen values.

A field that a newer service adds is passed over, so an old client goes on working; one that an older service
does not have is its default, where it has one. Times are aware and in UTC, durations seconds, sizes bytes.
Leaves the ledger, recoveries and announcements to `ledger`; what can be done with a job or a file to
`aio.shown` and `blocking.shown`, which build on `JobFacts` and `OutputFacts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.client.errors import UnexpectedAnswer

ENDED = frozenset({"succeeded", "failed", "canceled"})


class Fact(BaseModel):
    """The base of every answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")


M = TypeVar("M", bound=Fact)


class OutputFacts(Fact):
    """A stored file of a job."""

    asset_id: str
    url: str = Field(repr=False)
    """Signed: whoever has it may read the file until it expires. Relative to the service's address."""
    media_type: str
    duration_s: float | None
    """None for text."""
    size_bytes: int
    sha256: str


class JobError(Fact):
    """Why a job failed."""

    code: str
    message: str


class Attempt(Fact):
    """One try at a job at one provider."""

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
    trouble: str | None = None
    """What went wrong, in one word of a fixed list."""
    action: str | None = None
    """What was done about it."""
    differently: bool = False
    metrics: Mapping[str, Any] = Field(default_factory=dict)


class CostItem(Fact):
    """What one attempt cost, once it has ended."""

    attempt: int
    provider: str
    model: str
    usd: float | None
    """None where no price is known."""
    price: str | None
    basis: str
    """How sure that is."""
    seconds: float | None
    characters: int | None
    output_seconds: float | None
    job_id: str | None = None
    """The job itself, or the one that did a part of its work."""


class Child(Fact):
    """A job that does a part of another's work."""

    id: str
    step: str
    """Which part."""
    kind: str
    state: str
    stage: str | None
    progress: float
    reused: bool = False
    """Whether an earlier job had made the same: nothing was made or paid."""


class Cost(Fact):
    """What a job cost so far; `usd` is None while no price is known of any attempt that has ended."""

    usd: float | None = None
    items: Sequence[CostItem] = ()


class JobFacts(Fact):
    """A job as the service told of it last."""

    id: str
    kind: str
    state: str
    """queued, running, finishing, succeeded, failed or canceled."""
    stage: str | None
    progress: float
    """From 0 to 1."""
    waiting_reason: str | None
    input: Mapping[str, Any]
    metadata: Mapping[str, Any]
    provider: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime
    expires_at: datetime | None = None
    """When it may be deleted with its files; None: not known."""
    outputs: Mapping[str, OutputFacts]
    error: JobError | None
    cost: Cost = Cost()
    attempts: Sequence[Attempt] = ()
    retry_of: str | None = None
    callback_url: str | None = None
    """Where its end is announced."""
    rerun_of: str | None = None
    """The job of which it is another end."""
    retention_s: float | None = None
    """How long after its end it is kept, as it was asked for."""
    expunged_at: datetime | None = None
    """When all that it said and made was deleted."""
    parent_id: str | None = None
    """The job of whose work this one is a part."""
    step: str | None = None
    children: Sequence[Child] = ()
    """The jobs that do its work, where its work is other jobs."""
    measured: Mapping[str, Any] | None = None
    """What was measured of its result, by name."""

    @property
    def is_ended(self) -> bool:
        return self.state in ENDED


class Event(Fact):
    """A fact about a job; `seq` counts from 1 without gaps within the job."""

    seq: int
    type: str
    at: datetime
    data: Mapping[str, Any]

    @property
    def is_last(self) -> bool:
        return self.type.removeprefix("job.") in ENDED


class Events(Fact):
    """A job's events, oldest first."""

    items: Sequence[Event]


class FeedEvent(Event):
    """Something that happened to one of all jobs."""

    position: int
    """Its place among all events; grows, with gaps."""
    job_id: str
    kind: str


class FeedReset(Fact):
    """Events are gone before they were read: read the jobs anew; what follows goes on from `position`."""

    position: int


class Step(Fact):
    """A step of a job, and whether the job can be run again from it."""

    name: str
    """dispatch or finish."""
    state: str
    can_rerun: bool
    code: str | None
    """Why not, as an error code."""
    why_not: str | None


class Steps(Fact):
    """A job's steps, in order."""

    items: Sequence[Step]


class Stage(Fact):
    """A provider on the route of a kind, as it stands."""

    provider: str
    model: str
    is_open: bool
    reason: str | None
    live: int
    waiting: int
    slots: int | None
    usual_s: float | None
    usd: float | None
    usd_basis: str


class Forecast(Fact):
    """Where a job would run if it were asked for now. Nothing was stored."""

    dry_run: bool = True
    kind: str
    provider: str | None
    model: str | None
    why: str
    wait_s: float | None
    wait_basis: str
    route: Sequence[Stage]


class Upload(Fact):
    """A stored upload; inputs that are files take its `upload_id`."""

    state: str = "stored"
    upload_id: str
    sha256: str
    duration_s: float
    size_bytes: int
    media_type: str
    expires_at: datetime


class UploadStanding(Fact):
    """How far an upload in many requests is."""

    upload_id: str
    state: str
    offset_bytes: int = 0

    @property
    def is_stored(self) -> bool:
        return self.state == "stored"


class Asset(Fact):
    """A stored file, as measured."""

    id: str
    sha256: str
    media_type: str
    size_bytes: int
    duration_s: float | None
    sample_rate: int | None
    channels: int | None
    url: str = Field(repr=False)
    expires_at: datetime | None


class CostSums(Fact):
    """What a number of attempts come to."""

    usd: float
    """What is known; see `unpriced`."""
    attempts: int
    jobs: int
    seconds: float
    characters: int
    output_seconds: float
    estimated: int
    unpriced: int
    """Attempts that ran and have no price: not in `usd`."""


class CostGroup(CostSums):
    """The same, of one group; `key` is None for what has none."""

    key: str | None


class CostReport(Fact):
    """A page of groups by name, and the total of all pages."""

    group_by: str
    since: datetime
    until: datetime
    items: Sequence[CostGroup]
    total: CostSums
    next_cursor: str | None


T = TypeVar("T")


class Page(Fact, Generic[T]):
    """A page of a list; `next_cursor` leads to the next one, None: there is none."""

    items: Sequence[T]
    next_cursor: str | None


def parse(model: type[M], content: bytes, context: object = None) -> M:
    """An answer's body as a value; `context` goes to what can be done with it. Raises UnexpectedAnswer."""
    try:
        return model.model_validate_json(content, context=context)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise UnexpectedAnswer(
            f"the answer is no {model.__name__}: {place}: {first['msg']}; is this address a Reprise service?"
        ) from None
