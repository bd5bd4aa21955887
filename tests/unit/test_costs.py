"""What things cost, as tables: the price list, the bill of an attempt, the estimate, a budget's periods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.costs.bills import amend_bill, amounts_asked, make_bill
from app.costs.budgets import ANYBODY, Budget, Period, read_budgets
from app.costs.estimates import OTHERWISE_S, estimate
from app.costs.prices import (
    EMBEDDED,
    HARDWARE,
    Amounts,
    PriceList,
    Unit,
    cost_micros,
    list_prices,
    to_micros,
)
from app.errors import StartupError
from app.kinds import KINDS
from app.provider.base import Prediction
from db.costs import CostBasis
from db.tables import Attempt, Job
from tests.conftest import make_settings

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = BEGAN + timedelta(seconds=40)
EFFECT = {"prompt": "rain", "duration_s": 5.0}
SPOKEN = {"text": "x" * 1500, "language": "en"}
L40S = {"replicate": {"*": {"second": "l40s"}}}


@pytest.mark.parametrize(
    ("provider", "model", "wanted", "per"),
    [
        ("replicate", "minimax/speech-02-turbo", {}, {Unit.KILOCHARACTER: "0.06"}),
        ("replicate", "minimax/speech-02-turbo:abc", {}, {Unit.KILOCHARACTER: "0.06"}),
        ("replicate", "meta/musicgen", {}, None),
        ("replicate", "meta/musicgen", {"replicate": {"meta/musicgen": {"second": "t4"}}}, "t4"),
        ("replicate", "meta/musicgen:1", {"replicate": {"meta/musicgen": {"second": "t4"}}}, "t4"),
        ("replicate", "meta/musicgen:1", {"replicate": {"meta/musicgen:2": {"second": "t4"}}}, None),
        ("replicate", "meta/musicgen", {"replicate": {"*": {"second": 0.002}}}, {Unit.SECOND: "0.002"}),
        # A model's own price goes before that of any model.
        ("replicate", "stability-ai/stable-audio-2.5", L40S, {Unit.FILE: "0.20"}),
        ("cog", "speech", {}, {Unit.HOUR: "0.71"}),
        ("cog", "speech", {"cog": {"speech": {"hour": "1"}}}, {Unit.HOUR: "1"}),
        ("cog", "music", {"cog": {"speech": {"hour": "1"}}}, {Unit.HOUR: "0.71"}),
        (EMBEDDED, "speech", {}, {Unit.HOUR: "0"}),
        ("nowhere", "speech", {}, None),
    ],
)
def test_a_price_is_found_by_version_then_name_then_provider(
    provider: str, model: str, wanted: dict[str, Any], per: dict[Unit, str] | str | None
) -> None:
    if isinstance(per, str):
        expected: Any = {Unit.SECOND: HARDWARE[per]}
    else:
        expected = None if per is None else {unit: Decimal(usd) for unit, usd in per.items()}
    assert list_prices(wanted).find(provider, model) == expected


def test_every_hosted_model_of_a_kind_has_a_price() -> None:
    """A kind that is added says what it costs, or its jobs would be unpriced without anybody's wish."""
    prices = list_prices({})
    hosted = [kind.hosted.name for kind in KINDS.values() if kind.hosted is not None]
    assert [name for name in hosted if prices.find("replicate", name) is None] == []


@pytest.mark.parametrize(
    ("rates", "amounts", "micros"),
    [
        ({Unit.SECOND: "0.000975"}, Amounts(run_ms=1250), 1219),
        ({Unit.HOUR: "0.71"}, Amounts(run_ms=3_600_000), 710_000),
        ({Unit.HOUR: "0.71"}, Amounts(run_ms=500), 99),
        ({Unit.KILOCHARACTER: "0.06"}, Amounts(characters=1500), 90_000),
        ({Unit.KILOCHARACTER: "0.06"}, Amounts(characters=0), 0),
        ({Unit.OUTPUT_SECOND: "0.01"}, Amounts(output_ms=2500), 25_000),
        ({Unit.FILE: "0.20"}, Amounts(), 200_000),
        ({Unit.FILE: "0.20", Unit.SECOND: "0.1"}, Amounts(run_ms=1000), 300_000),
        ({Unit.SECOND: "0.0000005"}, Amounts(run_ms=1000), 1),
        ({Unit.SECOND: "0.0000004"}, Amounts(run_ms=1000), 0),
        ({Unit.KILOCHARACTER: "0.06"}, Amounts(run_ms=1000), None),
        ({Unit.SECOND: "0.1"}, Amounts(characters=5), None),
    ],
)
def test_amounts_are_multiplied_and_rounded_once(
    rates: dict[Unit, str], amounts: Amounts, micros: int | None
) -> None:
    assert cost_micros({unit: Decimal(usd) for unit, usd in rates.items()}, amounts) == micros


@given(st.lists(st.integers(0, 10**9), max_size=50), st.sampled_from(sorted(HARDWARE.values())))
def test_what_is_added_up_is_never_further_off_than_half_a_micro_dollar_each(
    runs_ms: list[int], second: Decimal
) -> None:
    booked = sum(cost_micros({Unit.SECOND: second}, Amounts(run_ms=run_ms)) or 0 for run_ms in runs_ms)
    exact = second * sum(runs_ms) / 1000 * 1_000_000
    assert abs(booked - exact) <= Decimal(len(runs_ms)) / 2


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("prices", {"replicate": {"a/b": {"minute": "1"}}}, "replicate/a/b: a price is per second, hour"),
        ("prices", {"replicate": {"a/b": {"second": "much"}}}, "replicate/a/b/second: not an amount"),
        ("prices", {"replicate": {"a/b": {"second": "-1"}}}, "from 0 to"),
        ("prices", {"replicate": {"a/b": {"second": "1001"}}}, "from 0 to 1000"),
        ("prices", {"replicate": {"a/b": {"second": "NaN"}}}, "from 0 to"),
        ("prices", {"replicate": {"a/b": {"hour": "l40s"}}}, "replicate/a/b/hour"),
        ("prices", {"replicate": "free"}, "valid dictionary"),
        ("budgets", {"default": {"week": "1"}}, "default: a budget is per hour, day, month"),
        ("budgets", {"default": {"day": "lots"}}, "default/day: not an amount"),
        ("budgets", {"default": {"day": "1e99"}}, "default/day: an amount of dollars is from 0"),
    ],
)
def test_a_price_or_budget_that_makes_no_sense_stops_the_start_and_is_named(
    tmp_path: Path, setting: str, value: object, words: str
) -> None:
    with pytest.raises(StartupError, match=f"^{setting.upper()}") as refused:
        make_settings(tmp_path, **{setting: value})
    assert words in refused.value.message


def test_prices_and_budgets_are_read_from_the_environment_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRICES", '{"cog": {"*": {"hour": "0.50"}}}')
    monkeypatch.setenv("BUDGETS", '{"default": {"day": 10}}')
    settings = make_settings(tmp_path)
    assert list_prices(settings.prices).find("cog", "speech") == {Unit.HOUR: Decimal("0.50")}
    assert read_budgets(settings.budgets).of("default") == [Budget(10_000_000, Period.DAY)]
    monkeypatch.setenv("PRICES", "{")
    with pytest.raises(StartupError, match="PRICES: not JSON"):
        make_settings(tmp_path)


def make_job(wanted: dict[str, Any] | None = None) -> Job:
    return Job(id="job_1", kind="sound_effect", tenant="acme", input=EFFECT if wanted is None else wanted)


def make_attempt(**values: Any) -> Attempt:
    return Attempt(
        **{
            "id": "att_1",
            "job_id": "job_1",
            "number": 1,
            "provider": "replicate",
            "model": "stability-ai/stable-audio-2.5",
            "status": "processing",
            "prediction_id": "p1",
            "created_at": BEGAN,
            "check_at": BEGAN,
            "metrics": {},
            **values,
        }
    )


def heard(status: str, *, id: str | None = "p1", predict_time: object = 2.5, **more: Any) -> Prediction:  # noqa: A002
    metrics = {} if predict_time is None else {"predict_time": predict_time}
    return Prediction(id, status, metrics=metrics, **more)


BY_TIME = {"replicate": {"stability-ai/stable-audio-2.5": {"second": "0.01"}}}
BY_NOTHING = {"replicate": {"stability-ai/stable-audio-2.5": {"1000_characters": "1"}}}
RAN = {"started_at": BEGAN + timedelta(seconds=10), "completed_at": BEGAN + timedelta(seconds=13)}


@pytest.mark.parametrize(
    ("wanted", "attempt", "news", "micros", "run_ms", "basis"),
    [
        # By the file: where it succeeded, or where nobody said how it ended.
        ({}, {}, heard("succeeded"), 200_000, 2500, CostBasis.METERED),
        ({}, {}, heard("succeeded", predict_time=None), 200_000, 40_000, CostBasis.METERED),
        ({}, {}, heard("failed"), 0, 2500, CostBasis.METERED),
        ({}, {}, heard("canceled"), 0, 2500, CostBasis.METERED),
        ({}, {}, None, 200_000, 40_000, CostBasis.ASSUMED),
        # By time: however it ended, by the provider's figure or else by ours.
        (BY_TIME, {}, heard("succeeded"), 25_000, 2500, CostBasis.METERED),
        (BY_TIME, {}, heard("failed"), 25_000, 2500, CostBasis.METERED),
        (BY_TIME, {}, heard("canceled"), 25_000, 2500, CostBasis.METERED),
        (BY_TIME, {}, heard("failed", predict_time=None), 400_000, 40_000, CostBasis.CLOCK),
        (BY_TIME, {}, heard("failed", predict_time=None, **RAN), 30_000, 3000, CostBasis.CLOCK),
        (BY_TIME, {}, None, 400_000, 40_000, CostBasis.CLOCK),
        # Figures that nobody can have meant are none.
        (BY_TIME, {}, heard("succeeded", predict_time=-1), 400_000, 40_000, CostBasis.CLOCK),
        (BY_TIME, {}, heard("succeeded", predict_time="2.5"), 400_000, 40_000, CostBasis.CLOCK),
        (BY_TIME, {}, heard("succeeded", predict_time=True), 400_000, 40_000, CostBasis.CLOCK),
        (BY_TIME, {}, heard("succeeded", predict_time=1e12), 400_000, 40_000, CostBasis.CLOCK),
        (BY_TIME, {}, heard("succeeded", predict_time=float("inf")), 400_000, 40_000, CostBasis.CLOCK),
        (BY_TIME, {}, heard("succeeded", predict_time=float("nan")), 400_000, 40_000, CostBasis.CLOCK),
        (BY_TIME, {}, heard("succeeded", predict_time=10**400), 400_000, 40_000, CostBasis.CLOCK),
        # What never began is not billed.
        (BY_TIME, {}, heard("aborted"), 0, 0, CostBasis.NOTHING),
        (BY_TIME, {"prediction_id": None}, heard("failed", id=None), 0, 0, CostBasis.NOTHING),
        (BY_TIME, {"prediction_id": None}, None, 0, 0, CostBasis.NOTHING),
        # A callback that was faster than the reply to the create names the prediction.
        (BY_TIME, {"prediction_id": None}, heard("succeeded"), 25_000, 2500, CostBasis.METERED),
        # No price: what was measured is kept all the same.
        ({}, {"model": "some/model"}, heard("succeeded"), None, 2500, CostBasis.UNPRICED),
        (BY_NOTHING, {}, heard("succeeded"), None, 2500, CostBasis.UNPRICED),
        # A GPU of one's own, and the worker that is there anyway.
        ({}, {"provider": "cog", "model": "speech"}, heard("succeeded"), 493, 2500, CostBasis.METERED),
        ({}, {"provider": "cog", "owner": "proc_1"}, heard("succeeded"), 0, 2500, CostBasis.METERED),
        ({}, {"provider": "cog", "owner": "proc_1"}, None, 0, 40_000, CostBasis.METERED),
    ],
)
def test_the_bill_of_an_attempt(
    wanted: dict[str, Any],
    attempt: dict[str, Any],
    news: Prediction | None,
    micros: int | None,
    run_ms: int,
    basis: CostBasis,
) -> None:
    bill = make_bill(list_prices(wanted), make_job(), make_attempt(**attempt), news, NOW)
    assert (bill.cost_micros, bill.run_ms, bill.cost_basis) == (micros, run_ms, basis)
    assert (bill.tenant, bill.billed_at, bill.output_ms) == ("acme", NOW, 5000)


def test_a_bill_keeps_the_price_that_was_applied_in_words() -> None:
    prices = list_prices({"replicate": {"a/b": {"second": "0.0001", "file": "2"}}})
    bill = make_bill(prices, make_job(), make_attempt(model="a/b"), heard("succeeded"), NOW)
    assert bill.price == "0.0001 per second + 2 per file"


BOOKED = {"status": "lost", "billed_at": BEGAN, "metrics": {}}


@pytest.mark.parametrize(
    ("wanted", "booked", "news", "micros", "basis"),
    [
        # The truth takes the place of a guess,
        ({}, {"cost_basis": "assumed", "cost_micros": 200_000}, heard("canceled"), 0, "metered"),
        (BY_TIME, {"cost_basis": "clock", "cost_micros": 400_000}, heard("succeeded"), 25_000, "metered"),
        (BY_TIME, {"cost_basis": "nothing", "cost_micros": 0}, heard("succeeded"), 25_000, "metered"),
        (BY_TIME, {"cost_basis": None, "billed_at": None}, heard("succeeded"), 25_000, "metered"),
        ({}, {"cost_basis": "unpriced", "model": "a/b"}, heard("succeeded"), None, "unpriced"),
        # a guess never that of a better one, nor of what is known.
        (BY_TIME, {"cost_basis": "clock"}, heard("succeeded", predict_time=None), None, None),
        (BY_TIME, {"cost_basis": "metered"}, heard("succeeded"), None, None),
        # And what is no end says nothing.
        (BY_TIME, {"cost_basis": "clock"}, heard("processing"), None, None),
        (BY_TIME, {"cost_basis": "clock"}, heard("exploded"), None, None),
    ],
)
def test_late_news_of_an_ended_attempt_only_ever_makes_its_bill_truer(
    wanted: dict[str, Any], booked: dict[str, Any], news: Prediction, micros: int | None, basis: str | None
) -> None:
    attempt = make_attempt(**{**BOOKED, **booked})
    bill = amend_bill(list_prices(wanted), make_job(), attempt, news, NOW)
    if basis is None:
        assert bill is None
        return
    assert bill is not None
    assert (bill.cost_micros, bill.cost_basis) == (micros, basis)
    # The money was spent when the attempt ended.
    assert bill.billed_at == (attempt.billed_at or NOW)


@pytest.mark.parametrize(
    ("wanted", "characters", "output_ms"),
    [
        (EFFECT, None, 5000),
        (SPOKEN, 1500, None),
        ({"segments": [{"text": "ab"}, {"text": "cde"}, {}, "x"]}, 5, None),
        ({"text": None, "duration_s": None}, None, None),
        ({"text": "", "duration_s": 0}, 0, 0),
    ],
)
def test_what_is_asked_for_is_counted_in_the_units_that_are_billed(
    wanted: dict[str, Any], characters: int | None, output_ms: int | None
) -> None:
    assert amounts_asked(wanted) == Amounts(characters=characters, output_ms=output_ms)


@pytest.mark.parametrize(
    ("kind", "provider", "model", "wanted", "usd", "seconds", "basis"),
    [
        ("speech", "replicate", "minimax/speech-02-turbo", SPOKEN, "0.09", 5, "units"),
        ("sound_effect", "replicate", "stability-ai/stable-audio-2.5", EFFECT, "0.2", 5, "units"),
        ("sound_effect", EMBEDDED, "sound_effect", EFFECT, "0", 5, "units"),
        ("dubbing", "cog", "dubbing", {}, "0.011833", OTHERWISE_S, "time"),
        ("speech", "replicate", "some/model", SPOKEN, None, 5, "unpriced"),
        ("sound_effect", "replicate", "minimax/speech-02-turbo", EFFECT, None, 5, "unpriced"),
    ],
)
def test_an_estimate_says_what_it_stands_on(
    kind: str, provider: str, model: str, wanted: dict[str, Any], usd: str | None, seconds: float, basis: str
) -> None:
    expected = estimate(kind, provider, model, wanted, prices=list_prices({}))
    assert expected.usd == (None if usd is None else Decimal(usd))
    assert (expected.seconds, expected.basis) == (seconds, basis)


def test_an_estimate_goes_by_the_time_that_was_measured_where_one_is_given() -> None:
    expected = estimate("speech", "cog", "speech", SPOKEN, prices=list_prices({}), usual_s=3600)
    assert (expected.usd, expected.seconds, expected.micros) == (Decimal("0.71"), 3600, 710_000)


@given(
    st.integers(0, 20_000),
    st.floats(0, 600, allow_nan=False),
    st.dictionaries(st.sampled_from(Unit), st.decimals(0, 10, places=6), min_size=1),
)
def test_a_success_that_takes_as_long_as_estimated_costs_what_was_estimated(
    characters: int, duration_s: float, rates: dict[Unit, Decimal]
) -> None:
    wanted = {"text": "x" * characters, "duration_s": duration_s}
    prices = PriceList({"replicate": {"a/b": rates}})
    expected = estimate("speech", "replicate", "a/b", wanted, prices=prices, usual_s=2.5)
    bill = make_bill(prices, make_job(wanted), make_attempt(model="a/b"), heard("succeeded"), NOW)
    assert expected.usd is not None
    assert bill.cost_micros == to_micros(expected.usd) == expected.micros


@pytest.mark.parametrize(
    ("per", "begun_at", "resets_at"),
    [
        (Period.HOUR, (2024, 2, 29, 23), (2024, 3, 1, 0)),
        (Period.DAY, (2024, 2, 29, 0), (2024, 3, 1, 0)),
        (Period.MONTH, (2024, 2, 1, 0), (2024, 3, 1, 0)),
    ],
)
def test_a_budgets_period_is_the_calendars(
    per: Period, begun_at: tuple[int, ...], resets_at: tuple[int, ...]
) -> None:
    now = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
    assert per.begin(now) == datetime(*begun_at, tzinfo=UTC)  # type: ignore[arg-type,misc]
    assert per.end(now) == datetime(*resets_at, tzinfo=UTC)  # type: ignore[arg-type,misc]


@given(st.integers(0, 4_000_000_000), st.sampled_from(Period))
def test_periods_follow_each_other_without_a_gap(seconds: int, per: Period) -> None:
    now = datetime.fromtimestamp(seconds, UTC)
    assert per.begin(now) <= now < per.end(now)
    assert per.begin(per.end(now)) == per.end(now)
    assert per.begin(per.end(now) - timedelta(microseconds=1)) == per.begin(now)


def test_a_tenant_has_its_own_budgets_or_else_everybodys() -> None:
    budgets = read_budgets({"acme": {"day": "1", "month": "20"}, ANYBODY: {"day": "0.5"}})
    assert budgets.of("acme") == [Budget(1_000_000, Period.DAY), Budget(20_000_000, Period.MONTH)]
    assert budgets.of("other") == [Budget(500_000, Period.DAY)]
    assert read_budgets({}).of("other") == ()
