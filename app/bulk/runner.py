"""Carry bulk acts out: one job after the other, under a lease, by the same commands that callers give.

Promises: an act goes on where it was, in whichever process comes next, after a kill at any moment; a job that
was come to twice because of that is changed once (a cancel is idempotent, a retry goes by a key made of the
act and the job); an act that was asked to stop does so within one batch, with every job counted that it came
to. Acts run one at a time in a process, the oldest first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from app.access.callers import Caller, Scope
from app.errors import AppError, Conflict, NotFound, Overloaded
from app.jobs import Jobs
from app.line import Line
from db.bulk import acts as act_rows
from db.bulk.acts import KEPT_FOR, Ended
from db.ids import make_id
from db.session import DatabaseUnavailable
from db.states import BulkAction, BulkOutcome, BulkState
from db.tables import BulkAct, BulkItem

log = structlog.get_logger()

BATCH = 20
"""Jobs between two looks at whether it shall stop: what a kill does again at most."""
MOST_PAUSES = 60
"""How often one job waits for room before it counts as failed."""
LONGEST_PAUSE_S = 5.0
FORGOTTEN_AT_ONCE = 10
_DETAIL = 200


class BulkRunner:
    """The runner of acts. One object a process."""

    def __init__(self, *, line: Line, jobs: Jobs) -> None:
        self._line = line
        self._jobs = jobs
        self._is_stopping = False

    def stop(self) -> None:
        """Leave off after the batch that has begun; the act is given back for the next process."""
        self._is_stopping = True

    async def check(self) -> int:
        """Run every act that nobody is at, to its end; how many. Beginning one forgets those of long ago."""
        ran = 0
        while not self._is_stopping and (act := await self._claim(lease := make_id("lease"))):
            await self._run(act, lease)
            ran += 1
        return ran

    async def _claim(self, lease: str) -> BulkAct | None:
        # Read first: most of the time there is nothing, and nobody need wait for a writer's turn for that.
        async with self._line.database.reading() as tx:
            if not await act_rows.has_open_act(tx):
                return None
        now = self._line.clock.now()
        async with self._line.database.transaction() as tx:
            await act_rows.forget_acts(tx, before=now - KEPT_FOR, limit=FORGOTTEN_AT_ONCE)
            return await act_rows.claim_act(tx, lease=lease, now=now, lease_s=self._line.settings.lease_s)

    async def _run(self, act: BulkAct, lease: str) -> None:
        log.info("bulk.begun", act_id=act.id, action=act.action, total=act.total)
        state: BulkState | None = None
        try:
            state = await self._go_through(act, lease)
        finally:
            if state is None:
                # Stopped or failed in the middle: whoever comes next need not wait for the lease to end.
                with suppress(DatabaseUnavailable):
                    async with self._line.database.transaction() as tx:
                        await act_rows.release_act(tx, act.id, lease=lease)
        if state is not None and state is not BulkState.RUNNING:
            log.info("bulk.ended", act_id=act.id, state=state)

    async def _go_through(self, act: BulkAct, lease: str) -> BulkState | None:
        """How it ended; RUNNING when it is in somebody else's hands, None when it is to be given back."""
        while not self._is_stopping:
            async with self._line.database.reading() as tx:
                items = await act_rows.list_open_items(tx, act.id, limit=BATCH)
            stands = await self._note(act, [], lease)
            if stands is None:
                return BulkState.RUNNING
            if not items or stands.abort_at is not None:
                state = BulkState.ABORTED if items else BulkState.DONE
                async with self._line.database.transaction() as tx:
                    now = self._line.clock.now()
                    ended = await act_rows.end_act(tx, act.id, state, lease=lease, now=now)
                return state if ended else BulkState.RUNNING
            ended_items = [await self._one(act, item, lease) for item in items]
            if await self._note(act, ended_items, lease) is None:
                return BulkState.RUNNING
        return None

    async def _note(self, act: BulkAct, ended: Sequence[Ended], lease: str) -> BulkAct | None:
        now, lease_s = self._line.clock.now(), self._line.settings.lease_s
        async with self._line.database.transaction() as tx:
            return await act_rows.note_progress(tx, act.id, ended, lease=lease, now=now, lease_s=lease_s)

    async def _one(self, act: BulkAct, item: BulkItem, lease: str) -> Ended:
        """Do it to one job, waiting for room where there is none."""
        for _ in range(MOST_PAUSES):
            try:
                return Ended(item.number, BulkOutcome.CHANGED, await self._do(act, item.job_id))
            except (Conflict, NotFound) as exc:
                return Ended(item.number, BulkOutcome.SKIPPED, exc.message[:_DETAIL])
            except Overloaded as exc:
                pause_s, message = min(exc.retry_after_s or 1.0, LONGEST_PAUSE_S), exc.message
            except AppError as exc:
                return Ended(item.number, BulkOutcome.FAILED, exc.message[:_DETAIL])
            # Keeps the lease, and hears of a stop.
            stands = await self._note(act, [], lease)
            if stands is None or stands.abort_at is not None:
                return Ended(item.number, BulkOutcome.FAILED, message[:_DETAIL])
            await asyncio.sleep(pause_s)
        return Ended(item.number, BulkOutcome.FAILED, "there was no room for it")

    async def _do(self, act: BulkAct, job_id: str) -> str | None:
        by = Caller(act.tenant, frozenset({Scope.JOBS_WRITE}))
        match BulkAction(act.action):
            case BulkAction.CANCEL:
                await self._jobs.cancel(job_id, by=by)
                return None
            case BulkAction.RETRY:
                made = await self._jobs.retry(job_id, by=by, idempotency_key=f"{act.id}:{job_id}")
                return made.job.id
