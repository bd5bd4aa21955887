"""What a job would cost and take before it is asked for; pure. For dry runs, and to hold budgets.

Units are exact, since the input says them. Running time is a guess: the caller's own figure where it has
measured one, else `USUAL_S`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from app.costs.bills import amounts_asked
from app.costs.prices import MICROS, PriceList, cost_micros
from app.provider.base import Json

USUAL_S: Mapping[str, float] = {"sound_effect": 5, "background_music": 15, "speech": 5, "translation": 5}
"""Seconds of one prediction by job kind, rounded up from what hosted models show on their pages. A guess that
only prices by time rest on."""
OTHERWISE_S = 60.0
"""For any other kind: separating or transcribing a song is of that order."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one attempt is expected to be."""

    usd: Decimal | None
    """None where no price is known."""
    seconds: float
    basis: str
    """`units`: by what the input says; `time`: by the guess in `seconds`; `unpriced`."""

    @property
    def micros(self) -> int:
        """What is held against a budget: nothing where no price is known."""
        return 0 if self.usd is None else int(self.usd * MICROS)


def estimate(
    kind: str,
    provider: str,
    model: str,
    wanted: Mapping[str, Json],
    *,
    prices: PriceList,
    usual_s: float | None = None,
) -> Estimate:
    """One attempt at a job of this kind with this input there.

    `provider` is the price list's word: `app.costs.prices.EMBEDDED` for the service's own worker. `usual_s`
    is how long such a prediction lately took, where the caller knows.
    """
    seconds = USUAL_S.get(kind, OTHERWISE_S) if usual_s is None else usual_s
    rates = prices.find(provider, model)
    if rates is None:
        return Estimate(None, seconds, "unpriced")
    micros = cost_micros(rates, replace(amounts_asked(wanted), run_ms=round(seconds * 1000)))
    if micros is None:
        return Estimate(None, seconds, "unpriced")
    by_time = any(unit.is_time for unit, usd in rates.items() if usd)
    return Estimate(Decimal(micros) / MICROS, seconds, "time" if by_time else "units")
