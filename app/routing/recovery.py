"""What is done when an attempt goes wrong: one table, and the function that reads it. Pure.

Owns the words `Trouble` (what happened, whoever found it out) and `Action` (what follows), and the rule of
each trouble. Leaves to `app.lifecycle` which news is which trouble, to `app.choice` whose turn it is after a
fall back, to the stations to carry it out. The names of the actions are those that operators of such
pipelines use: retry the same, retry with other parameters, fall back, needs a person, abort.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.backoff import backoff_s
from app.errors import (
    AppError,
    EngineUnavailable,
    ProviderBadResponse,
    ProviderBusy,
    ProviderRejected,
    ProviderThrottled,
)


class Action(StrEnum):
    """What follows a trouble."""

    RETRY_SAME = "retry_same"
    """Another attempt at the same provider, or the same one later."""
    RETRY_DIFFERENTLY = "retry_differently"
    """Another attempt at the same provider with the other parameters that the kind names."""
    FALL_BACK = "fall_back"
    """The next provider on the job's route."""
    NEEDS_A_PERSON = "needs_a_person"
    """The job waits for whoever pays, or holds the credentials."""
    ABORT = "abort"
    """The job fails: asking again would only cost."""


class Trouble(StrEnum):
    """What went wrong with an attempt, or with asking for one."""

    NO_CREDIT = "no_credit"
    """402: the account is empty."""
    NO_ACCESS = "no_access"
    """401, 403: our credentials are not taken."""
    BAD_INPUT = "bad_input"
    """400, 422: the provider refuses what was asked."""
    NOT_OFFERED = "not_offered"
    """Any other refusal to begin, such as 404: it has no such model, or its setup failed."""
    THROTTLED = "throttled"
    """429, with or without a hint of how long."""
    AWAY = "away"
    """No answer, or 5xx, and certainly nothing was made."""
    BUSY = "busy"
    """It is well and has no free slot."""
    COLD = "cold"
    """Accepted, and not begun for longer than `STARTING_LIMIT_S`."""
    LOST = "lost"
    """The provider does not know it, or was silent past the attempt's time; it was looked for first."""
    WORKER_DIED = "worker_died"
    """Our own worker ended under it."""
    HANDED_BACK = "handed_back"
    """Our own worker was told to stop."""
    FAILED = "failed"
    """The prediction ended as failed."""
    STOPPED = "stopped"
    """The provider ended it as canceled or aborted, and nobody here had asked for that."""
    NONSENSE = "nonsense"
    """It succeeded with nothing, or with what nobody understands."""
    EXPIRED = "expired"
    """Its output was deleted before it could be fetched."""
    REJECTED_CONTENT = "rejected_content"
    """E005: input or output was flagged."""
    NO_ENGINE = "no_engine"
    """A worker of ours has no engine for what was asked."""
    UNABLE = "unable"
    """An engine of ours says that it never will."""


class Patience(StrEnum):
    """How long a job waits for the provider that it is at before the next one has it."""

    NONE = "none"
    SHORT = "short"
    """`FALL_BACK_AFTER_S`, and no more than half of the job's time."""
    LONG = "long"
    """Half of the job's time: the other half is for the provider that it falls back to."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done about one trouble."""

    actions: tuple[Action, ...]
    """The first for the first time at this provider, the next for the next; the last one stays."""
    otherwise: Action
    """Instead of a fall back, where the job has no other provider."""
    code: str
    """The job's error code, if this was its end."""
    is_try: bool = True
    """Whether it uses up one of the job's attempts."""
    patience: Patience = Patience.NONE


_RETRY, _DIFFERENTLY, _FALL_BACK = Action.RETRY_SAME, Action.RETRY_DIFFERENTLY, Action.FALL_BACK
_PERSON, _ABORT = Action.NEEDS_A_PERSON, Action.ABORT

RULES: Mapping[Trouble, Rule] = {
    Trouble.NO_CREDIT: Rule((_FALL_BACK,), _PERSON, "provider_rejected", is_try=False),
    Trouble.NO_ACCESS: Rule((_PERSON,), _PERSON, "provider_rejected", is_try=False, patience=Patience.LONG),
    Trouble.BAD_INPUT: Rule((_ABORT,), _ABORT, "provider_rejected"),
    Trouble.NOT_OFFERED: Rule((_FALL_BACK,), _ABORT, "provider_rejected"),
    Trouble.THROTTLED: Rule((_RETRY,), _RETRY, "provider_unavailable", is_try=False, patience=Patience.LONG),
    Trouble.AWAY: Rule((_RETRY,), _RETRY, "provider_unavailable", is_try=False, patience=Patience.SHORT),
    # For a slot a job waits in line: how long that may be is the route's `most_waiting`.
    Trouble.BUSY: Rule((_RETRY,), _RETRY, "provider_busy", is_try=False, patience=Patience.LONG),
    Trouble.COLD: Rule((_FALL_BACK,), _RETRY, "prediction_lost"),
    Trouble.LOST: Rule((_FALL_BACK,), _RETRY, "prediction_lost"),
    Trouble.WORKER_DIED: Rule((_RETRY,), _RETRY, "prediction_lost"),
    Trouble.HANDED_BACK: Rule((_RETRY,), _RETRY, "prediction_lost", is_try=False),
    Trouble.FAILED: Rule((_DIFFERENTLY, _FALL_BACK), _RETRY, "prediction_failed"),
    Trouble.STOPPED: Rule((_FALL_BACK,), _RETRY, "prediction_failed"),
    Trouble.NONSENSE: Rule((_FALL_BACK,), _RETRY, "provider_bad_response"),
    Trouble.EXPIRED: Rule((_RETRY,), _RETRY, "output_expired"),
    Trouble.REJECTED_CONTENT: Rule((_ABORT,), _ABORT, "content_rejected"),
    Trouble.NO_ENGINE: Rule((_FALL_BACK,), _ABORT, "engine_unavailable"),
    Trouble.UNABLE: Rule((_ABORT,), _ABORT, "prediction_failed"),
}


def trouble_of(error: AppError) -> Trouble:
    """Which trouble a refused create is."""
    match error:
        case ProviderBusy():
            return Trouble.BUSY
        case ProviderRejected(status=402):
            return Trouble.NO_CREDIT
        case ProviderRejected(status=401 | 403):
            return Trouble.NO_ACCESS
        case ProviderRejected(status=400 | 422 | None):
            return Trouble.BAD_INPUT
        case ProviderRejected():
            return Trouble.NOT_OFFERED
        case ProviderBadResponse():
            return Trouble.NONSENSE
        case EngineUnavailable():
            return Trouble.NO_ENGINE
        case ProviderThrottled():
            return Trouble.THROTTLED
        case _:
            return Trouble.AWAY


NOT_TRIES = frozenset(trouble for trouble, rule in RULES.items() if not rule.is_try)
MOST_DEATHS = 3
"""Workers may die under a job as often as this times its attempts, in case it is the job that kills them."""


@dataclass(frozen=True, slots=True)
class Case:
    """The job and the attempt that a trouble met."""

    created_at: datetime
    deadline_at: datetime
    tries: int
    """Attempts of the job that count, this one included."""
    max_tries: int
    has_other: bool = False
    """Whether its route has a provider that the job has not left."""
    has_variant: bool = False
    """Whether the kind names other parameters, for this provider, that were not tried yet."""
    earlier: int = 0
    """How often this trouble met the job at this provider before."""
    wait_s: float = 0.0
    """How long the provider asked us to wait, or the circuit will."""
    fall_back_after_s: float = 60.0
    """`FALL_BACK_AFTER_S`."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is done, and after how long. Nobody has added chance to `wait_s` yet."""

    action: Action
    wait_s: float = 0.0
    code: str = ""
    """For an abort: the job's error code."""


def find_remedy(trouble: Trouble, case: Case, now: datetime) -> Remedy:
    """Read the table for this case."""
    rule = RULES[trouble]
    if rule.actions == (_ABORT,):
        return Remedy(_ABORT, code=rule.code)
    if now >= case.deadline_at:
        return Remedy(_ABORT, code="deadline_exceeded")
    most = case.max_tries * (MOST_DEATHS if trouble is Trouble.WORKER_DIED else 1)
    action = rule.actions[min(case.earlier, len(rule.actions) - 1)]
    if action is _DIFFERENTLY and not case.has_variant:
        action = _FALL_BACK
    if rule.patience is not Patience.NONE:
        until = patience_ends(rule.patience, case.created_at, case.deadline_at, case.fall_back_after_s)
        # A wait that ends too late is not begun.
        if now + timedelta(seconds=case.wait_s) > until:
            action = _FALL_BACK
    if action is _FALL_BACK and not case.has_other:
        action = rule.otherwise
    if rule.is_try and case.tries >= most:
        action = _ABORT
    if action is _ABORT:
        return Remedy(action, code=rule.code)
    if action is _FALL_BACK or trouble is Trouble.HANDED_BACK:
        return Remedy(action)
    return Remedy(action, wait_s=case.wait_s or (backoff_s(case.tries) if rule.is_try else 0.0))


def patience_ends(
    patience: Patience, created_at: datetime, deadline_at: datetime, fall_back_after_s: float
) -> datetime:
    """Until when a job may wait for the provider that it is at."""
    half = created_at + (deadline_at - created_at) / 2
    if patience is Patience.LONG:
        return half
    return min(half, created_at + timedelta(seconds=fall_back_after_s))
