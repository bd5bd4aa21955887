"""For each prediction the proof of who told its end: a webhook, a poll, a replay, a deadline, or nobody.

Owns the view that joins an attempt with the first terminal news of every postman, how long it has been
silent, and what can still be had of its output; and the figures of what is at risk. Moves no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.ledger.effects import Oracle, earliest_expiry
from app.line import Line
from app.routing.recovery import Trouble
from app.watch.dependencies import Remembered, Unanswered
from db.ledger import predictions as rows
from db.ledger.predictions import EndTold, LedgerFilter, Unsaved
from db.session import DatabaseUnavailable
from db.states import AttemptStatus, DeliveryOutcome, JobState
from db.tables import Attempt, Job

LOOK_S = 0.7
"""How long whoever asks for the figures is kept waiting."""
FRESH_S = 1.5
MOST_SHARE = 0.05
"""The share of a connection's time that looking may take."""


class Whereabouts(StrEnum):
    """Where a prediction's output is."""

    STORED = "stored"
    """In our store."""
    AWAITED = "awaited"
    """At the provider, or not made yet."""
    EXPIRED = "expired"
    """The provider has deleted it: only another attempt brings it back."""
    NONE = "none"
    """There is none, or nobody wants it any more."""


@dataclass(frozen=True, slots=True)
class PredictionView:
    """One line of the ledger."""

    attempt: Attempt
    job: Job
    ends: Mapping[str, EndTold]
    """By postman: the first time that one told its end."""
    settled_by: str | None
    """The delivery that ended it."""
    silent_s: float | None
    """How long nothing has been heard; None once it has ended."""
    output: Whereabouts
    expires_at: datetime | None
    """The earliest moment at which the provider may delete what is awaited."""
    rerun_micros: int | None
    """Where it has expired: what another attempt is expected to cost."""


class Predictions:
    """The ledger's readers. One a runtime."""

    def __init__(self, *, line: Line, oracle: Oracle) -> None:
        self._line = line
        self._oracle = oracle
        self._unsaved = Remembered(self._read_unsaved, fresh_s=FRESH_S, most_share=MOST_SHARE)

    async def list_predictions(
        self, wanted: LedgerFilter, *, before_id: str | None, limit: int
    ) -> list[PredictionView]:
        """Newest first."""
        async with self._line.database.reading() as tx:
            pairs = await rows.list_predictions(tx, wanted, before_id=before_id, limit=limit)
            told = await rows.list_ends(tx, [attempt.id for attempt, _ in pairs])
        by_attempt: dict[str, dict[str, EndTold]] = {}
        for each in told:
            by_attempt.setdefault(each.attempt_id, {})[each.source] = each
        return [self._view(attempt, job, by_attempt.get(attempt.id, {})) for attempt, job in pairs]

    async def collect(self) -> None:
        """Bring the gauges of outputs at risk up to date; absent while the database does not say."""
        metrics = self._line.metrics
        metrics.outputs_at_risk.clear()
        metrics.output_expiry.clear()
        try:
            found, now = await self._unsaved.get(within_s=LOOK_S)
        except (DatabaseUnavailable, Unanswered):
            return
        for each in found:
            life_s = self._line.settings.output_life_s(each.provider)
            if life_s is not None:
                left_s = life_s - (now - each.oldest_at).total_seconds()
                metrics.output_expiry.labels(each.provider).set(round(left_s, 1))
                metrics.outputs_at_risk.labels(each.provider).set(each.at_risk)

    async def aclose(self) -> None:
        await self._unsaved.aclose()

    async def _read_unsaved(self) -> tuple[list[Unsaved], datetime]:
        now = self._line.clock.now()
        before = now - timedelta(seconds=self._line.settings.replicate_output_life_s / 2)
        async with self._line.database.reading() as tx:
            return await rows.count_unsaved(tx, before=before), now

    def _view(self, attempt: Attempt, job: Job, ends: Mapping[str, EndTold]) -> PredictionView:
        now = self._line.clock.now()
        over = AttemptStatus(attempt.status).is_terminal
        expires_at = earliest_expiry(attempt, self._line.settings.output_life_s(attempt.provider))
        output = _whereabouts(attempt, job, ends, expires_at, now)
        return PredictionView(
            attempt=attempt,
            job=job,
            ends=ends,
            settled_by=_settled_by(attempt, ends) if over else None,
            silent_s=None if over else (now - (attempt.heard_at or attempt.created_at)).total_seconds(),
            output=output,
            expires_at=expires_at if output is Whereabouts.AWAITED else None,
            rerun_micros=self._oracle.rerun_micros(job, attempt) if output is Whereabouts.EXPIRED else None,
        )


def _settled_by(attempt: Attempt, ends: Mapping[str, EndTold]) -> str | None:
    applied = [end for end in ends.values() if end.outcome == DeliveryOutcome.APPLIED]
    end = applied[0] if applied else ends.get(attempt.told_by or "")
    return end.delivery_id if end else None


def _whereabouts(
    attempt: Attempt, job: Job, ends: Mapping[str, EndTold], expires_at: datetime | None, now: datetime
) -> Whereabouts:
    over = AttemptStatus(attempt.status).is_terminal
    succeeded = attempt.status == AttemptStatus.SUCCEEDED
    if succeeded and job.state == JobState.SUCCEEDED and job.error_code is None:
        return Whereabouts.STORED
    if attempt.trouble == Trouble.EXPIRED or (succeeded and job.error_code == "output_expired"):
        return Whereabouts.EXPIRED
    if not over or (succeeded and job.state == JobState.FINISHING):
        return Whereabouts.AWAITED
    late = any(end.told == AttemptStatus.SUCCEEDED for end in ends.values())
    if job.state == JobState.FAILED and late and expires_at is not None and expires_at <= now:
        return Whereabouts.EXPIRED
    return Whereabouts.NONE
