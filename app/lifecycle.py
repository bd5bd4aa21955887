"""What news means for a job: pure, no clock, no rows, no network.

`decide` takes an attempt as it stands, the job around it and one piece of news, and returns a Decision for
`app.inbox` to carry out in one transaction. Everything here can be tested as a table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.backoff import backoff_s
from app.errors import EngineUnavailable
from app.provider.base import Prediction
from db.states import ATTEMPT_MOVES, AttemptStatus, DeliveryOutcome, JobState

_NEVER_AGAIN = re.compile(r"\bE005\b|flagged as sensitive|nsfw", re.IGNORECASE)
"""Replicate's E005: input or output flagged as sensitive. Asking again only costs money."""

_ENGINE_REFUSAL = "EngineError: "
"""How an engine of ours begins when it cannot do what was asked: it never will."""

_NO_ENGINE = "EngineUnavailable: "
"""How it begins when nothing on its machine can: it says what to install or to configure."""

_PROVIDERS_WORDS = frozenset(AttemptStatus) - {AttemptStatus.PENDING, AttemptStatus.LOST}
"""Those two are ours: a provider that says them says nothing that we know."""

_INTERIM = frozenset({AttemptStatus.STARTING, AttemptStatus.PROCESSING})


@dataclass(frozen=True, slots=True)
class Standing:
    """The rows that news is held against: the attempt's status, and the job's state and limits."""

    attempt_status: AttemptStatus
    attempt_number: int
    job_state: JobState
    deadline_at: datetime
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Silence:
    """News of our own: a limit passed. `whole_job` when it was the job's deadline, not the attempt's."""

    detail: str
    whole_job: bool = False
    worker_died: bool = False
    """It was our own worker that ended, not the prediction: no fault of the job's."""
    handed_back: bool = False
    """The worker was told to stop: not even a try."""


HANDED_BACK = "handed back: its worker stopped"
"""The error of an attempt that does not count as one."""
MOST_DEATHS = 3
"""Workers may die under a job as often as this times its attempts, in case it is the job that kills them."""

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


@dataclass(frozen=True, slots=True)
class Fail:
    """The job is over."""

    attempt_status: AttemptStatus
    code: str
    message: str


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
    if news.handed_back and now < standing.deadline_at:
        return TryAgain(AttemptStatus.LOST, HANDED_BACK, 0.0)
    if news.worker_died:
        standing = replace(standing, max_attempts=MOST_DEATHS * standing.max_attempts)
    return _again(standing, AttemptStatus.LOST, "prediction_lost", news.detail, now)


def _decide_late(standing: Standing, status: AttemptStatus) -> Decision:
    if status is AttemptStatus.SUCCEEDED and standing.attempt_status is not AttemptStatus.SUCCEEDED:
        return Ignore(DeliveryOutcome.LATE_RESULT, f"the attempt had ended as {standing.attempt_status}")
    return Ignore(DeliveryOutcome.IGNORED, f"the attempt had ended as {standing.attempt_status}")


def _decide_end(standing: Standing, news: Prediction, status: AttemptStatus, now: datetime) -> Decision:
    if status is AttemptStatus.SUCCEEDED:
        if news.output:
            return Finish()
        if news.data_removed:
            message = "the provider removed the output"
            return _again(standing, AttemptStatus.FAILED, "output_expired", message, now)
        message = "succeeded without an output"
        return _again(standing, AttemptStatus.FAILED, "provider_bad_response", message, now)
    message = (news.error or f"the provider ended it as {status}")[:2000]
    if status is AttemptStatus.FAILED and _NEVER_AGAIN.search(message):
        return Fail(status, "content_rejected", message)
    if status is AttemptStatus.FAILED and message.startswith(_NO_ENGINE):
        return Fail(status, EngineUnavailable.code, message.removeprefix(_NO_ENGINE))
    if status is AttemptStatus.FAILED and message.startswith(_ENGINE_REFUSAL):
        return Fail(status, "prediction_failed", message.removeprefix(_ENGINE_REFUSAL))
    return _again(standing, status, "prediction_failed", message, now)


def _again(
    standing: Standing, status: AttemptStatus, code: str, message: str, now: datetime
) -> TryAgain | Fail:
    """Another attempt, if the job has one left and time for it."""
    if now >= standing.deadline_at:
        return Fail(status, "deadline_exceeded", message)
    if standing.attempt_number >= standing.max_attempts:
        return Fail(status, code, message)
    return TryAgain(status, message, backoff_s(standing.attempt_number))


def choose_provider(
    wanted: str, route: Sequence[str], past: Sequence[tuple[str, AttemptStatus]]
) -> str | None:
    """Which provider the next attempt goes to; None when none that is configured may take it.

    `route` is the order of preference for the kind; `past` are the earlier attempts, oldest first. A
    provider named by the caller is kept to. Otherwise a provider whose attempt has ended, however, makes
    way for the next one on the route, and the last one keeps the job.
    """
    if wanted != "auto":
        return wanted if wanted in route else None
    had = {provider for provider, status in past if status.is_terminal}
    fresh = [provider for provider in route if provider not in had]
    if fresh:
        return fresh[0]
    return route[-1] if route else None


def next_check(created_at: datetime, checked_at: datetime, *, silence_s: float, limit_s: float) -> datetime:
    """When to ask about a silent attempt next: after `silence_s`, then half its age later; at its limit."""
    age_s = (checked_at - created_at).total_seconds()
    pause_s = max(silence_s, age_s / 2)
    limit_at = created_at + timedelta(seconds=limit_s)
    due = checked_at + timedelta(seconds=pause_s)
    return due if checked_at >= limit_at else min(due, limit_at)
