"""`/v1/recoveries`, `POST /v1/deliveries/replay`: very many at once, as a job that is watched and ended."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response, status
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.access.callers import Caller
from app.costs.prices import to_usd
from app.ledger.effects import Effect
from app.ledger.recoveries import Plan, Standing, Task
from app.web.paging import Paged
from app.web.parts import Moment, Part, Reader, Replayer, Responses
from app.web.schemas import Asked, KindName, Problem
from app.wiring import Runtime
from db.ledger.candidates import Wanted
from db.tables import RecoveryItem

EXAMPLES = 5
"""Items shown for each effect of a dry run."""

RecoveryId = Annotated[str, Path(max_length=64)]
EffectName = Literal[
    "finishes", "expired", "tries_again", "fails", "alive", "nothing", "unreachable", "unasked", "unreadable",
    "broken",
]  # fmt: skip
TaskName = Literal["recover", "replay"]
Outcome = Literal["applied", "ignored", "late_result", "orphaned", "quarantined"]

router = APIRouter(prefix="/v1", tags=["recoveries"])
NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is no such recovery"}}


class NewRecovery(Asked):
    """Which live attempts to ask their providers about."""

    since: Moment | None = Field(None, description="Made from then on; a week before `until`")
    until: Moment | None = Field(None, description="Made before then; now")
    kind: KindName | None = None
    dry_run: bool = Field(False, description="Only say what would happen; asks, and changes nothing")
    limit: int = Field(1000, ge=1, le=10_000)


class NewReplay(NewRecovery):
    """Which stored deliveries to send again. Those that would change nothing are passed by."""

    outcome: Outcome | None = None
    source: Literal["webhook", "poll", "replay"] | None = None


class ItemOut(BaseModel):
    """One attempt that is asked about, or one delivery that is sent again."""

    attempt_id: str
    job_id: str | None
    provider: str
    original_id: str | None = Field(description="The delivery that is sent again")
    output_expires_at: datetime | None = Field(
        description="The earliest moment at which the provider may have deleted the output"
    )
    effect: EffectName | None = Field(description="null: not done yet")
    finding: str | None = Field(description="The provider's answer in one word, where it was asked")
    detail: str | None
    rerun_usd: float | None = Field(description="What another attempt would cost, where the output expired")
    delivery_id: str | None = Field(description="What was stored because of it")

    @classmethod
    def of(cls, item: RecoveryItem) -> ItemOut:
        return cls(
            **item.model_dump(include={"attempt_id", "job_id", "provider", "effect", "finding", "detail"}),
            original_id=item.row_id if item.row_id != item.attempt_id else None,
            output_expires_at=item.expires_at,
            rerun_usd=_usd(item.rerun_micros),
            delivery_id=item.delivery_id,
        )


class PlanOut(BaseModel):
    """What would happen if nothing else did."""

    dry_run: Literal[True] = True
    task: TaskName
    since: datetime
    until: datetime
    total: int
    counts: dict[EffectName, int] = Field(description="Items by their effect")
    rerun_usd: float | None = Field(description="What it would cost to make anew all that has expired")
    found: list[ItemOut] = Field(description=f"Up to {EXAMPLES} of each effect")

    @classmethod
    def of(cls, task: Task, plan: Plan) -> PlanOut:
        micros = [each.rerun_micros for each in plan.outcomes if each.rerun_micros is not None]
        counts = Counter(outcome.effect.value for outcome in plan.outcomes)
        return cls(
            task=task.value, since=plan.wanted.since, until=plan.wanted.until, total=len(plan.items),
            counts=dict(counts), rerun_usd=_usd(sum(micros)) if micros else None, found=_examples(plan),
        )  # fmt: skip


class RecoveryOut(BaseModel):
    """A recovery as it stands."""

    dry_run: Literal[False] = False
    id: str
    task: TaskName
    state: Literal["running", "done", "aborted"]
    since: datetime
    until: datetime
    wanted: dict[str, Any]
    created_at: datetime
    finished_at: datetime | None
    total: int
    done: int
    counts: dict[EffectName, int] = Field(description="Items done, by their effect")
    rerun_usd: float | None = Field(description="What it would cost to make anew all that had expired")

    @classmethod
    def of(cls, standing: Standing) -> RecoveryOut:
        return cls(
            **standing.run.model_dump(include=set(cls.model_fields) - {"wanted"}),
            wanted={name: value for name, value in standing.run.wanted.items() if value is not None},
            done=standing.done,
            counts={tally.effect: tally.count for tally in standing.tallies},
            rerun_usd=_usd(standing.rerun_micros),
        )


class RecoveryPage(BaseModel):
    """Recoveries, newest first."""

    items: list[RecoveryOut]
    next_cursor: str | None


class ItemPage(BaseModel):
    """Items in the order of work: first those whose outputs expire soonest."""

    items: list[ItemOut]
    next_after: int | None = Field(description="The `after` of the next page")


BEGUN: Responses = {
    200: {"model": PlanOut, "description": "With `dry_run`: what would happen"},
    202: {"model": RecoveryOut, "description": "It is stored and runs; `Location` says where to look"},
    409: {"model": Problem, "description": "Too many are running already"},
}


@router.post("/recoveries", responses=BEGUN, response_model=PlanOut | RecoveryOut)
async def recover(wanted: NewRecovery, runtime: Part, caller: Replayer) -> Response:
    """Ask the providers about live attempts, and carry out what they say."""
    frozen = runtime.ledger.recoveries.frozen(
        caller.tenant, since=wanted.since, until=wanted.until, kind=wanted.kind, limit=wanted.limit
    )  # fmt: skip
    return await _plan_or_begin(runtime, Task.RECOVER, frozen, caller, dry_run=wanted.dry_run)


@router.post("/deliveries/replay", responses=BEGUN, response_model=PlanOut | RecoveryOut)
async def replay_many(wanted: NewReplay, runtime: Part, caller: Replayer) -> Response:
    """Send stored deliveries through the inbox once more: each that would change something, once."""
    frozen = runtime.ledger.recoveries.frozen(caller.tenant, **wanted.model_dump(exclude={"dry_run"}))
    return await _plan_or_begin(runtime, Task.REPLAY, frozen, caller, dry_run=wanted.dry_run)


@router.get("/recoveries")
async def list_recoveries(
    runtime: Part,
    caller: Reader,
    paging: Paged,
) -> RecoveryPage:
    """Recoveries and replays of many, newest first."""
    page = paging.of("recoveries", caller.tenant)
    found = await runtime.ledger.recoveries.list_recoveries(
        tenant=caller.tenant, before_id=page.after, limit=page.reach
    )  # fmt: skip
    shown, more = page.cut(found, lambda each: each.run.id)
    return RecoveryPage(items=[RecoveryOut.of(each) for each in shown], next_cursor=more)


@router.get("/recoveries/{recovery_id}", responses=NOT_FOUND)
async def get_recovery(
    recovery_id: RecoveryId,
    runtime: Part,
    caller: Reader,
    wait: Annotated[float, Query(ge=0, le=60, description="Answer once it goes on, or after so long")] = 0,
) -> RecoveryOut:
    """One recovery as it stands."""
    return RecoveryOut.of(
        await runtime.ledger.recoveries.get(recovery_id, tenant=caller.tenant, wait_s=wait)
    )  # fmt: skip


@router.get("/recoveries/{recovery_id}/items", responses=NOT_FOUND)
async def list_items(
    recovery_id: RecoveryId,
    runtime: Part,
    caller: Reader,
    effect: EffectName | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> ItemPage:
    """What became of each item."""
    found = await runtime.ledger.recoveries.list_items(
        recovery_id, tenant=caller.tenant, effect=effect, after=after, limit=limit + 1
    )
    more = found[limit - 1].number if len(found) > limit else None
    return ItemPage(items=[ItemOut.of(each) for each in found[:limit]], next_after=more)


@router.post(
    "/recoveries/{recovery_id}/abort",
    responses={**NOT_FOUND, 409: {"model": Problem, "description": "It has come to its end"}},
)
async def abort_recovery(recovery_id: RecoveryId, runtime: Part, caller: Replayer) -> RecoveryOut:
    """End a recovery early. What is done stays done; items that are begun come to their end."""
    return RecoveryOut.of(await runtime.ledger.recoveries.abort(recovery_id, by=caller))


async def _plan_or_begin(
    runtime: Runtime, task: Task, wanted: Wanted, caller: Caller, *, dry_run: bool
) -> Response:
    if dry_run:
        plan = await runtime.ledger.recoveries.foresee(task, wanted)
        return JSONResponse(jsonable_encoder(PlanOut.of(task, plan)))
    standing = await runtime.ledger.recoveries.begin(task, wanted, by=caller)
    return JSONResponse(
        jsonable_encoder(RecoveryOut.of(standing)),
        status.HTTP_202_ACCEPTED,
        {"Location": f"/v1/recoveries/{standing.run.id}"},
    )


def _examples(plan: Plan) -> list[ItemOut]:
    shown: Counter[Effect] = Counter()
    found = []
    for item, outcome in zip(plan.items, plan.outcomes, strict=True):
        shown[outcome.effect] += 1
        if shown[outcome.effect] > EXAMPLES:
            continue
        told = {"effect": outcome.effect, "finding": outcome.finding, "detail": outcome.detail[:300]}
        found.append(ItemOut.of(item.model_copy(update={**told, "rerun_micros": outcome.rerun_micros})))
    return found


def _usd(micros: int | None) -> float | None:
    return None if micros is None else to_usd(micros)
