"""The price list: what a provider asks for a model, by the second, the character, the file; pure.

Money is whole micro-dollars (`micros`) wherever it is stored or added up: databases differ in decimals, and
sums of floats do not add up. A price is a `Decimal` of US dollars per unit.

The built-in list is of public list prices, in US dollars without tax, as read in November 2026; a discount or
a change of theirs is the operator's to enter (`PRICES`):

- hardware by the second: https://replicate.com/pricing. Public models are billed for the time that a
  prediction runs; setting up and waiting are free (https://replicate.com/docs/topics/predictions/lifecycle);
- `minimax/speech-02-turbo`: 0.06 per 1,000 characters, which is what the page of its successor asks
  (https://replicate.com/minimax/speech-2.6-turbo). No page with the older one's own price was found;
- `stability-ai/stable-audio-2.5`: 0.20 a piece, which several resellers ask for the same model. Replicate's
  own page was not at hand;
- `victor-upmeet/whisperx` and `soykertje/spleeter`: by the second of an L40S and of a T4. That they run on
  those is a guess: their pages were not at hand;
- a GPU of one's own: 0.71 an hour, about what a cloud asks for the smallest machine with an NVIDIA L4. Only
  the operator knows the true figure;
- the embedded worker: nothing. It runs on a machine that is there anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from enum import StrEnum

MICROS = 1_000_000
"""Micro-dollars in a dollar."""
MOST_USD = Decimal(1_000_000)
"""A budget beyond is a slip of the pen."""
MOST_PRICE_USD = Decimal(1000)
"""And so is a price: with a thousand dollars a second for a month, the sums still fit into 64 bits."""
ANY_MODEL = "*"
EMBEDDED = "embedded"
"""The name in the list of a Cog server that is a child of the service itself."""


class Unit(StrEnum):
    """What a price is asked for."""

    SECOND = "second"
    """Of the prediction's running time."""
    HOUR = "hour"
    """The same."""
    KILOCHARACTER = "1000_characters"
    """Of the text that was asked for."""
    OUTPUT_SECOND = "output_second"
    """Of the audio that was asked for."""
    FILE = "file"
    """A success, whatever its length."""

    @property
    def is_time(self) -> bool:
        """Whether it is billed by how long it ran, however it ended."""
        return self in (Unit.SECOND, Unit.HOUR)


HARDWARE: Mapping[str, Decimal] = {
    "cpu": Decimal("0.000100"),
    "t4": Decimal("0.000225"),
    "a40": Decimal("0.000575"),
    "a40-large": Decimal("0.000725"),
    "l40s": Decimal("0.000975"),
    "l40s-2x": Decimal("0.001950"),
    "a100-80gb": Decimal("0.001400"),
    "a100-80gb-2x": Decimal("0.002800"),
    "h100": Decimal("0.001525"),
    "h100-2x": Decimal("0.003050"),
}
"""US dollars a second, by the hardware that a model's page names."""

Rates = Mapping[Unit, Decimal]
"""What one model asks; the parts are added up."""

DEFAULTS: Mapping[str, Mapping[str, Rates]] = {
    "replicate": {
        "minimax/speech-02-turbo": {Unit.KILOCHARACTER: Decimal("0.06")},
        "stability-ai/stable-audio-2.5": {Unit.FILE: Decimal("0.20")},
        "victor-upmeet/whisperx": {Unit.SECOND: HARDWARE["l40s"]},
        "soykertje/spleeter": {Unit.SECOND: HARDWARE["t4"]},
    },
    "cog": {ANY_MODEL: {Unit.HOUR: Decimal("0.71")}},
    EMBEDDED: {ANY_MODEL: {Unit.HOUR: Decimal(0)}},
}


@dataclass(frozen=True, slots=True)
class Amounts:
    """What is paid for: running time, text asked for, audio asked for. None: not known, or there is none."""

    run_ms: int | None = None
    characters: int | None = None
    output_ms: int | None = None

    def of(self, unit: Unit) -> Decimal | None:
        """How many of this unit."""
        match unit:
            case Unit.SECOND:
                return None if self.run_ms is None else Decimal(self.run_ms) / 1000
            case Unit.HOUR:
                return None if self.run_ms is None else Decimal(self.run_ms) / 3_600_000
            case Unit.KILOCHARACTER:
                return None if self.characters is None else Decimal(self.characters) / 1000
            case Unit.OUTPUT_SECOND:
                return None if self.output_ms is None else Decimal(self.output_ms) / 1000
            case Unit.FILE:
                return Decimal(1)


@dataclass(frozen=True, slots=True)
class PriceList:
    """Rates by provider and model."""

    rates: Mapping[str, Mapping[str, Rates]]

    def find(self, provider: str, model: str) -> Rates | None:
        """What this model asks there: by its version, its name, or as any model; None: nothing is known."""
        models = self.rates.get(provider, {})
        for name in (model, model.partition(":")[0], ANY_MODEL):
            if name in models:
                return models[name]
        return None


def list_prices(wanted: Mapping[str, Mapping[str, Mapping[str, str | float]]]) -> PriceList:
    """The built-in list with an operator's over it, model by model.

    `wanted` is `{provider: {model or "*": {unit: price}}}`; the price of a second may be a word of
    `HARDWARE`. Raises ValueError with the place and what is wrong there.
    """
    merged = {provider: dict(models) for provider, models in DEFAULTS.items()}
    for provider, models in wanted.items():
        for model, rates in models.items():
            place = f"{provider}/{model}"
            read = {_unit(place, unit): _price(f"{place}/{unit}", unit, usd) for unit, usd in rates.items()}
            merged.setdefault(provider, {})[model] = read
    return PriceList(merged)


def cost_micros(rates: Rates, amounts: Amounts) -> int | None:
    """What these amounts cost, to the nearest micro-dollar; None where one that is paid for is not known."""
    total = Decimal(0)
    for unit, usd in rates.items():
        count = amounts.of(unit)
        if count is None:
            return None
        total += usd * count
    return to_micros(total)


def to_micros(usd: Decimal) -> int:
    return int((usd * MICROS).to_integral_value(ROUND_HALF_UP))


def to_usd(micros: int) -> float:
    """For showing: six decimals of a dollar are exact in a float up to nine billion dollars."""
    return micros / MICROS


def in_words(rates: Rates) -> str:
    """Rates as they are kept beside what they made: `0.06 per 1000_characters + 0.0002 per second`."""
    return " + ".join(f"{usd:f} per {unit}" for unit, usd in rates.items())[:128] or "0"


def read_usd(text: object, *, most: Decimal = MOST_USD) -> Decimal:
    """An amount of dollars. Raises ValueError."""
    try:
        usd = Decimal(str(text))
    except InvalidOperation as exc:
        raise ValueError("not an amount of dollars") from exc
    if not usd.is_finite() or not 0 <= usd <= most:
        raise ValueError(f"an amount of dollars is from 0 to {most}")
    return usd


def _unit(place: str, word: str) -> Unit:
    try:
        return Unit(word)
    except ValueError as exc:
        raise ValueError(f"{place}: a price is per {', '.join(Unit)}; not per {word[:40]}") from exc


def _price(place: str, unit: str, text: str | float) -> Decimal:
    if unit == Unit.SECOND and str(text) in HARDWARE:
        return HARDWARE[str(text)]
    try:
        return read_usd(text, most=MOST_PRICE_USD)
    except ValueError as exc:
        known = f", or one of {', '.join(HARDWARE)}" if unit == Unit.SECOND else ""
        raise ValueError(f"{place}: {exc}{known}") from exc
