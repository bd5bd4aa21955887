"""`/v1/predictions`, `/v1/refusals`: who told the end of each prediction, what the door did not let in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.costs.prices import to_usd
from app.ledger.predictions import PredictionView
from app.web.paging import Paged
from app.web.parts import Moment, Part, Reader
from db.ledger.predictions import EndTold, LedgerFilter
from db.states import DeliverySource
from db.tables import Refusal

router = APIRouter(prefix="/v1", tags=["ledger"])


class EndOut(BaseModel):
    """The first time that this postman told an end."""

    delivery_id: str
    received_at: datetime
    told: str | None = Field(description="The status word in it; `silence` for a limit of ours")
    outcome: str | None
    times: int = Field(description="How often this postman told an end")

    @classmethod
    def of(cls, end: EndTold | None) -> EndOut | None:
        if end is None:
            return None
        return cls(
            delivery_id=end.delivery_id, received_at=end.received_at, told=end.told, outcome=end.outcome,
            times=end.times,
        )  # fmt: skip


class EndsOut(BaseModel):
    """Each postman's first terminal news; null: it never brought any."""

    webhook: EndOut | None
    poll: EndOut | None
    replay: EndOut | None
    deadline: EndOut | None


class PredictionOut(BaseModel):
    """One prediction in the ledger."""

    attempt_id: str
    job_id: str
    kind: str
    provider: str
    model: str
    prediction_id: str | None
    status: str
    created_at: datetime
    heard_at: datetime | None
    ended_at: datetime | None
    completed_at: datetime | None = Field(description="When the provider says that it ended")
    told_by: Literal["webhook", "poll", "replay", "deadline"] | None = Field(
        description="Who brought the news that ended it; null: nobody yet, or it was refused when asked for"
    )
    settled_by: str | None = Field(description="The delivery that ended it")
    ends: EndsOut
    silent_s: float | None = Field(description="How long nothing has been heard; null once it has ended")
    output: Literal["stored", "awaited", "expired", "none"]
    output_expires_at: datetime | None = Field(
        description="While the output is awaited: the earliest moment at which the provider may delete it"
    )
    unrecoverable: bool = Field(description="The output has expired: only another attempt brings it back")
    rerun_usd: float | None = Field(description="What that is expected to cost; null: no price is known")

    @classmethod
    def of(cls, view: PredictionView) -> PredictionOut:
        ends = {source.value: EndOut.of(view.ends.get(source.value)) for source in DeliverySource}
        return cls(
            **view.attempt.model_dump(include=set(cls.model_fields) & set(type(view.attempt).model_fields)),
            attempt_id=view.attempt.id,
            kind=view.job.kind,
            settled_by=view.settled_by,
            ends=EndsOut(**ends),
            silent_s=None if view.silent_s is None else round(max(0.0, view.silent_s), 3),
            output=view.output.value,
            output_expires_at=view.expires_at,
            unrecoverable=view.output == "expired",
            rerun_usd=None if view.rerun_micros is None else to_usd(view.rerun_micros),
        )


class PredictionPage(BaseModel):
    """Predictions, newest first."""

    items: list[PredictionOut]
    next_cursor: str | None


@router.get("/predictions")
async def list_predictions(
    runtime: Part,
    caller: Reader,
    paging: Paged,
    since: Annotated[Moment | None, Query(description="Asked for from then on")] = None,
    until: Annotated[Moment | None, Query(description="Asked for before then")] = None,
    told_by: Annotated[
        Literal["webhook", "poll", "replay", "deadline", "none"] | None,
        Query(description="Who brought the news that ended it; `none`: it has not ended"),
    ] = None,
    provider: Annotated[str | None, Query(max_length=32)] = None,
    kind: Annotated[str | None, Query(max_length=64)] = None,
) -> PredictionPage:
    """The ledger: for each prediction the proof of who told its end, or that nobody did."""
    wanted = LedgerFilter(
        tenant=caller.tenant, since=since, until=until, told_by=told_by, provider=provider, kind=kind
    )
    page = paging.of("predictions", caller.tenant, since, until, told_by, provider, kind)
    found = await runtime.ledger.predictions.list_predictions(wanted, before_id=page.after, limit=page.reach)
    shown, more = page.cut(found, lambda each: each.attempt.id)
    return PredictionPage(items=[PredictionOut.of(each) for each in shown], next_cursor=more)


class RefusalOut(BaseModel):
    """A callback that was refused, and which check it failed. The caller was told nothing of this."""

    id: str
    at: datetime
    provider: str = Field(description="By the address; `unknown` for one that is not configured")
    attempt_id: str | None = Field(description="The attempt that the address named, where it is one")
    failed: str = Field(
        description="The check: `header`, `signature_form`, `message_id`, `timestamp_form`, `timestamp`, "
        "`body`, `signature`, `token`, or the error's code"
    )
    detail: str
    skew_s: float | None = Field(
        description="How far the signed time was from our clock; above 0: in the past"
    )
    secret: int | None = Field(
        description="The number of the secret that fits all the same, from 1; 0: none; null: not looked"
    )
    left_out: int = Field(description="Refusals before this one that were too many to be written down")

    @classmethod
    def of(cls, refusal: Refusal) -> RefusalOut:
        return cls(**refusal.model_dump(include=set(cls.model_fields)))


class RefusalPage(BaseModel):
    """Refusals, newest first."""

    items: list[RefusalOut]
    next_cursor: str | None


@router.get("/refusals")
async def list_refusals(
    runtime: Part,
    caller: Reader,
    paging: Paged,
    failed: Annotated[str | None, Query(max_length=32, description="Only where this check failed")] = None,
    since: Annotated[Moment | None, Query(description="From then on")] = None,
) -> RefusalPage:
    """Callbacks that were refused: which check failed and by how many seconds. The newest 1,000 are kept.

    Those whose address names no attempt of anybody's are the default tenant's.
    """
    page = paging.of("refusals", caller.tenant, failed, since)
    found = await runtime.ledger.refusals.list_refusals(
        tenant=caller.tenant, failed=failed, since=since, before_id=page.after, limit=page.reach
    )
    shown, more = page.cut(found, lambda each: each.id)
    return RefusalPage(items=[RefusalOut.of(each) for each in shown], next_cursor=more)
