"""Forget what a job asked, said and made, at once and for good; its state and its cost stay.

What remains is a row without input, files or words, so that the books add up and the caller who asks is told
what became of it. Files that another job or an upload still has stay for them. The objects are deleted from
the store before the answer, or, should the store be away, by the next round of the housekeeper.
"""

from __future__ import annotations

from contextlib import suppress

import structlog

from app.access.callers import Caller
from app.access.trail import Act, note_act
from app.crash_points import CrashPoint
from app.errors import Conflict, NotFound, StorageUnavailable
from app.housekeeping import Housekeeper
from app.jobs import Jobs
from app.line import Line
from app.views import JobView
from db.retention.expunge import Expunged, expunge_job
from db.session import Transaction

log = structlog.get_logger()


class Expunger:
    """Forgetting. One object a runtime."""

    def __init__(self, *, line: Line, jobs: Jobs, housekeeper: Housekeeper) -> None:
        self._line = line
        self._jobs = jobs
        self._housekeeper = housekeeper

    async def expunge(self, job_id: str, *, by: Caller) -> JobView:
        """The job as it stands afterwards; expunging it again changes nothing.

        Raises NotFound, and Conflict while the job, or a prediction of it, is alive.
        """

        async def forget(tx: Transaction) -> Expunged:
            now = await tx.now()
            done = await expunge_job(tx, job_id, tenant=by.tenant, now=now)
            if done is Expunged.DONE:
                await note_act(tx, by, Act.JOB_EXPUNGED, job_id, at=now)
            return done

        outcome = await self._line.database.transact(forget, is_idempotent=True)
        match outcome:
            case Expunged.UNKNOWN:
                raise NotFound(f"there is no job {job_id[:64]}")
            case Expunged.A_PART:
                raise Conflict("it is a part of another job: expunge that")
            case Expunged.ALIVE:
                raise Conflict("the job has not ended; cancel it first")
            case Expunged.AT_PROVIDER:
                raise Conflict("its prediction is still being ended at its provider; try again soon")
            case Expunged.DONE:
                self._line.reach(CrashPoint.OBJECTS_DOOMED)
                log.info("job.expunged", job_id=job_id)
                with suppress(StorageUnavailable):
                    await self._housekeeper.remove_doomed()
        return await self._jobs.get(job_id, tenant=by.tenant)
