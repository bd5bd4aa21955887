"""The bill of an attempt that has ended: what it took, by which price, and how sure that is; pure.

Rules: running time is paid for however the prediction ended; characters, output seconds and files only where
it succeeded; what never began costs nothing. Running time is the provider's own figure where it gives one,
else what passed by our clock since the attempt was made, and then the bill says that it is an estimate. Of an
attempt whose end was never heard the units are taken as delivered, so that no budget trusts in a silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app.costs.prices import EMBEDDED, Amounts, PriceList, Rates, cost_micros, in_words
from app.provider.base import Json, Prediction
from db.costs import CostBasis
from db.states import AttemptStatus
from db.tables import Attempt, Job

MOST_RUN_S = 30 * 86_400.0
"""A longer run is a mistake of whoever says so."""
_FREE = (AttemptStatus.ABORTED,)
"""Ended by the provider before it began: not billed."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What one attempt cost. The fields are the columns of its row."""

    billed_at: datetime
    tenant: str
    run_ms: int | None
    characters: int | None
    output_ms: int | None
    price: str | None
    cost_micros: int | None
    """None where no price is known."""
    cost_basis: CostBasis

    def columns(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def make_bill(prices: PriceList, job: Job, attempt: Attempt, heard: Prediction | None, now: datetime) -> Bill:
    """The bill of an attempt that ends now; `heard` is its end in the provider's words, None: a silence."""
    rates = prices.find(account_of(attempt), attempt.model)
    asked = amounts_asked(job.input)
    words = None if rates is None else in_words(rates)
    is_known = attempt.prediction_id is not None or (heard is not None and heard.id is not None)
    if not is_known or (heard is not None and heard.status in _FREE):
        nothing = CostBasis.NOTHING
        return Bill(now, job.tenant, 0, asked.characters, asked.output_ms, words, 0, nothing)
    told_ms = None if heard is None else _told_ms(heard)
    run_ms = _passed_ms(heard, attempt, now) if told_ms is None else told_ms
    amounts = replace(asked, run_ms=run_ms)
    if rates is None:
        micros, basis = None, CostBasis.UNPRICED
    else:
        micros = cost_micros(_owed(rates, heard), amounts)
        basis = _basis(rates, heard, is_timed=told_ms is not None)
    if micros is None:
        # By a unit that this kind of job does not have, such as characters of music.
        basis = CostBasis.UNPRICED
    return Bill(now, job.tenant, run_ms, asked.characters, asked.output_ms, words, micros, basis)


def amend_bill(
    prices: PriceList, job: Job, attempt: Attempt, heard: Prediction, now: datetime
) -> Bill | None:
    """The bill as late news of an ended attempt corrects it; None where that has nothing to add.

    Only an end in the provider's own words counts, only where it is surer than what is booked. The money
    stays in the period in which the attempt ended.
    """
    if heard.status not in _ENDS or (_is_sure(attempt) and attempt.billed_at is not None):
        return None
    bill = make_bill(prices, job, attempt, heard, now)
    if bill.cost_basis is CostBasis.CLOCK and attempt.cost_basis == CostBasis.CLOCK:
        # By now our clock shows the time since, too.
        return None
    return replace(bill, billed_at=attempt.billed_at or now)


def account_of(attempt: Attempt) -> str:
    """Under which name the price list has whoever did it."""
    return EMBEDDED if attempt.owner is not None else attempt.provider


def amounts_asked(wanted: Mapping[str, Json]) -> Amounts:
    """What a job's input asks for, in the units that providers bill: characters of text, seconds of audio."""
    texts = [wanted.get("text")]
    segments = wanted.get("segments")
    if isinstance(segments, list):
        texts += [each.get("text") for each in segments if isinstance(each, Mapping)]
    lengths = [len(text) for text in texts if isinstance(text, str)]
    duration_s = _number(wanted.get("duration_s"))
    return Amounts(
        characters=sum(lengths) if lengths else None,
        output_ms=None if duration_s is None else round(duration_s * 1000),
    )


_ENDS = frozenset(status.value for status in AttemptStatus if status.is_terminal) - {AttemptStatus.LOST}


def _is_sure(attempt: Attempt) -> bool:
    """Whether nothing that comes later can make the bill truer."""
    if attempt.cost_basis == CostBasis.UNPRICED:
        return _number((attempt.metrics or {}).get("predict_time")) is not None
    return attempt.cost_basis == CostBasis.METERED


def _owed(rates: Rates, heard: Prediction | None) -> Rates:
    """Those parts that are paid for after this end."""
    if heard is None or heard.status == AttemptStatus.SUCCEEDED:
        return rates
    return {unit: usd for unit, usd in rates.items() if unit.is_time}


def _basis(rates: Rates, heard: Prediction | None, *, is_timed: bool) -> CostBasis:
    if not any(rates.values()):
        # Free, whatever it took.
        return CostBasis.METERED
    if any(unit.is_time for unit in rates) and not is_timed:
        return CostBasis.CLOCK
    return CostBasis.ASSUMED if heard is None else CostBasis.METERED


def _told_ms(heard: Prediction) -> int | None:
    """The running time that the provider bills by, as it says."""
    seconds = _number(heard.metrics.get("predict_time"))
    return None if seconds is None else round(seconds * 1000)


def _passed_ms(heard: Prediction | None, attempt: Attempt, now: datetime) -> int:
    """What passed from its start to its end as far as anybody says, else since we made it."""
    began_at = (heard and heard.started_at) or attempt.created_at
    ended_at = (heard and heard.completed_at) or now
    passed_s = min(max(0.0, (ended_at - began_at).total_seconds()), MOST_RUN_S)
    return round(passed_s * 1000)


def _number(value: Json) -> float | None:
    """A number of seconds that can be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Compared before it is converted: an integer may have thousands of digits. NaN is in no range.
    return float(value) if 0 <= value <= MOST_RUN_S else None
