"""`/v1/jobs/bulk`: cancel or retry many jobs; first how many, then as an act with progress and an end."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from app.bulk.acts import MOST_NAMED, BulkRequest
from app.search.language import MOST_CHARS
from app.web.parts import Part, Reader, Responses, Writer
from app.web.schemas import Asked, Problem, StateName, Text
from db.states import BulkAction
from db.tables import BulkAct, BulkItem, Job

ActId = Annotated[str, Path(max_length=64, description="The act's id")]
NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is no such job or act"}}
CONFLICT: Responses = {409: {"model": Problem, "description": "It is done already"}}

router = APIRouter(
    prefix="/v1/jobs/bulk",
    tags=["jobs"],
    responses={422: {"model": Problem, "description": "A value is wrong; `field` names it"}},
)


class NewBulkAct(Asked):
    """What to do, and to which jobs: a search, or ids."""

    action: Literal["cancel", "retry"]
    q: str | None = Field(None, max_length=MOST_CHARS, description="A search; ages count from now")
    ids: list[Annotated[Text, Field(max_length=64)]] = Field(default_factory=list, max_length=MOST_NAMED)
    dry_run: bool = Field(False, description="Answer 200 with how many and the first; nothing is done")


class ExampleOut(BaseModel):
    """One of the jobs that it is about."""

    id: str
    kind: str
    state: StateName
    created_at: datetime

    @classmethod
    def of(cls, job: Job) -> ExampleOut:
        return cls(**job.model_dump(include=set(cls.model_fields)))


class BulkPreviewOut(BaseModel):
    """What the act would be about if it were asked for now."""

    dry_run: Literal[True] = True
    total: int = Field(description="Jobs that it would come to: those that the action applies to")
    is_whole: bool = Field(description="False: there are more, beyond the limit of one act")
    examples: list[ExampleOut]


class TroubleOut(BaseModel):
    """A job that was skipped or failed."""

    job_id: str
    outcome: str
    detail: str | None

    @classmethod
    def of(cls, item: BulkItem) -> TroubleOut:
        return cls(job_id=item.job_id, outcome=item.outcome or "", detail=item.detail)


class BulkActOut(BaseModel):
    """An act as it stands. `changed + skipped + failed` is how far it has come of `total`."""

    id: str
    action: str
    state: str = Field(description="`queued`, `running`, `done` or `aborted`")
    query: str | None
    total: int
    is_whole: bool = Field(description="False: the search finds more than one act takes")
    changed: int
    skipped: int = Field(description="Past that, or gone, when their turn came")
    failed: int
    progress: float = Field(ge=0, le=1)
    created_at: datetime
    abort_at: datetime | None = Field(description="When it was asked to stop")
    finished_at: datetime | None
    troubles: list[TroubleOut] = Field(description="The first that were skipped or failed; not in lists")

    @classmethod
    def of(cls, act: BulkAct, troubles: list[BulkItem] | None = None) -> BulkActOut:
        done = act.changed + act.skipped + act.failed
        return cls(
            **act.model_dump(include=set(cls.model_fields)),
            progress=done / act.total if act.total else 1.0,
            troubles=[TroubleOut.of(each) for each in troubles or []],
        )


class BulkActPage(BaseModel):
    """Acts, newest first."""

    items: list[BulkActOut]


@router.post(
    "",
    status_code=202,
    responses={
        200: {"model": BulkPreviewOut, "description": "A dry run: nothing was done"},
        400: {"model": Problem, "description": "The search cannot be read, or this is not JSON"},
        **NOT_FOUND,
    },
)
async def act_on_many(
    new: NewBulkAct, runtime: Part, caller: Writer, response: Response
) -> BulkActOut | BulkPreviewOut:
    """Cancel or retry all jobs that a search finds now, or that are named; the act says how far it is."""
    request = BulkRequest(caller.tenant, BulkAction(new.action), new.q, new.ids)
    if new.dry_run:
        response.status_code = 200
        preview = await runtime.bulk.preview(request)
        examples = [ExampleOut.of(job) for job in preview.examples]
        return BulkPreviewOut(total=preview.total, is_whole=preview.is_whole, examples=examples)
    act = await runtime.bulk.ask(request, by=caller)
    response.headers["Location"] = f"/v1/jobs/bulk/{act.id}"
    return BulkActOut.of(act)


@router.get("")
async def list_acts(
    runtime: Part, caller: Reader, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> BulkActPage:
    """The latest acts, newest first."""
    acts = await runtime.bulk.list_acts(tenant=caller.tenant, limit=limit)
    return BulkActPage(items=[BulkActOut.of(act) for act in acts])


@router.get("/{act_id}", responses=NOT_FOUND)
async def get_act(act_id: ActId, runtime: Part, caller: Reader) -> BulkActOut:
    """How far an act has come, and what stood in its way."""
    act, troubles = await runtime.bulk.get(act_id, tenant=caller.tenant)
    return BulkActOut.of(act, troubles)


@router.post("/{act_id}/abort", responses=NOT_FOUND | CONFLICT)
async def abort_act(act_id: ActId, runtime: Part, caller: Writer) -> BulkActOut:
    """Stop an act before its next jobs; what it has done stays done. Aborting twice is answered alike."""
    return BulkActOut.of(await runtime.bulk.abort(act_id, by=caller))
