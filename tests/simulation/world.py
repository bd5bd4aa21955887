"""A world in memory for the pure lifecycle: rows, hands, a provider, its post, and a clock that jumps.

Each public method is one commit, or one thing that happens outside; between any two of them the process may
die, and `kill` empties its hands. The rows move as `app.lifecycle.decide` says and in no other way: a
decision that is not a legal move is a fault of the law itself, so nothing here forgives one by
compare-and-set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app.lifecycle import (
    Advance,
    Decision,
    Fail,
    Finish,
    Ignore,
    News,
    Silence,
    Standing,
    TryAgain,
    next_check,
)
from app.provider.base import Prediction
from app.routing.choice import Go, Past, choose, left_of
from app.routing.recovery import NOT_TRIES, Action, Case, Trouble
from db.states import ATTEMPT_MOVES, JOB_MOVES, AttemptStatus, DeliveryOutcome, JobState

MAX_ATTEMPTS = 3
SILENCE_S, LIMIT_S, LEASE_S, CREATE_S, RETRY_S = 30.0, 300.0, 6.0, 35.0, 5.0
ROUTE = ("replicate", "cog")
Law = Callable[[Standing, News, datetime], Decision]


@dataclass
class Job:
    id: str
    deadline_at: datetime
    run_after: datetime
    created_at: datetime
    state: JobState = JobState.QUEUED
    reason: str = ""
    events: list[str] = field(default_factory=lambda: ["created"])
    lease_until: datetime | None = None
    outputs: list[str] = field(default_factory=list)


@dataclass
class Attempt:
    id: str
    job: Job
    number: int
    provider: str
    created_at: datetime
    check_at: datetime
    status: AttemptStatus = AttemptStatus.PENDING
    trouble: Trouble | None = None
    action: Action | None = None

    def as_past(self) -> Past:
        lost_result = self.status is AttemptStatus.SUCCEEDED
        action = Action.RETRY_SAME if lost_result else self.action
        return Past(self.provider, self.status.is_terminal, self.trouble, action)


@dataclass
class Delivery:
    attempt_id: str
    job_id: str | None
    news: News
    outcome: DeliveryOutcome | None = None


@dataclass
class AtProvider:
    """A prediction, as the provider has it."""

    attempt_id: str
    status: str = "starting"
    output: str | None = None
    error: str | None = None
    removed: bool = False

    @property
    def is_over(self) -> bool:
        return self.status not in ("starting", "processing", "pondering")

    def as_told(self) -> Prediction:
        return Prediction(
            self.attempt_id, self.status, output=self.output, error=self.error, data_removed=self.removed
        )


@dataclass
class Hook:
    """A callback on its way; it may arrive often, late, or never."""

    message_id: str
    attempt_id: str
    news: Prediction


class World:
    """The state of everything."""

    def __init__(self, law: Law) -> None:
        self._law = law
        self.now = self.latest = datetime(2026, 1, 1, tzinfo=UTC)
        self.jobs: list[Job] = []
        self.attempts: dict[str, Attempt] = {}
        self.deliveries: dict[object, Delivery] = {}
        self.predictions: dict[str, AtProvider] = {}
        self.post: list[Hook] = []
        self.asking: list[Attempt] = []
        """Attempts whose provider this process is about to ask."""
        self.answered: list[Attempt] = []
        """Attempts whose provider has answered, which is not stored yet."""
        self.finishing: list[Job] = []
        """Jobs whose finisher is at work under a lease."""
        self.worker_deaths = 0

    # ── callers ─────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, deadline_s: float) -> Job:
        job = Job(f"job{len(self.jobs)}", self.now + timedelta(seconds=deadline_s), self.now, self.now)
        self.jobs.append(job)
        return job

    def cancel(self, job: Job) -> None:
        if not job.state.is_terminal:
            self._move_job(job, JobState.CANCELED)
            for attempt in self.live(job):
                attempt.check_at = self.now

    # ── dispatch ────────────────────────────────────────────────────────────────────────────────────────

    def dispatch(self, job: Job) -> None:
        if job.state is not JobState.QUEUED or job.run_after > self.now:
            return
        if job.deadline_at <= self.now:
            self._move_job(job, JobState.FAILED)
            return
        past = [each.as_past() for each in self.of(job)]
        choice = choose("auto", ROUTE, past, {}, created_at=job.created_at, deadline_at=job.deadline_at)
        assert isinstance(choice, Go)
        attempt = Attempt(
            f"{job.id}-{len(past) + 1}",
            job,
            len(past) + 1,
            choice.provider,
            self.now,
            self.now + timedelta(seconds=CREATE_S),
        )
        self._move_job(job, JobState.RUNNING)
        self.attempts[attempt.id] = attempt
        self.asking.append(attempt)

    def ask_provider(self, attempt: Attempt, *, hears: bool) -> None:
        """The prediction is made; with `hears` its answer reaches us."""
        self.asking.remove(attempt)
        self.predictions[attempt.id] = AtProvider(attempt.id)
        if hears:
            self.answered.append(attempt)

    def store_prediction(self, attempt: Attempt) -> None:
        self.answered.remove(attempt)
        if attempt.status is AttemptStatus.PENDING:
            self._move_attempt(attempt, AttemptStatus.STARTING)
            self._check_later(attempt)
        elif attempt.status in (AttemptStatus.LOST, AttemptStatus.CANCELED):
            self._stop(attempt)

    # ── the provider ────────────────────────────────────────────────────────────────────────────────────

    def at_provider(self) -> list[AtProvider]:
        """Predictions that have not ended."""
        return [each for each in self.predictions.values() if not each.is_over]

    def tell(self, prediction: AtProvider, status: str, **more: object) -> None:
        """The prediction moves on, and a callback about it leaves."""
        prediction.status = status
        for name, value in more.items():
            setattr(prediction, name, value)
        message_id = f"msg{len(self.post)}-{prediction.attempt_id}-{status}"
        self.post.append(Hook(message_id, prediction.attempt_id, prediction.as_told()))

    def forget_prediction(self, prediction: AtProvider) -> None:
        self.predictions.pop(prediction.attempt_id, None)

    # ── the inbox ───────────────────────────────────────────────────────────────────────────────────────

    def receive(self, hook: Hook) -> None:
        self._store(("webhook", hook.message_id), Delivery(hook.attempt_id, None, hook.news))

    def apply(self, delivery: Delivery) -> None:
        attempt = self.attempts.get(delivery.attempt_id)
        job = attempt.job if attempt else next((j for j in self.jobs if j.id == delivery.job_id), None)
        if job is None:
            delivery.outcome = DeliveryOutcome.ORPHANED
        elif attempt is None:
            self._apply_to_waiting(delivery, job)
        else:
            standing = Standing(attempt.status, job.state, self._case(job, attempt))
            decision = self._law(standing, delivery.news, self.now)
            self._carry_out(decision, attempt, job)
            ignored = isinstance(decision, Ignore)
            delivery.outcome = decision.outcome if ignored else DeliveryOutcome.APPLIED  # type: ignore[union-attr]

    def _case(self, job: Job, attempt: Attempt) -> Case:
        before = [each for each in self.of(job) if each is not attempt]
        left = left_of([each.as_past() for each in before]) | {attempt.provider}
        return Case(
            job.created_at,
            job.deadline_at,
            tries=1 + sum(each.trouble not in NOT_TRIES for each in before),
            max_tries=MAX_ATTEMPTS,
            has_other=not left.issuperset(ROUTE),
        )

    def _apply_to_waiting(self, delivery: Delivery, job: Job) -> None:
        delivery.outcome = DeliveryOutcome.IGNORED
        if isinstance(delivery.news, Silence) and not job.state.is_terminal:
            self._move_job(job, JobState.FAILED)
            delivery.outcome = DeliveryOutcome.APPLIED

    def _carry_out(self, decision: Decision, attempt: Attempt, job: Job) -> None:
        status = decision.attempt_status
        if isinstance(decision, Advance):
            # Interim news may repeat itself: the one move that may be none.
            if status in ATTEMPT_MOVES[attempt.status]:
                self._move_attempt(attempt, decision.attempt_status)
            self._check_later(attempt)
            return
        if status is not None:
            self._move_attempt(attempt, status)
        match decision:
            case Finish():
                self._move_job(job, JobState.FINISHING)
                job.run_after = self.now
            case TryAgain():
                attempt.trouble, attempt.action = decision.trouble, decision.action
                self._move_job(job, JobState.QUEUED)
                job.reason = decision.reason
                job.run_after = self.now + timedelta(seconds=decision.wait_s)
            case Fail():
                self._move_job(job, JobState.FAILED)

    # ── finish ──────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, job: Job) -> None:
        free = job.lease_until is None or job.lease_until < self.now
        if job.state is JobState.FINISHING and job.run_after <= self.now and free:
            job.lease_until = self.now + timedelta(seconds=LEASE_S)
            self.finishing.append(job)

    def finish(self, job: Job, how: str) -> None:
        """The finisher commits: `stored`, `expired` or `later`; nothing when its job is past that."""
        self.finishing.remove(job)
        if job.state is not JobState.FINISHING:
            return
        job.lease_until = None
        spent = len(self.of(job)) >= MAX_ATTEMPTS or self.now >= job.deadline_at
        if how == "stored":
            self._move_job(job, JobState.SUCCEEDED)
            winners = [each.id for each in self.of(job) if each.status is AttemptStatus.SUCCEEDED]
            job.outputs.append(winners[-1])
        elif how == "expired":
            self._move_job(job, JobState.FAILED if spent else JobState.QUEUED)
            job.run_after = self.now
        elif self.now >= job.deadline_at:
            self._move_job(job, JobState.FAILED)
        else:
            job.run_after = min(self.now + timedelta(seconds=RETRY_S), job.deadline_at)

    # ── recovery ────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """Ask about every attempt that is silent past its time, then end what is past its deadline."""
        for attempt in list(self.attempts.values()):
            if not attempt.status.is_terminal and attempt.check_at <= self.now:
                self._look(attempt)
        for job in self.jobs:
            overdue = not job.state.is_terminal and job.deadline_at <= self.now
            if overdue and job.state is not JobState.FINISHING:
                live = self.live(job)
                key = live[-1].id if live else job.id
                silence = Silence("the job's deadline passed", whole_job=True)
                self._store((key, "job"), Delivery(live[-1].id if live else "", job.id, silence))

    def _look(self, attempt: Attempt) -> None:
        prediction = self.predictions.get(attempt.id) if attempt.provider == "replicate" else None
        limit_at = min(attempt.created_at + timedelta(seconds=LIMIT_S), attempt.job.deadline_at)
        unwanted = attempt.job.state.is_terminal or self.now >= limit_at
        if prediction is None:
            confirmed = attempt.status is not AttemptStatus.PENDING
            if attempt.provider == "cog" and confirmed and not unwanted:
                self._check_later(attempt)
                return
            self._lose(attempt, "unknown to the provider")
            return
        told = prediction.as_told()
        self._store(("poll", attempt.id, str(told)), Delivery(attempt.id, attempt.job.id, told))
        if unwanted and not prediction.is_over:
            self._lose(attempt, "past its limit")
        else:
            self._check_later(attempt)

    def _lose(self, attempt: Attempt, detail: str, *, worker_died: bool = False) -> None:
        self._stop(attempt)
        silence = Silence(detail, worker_died=worker_died)
        self._store((attempt.id, "attempt"), Delivery(attempt.id, attempt.job.id, silence))

    # ── disasters ───────────────────────────────────────────────────────────────────────────────────────

    def kill(self) -> None:
        """The process dies, with its engines and all that it had in hand; the next one takes over."""
        self.asking.clear()
        self.answered.clear()
        self.finishing.clear()
        self.worker_deaths += 1
        for attempt in self.attempts.values():
            if attempt.provider == "cog" and not attempt.status.is_terminal:
                self.predictions.pop(attempt.id, None)
                if not self._has_unsettled(attempt.id):
                    self._lose(attempt, "the worker was restarted", worker_died=True)

    def jump(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.latest = max(self.latest, self.now)

    # ── views ───────────────────────────────────────────────────────────────────────────────────────────

    def of(self, job: Job) -> list[Attempt]:
        return [attempt for attempt in self.attempts.values() if attempt.job is job]

    def live(self, job: Job) -> list[Attempt]:
        return [attempt for attempt in self.of(job) if not attempt.status.is_terminal]

    def unsettled(self) -> list[Delivery]:
        return [each for each in self.deliveries.values() if each.outcome is None]

    def _has_unsettled(self, attempt_id: str) -> bool:
        return any(each.attempt_id == attempt_id for each in self.unsettled())

    # ── rows ────────────────────────────────────────────────────────────────────────────────────────────

    def _store(self, key: object, delivery: Delivery) -> None:
        self.deliveries.setdefault(key, delivery)

    def _stop(self, attempt: Attempt) -> None:
        prediction = self.predictions.get(attempt.id)
        if prediction is not None and not prediction.is_over:
            prediction.status = "canceled"

    def _check_later(self, attempt: Attempt) -> None:
        silence_s = SILENCE_S if attempt.provider == "replicate" else LIMIT_S
        limit_at = attempt.created_at + timedelta(seconds=LIMIT_S)
        attempt.check_at = next_check(attempt.created_at, self.now, silence_s=silence_s, limit_at=limit_at)

    def _move_attempt(self, attempt: Attempt, to: AttemptStatus) -> None:
        assert to in ATTEMPT_MOVES[attempt.status], f"{attempt.id}: {attempt.status} → {to}"
        attempt.status = to

    def _move_job(self, job: Job, to: JobState) -> None:
        assert to in JOB_MOVES[job.state], f"{job.id}: {job.state} → {to}"
        job.state, job.lease_until = to, None
        job.events.append(to.value)
