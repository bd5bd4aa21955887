"""Carry a decision out on the rows: the attempt, its job, the events and the work items, in one transaction.

Owns what `Finish`, `TryAgain` and the others of `app.lifecycle` mean for tables. Promises: each move is
compare-and-set, so a decision that lost a race moves nothing; an attempt that ends makes room for the
next job that waits for its provider, and has its cost booked, in the same transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.backoff import jittered
from app.costs.bills import Bill, amend_bill, make_bill
from app.costs.prices import list_prices, to_usd
from app.crash_points import CrashPoint
from app.families.plan import progress_of
from app.kinds import KINDS
from app.lifecycle import Advance, Decision, Fail, Finish, Ignore, News, TryAgain, next_check
from app.line import Line
from app.provider.base import Prediction, Provider
from app.routing.recovery import Action, Remedy, Trouble
from app.work import Station
from db import attempts as attempt_rows
from db import families
from db import jobs as job_rows
from db.events import append_event
from db.session import Transaction
from db.states import AttemptStatus, JobState
from db.tables import Attempt, Delivery, Job


class Moves:
    """The hands of the inbox."""

    def __init__(self, *, line: Line, providers: Mapping[str, Provider]) -> None:
        self._line = line
        self._providers = providers
        self._prices = list_prices(line.settings.prices)

    async def carry_out(
        self,
        tx: Transaction,
        decision: Decision,
        job: Job,
        attempt: Attempt,
        news: News,
        now: datetime,
        delivery: Delivery | None = None,
    ) -> bool:
        """Move the rows as decided; False when nothing moved. `delivery` is what brought the news, if any."""
        if isinstance(decision, Ignore) and decision.attempt_status is None:
            await self._note_cost(tx, job, attempt, news, now)
            return False
        status = decision.attempt_status
        known = _known_of(news, attempt, now)
        bill = None
        if status is not None and status.is_terminal:
            bill = make_bill(self._prices, job, attempt, _told(news), now)
            known |= bill.columns()
            known["told_by"] = delivery.source if delivery else None
        if isinstance(decision, Finish):
            known["result_delivery_id"] = delivery.id if delivery else None
        elif isinstance(decision, (TryAgain, Fail)):
            known |= _known_of_end(decision)
        elif isinstance(decision, Advance) and isinstance(news, Prediction) and self._can_poll(attempt):
            known["check_at"] = self._next_check(job, attempt, decision.attempt_status, now)
        moved = status is None or await attempt_rows.move_attempt(tx, attempt.id, status, now=now, **known)
        if isinstance(decision, Advance):
            if not moved and "check_at" in known:
                await attempt_rows.note_attempt(tx, attempt.id, heard_at=now, check_at=known["check_at"])
            return await self._advance(tx, job, attempt, news, now) or moved
        if moved and bill is not None and status is not None:
            self._free_slot(tx, attempt, status, now)
            self._count_spend(tx, job, attempt, bill)
        if not moved or isinstance(decision, Ignore):
            return False
        return await self._move_job(tx, decision, job, attempt, now)

    async def _move_job(
        self,
        tx: Transaction,
        decision: Finish | TryAgain | Fail,
        job: Job,
        attempt: Attempt,
        now: datetime,
    ) -> bool:
        match decision:
            case Finish():
                return await self._to_finisher(tx, job, attempt, now)
            case TryAgain():
                reason = f"attempt {attempt.number} ended: {decision.reason}"
                return await self._line.requeue_job(
                    tx, job, reason=reason, now=now, wait_s=jittered(decision.wait_s)
                )
            case Fail():
                return await self._line.end_job(
                    tx, job, JobState.FAILED, now=now, code=decision.code, message=decision.message
                )

    async def _to_finisher(self, tx: Transaction, job: Job, attempt: Attempt, now: datetime) -> bool:
        moved = await job_rows.move_job(
            tx, job.id, JobState.FINISHING, values={"run_after": now, "stage": "finishing", "progress": 0.95}
        )
        if moved:
            await append_event(
                tx, job.id, "job.finishing", at=now, status="finishing", attempt=attempt.number
            )
            self._line.engine.enqueue(tx, Station.FINISH, job.id)
            self._line.hint_job(tx, job)
        return moved

    def _can_poll(self, attempt: Attempt) -> bool:
        return self._providers[attempt.provider].can_poll

    def _next_check(self, job: Job, attempt: Attempt, status: AttemptStatus, now: datetime) -> datetime:
        settings = self._line.settings
        return next_check(
            attempt.created_at,
            now,
            silence_s=settings.silence_s,
            limit_at=attempt.limit_at or job.deadline_at,
            start_by=attempt.start_by if status is AttemptStatus.STARTING else None,
        )

    async def _advance(self, tx: Transaction, job: Job, attempt: Attempt, news: News, now: datetime) -> bool:
        if not isinstance(news, Prediction):
            return False
        progress = min(0.9, 0.9 * (news.progress or 0.0))
        advanced = await job_rows.advance_job(tx, job.id, progress=progress, stage=news.step or news.status)
        if advanced:
            await append_event(
                tx, job.id, "job.progress", at=now, status="running", progress=round(progress, 3),
                stage=news.step or news.status,
            )  # fmt: skip
            self._line.hint_job(tx, job)
            if job.parent_id is not None:
                await self._advance_parent(tx, job.parent_id, job.step, now)
        return advanced

    async def _advance_parent(self, tx: Transaction, parent_id: str, step: str | None, now: datetime) -> None:
        """A child has come further: so has its parent, by the child's share."""
        parent = await job_rows.find_job(tx, parent_id)
        kind = KINDS.get(parent.kind) if parent else None
        if parent is None or kind is None or kind.family is None:
            return
        siblings = await families.list_siblings(tx, parent_id)
        progress = progress_of(kind.family, {each.step: each.progress for each in siblings})
        if await job_rows.advance_job(tx, parent_id, progress=progress, stage=step):
            await append_event(
                tx,
                parent_id,
                "job.progress",
                at=now,
                status="running",
                progress=round(progress, 3),
                stage=step,
            )
            self._line.hint_job(tx, parent)

    def _free_slot(self, tx: Transaction, attempt: Attempt, status: AttemptStatus, now: datetime) -> None:
        """An attempt is over: whoever waits first for this provider is due."""
        tx.after_commit(
            lambda: self._line.metrics.attempts_ended.labels(attempt.provider, status.value).inc()
        )
        # Once for all that end in this transaction.
        tx.before_commit("slots", [(attempt.provider, now)], self._wake)

    async def _wake(self, tx: Transaction, freed: list[tuple[str, datetime]]) -> None:
        for provider, slots in Counter(provider for provider, _ in freed).items():
            woken = await job_rows.wake_waiting(tx, provider, now=freed[0][1], limit=slots)
            self._line.engine.enqueue(tx, Station.DISPATCH, *woken)

    async def _note_cost(
        self, tx: Transaction, job: Job, attempt: Attempt, news: News, now: datetime
    ) -> None:
        """A late result changes nothing but what is known of its price."""
        if not isinstance(news, Prediction):
            return
        known: dict[str, Any] = {}
        if news.metrics and not attempt.metrics:
            known["metrics"] = dict(news.metrics)
        bill = amend_bill(self._prices, job, attempt, news, now)
        if bill is not None:
            known |= bill.columns()
            self._count_spend(tx, job, attempt, bill)
        if known:
            await attempt_rows.note_attempt(tx, attempt.id, **known)

    def _count_spend(self, tx: Transaction, job: Job, attempt: Attempt, bill: Bill) -> None:
        """What it cost beyond what was booked: a counter never falls."""
        more = (bill.cost_micros or 0) - (attempt.cost_micros or 0)
        if more > 0:
            counter = self._line.metrics.spend.labels(attempt.provider, job.kind)
            tx.after_commit(lambda: counter.inc(to_usd(more)))

    async def end_refused(self, attempt_id: str, trouble: Trouble, remedy: Remedy, message: str) -> None:
        """End an attempt that the provider refused to begin: another provider's turn, or the job's end."""
        now = self._line.clock.now()
        if remedy.action is Action.ABORT:
            decision: Decision = Fail(AttemptStatus.FAILED, remedy.code, message, trouble)
        else:
            decision = TryAgain(AttemptStatus.FAILED, message, remedy.wait_s, trouble, remedy.action)
        async with self._line.database.transaction() as tx:
            pair = await attempt_rows.lock_attempt(tx, attempt_id)
            if pair is None:
                return
            job, attempt = pair
            await self.carry_out(tx, decision, job, attempt, Prediction(None, "failed"), now)
        self._line.reach(CrashPoint.ATTEMPT_REFUSED)


def _known_of_end(decision: TryAgain | Fail) -> dict[str, Any]:
    """What an end that was no success leaves on the attempt."""
    if isinstance(decision, Fail):
        trouble = decision.trouble
        return {"error": decision.message, "trouble": trouble, "action": Action.ABORT if trouble else None}
    return {"error": decision.reason, "trouble": decision.trouble, "action": decision.action}


def _told(news: News) -> Prediction | None:
    return news if isinstance(news, Prediction) else None


def _known_of(news: News, attempt: Attempt, now: datetime) -> dict[str, Any]:
    """What this news tells of the attempt besides its status."""
    if not isinstance(news, Prediction):
        return {}
    known: dict[str, Any] = {"heard_at": now}
    if news.metrics:
        known["metrics"] = dict(news.metrics)
    if news.engine:
        known["engine"] = news.engine[:256]
    if news.id and attempt.prediction_id is None:
        known["prediction_id"] = news.id[:128]
    if news.completed_at:
        known["completed_at"] = news.completed_at
    return known
