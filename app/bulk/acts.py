"""Ask for something to be done to many jobs: first how many and which, then as an act of its own.

The jobs of an act are chosen when it is asked for and written down with it: what comes later is not part of
it, and its count does not move while it runs. Promises: a dry run chooses exactly as the act would and stores
nothing; a tenant reaches its own jobs and acts alone. Leaves the doing to `app.bulk.runner`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.access.callers import Caller
from app.access.trail import Act, note_act
from app.errors import Conflict, InvalidInput, NotFound
from app.line import Line
from app.search.language import parse
from db.bulk import acts as act_rows
from db.ids import make_id
from db.jobs import find_jobs
from db.search.pages import JobFilter, list_ids
from db.search.terms import Both, Either, Field, Has
from db.session import Transaction
from db.states import LIVE_JOB_STATES, BulkAction, BulkState, JobState
from db.tables import BulkAct, BulkItem, Job

BULK = "bulk"
"""The topic of the hint that there is an act to run."""
MOST_JOBS = 10_000
"""Of one act; a search that finds more is acted on again afterwards."""
MOST_NAMED = 1000
"""Jobs named one by one in one request."""
EXAMPLES = 5
TROUBLES_SHOWN = 20
APPLIES_TO = {
    BulkAction.CANCEL: tuple(sorted(LIVE_JOB_STATES)),
    BulkAction.RETRY: (JobState.FAILED, JobState.CANCELED),
}
"""The states in which a job is one for this action."""


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """What is asked for: a search, or jobs by name."""

    tenant: str
    action: BulkAction
    q: str | None = None
    ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """What an act would do now."""

    total: int
    is_whole: bool
    """Whether these are all that the search finds."""
    examples: list[Job]


class BulkActs:
    """Asking for, reading and stopping acts. One object a runtime."""

    def __init__(self, *, line: Line) -> None:
        self._line = line

    async def preview(self, request: BulkRequest) -> Preview:
        """How many jobs the act would be about, and the first of them. Raises InvalidQuery, InvalidInput."""
        async with self._line.database.reading() as tx:
            ids, is_whole = await self._choose(tx, request)
            found = {job.id: job for job in await find_jobs(tx, ids[:EXAMPLES])}
        return Preview(len(ids), is_whole, [found[each] for each in ids[:EXAMPLES] if each in found])

    async def ask(self, request: BulkRequest, *, by: Caller) -> BulkAct:
        """Choose the jobs and store the act, to be run by any process. Raises as `preview`."""
        now = self._line.clock.now()
        act = BulkAct(
            id=make_id("bulk"),
            tenant=request.tenant,
            action=request.action,
            state=BulkState.QUEUED,
            query=request.q,
            created_at=now,
        )

        async def store(tx: Transaction) -> None:
            ids, act.is_whole = await self._choose(tx, request)
            act.total = len(ids)
            await act_rows.insert_act(tx, act, ids)
            await note_act(tx, by, Act.BULK_BEGUN, act.id, at=now)
            self._line.notifier.announce(tx, BULK)

        await self._line.database.transact(store)
        return act

    async def get(self, act_id: str, *, tenant: str) -> tuple[BulkAct, list[BulkItem]]:
        """An act, and the first of the jobs that it skipped or failed at. Raises NotFound."""
        async with self._line.database.reading() as tx:
            act = await act_rows.find_act(tx, act_id, tenant=tenant)
            if act is None:
                raise NotFound(f"there is no bulk act {act_id[:64]}")
            return act, await act_rows.list_troubles(tx, act_id, limit=TROUBLES_SHOWN)

    async def list_acts(self, *, tenant: str, limit: int) -> list[BulkAct]:
        """Newest first."""
        async with self._line.database.reading() as tx:
            return await act_rows.list_acts(tx, tenant=tenant, limit=limit)

    async def abort(self, act_id: str, *, by: Caller) -> BulkAct:
        """Let an act stop before its next jobs. Raises NotFound, and Conflict when it was done before."""
        act, _ = await self.get(act_id, tenant=by.tenant)
        if act.state == BulkState.DONE:
            raise Conflict("it has come to every job already")
        async with self._line.database.transaction() as tx:
            now = self._line.clock.now()
            await act_rows.ask_to_abort(tx, act_id, now=now)
            await note_act(tx, by, Act.BULK_ABORTED, act_id, at=now)
            self._line.notifier.announce(tx, BULK)
        act, _ = await self.get(act_id, tenant=by.tenant)
        return act

    async def _choose(self, tx: Transaction, request: BulkRequest) -> tuple[list[str], bool]:
        if (request.q is None) == (not request.ids):
            raise InvalidInput("give either a search or the ids of jobs", field="q")
        states = APPLIES_TO[request.action]
        if request.q is None:
            if len(request.ids) > MOST_NAMED:
                raise InvalidInput(f"at most {MOST_NAMED} jobs by name", field="ids")
            return await self._named(tx, request, states), True
        now = self._line.clock.now()
        fits = Either(tuple(Has(Field.STATE, state) for state in states))
        found = parse(request.q, now=now)
        # Side by side, so that each part of the search can lead to an index.
        asked = Both((*(found.parts if isinstance(found, Both) else (found,)), fits))
        # Those that come while it runs are none of its business.
        wanted = JobFilter(tenant=request.tenant, until=now, asked=asked)
        return await list_ids(tx, wanted, most=MOST_JOBS)

    async def _named(self, tx: Transaction, request: BulkRequest, states: Sequence[JobState]) -> list[str]:
        named = list(dict.fromkeys(request.ids))
        found = {job.id: job for job in await find_jobs(tx, named) if job.tenant == request.tenant}
        unknown = [each for each in named if each not in found]
        if unknown:
            raise NotFound(f"there is no job {unknown[0][:64]}")
        return [each for each in named if found[each].state in states]
