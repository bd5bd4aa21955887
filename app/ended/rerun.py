"""Another end for a job, from one of its steps on, with edited input; what it ended with is kept.

A re-run is a new job that names the old one: terminal states never change. From `dispatch` the provider is
asked anew. From `finish` what it answered before is finished once more, with other trim settings perhaps,
and nobody is asked or paid: the answer is in the ledger, with the sound itself where our own engines made it,
with an address that the provider keeps for a while where a hosted one did. An edit that would have changed
what the provider was asked is refused there: the old sound would stand under a prompt that never made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from app.access.callers import Caller
from app.access.trail import Act
from app.errors import AppError, Conflict, Gone, InvalidInput
from app.jobs import Jobs, refuse_child
from app.kinds import get_kind
from app.line import Line
from app.provider.base import Provider, understand
from db.attempts import Result, find_result
from db.states import JobState
from db.tables import Job

KEPT_S = {"replicate": 3600.0}
"""How long a provider keeps outputs of predictions made over its API (its documentation on data retention);
one that is not here says so itself when it is asked."""


class StepName(StrEnum):
    """A step from which a job can be run again."""

    DISPATCH = "dispatch"
    """Ask a provider."""
    FINISH = "finish"
    """Fetch, trim and store what it answered."""


@dataclass(frozen=True, slots=True)
class StepView:
    """A step of a job as it stands."""

    name: StepName
    state: str
    """`waiting`, `running`, `done` or `ended`: ended is without success."""
    why_not: AppError | None
    """What a re-run from here would be answered with; None when it can be."""


class Reruns:
    """Steps, and running from one again. One object a runtime."""

    def __init__(self, *, line: Line, jobs: Jobs, providers: Mapping[str, Provider]) -> None:
        self._line = line
        self._jobs = jobs
        self._providers = providers

    async def list_steps(self, job_id: str, *, tenant: str) -> list[StepView]:
        """The job's steps in order. Raises NotFound."""
        job, result = await self._read(job_id, tenant)
        steps = [StepView(StepName.DISPATCH, _dispatch_state(job, result), _refusal(job))]
        refusal = _refusal(job) or await self._find_refusal(result)
        return [*steps, StepView(StepName.FINISH, _finish_state(job), refusal)]

    async def rerun(self, job_id: str, step: StepName, edits: Mapping[str, Any], *, by: Caller) -> str:
        """A new job's id.

        Raises NotFound; Conflict while the job is alive, or has no result to finish; Gone when that is
        deleted; InvalidInput for the edited input; and as `Jobs.submit`.
        """
        job, result = await self._read(job_id, by.tenant)
        refuse_child(job)
        refusal = _refusal(job)
        if refusal is None and step is StepName.FINISH:
            refusal = await self._find_refusal(result)
        if refusal is not None:
            raise refusal
        changed = self._jobs.check_input(job.kind, {**job.input, **edits})
        values: dict[str, Any] = {"input": changed, "rerun_of": job.id, "retry_of": None}
        if step is StepName.FINISH and result is not None:
            _refuse_other_sound(job, result.provider, changed)
            source = job.result_of or job.id
            values |= {
                "state": JobState.FINISHING, "result_of": source, "stage": "finishing", "progress": 0.95,
            }  # fmt: skip
        return (await self._jobs.submit_again(job, values, by=by, act=Act.JOB_RERUN)).job.id

    async def _read(self, job_id: str, tenant: str) -> tuple[Job, Result | None]:
        job = (await self._jobs.get(job_id, tenant=tenant)).job
        async with self._line.database.reading() as tx:
            return job, await find_result(tx, job.result_of or job.id)

    async def _find_refusal(self, result: Result | None) -> AppError | None:
        """Why what the provider answered cannot be finished again."""
        if result is None:
            return Conflict("no prediction of it succeeded: there is nothing to finish again")
        if not result.body:
            return Gone("what the provider answered was expunged")
        provider = self._providers.get(result.provider)
        if provider is None:
            return Conflict(f"{result.provider} is not configured here any more")
        try:
            prediction = await understand(provider, result.body)
        except AppError as exc:
            return Conflict(f"what the provider answered cannot be read: {exc.message}")
        if prediction.data_removed:
            return Gone("the provider has deleted the output; re-run it from dispatch")
        kept_s = KEPT_S.get(result.provider)
        if kept_s is not None and _is_elsewhere(prediction.output) and _is_over(result, kept_s, self._now()):
            return Gone(
                f"{result.provider} keeps outputs for {kept_s / 60:g} minutes; re-run it from dispatch"
            )
        return None

    def _now(self) -> datetime:
        return self._line.clock.now()


def _refusal(job: Job) -> AppError | None:
    if job.expunged_at is not None:
        return Gone("what it asked for was expunged")
    if not JobState(job.state).is_terminal:
        return Conflict(f"the job has not ended; it is {job.state}")
    return None


def _refuse_other_sound(job: Job, provider: str, changed: dict[str, Any]) -> None:
    kind = get_kind(job.kind)
    asked, would_ask = (
        kind.ask(provider, kind.input_model.model_validate(each)) for each in (job.input, changed)
    )
    if asked != would_ask:
        names = sorted(name for name in changed if changed[name] != job.input.get(name))
        raise InvalidInput(
            f"input.{names[0]} is what the provider was asked; re-run from dispatch to change it",
            field=f"input.{names[0]}",
        )


def _is_elsewhere(output: object) -> bool:
    """Whether any of it is an address at the provider, not the content itself."""
    match output:
        case str():
            return output.startswith(("https://", "http://"))
        case Mapping():
            return any(_is_elsewhere(each) for each in output.values())
        case list():
            return any(_is_elsewhere(each) for each in output)
        case _:
            return False


def _is_over(result: Result, kept_s: float, now: datetime) -> bool:
    return now - result.received_at > timedelta(seconds=kept_s)


def _dispatch_state(job: Job, result: Result | None) -> str:
    if result is not None:
        return "done"
    return {JobState.QUEUED: "waiting", JobState.RUNNING: "running"}.get(JobState(job.state), "ended")


def _finish_state(job: Job) -> str:
    states = {
        JobState.QUEUED: "waiting", JobState.RUNNING: "waiting", JobState.FINISHING: "running",
        JobState.SUCCEEDED: "done",
    }  # fmt: skip
    return states.get(JobState(job.state), "ended")
