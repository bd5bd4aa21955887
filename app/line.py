"""What every station of the line holds: the settings, the rows, the work engine, the hints, the figures.

One frozen object a runtime, made in `app.wiring`. It decides nothing; it keeps constructors short and says
once how a change of a job is made known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from app.announcing.letters import write_letter
from app.crash_points import Reach, pass_by
from app.notify import Notifier, feed_topic, job_topic
from app.routing.router import Router
from app.settings import Settings
from app.watch.clocks import LineClock
from app.watch.metrics import Metrics
from app.work import Station, WorkEngine
from db.announcements.sending import insert_announcement
from db.events import append_event
from db.jobs import move_job
from db.session import Database, Transaction
from db.states import JobState
from db.tables import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The shared parts of the stations."""

    settings: Settings
    database: Database
    engine: WorkEngine
    notifier: Notifier
    metrics: Metrics
    clock: LineClock
    router: Router
    process_id: str
    """Names this process to the others; new at every start."""
    reach: Reach = pass_by

    def hint_job(self, tx: Transaction, job: Job) -> None:
        """Say, once the transaction is committed, that this job has changed."""
        self.notifier.announce(tx, job_topic(job.id), feed_topic(job.tenant))

    async def end_job(
        self, tx: Transaction, job: Job, state: JobState, *, lease: str | None = None, **facts: Any
    ) -> bool:
        """Move a job to a terminal state with its last event, and with what its caller is told of it; False
        when somebody else ended it first.

        `facts` must hold `now`; `code` and `message` for a failure; the rest goes into the event.
        """
        now = facts.pop("now")
        values: dict[str, Any] = {
            "finished_at": now,
            "stage": None,
            "waiting_reason": None,
            "waiting_for": None,
            "error_code": facts.get("code"),
            "error_message": facts.get("message"),
        }
        kept_s = self.settings.retention_s if job.retention_s is None else job.retention_s
        if kept_s is not None:
            values["expires_at"] = now + timedelta(seconds=kept_s)
        if state is JobState.SUCCEEDED:
            values["progress"] = 1.0
        ended = await move_job(tx, job.id, state, lease=lease, values=values)
        if ended:
            await append_event(tx, job.id, f"job.{state}", at=now, status=state.value, **facts)
            tx.after_commit(partial(self._count_end, job.kind, state, (now - job.created_at).total_seconds()))
            self.hint_job(tx, job)
            if job.callback_url is not None:
                code, message = facts.get("code"), facts.get("message")
                letter = write_letter(job, job.callback_url, state, now=now, code=code, message=message)
                await insert_announcement(tx, letter)
                self.engine.enqueue(tx, Station.ANNOUNCE, letter.id)
        return ended

    def _count_end(self, kind: str, state: JobState, took_s: float) -> None:
        self.metrics.jobs_ended.labels(kind, state.value).inc()
        self.metrics.job_seconds.labels(kind, state.value).observe(max(0.0, took_s))

    async def requeue_job(
        self,
        tx: Transaction,
        job: Job,
        *,
        reason: str,
        now: datetime,
        wait_s: float = 0.0,
        lease: str | None = None,
    ) -> bool:
        """Put a live job back for another attempt, and say why in an event; False when it is past that."""
        moved = await move_job(
            tx,
            job.id,
            JobState.QUEUED,
            lease=lease,
            values={
                "run_after": now + timedelta(seconds=wait_s),
                "stage": None,
                "waiting_reason": reason[:500],
            },
        )
        if moved:
            await append_event(tx, job.id, "job.requeued", at=now, status="queued", reason=reason[:500])
            self.engine.enqueue(tx, Station.DISPATCH, job.id)
            self.hint_job(tx, job)
        return moved
