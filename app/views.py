"""Jobs as callers read them, read for many at once.

A hint may wake thousands of waiters in one turn of the event loop. Reads that are asked for before a batch
has begun share it: one transaction and three statements for all of them. A reader never joins a batch that
has begun, since that may have looked at the row before the change that woke the reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from app.families.recipes import is_family
from db.assets import list_outputs
from db.attempts import list_attempts
from db.families import list_children
from db.jobs import find_jobs
from db.session import Database, Transaction
from db.states import AttemptStatus, JobState
from db.tables import Asset, Attempt, Job

MOST_TOGETHER = 500


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with all that hangs on it."""

    job: Job
    attempts: Sequence[Attempt]
    outputs: dict[str, Asset]
    children: Sequence[JobView] = ()
    """The jobs that do its work, in the order in which they were begun; their outputs are not read."""

    @property
    def all_attempts(self) -> list[Attempt]:
        """Its own, and those of its children: what was spent on it."""
        return [*self.attempts, *(attempt for child in self.children for attempt in child.attempts)]

    @property
    def is_ended(self) -> bool:
        return JobState(self.job.state).is_terminal


def why_waiting(view: JobView) -> str | None:
    """Why the job is not further yet, in words; None while somebody works on it, or when it has ended."""
    match JobState(view.job.state):
        case JobState.QUEUED:
            return view.job.waiting_reason or "in line to be sent to a provider"
        case JobState.RUNNING if view.attempts:
            return _why_not_begun(view.attempts[-1])
        case JobState.RUNNING if view.job.waiting_reason or view.children:
            living = (why for child in view.children if (why := why_waiting(child)))
            return view.job.waiting_reason or next(living, None)
        case JobState.FINISHING:
            return view.job.waiting_reason
        case _:
            return None


def _why_not_begun(attempt: Attempt) -> str | None:
    if attempt.status == AttemptStatus.PENDING:
        return f"being sent to {attempt.provider} since {attempt.created_at:%H:%M:%S} UTC"
    if attempt.status == AttemptStatus.STARTING and (place := attempt.metrics.get("queue_position")):
        return f"{attempt.provider} has it in its queue, at place {place}"
    if attempt.status == AttemptStatus.STARTING:
        return f"{attempt.provider} starting since {attempt.created_at:%H:%M:%S} UTC"
    return None


class Views:
    """The reading side of jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: dict[str, asyncio.Future[JobView | None]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    async def find(self, job_id: str) -> JobView | None:
        """The job as it stands from now on; None when there is none. Raises DatabaseUnavailable."""
        if not self._asked:
            # Begins at the loop's next turn: whoever asks in this one is in the batch.
            task = asyncio.create_task(self._read())
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
        answer = self._asked.get(job_id)
        if answer is None:
            answer = self._asked[job_id] = asyncio.get_running_loop().create_future()
        # Shielded: a reader that is cancelled must not cancel the answer of its neighbours.
        return await asyncio.shield(answer)

    async def of(self, tx: Transaction, jobs: Sequence[Job]) -> list[JobView]:
        """These jobs with their attempts and outputs."""
        ids = [job.id for job in jobs]
        attempts = _by_job(await list_attempts(tx, *ids))
        outputs = await list_outputs(tx, *ids)
        views = [JobView(job, attempts.get(job.id, []), outputs.get(job.id, {})) for job in jobs]
        parents = [job.id for job in jobs if is_family(job.kind)]
        return await self._with_children(tx, views, parents) if parents else views

    async def _with_children(
        self, tx: Transaction, views: Sequence[JobView], parents: Sequence[str]
    ) -> list[JobView]:
        children = await list_children(tx, *parents)
        attempts = _by_job(await list_attempts(tx, *(child.id for child in children)))
        by_parent: dict[str, list[JobView]] = {}
        for child in children:
            view = JobView(child, attempts.get(child.id, []), {})
            by_parent.setdefault(child.parent_id or "", []).append(view)
        return [replace(view, children=by_parent.get(view.job.id, ())) for view in views]

    async def _read(self) -> None:
        asked, self._asked = self._asked, {}
        ids = list(asked)
        for at in range(0, len(ids), MOST_TOGETHER):
            chunk = ids[at : at + MOST_TOGETHER]
            try:
                async with self._database.reading() as tx:
                    views = {view.job.id: view for view in await self.of(tx, await find_jobs(tx, chunk))}
            except Exception as exc:  # noqa: BLE001 - it belongs to those who asked
                _answer((asked[job_id] for job_id in chunk), exc)
            else:
                for job_id in chunk:
                    asked[job_id].set_result(views.get(job_id))


def _answer(futures: Iterable[asyncio.Future[JobView | None]], exc: Exception) -> None:
    for future in futures:
        future.set_exception(exc)
        # All who asked may be gone: an exception that nobody fetches is no news then.
        future.exception()


def _by_job(attempts: Sequence[Attempt]) -> dict[str, list[Attempt]]:
    grouped: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        grouped.setdefault(attempt.job_id, []).append(attempt)
    return grouped
