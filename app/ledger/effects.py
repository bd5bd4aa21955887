"""What a piece of news would do, and did: the words in which a recovery is told before and after.

Owns the categories and what they cost. The law itself is `app.lifecycle`'s: a dry run asks it what it would
decide and changes nothing, so that its counts are those of the real run as long as nothing else happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.costs.bills import account_of
from app.costs.estimates import estimate
from app.costs.prices import list_prices
from app.inbox import Inbox
from app.lifecycle import Advance, Decision, Fail, Finish, Ignore, News, TryAgain, find_trouble
from app.line import Line
from app.provider.base import Json, Prediction
from app.routing.recovery import Action, Trouble
from db.session import Transaction
from db.states import AttemptStatus, DeliveryOutcome
from db.tables import Attempt, Job


class Effect(StrEnum):
    """What becomes of an item of a recovery."""

    FINISHES = "finishes"
    """The output is there: the job goes to its end."""
    EXPIRED = "expired"
    """It succeeded and the provider has deleted the output: only another attempt brings it back."""
    TRIES_AGAIN = "tries_again"
    """It ended without a result: another attempt follows."""
    FAILS = "fails"
    """It ended without a result: the job fails."""
    ALIVE = "alive"
    """Still at work there."""
    NOTHING = "nothing"
    """It is known already, or too late: nothing changes."""
    UNREACHABLE = "unreachable"
    """The provider did not answer."""
    UNASKED = "unasked"
    """The provider cannot be asked, or need not know it yet."""
    UNREADABLE = "unreadable"
    """It is not understood: kept in quarantine."""
    BROKEN = "broken"
    """Working on it failed, or ended the process, again and again."""


MOVING = frozenset({Effect.FINISHES, Effect.EXPIRED, Effect.TRIES_AGAIN, Effect.FAILS})
"""After these a job is no more where it was."""


@dataclass(frozen=True, slots=True)
class Foresight:
    """What news would do."""

    effect: Effect
    detail: str
    rerun_micros: int | None = None
    """Where it has expired: what another attempt would cost, in micro-dollars; None: no price is known."""


class Oracle:
    """Says what news would do to rows as they stand. One a runtime."""

    def __init__(self, *, line: Line, inbox: Inbox) -> None:
        self._line = line
        self._inbox = inbox
        self._prices = list_prices(line.settings.prices)

    async def foresee(self, tx: Transaction, job: Job, attempt: Attempt, news: News) -> Foresight:
        """The effect of applying this now."""
        decision = await self._inbox.foresee(tx, job, attempt, news)
        effect, detail = judge(decision, news)
        if effect is Effect.FINISHES and isinstance(news, Prediction):
            gone_since = self._gone_since(attempt, news)
            if gone_since is not None:
                effect, detail = Effect.EXPIRED, _since(gone_since)
        return self.expired(job, attempt, detail) if effect is Effect.EXPIRED else Foresight(effect, detail)

    def witness(
        self, job: Job, attempt: Attempt, news: News | None, *, outcome: str | None, detail: str | None
    ) -> Foresight:
        """What it did, from how its delivery was settled and how it left the attempt."""
        said = detail or ""
        if outcome == DeliveryOutcome.QUARANTINED:
            return Foresight(Effect.UNREADABLE, said)
        if outcome == DeliveryOutcome.APPLIED and AttemptStatus(attempt.status).is_terminal:
            effect, said = remember(attempt), attempt.error or "the output is there"
            gone_since = self._gone_since(attempt, news) if isinstance(news, Prediction) else None
            if effect is Effect.FINISHES and gone_since is not None:
                effect, said = Effect.EXPIRED, _since(gone_since)
            return self.expired(job, attempt, said) if effect is Effect.EXPIRED else Foresight(effect, said)
        if outcome == DeliveryOutcome.APPLIED or not AttemptStatus(attempt.status).is_terminal:
            return Foresight(Effect.ALIVE, attempt.status)
        return Foresight(Effect.NOTHING, said)

    def expired(self, job: Job, attempt: Attempt, detail: str) -> Foresight:
        """The output is gone: what another attempt like this one would cost."""
        micros = self.rerun_micros(job, attempt)
        price = "at a price that is not known" if micros is None else f"for about ${micros / 1e6:.4g}"
        return Foresight(Effect.EXPIRED, f"{detail}: another attempt makes it anew, {price}", micros)

    def rerun_micros(self, job: Job, attempt: Attempt) -> int | None:
        """What another attempt there is expected to cost; None where no price is known."""
        guess = estimate(job.kind, account_of(attempt), attempt.model, job.input, prices=self._prices)
        return None if guess.usd is None else guess.micros

    def _gone_since(self, attempt: Attempt, news: Prediction) -> datetime | None:
        life_s = self._line.settings.output_life_s(attempt.provider)
        if life_s is None or news.completed_at is None or not _is_kept_there(news.output):
            return None
        gone_at = news.completed_at + timedelta(seconds=life_s)
        return gone_at if gone_at <= self._line.clock.wall() else None


def judge(decision: Decision, news: News) -> tuple[Effect, str]:
    """The category of a decision, and a few words."""
    match decision:
        case Finish():
            return Effect.FINISHES, "the output is there"
        case TryAgain() | Fail() if find_trouble(news) is Trouble.EXPIRED:
            return Effect.EXPIRED, "the provider removed the output"
        case TryAgain():
            return Effect.TRIES_AGAIN, decision.reason
        case Fail():
            return Effect.FAILS, f"{decision.code}: {decision.message}"
        case Advance():
            return Effect.ALIVE, decision.attempt_status.value
        case Ignore(outcome=DeliveryOutcome.QUARANTINED):
            return Effect.UNREADABLE, decision.detail
        case Ignore():
            return Effect.NOTHING, decision.detail


def remember(attempt: Attempt) -> Effect:
    """What the news that ended this attempt did, read from what it left behind."""
    if attempt.status == AttemptStatus.SUCCEEDED:
        return Effect.FINISHES
    if attempt.trouble == Trouble.EXPIRED:
        return Effect.EXPIRED
    return Effect.FAILS if attempt.action in (None, Action.ABORT) else Effect.TRIES_AGAIN


def earliest_expiry(attempt: Attempt, life_s: float | None) -> datetime | None:
    """The earliest moment at which its output may be gone: exact once the provider has said when it ended."""
    if life_s is None:
        return None
    return (attempt.completed_at or attempt.created_at) + timedelta(seconds=life_s)


def _since(gone_since: datetime) -> str:
    return f"the output expired at {gone_since:%Y-%m-%d %H:%M:%S} UTC"


def _is_kept_there(output: Json) -> bool:
    """Whether any of it lies at an address: what came inline does not expire."""
    match output:
        case str():
            return output.startswith(("http://", "https://"))
        case list():
            return any(_is_kept_there(each) for each in output)
        case Mapping():
            return any(_is_kept_there(each) for each in output.values())
        case _:
            return False
