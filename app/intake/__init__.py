"""Accepting jobs: those that arrive together are admitted and stored in one transaction, with one sync.

Promises: each caller is answered after its own job, first event and work item are committed; an
`Idempotency-Key` makes one job however often it is sent, also twice within a group; a job that is refused
leaves nothing behind and holds up none of its neighbours; the queue is bounded. Whether there is room is
`admission`'s to say, which files it reads `files`', how a file gets here `uploads`', whether a request makes
sense its caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from app.errors import AppError, InvalidInput, Overloaded
from app.families.recipes import is_family, recipe_of
from app.intake.admission import Admission
from app.intake.files import find_files
from app.line import Line
from app.work import Station, plan_item
from db.access.audit import insert_audit
from db.events import insert_first_events
from db.families import PLANNED
from db.group_commit import GroupCommit, GroupCommitFull
from db.jobs import find_jobs, insert_jobs
from db.keys import find_idempotency_key, insert_idempotency_key
from db.search.index import insert_words, read_words
from db.session import Transaction
from db.states import JobState
from db.tables import Audit, IdempotencyKey, Job
from db.uploads import insert_inputs

MOST_TOGETHER = 64
MOST_WAITING = 1000
"""Requests that wait to be stored; each holds its whole body."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A job to be stored, and the key under which its caller may ask for it again."""

    job: Job
    key: str | None = None
    fingerprint: str = ""
    """SHA-256 of the request in one canonical spelling."""
    act: Audit | None = None
    """For the audit log, where asking for it was an act of its own."""


class Intake:
    """Stores new jobs. One a runtime."""

    def __init__(self, *, line: Line) -> None:
        self._line = line
        self._admission = Admission(line=line)
        self._group = GroupCommit(self._store, most_queued=MOST_WAITING, most_together=MOST_TOGETHER)

    async def accept(self, asked: Asked) -> str:
        """The id of the job that this makes, or has made before; returns after the commit.

        Raises Overloaded, BudgetExceeded, DatabaseUnavailable, and InvalidInput for a key that made another
        request's job.
        """
        try:
            outcome = await self._group.submit(asked)
        except GroupCommitFull as exc:
            raise Overloaded("too many jobs are waiting to be stored", retry_after_s=1) from exc
        if isinstance(outcome, AppError):
            raise outcome
        return outcome

    async def aclose(self) -> None:
        await self._group.aclose()

    async def _store(self, group: Sequence[Asked]) -> list[str | AppError]:
        # Idempotent by the ids of the jobs: whether a commit whose answer was lost took place, the second
        # try finds out; and it does not ask for room again.
        work = partial(self._store_in, group=group, admitted=set())
        return await self._line.database.transact(work, is_idempotent=True)

    async def _store_in(
        self, tx: Transaction, *, group: Sequence[Asked], admitted: set[str]
    ) -> list[str | AppError]:
        tenants = {asked.job.tenant for asked in group}
        await self._admission.look(tx, group[0].job.created_at, tenants)
        outcomes: list[str | AppError] = []
        there = {job.id for job in await find_jobs(tx, list(admitted))} if admitted else set()
        fresh: list[Asked] = []
        files: dict[str, dict[str, str]] = {}
        for asked in group:
            try:
                job_id = await self._claim(tx, asked, admitted, files)
            except AppError as exc:
                outcomes.append(exc)
                continue
            outcomes.append(job_id)
            if job_id == asked.job.id and job_id not in there:
                fresh.append(asked)
        if fresh:
            await self._insert(tx, [asked.job for asked in fresh], files)
            if acts := [asked.act for asked in fresh if asked.act is not None]:
                await insert_audit(tx, *acts)
        return outcomes

    async def _claim(
        self, tx: Transaction, asked: Asked, admitted: set[str], files: dict[str, dict[str, str]]
    ) -> str:
        """The id of the job that this makes or has made. Raises before anything of it is written."""
        if asked.key is not None:
            known = await find_idempotency_key(tx, asked.job.tenant, asked.key)
            if known is not None:
                return _same(known, asked)
        if found := await find_files(tx, asked.job):
            files[asked.job.id] = found
        _class(asked.job)
        if asked.job.id not in admitted:
            self._admission.admit(asked.job)
            admitted.add(asked.job.id)
        if asked.key is None:
            return asked.job.id
        key = IdempotencyKey(
            tenant=asked.job.tenant,
            key=asked.key,
            fingerprint=asked.fingerprint,
            job_id=asked.job.id,
            created_at=asked.job.created_at,
        )
        # Another process may have been first in between, and its job is the one then.
        return _same(await insert_idempotency_key(tx, key), asked)

    async def _insert(self, tx: Transaction, jobs: Sequence[Job], files: dict[str, dict[str, str]]) -> None:
        read_words(jobs)
        await insert_jobs(tx, jobs)
        await insert_words(tx, jobs)
        for job in jobs:
            if job.id in files:
                await insert_inputs(tx, job.id, files[job.id])
        await insert_first_events(
            tx, jobs, "job.created", lambda job: {"status": job.state, "kind": job.kind}
        )
        for state, station in _FIRST_STATIONS.items():
            items = (_item_of(job) for job in jobs if job.state == state)
            self._line.engine.enqueue(tx, station, *items)
        for job in jobs:
            self._line.hint_job(tx, job)


_FIRST_STATIONS = {JobState.QUEUED: Station.DISPATCH, JobState.FINISHING: Station.FINISH}
"""Where a new job goes first: to a provider, or, with another's result, straight to the finisher."""


def _class(job: Job) -> None:
    """Write down by what recipe it is made, now that its files are known, and of a parent that it is one."""
    job.recipe = recipe_of(job)
    if is_family(job.kind) and job.state == JobState.QUEUED:
        # Its children wait for providers in its stead.
        job.plan_at, job.waiting_for = job.created_at, PLANNED


def _item_of(job: Job) -> str:
    return job.id if job.plan_at is None else plan_item(job.id)


def _same(known: IdempotencyKey, asked: Asked) -> str:
    if known.fingerprint != asked.fingerprint:
        raise InvalidInput("this Idempotency-Key was used for another request", field="Idempotency-Key")
    return known.job_id
