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
from typing import Any

import structlog
from pydantic import ValidationError

from app.access.links import Links
from app.backoff import RetryBudget, full_jitter_s
from app.crash_points import CrashPoint
from app.errors import (
    AppError,
    ProviderBadResponse,
    ProviderBusy,
    ProviderRejected,
    ProviderUnavailable,
    TransientError,
    VoiceGone,
)
from app.inbox import Inbox
from app.intake.files import find_links
from app.kinds import get_kind
from app.lifecycle import next_check
from app.line import Line
from app.moves import Moves
from app.provider.base import Order, Prediction, Provider
from app.routing.choice import Go, Wait
from app.routing.circuits import Circuit
from app.routing.recovery import Action, Remedy, Trouble, find_remedy, trouble_of
from app.tokens import Callbacks
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
PARK_JITTER_S = 2.0
"""By how much later than the circuit is tried again those come that wait for it, at most."""
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
        choice = await self._line.router.next_for(tx, job, past, asked=self._asked, now=now)
        if choice is None:
            # Where others share the database, one of them may have the provider: the job stays due.
            if not self._line.settings.is_shared:
                later = now + timedelta(seconds=30)
                reason = f"no provider for {job.kind} is configured"
                await job_rows.postpone_job(tx, job.id, run_after=later, waiting_reason=reason)
            return None
        if isinstance(choice, Wait):
            await self._park(tx, job, choice)
            return None
        name = choice.provider
        if await self._is_full(tx, job, name, now) or await self._is_too_soon(tx, job, name, now):
            return None
        attempt = Attempt(
            id=make_id("att"),
            job_id=job.id,
            number=len(past) + 1,
            provider=name,
            model=self._line.router.model(job.kind, name),
            owner=self._routes[name].owner,
            begun_by=self._line.process_id,
            status=AttemptStatus.PENDING,
            created_at=now,
            check_at=now + timedelta(seconds=CREATE_LIMIT_S + 5),
            **self._limits(job, choice, now),
            differently=choice.differently or None,
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
        self._line.hint_job(tx, job)
        return attempt

    def _limits(self, job: Job, choice: Go, now: datetime) -> dict[str, Any]:
        """Until when it must have begun, and ended: with another to go to, that one needs time too."""
        settings = self._line.settings
        left = job.deadline_at - now
        if not choice.has_other:
            return {"limit_at": now + timedelta(seconds=settings.attempt_limit_s(job.kind))}
        limit = min(timedelta(seconds=settings.attempt_limit_s(job.kind)), left / 2)
        begin = min(timedelta(seconds=settings.starting_limit_s), limit)
        # Of one that cannot be asked nobody knows whether it has begun.
        can_poll = self._routes[choice.provider].provider.can_poll
        return {"limit_at": now + limit, "start_by": now + begin if can_poll else None}

    async def _park(self, tx: Transaction, job: Job, wait: Wait) -> None:
        """Let the job wait for its provider; no attempt is begun, and so none is spent."""
        # Not all of them in the moment in which one is let through to try.
        until = wait.until + timedelta(seconds=full_jitter_s(1, first_s=PARK_JITTER_S))
        reason = f"{wait.provider}: {wait.reason}"
        if await job_rows.postpone_job(tx, job.id, run_after=until, waiting_reason=reason):
            self._line.hint_job(tx, job)

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
            order = self._order(job, attempt, await find_links(self._line.database, job))
        except VoiceGone as exc:
            refusal = Remedy(Action.ABORT, code=exc.code)
            await self._moves.end_refused(attempt.id, Trouble.BAD_INPUT, refusal, exc.message)
            return
        except (ValidationError, AppError, KeyError) as exc:
            # Stored by an older release, or for a kind that is gone: it will not get better.
            message = f"the stored input cannot be asked for any more: {type(exc).__name__}"
            refusal = Remedy(Action.ABORT, code=ProviderRejected.code)
            await self._moves.end_refused(attempt.id, Trouble.BAD_INPUT, refusal, message)
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

    def _order(self, job: Job, attempt: Attempt, links: Mapping[str, str]) -> Order:
        kind = get_kind(job.kind)
        wanted = kind.input_model.model_validate(job.input)
        for name, asset_id in links.items():
            # Made anew for each attempt: a link outlives the wait for an answer, not the wait in the queue.
            url = self._callbacks.base(attempt.provider) + self._links.url(asset_id, tenant=job.tenant)
            wanted = wanted.model_copy(update={name: url})
        limit_at = min(attempt.limit_at or job.deadline_at, job.deadline_at)
        left_s = (limit_at - self._line.clock.now()).total_seconds()
        return Order(
            attempt_id=attempt.id,
            kind=job.kind,
            model=attempt.model,
            input=kind.ask(attempt.provider, wanted, differently=bool(attempt.differently)),
            callback_url=self._callbacks.url(attempt.provider, attempt.id),
            deadline_s=max(1.0, left_s),
        )

    async def _created(self, job: Job, attempt: Attempt, prediction: Prediction) -> None:
        """Store the prediction's id. If its news came first, the status stays what the news made it."""
        now = self._line.clock.now()
        check_at = next_check(
            attempt.created_at,
            now,
            silence_s=self._silence_s(attempt),
            limit_at=attempt.limit_at or job.deadline_at,
            start_by=attempt.start_by,
        )
        async with self._line.database.transaction() as tx:
            await attempt_rows.note_attempt(
                tx, attempt.id, prediction_id=prediction.id or attempt.id, heard_at=now
            )
            alive = await attempt_rows.move_attempt(
                tx, attempt.id, AttemptStatus.STARTING, now=now, check_at=check_at
            )
            if self._line.router.is_held(attempt.provider):
                await self._line.router.note_success(tx, attempt.provider)
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
        """The create was not taken, or nobody knows: hold it against the provider, do what the table says."""
        log.warning("attempt.refused", provider=attempt.provider, code=error.code, reason=error.message)
        trouble, now = trouble_of(error), self._line.clock.now()
        hint_s = error.retry_after_s if isinstance(error, TransientError) else None
        circuit = await self._hold_against(attempt, trouble, error, now, hint_s)
        if isinstance(error, ProviderUnavailable) and error.ambiguous:
            await self._look_soon(attempt)
            return
        wait_s = hint_s or 0.0
        if circuit is not None and circuit.open_until is not None:
            wait_s = max(wait_s, (circuit.open_until - now).total_seconds())
        async with self._line.database.reading() as tx:
            past = await attempt_rows.list_attempts(tx, job.id)
            case = await self._line.router.case_of(
                tx, job, attempt, past, now=now, trouble=trouble, wait_s=wait_s
            )
        remedy = find_remedy(trouble, case, now)
        if remedy.action in (Action.FALL_BACK, Action.ABORT):
            await self._moves.end_refused(attempt.id, trouble, remedy, error.message)
        else:
            await self._withdraw(job, attempt, error, wait_s=wait_s)

    async def _hold_against(
        self, attempt: Attempt, trouble: Trouble, error: AppError, now: datetime, hint_s: float | None
    ) -> Circuit | None:
        """Tell the provider's circuit. A child of this process has none: whoever runs it replaces it, and the
        children of other processes go by the same name."""
        if self._routes[attempt.provider].owner is not None:
            return None
        async with self._line.database.transaction() as tx:
            return await self._line.router.note_failure(
                tx, attempt.provider, trouble, now, reason=error.message, wait_s=hint_s
            )

    async def _look_soon(self, attempt: Attempt) -> None:
        """Leave the attempt pending: recovery asks the provider whether it knows it."""
        soon = self._line.clock.now() + timedelta(seconds=5)
        async with self._line.database.transaction() as tx:
            await attempt_rows.note_attempt(tx, attempt.id, check_at=soon)

    async def _withdraw(self, job: Job, attempt: Attempt, error: AppError, *, wait_s: float) -> None:
        """The provider certainly made nothing: the job waits, and no attempt is spent."""
        now = self._line.clock.now()
        tries = 1 + int((now - job.created_at).total_seconds() // 10)
        # Never sooner than it was asked for, and never all together.
        wait_s = wait_s + full_jitter_s(1, first_s=wait_s / 2) if wait_s else 1.0 + full_jitter_s(tries)
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
                self._line.hint_job(tx, job)
        self._line.reach(CrashPoint.ATTEMPT_WITHDRAWN)

    async def _find_attempt(self, attempt_id: str) -> Attempt | None:
        async with self._line.database.reading() as tx:
            return await attempt_rows.find_attempt(tx, attempt_id)
