"""`/v1/jobs/{id}/…` for what has ended: its steps, another end from one of them, and forgetting it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from app.ended.rerun import StepName, StepView
from app.web.parts import Part, Reader, Responses, Writer
from app.web.schemas import Asked, JobOut, Problem

JobId = Annotated[str, Path(max_length=64, description="The job's id")]
NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is no such job"}}
CONFLICT: Responses = {409: {"model": Problem, "description": "The job's state does not allow it"}}
GONE: Responses = {410: {"model": Problem, "description": "What it would be made of is deleted"}}

router = APIRouter(
    prefix="/v1/jobs",
    tags=["jobs"],
    responses={422: {"model": Problem, "description": "A value is wrong; `field` names it"}},
)


class StepOut(BaseModel):
    """A step of a job."""

    name: Literal["dispatch", "finish"]
    state: str = Field(description="`waiting`, `running`, `done`, or `ended` without success")
    can_rerun: bool
    code: str | None = Field(description="Why not, as an error code")
    why_not: str | None

    @classmethod
    def of(cls, step: StepView) -> StepOut:
        refusal = step.why_not
        return cls(
            name=step.name.value,
            state=step.state,
            can_rerun=refusal is None,
            code=refusal.code if refusal else None,
            why_not=refusal.message if refusal else None,
        )


class StepList(BaseModel):
    """A job's steps, in order."""

    items: list[StepOut]


class NewRerun(Asked):
    """From which step, and what is different."""

    from_step: Literal["dispatch", "finish"] = Field(alias="from")
    input: dict[str, Any] = Field(
        default_factory=dict, description="Fields over those of the job; the rest stays as it was"
    )


@router.get("/{job_id}/steps", responses=NOT_FOUND)
async def list_steps(job_id: JobId, runtime: Part, caller: Reader) -> StepList:
    """The steps of a job, and from which of them it can be run again."""
    steps = await runtime.reruns.list_steps(job_id, tenant=caller.tenant)
    return StepList(items=[StepOut.of(step) for step in steps])


@router.post("/{job_id}/rerun", status_code=202, responses=NOT_FOUND | CONFLICT | GONE)
async def rerun_job(
    job_id: JobId, wanted: NewRerun, runtime: Part, caller: Writer, response: Response
) -> JobOut:
    """Run a job again from a step, with edited input: a new job, with `rerun_of`; the old one stays.

    From `finish` what the provider answered is finished once more, without asking or paying anybody.
    """
    step = StepName(wanted.from_step)
    made = await runtime.reruns.rerun(job_id, step, wanted.input, by=caller)
    response.headers["Location"] = f"/v1/jobs/{made}"
    return JobOut.of(await runtime.jobs.get(made, tenant=caller.tenant), runtime.links)


@router.post("/{job_id}/expunge", responses=NOT_FOUND | CONFLICT)
async def expunge_job(job_id: JobId, runtime: Part, caller: Writer) -> JobOut:
    """Delete what a job asked, said and made, now and for good; its state and cost stay.

    Files that other jobs have stay for them.
    """
    view = await runtime.expunger.expunge(job_id, by=caller)
    return JobOut.of(view, runtime.links)
