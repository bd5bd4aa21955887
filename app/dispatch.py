"""Start the next attempt: choose the provider, create the prediction with its callback URL.

Promises: the attempt's row is committed before the provider is asked, so a callback always finds it; a
create that may have been carried out is never repeated blindly (recovery looks for it first); a provider
that has no free slot or is away costs no attempt. Leaves everything the provider says later to the inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from pydantic import ValidationError

from app.backoff import RetryBudget, full_jitter_s
from app.crash_points import CrashPoint
from app.errors import (
    AppError,
    ProviderBadResponse,
    ProviderBusy,
    ProviderRejected,
    ProviderUnavailable,
    TransientError,
)
from app.inbox import Inbox
from app.kinds import get_kind
from app.lifecycle import choose_provider, next_check
from app.line import Line
from app.moves import Moves
from app.provider.base import Order, Prediction, Provider
from app.tokens import Callbacks, Links
from db import attempts as attempt_rows
from db import jobs as job_rows
from db.events import append_event
from db.ids import make_id
from db.session import DatabaseUnavailable, Transaction
from db.states import AttemptStatus, DeliverySource, JobState
from db.tables import Attempt, Job

log = structlog.get_logger()

CREATE_LIMIT_S = 30.0
"""How long a create may take; afterwards recovery looks whether the prediction exists."""
OPERATOR_WAIT_S = 60.0
"""Pause before a provider that refused our credentials, or our credit, is asked again."""
RECHECK_SLOT_S = 60.0
"""A job that waits for a slot is woken when one comes free; this is for when that hint was lost."""


EARLY = timedelta(seconds=job_rows.EARLY_S)

_GIVEN_UP = (AttemptStatus.LOST, AttemptStatus.CANCELED)


@dataclass(frozen=True, slots=True)
class Route:
    """A provider that is configured: what it is, and how many predictions it takes at once, if bounded."""

    provider: Provider
    slots: int | None = None
    owner: str | None = None
    """The process that the provider is a child of, and dies with."""
    is_asked: bool = True
    """False where only another process can ask it: its news is understood here, nothing is sent to it."""


class Dispatcher:
    """The dispatch station."""

    def __init__(
        self, *, line: Line, routes: Mapping[str, Route], callbacks: Callbacks, links: Links, inbox: Inbox
    ) -> None:
        self._line = line
        self._routes = routes
        self._asked = [name for name, route in routes.items() if route.is_asked]
        self._callbacks = callbacks
        self._links = links
        self._inbox = inbox
        per_s = line.settings.retries_per_s
        self._budgets = {name: RetryBudget(per_s=per_s) for name in routes}
        self._moves = Moves(line=line, providers={name: route.provider for name, route in routes.items()})

    async def due(self, tx: Transaction, now: datetime, limit: int) -> Sequence[str]:
        return await job_rows.list_due_jobs(tx, JobState.QUEUED, now=now, limit=limit)

    async def step(self, job_id: str) -> None:
        """Give a due, queued job its next attempt; nothing when none is due.

        The id says that a job became due, not whose turn it is: many items of one tenant are in the engine
        before the only one of another. Each item takes the next job in turn, so that all of them are taken.
        """
        now = self._line.clock.now()
        async with self._line.database.transaction() as tx:
            job = await job_rows.find_next_job(tx, JobState.QUEUED, now=now, providers=self._wanted())
            if job is None:
                # It may wait for a slot, and look for itself whether the hint was lost.
                job = await job_rows.find_job(tx, job_id, lock=True)
            if job is None or job.state != JobState.QUEUED or job.run_after > now + EARLY:
                return
            attempt = await self._begin(tx, job, now)
        if attempt is None:
            return
        self._line.reach(CrashPoint.ATTEMPT_COMMITTED)
        with structlog.contextvars.bound_contextvars(job_id=job.id, attempt_id=attempt.id):
            await self._create(job, attempt)

    def _wanted(self) -> Sequence[str] | None:
        """What jobs may ask for that this process begins; None for all, where nobody else would."""
        return None if not self._line.settings.is_shared else ["auto", *self._asked]

    async def _begin(self, tx: Transaction, job: Job, now: datetime) -> Attempt | None:
        """Write the attempt and take the job from the queue, or let the job wait with a reason."""
        if job.deadline_at <= now:
            # Nobody waits for it any more: no money is spent on it.
            message = "the job's deadline passed while it was queued"
            await self._line.end_job(
                tx, job, JobState.FAILED, now=now, code="deadline_exceeded", message=message
            )
            return None
        past = await attempt_rows.list_attempts(tx, job.id)
        tried = [(attempt.provider, AttemptStatus(attempt.status)) for attempt in past]
        name = choose_provider(
            job.provider, [each for each in self._asked if self._can(job.kind, each)], tried
        )
        if name is None:
            # Where others share the database, one of them may have the provider: the job stays due.
            if not self._line.settings.is_shared:
                later = now + timedelta(seconds=30)
                reason = f"no provider for {job.kind} is configured"
                await job_rows.postpone_job(tx, job.id, run_after=later, waiting_reason=reason)
            return None
        if await self._is_full(tx, job, name, now) or await self._is_too_soon(tx, job, name, now):
            return None
        attempt = Attempt(
            id=make_id("att"),
            job_id=job.id,
            number=len(past) + 1,
            provider=name,
            model=self._model(job.kind, name),
            owner=self._routes[name].owner,
            begun_by=self._line.process_id,
            status=AttemptStatus.PENDING,
            created_at=now,
            check_at=now + timedelta(seconds=CREATE_LIMIT_S + 5),
        )
        begun = await job_rows.move_job(
            tx,
            job.id,
            JobState.RUNNING,
            values={
                "stage": "starting",
                "progress": 0.0,
                "waiting_reason": None,
                "waiting_for": None,
                "started_at": job.started_at or now,
            },
        )
        if not begun:
            return None
        await attempt_rows.insert_attempt(tx, attempt)
        await append_event(
            tx, job.id, "job.dispatched", at=now, status="running", attempt=attempt.number, provider=name
        )
        self._line.hint_job(tx, job.id)
        return attempt

    async def _is_too_soon(self, tx: Transaction, job: Job, name: str, now: datetime) -> bool:
        """Whether it had its chance, and others that had theirs go first: a provider that was away comes back
        to more than it can take."""
        budget = self._budgets[name]
        if job.started_at is None:
            budget.earn()
            return False
        wait_s = budget.book(job.id)
        if wait_s:
            reason = f"among the retries at {name}"
            later = now + timedelta(seconds=wait_s)
            await job_rows.postpone_job(tx, job.id, run_after=later, waiting_reason=reason)
        return wait_s > 0

    async def _is_full(self, tx: Transaction, job: Job, name: str, now: datetime) -> bool:
        """Whether the provider has no slot left; if so the job waits for the next one to come free."""
        slots, owner = self._routes[name].slots, self._routes[name].owner
        if slots is None or await attempt_rows.count_live_attempts(tx, name, owner=owner) < slots:
            return False
        ahead = await job_rows.count_waiting_before(tx, name, job)
        await job_rows.postpone_job(
            tx,
            job.id,
            # Who is further behind is woken later too: not all of them look again every minute.
            run_after=now + timedelta(seconds=RECHECK_SLOT_S + ahead),
            waiting_reason=f"behind {ahead + slots} jobs at {name}",
            waiting_for=name,
        )
        return True

    async def _create(self, job: Job, attempt: Attempt) -> None:
        route = self._routes[attempt.provider]
        try:
            order = self._order(job, attempt)
        except (ValidationError, AppError) as exc:
            # Stored by an older release, or for a kind that is gone: it will not get better.
            refusal = ProviderRejected(f"the stored input cannot be asked for any more: {type(exc).__name__}")
            await self._moves.refuse_attempt(attempt.id, refusal)
            return
        try:
            with self._line.metrics.outside_call(attempt.provider, "create"):
                async with asyncio.timeout(CREATE_LIMIT_S):
                    prediction = await route.provider.create(order)
        except TimeoutError:
            unanswered = ProviderUnavailable("creating the prediction took too long", ambiguous=True)
            await self._refused(job, attempt, unanswered)
        except asyncio.CancelledError:
            # The process stops: nobody hears the answer, so somebody must ask.
            with suppress(DatabaseUnavailable):
                await self._look_soon(attempt)
            raise
        except ProviderBadResponse as exc:
            # It may exist all the same: keep what was said and let recovery look for it.
            await self._inbox.receive_news(DeliverySource.POLL, attempt, exc.raw)
            await self._look_soon(attempt)
        except AppError as exc:
            await self._refused(job, attempt, exc)
        else:
            self._line.reach(CrashPoint.PREDICTION_CREATED)
            await self._created(job, attempt, prediction)
            self._line.reach(CrashPoint.PREDICTION_STORED)

    def _order(self, job: Job, attempt: Attempt) -> Order:
        kind = get_kind(job.kind)
        wanted = kind.input_model.model_validate(job.input)
        for name in kind.files:
            # Made anew for each attempt: a link outlives the wait for an answer, not the wait in the queue.
            url = self._callbacks.base(attempt.provider) + self._links.url(getattr(wanted, name))
            wanted = wanted.model_copy(update={name: url})
        hosted = kind.hosted if attempt.provider == "replicate" else None
        ask = hosted.ask if hosted else kind.ask_worker
        left_s = (job.deadline_at - self._line.clock.now()).total_seconds()
        return Order(
            attempt_id=attempt.id,
            kind=job.kind,
            model=attempt.model,
            input=ask(wanted),
            callback_url=self._callbacks.url(attempt.provider, attempt.id),
            deadline_s=max(1.0, min(left_s, self._line.settings.attempt_limit_s(job.kind))),
        )

    def _model(self, kind: str, provider: str) -> str:
        hosted = get_kind(kind).hosted if provider == "replicate" else None
        return self._line.settings.replicate_models.get(kind, hosted.name) if hosted else kind

    def _can(self, kind: str, provider: str) -> bool:
        """Whether the provider has any model for the kind; a Cog server of ours has, or says so itself."""
        return provider != "replicate" or get_kind(kind).hosted is not None

    async def _created(self, job: Job, attempt: Attempt, prediction: Prediction) -> None:
        """Store the prediction's id. If its news came first, the status stays what the news made it."""
        now = self._line.clock.now()
        check_at = next_check(
            attempt.created_at,
            now,
            silence_s=self._silence_s(attempt),
            limit_s=self._line.settings.attempt_limit_s(job.kind),
        )
        async with self._line.database.transaction() as tx:
            await attempt_rows.note_attempt(
                tx, attempt.id, prediction_id=prediction.id or attempt.id, heard_at=now
            )
            alive = await attempt_rows.move_attempt(
                tx, attempt.id, AttemptStatus.STARTING, now=now, check_at=check_at
            )
        log.info("attempt.created", provider=attempt.provider, prediction_id=prediction.id)
        if prediction.output is not None or prediction.error is not None:
            await self._inbox.receive_news(DeliverySource.POLL, attempt, prediction.raw)
        current = None if alive else await self._find_attempt(attempt.id)
        if current is not None and current.status in _GIVEN_UP:
            # Frozen past our time, or canceled before the provider had answered: stop paying for this one.
            await self._stop_paying(attempt, prediction)

    async def _stop_paying(self, attempt: Attempt, prediction: Prediction) -> None:
        try:
            await self._routes[attempt.provider].provider.cancel(prediction.id or attempt.id)
        except AppError as exc:
            log.warning("attempt.cancel_failed", reason=exc.message)

    def _silence_s(self, attempt: Attempt) -> float:
        """A provider that cannot be asked is only given up at its limit."""
        if self._routes[attempt.provider].provider.can_poll:
            return self._line.settings.silence_s
        return self._line.settings.replicate_webhook_timeout

    async def _refused(self, job: Job, attempt: Attempt, error: AppError) -> None:
        log.warning("attempt.refused", provider=attempt.provider, code=error.code, reason=error.message)
        if isinstance(error, ProviderUnavailable) and error.ambiguous:
            await self._look_soon(attempt)
        elif isinstance(error, TransientError):
            await self._withdraw(job, attempt, error)
        elif _is_ours_to_mend(error) and not (job.provider == "auto" and len(self._asked) > 1):
            # Credit or credentials: the job is as good as it was, and waits for its operator.
            wait = TransientError(error.message, retry_after_s=OPERATOR_WAIT_S)
            await self._withdraw(job, attempt, wait)
        else:
            await self._moves.refuse_attempt(attempt.id, error)

    async def _look_soon(self, attempt: Attempt) -> None:
        """Leave the attempt pending: recovery asks the provider whether it knows it."""
        soon = self._line.clock.now() + timedelta(seconds=5)
        async with self._line.database.transaction() as tx:
            await attempt_rows.note_attempt(tx, attempt.id, check_at=soon)

    async def _withdraw(self, job: Job, attempt: Attempt, error: TransientError) -> None:
        """The provider certainly made nothing: the job waits, and no attempt is spent."""
        now = self._line.clock.now()
        tries = 1 + int((now - job.created_at).total_seconds() // 10)
        # Never sooner than it was asked for, and never all together.
        asked_s = error.retry_after_s
        wait_s = (
            1.0 + full_jitter_s(tries) if asked_s is None else asked_s + full_jitter_s(1, first_s=asked_s / 2)
        )
        busy = isinstance(error, ProviderBusy)
        reason = f"{attempt.provider}: {error.message}"[:500]
        async with self._line.database.transaction() as tx:
            # The job first, as everybody locks them who locks both.
            await job_rows.find_job(tx, job.id, lock=True)
            if not await attempt_rows.withdraw_attempt(tx, attempt.id):
                return
            waits = await job_rows.move_job(
                tx,
                job.id,
                JobState.QUEUED,
                only_from=[JobState.RUNNING],
                values={
                    "stage": None,
                    "run_after": now + timedelta(seconds=wait_s),
                    "waiting_reason": reason,
                    "waiting_for": attempt.provider if busy else None,
                },
            )
            # Canceled meanwhile: an ended job has had its last event.
            if waits:
                await append_event(tx, job.id, "job.waiting", at=now, status="queued", reason=reason)
                self._line.hint_job(tx, job.id)
        self._line.reach(CrashPoint.ATTEMPT_WITHDRAWN)

    async def _find_attempt(self, attempt_id: str) -> Attempt | None:
        async with self._line.database.reading() as tx:
            return await attempt_rows.find_attempt(tx, attempt_id)


def _is_ours_to_mend(error: AppError) -> bool:
    """Refused for who we are or what we have paid, not for what was asked."""
    return isinstance(error, ProviderRejected) and error.status in (401, 402, 403)
