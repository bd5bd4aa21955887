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
from app.families.recipes import is_family
from app.notify import RECOVERY, Notifier, feed_topic, job_topic
from app.routing.router import Router
from app.settings import Settings
from app.watch.clocks import LineClock
from app.watch.metrics import Metrics
from app.work import Station, WorkEngine, plan_item
from db import families
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
        when somebody else ended it first. A child's end makes its parent due; a parent that ends without
        success takes its children along.

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
            "plan_at": None,
        }
        kept_s = self.settings.retention_s if job.retention_s is None else job.retention_s
        # A child goes with its parent, which may live for longer.
        if kept_s is not None and job.parent_id is None:
            values["expires_at"] = now + timedelta(seconds=kept_s)
        if state is JobState.SUCCEEDED:
            values |= {"progress": 1.0, "measured": facts.get("measured")}
        ended = await move_job(tx, job.id, state, lease=lease, values=values)
        if ended:
            await append_event(tx, job.id, f"job.{state}", at=now, status=state.value, **facts)
            tx.after_commit(partial(self._count_end, job.kind, state, (now - job.created_at).total_seconds()))
            self.hint_job(tx, job)
            await self._tell_family(tx, job, state, now)
            if job.callback_url is not None:
                code, message = facts.get("code"), facts.get("message")
                letter = write_letter(job, job.callback_url, state, now=now, code=code, message=message)
                await insert_announcement(tx, letter)
                self.engine.enqueue(tx, Station.ANNOUNCE, letter.id)
        return ended

    async def _tell_family(self, tx: Transaction, job: Job, state: JobState, now: datetime) -> None:
        due: list[str] = []
        if job.recipe is not None:
            due += await families.wake_for_recipe(tx, job.tenant, job.recipe, now=now)
        if job.parent_id is not None and await families.make_parent_due(tx, job.parent_id, now=now):
            due.append(job.parent_id)
        self.engine.enqueue(tx, Station.DISPATCH, *map(plan_item, due))
        if state is not JobState.SUCCEEDED and is_family(job.kind):
            children = await families.lock_live_children(tx, job.id)
            for child in children:
                await self.end_job(tx, child, JobState.CANCELED, now=now)
            await families.look_at_attempts(tx, [child.id for child in children], now=now)
            self.notifier.announce(tx, RECOVERY)

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
