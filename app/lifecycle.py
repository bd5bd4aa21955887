"""What news means for a job: pure, no clock, no rows, no network.

`decide` takes an attempt as it stands, the job around it and one piece of news, and returns a Decision for
`app.inbox` to carry out in one transaction. Everything here can be tested as a table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.provider.base import Prediction
from app.routing.recovery import Action, Case, Trouble, find_remedy
from db.states import ATTEMPT_MOVES, AttemptStatus, DeliveryOutcome, JobState

_NEVER_AGAIN = re.compile(r"\bE005\b|flagged as sensitive|nsfw", re.IGNORECASE)
"""Replicate's E005: input or output flagged as sensitive. Asking again only costs money."""

_ENGINE_REFUSAL = "EngineError: "
"""How an engine of ours begins when it cannot do what was asked: it never will."""

_NO_ENGINE = "EngineUnavailable: "
"""How it begins when nothing on its machine can, and says what to install or to configure: another may."""

_WORKER_STOPPED = "WorkerStopped: "
"""How the last word of a worker of ours begins that was told to stop: no fault of the job's."""

_PROVIDERS_WORDS = frozenset(AttemptStatus) - {AttemptStatus.PENDING, AttemptStatus.LOST}
"""Those two are ours: a provider that says them says nothing that we know."""

_INTERIM = frozenset({AttemptStatus.STARTING, AttemptStatus.PROCESSING})


@dataclass(frozen=True, slots=True)
class Standing:
    """The rows that news is held against, and what else the table of remedies asks about them."""

    attempt_status: AttemptStatus
    job_state: JobState
    case: Case


@dataclass(frozen=True, slots=True)
class Silence:
    """News of our own: a limit passed. `whole_job` when it was the job's deadline, not the attempt's."""

    detail: str
    whole_job: bool = False
    worker_died: bool = False
    """It was our own worker that ended, not the prediction: no fault of the job's."""
    handed_back: bool = False
    """The worker was told to stop: not even a try."""
    cold: bool = False
    """The provider took it and did not begin it in time."""

    @property
    def trouble(self) -> Trouble:
        if self.handed_back:
            return Trouble.HANDED_BACK
        if self.worker_died:
            return Trouble.WORKER_DIED
        return Trouble.COLD if self.cold else Trouble.LOST


HANDED_BACK = "handed back: its worker stopped"
"""The error of an attempt that does not count as one."""

News = Prediction | Silence


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing moves; the delivery is settled with this outcome."""

    outcome: DeliveryOutcome
    detail: str
    attempt_status: AttemptStatus | None = None
    """Where the attempt itself still moves although its job does not care any more."""


@dataclass(frozen=True, slots=True)
class Advance:
    """The prediction is alive: show how far it is."""

    attempt_status: AttemptStatus


@dataclass(frozen=True, slots=True)
class Finish:
    """The prediction succeeded and has an output: the finisher is next."""

    attempt_status: AttemptStatus = AttemptStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The attempt is over, the job is not."""

    attempt_status: AttemptStatus
    reason: str
    wait_s: float
    trouble: Trouble = Trouble.FAILED
    action: Action = Action.RETRY_SAME


@dataclass(frozen=True, slots=True)
class Fail:
    """The job is over."""

    attempt_status: AttemptStatus
    code: str
    message: str
    trouble: Trouble | None = None


Decision = Ignore | Advance | Finish | TryAgain | Fail


def decide(standing: Standing, news: News, now: datetime) -> Decision:
    """The one law of what news does: the first terminal news of an attempt wins, later changes nothing."""
    if isinstance(news, Silence):
        return _decide_silence(standing, news, now)
    if news.status not in _PROVIDERS_WORDS:
        # An unknown word is never a success and never an end: recovery will ask again.
        return Ignore(DeliveryOutcome.QUARANTINED, f"unknown status {news.status!r:.64}")
    status = AttemptStatus(news.status)
    if standing.attempt_status.is_terminal:
        return _decide_late(standing, status)
    if standing.job_state.is_terminal:
        late = DeliveryOutcome.LATE_RESULT if status is AttemptStatus.SUCCEEDED else DeliveryOutcome.IGNORED
        moves = status in ATTEMPT_MOVES[standing.attempt_status]
        return Ignore(late, f"the job is {standing.job_state}", status if moves else None)
    if status in _INTERIM:
        return Advance(status)
    return _decide_end(standing, news, status, now)


def _decide_silence(standing: Standing, news: Silence, now: datetime) -> Decision:
    if standing.attempt_status.is_terminal:
        return Ignore(DeliveryOutcome.IGNORED, "the attempt had ended before the limit")
    if standing.job_state.is_terminal:
        canceled = standing.job_state is JobState.CANCELED
        end = AttemptStatus.CANCELED if canceled else AttemptStatus.LOST
        return Ignore(DeliveryOutcome.IGNORED, f"the job is {standing.job_state}", end)
    if news.whole_job:
        return Fail(AttemptStatus.LOST, "deadline_exceeded", news.detail)
    detail = HANDED_BACK if news.handed_back else news.detail
    return _again(standing, AttemptStatus.LOST, news.trouble, detail, now)


def _decide_late(standing: Standing, status: AttemptStatus) -> Decision:
    if status is AttemptStatus.SUCCEEDED and standing.attempt_status is not AttemptStatus.SUCCEEDED:
        return Ignore(DeliveryOutcome.LATE_RESULT, f"the attempt had ended as {standing.attempt_status}")
    return Ignore(DeliveryOutcome.IGNORED, f"the attempt had ended as {standing.attempt_status}")


def _decide_end(standing: Standing, news: Prediction, status: AttemptStatus, now: datetime) -> Decision:
    trouble = find_trouble(news)
    if trouble is None:
        return Finish()
    if status is AttemptStatus.SUCCEEDED:
        gone = trouble is Trouble.EXPIRED
        message = "the provider removed the output" if gone else "succeeded without an output"
        return _again(standing, AttemptStatus.FAILED, trouble, message, now)
    message = (news.error or f"the provider ended it as {status}")[:2000]
    for prefix in (_ENGINE_REFUSAL, _NO_ENGINE, _WORKER_STOPPED):
        message = message.removeprefix(prefix)
    return _again(standing, status, trouble, message, now)


def _trouble_in(message: str) -> Trouble:
    """What a failed prediction's own words say went wrong."""
    if message.startswith(_NO_ENGINE):
        return Trouble.NO_ENGINE
    if message.startswith(_ENGINE_REFUSAL):
        return Trouble.UNABLE
    if message.startswith(_WORKER_STOPPED):
        return Trouble.HANDED_BACK
    return Trouble.REJECTED_CONTENT if _NEVER_AGAIN.search(message) else Trouble.FAILED


def find_trouble(news: News) -> Trouble | None:
    """What went wrong, if this news says that something did."""
    if isinstance(news, Silence):
        return news.trouble
    if news.status == AttemptStatus.SUCCEEDED and not news.output:
        return Trouble.EXPIRED if news.data_removed else Trouble.NONSENSE
    if news.status == AttemptStatus.FAILED:
        return _trouble_in(news.error or "")
    return Trouble.STOPPED if news.status in (AttemptStatus.CANCELED, AttemptStatus.ABORTED) else None


def _again(
    standing: Standing, status: AttemptStatus, trouble: Trouble, message: str, now: datetime
) -> TryAgain | Fail:
    """What the table says: another attempt, there or elsewhere, or the job's end."""
    remedy = find_remedy(trouble, standing.case, now)
    if remedy.action is Action.ABORT:
        return Fail(status, remedy.code, message, trouble)
    return TryAgain(status, message, remedy.wait_s, trouble, remedy.action)


def next_check(
    created_at: datetime,
    checked_at: datetime,
    *,
    silence_s: float,
    limit_at: datetime,
    start_by: datetime | None = None,
) -> datetime:
    """When to ask about a silent attempt next: after `silence_s`, then half its age later; at its limits.

    `start_by` is given while it has not begun.
    """
    age_s = (checked_at - created_at).total_seconds()
    due = checked_at + timedelta(seconds=max(silence_s, age_s / 2))
    for limit in (limit_at, start_by):
        if limit is not None and checked_at < limit:
            due = min(due, limit)
    return due
