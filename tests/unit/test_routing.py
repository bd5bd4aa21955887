"""The table of remedies, the choice of provider and the circuit, each as a table: what operators rely on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    AppError,
    EngineUnavailable,
    ProviderBadResponse,
    ProviderBusy,
    ProviderRejected,
    ProviderThrottled,
    ProviderUnavailable,
)
from app.routing.choice import Go, Past, Stop, Wait, arrange, choose
from app.routing.circuits import (
    FAILURES,
    Circuit,
    CircuitState,
    Shut,
    after_failure,
    after_success,
    find_shut,
)
from app.routing.recovery import RULES, Action, Case, Remedy, Trouble, find_remedy, trouble_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
FRESH = Case(NOW, NOW + HOUR, tries=1, max_tries=3)
"""The job's first attempt, with nobody to fall back to."""
RICH = replace(FRESH, has_other=True)


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("trouble", "alone", "with_another"),
    [
        (Trouble.NO_CREDIT, Action.NEEDS_A_PERSON, Action.FALL_BACK),
        (Trouble.NO_ACCESS, Action.NEEDS_A_PERSON, Action.NEEDS_A_PERSON),
        (Trouble.BAD_INPUT, Action.ABORT, Action.ABORT),
        (Trouble.NOT_OFFERED, Action.ABORT, Action.FALL_BACK),
        (Trouble.THROTTLED, Action.RETRY_SAME, Action.RETRY_SAME),
        (Trouble.AWAY, Action.RETRY_SAME, Action.RETRY_SAME),
        (Trouble.BUSY, Action.RETRY_SAME, Action.RETRY_SAME),
        (Trouble.COLD, Action.RETRY_SAME, Action.FALL_BACK),
        (Trouble.LOST, Action.RETRY_SAME, Action.FALL_BACK),
        (Trouble.WORKER_DIED, Action.RETRY_SAME, Action.RETRY_SAME),
        (Trouble.HANDED_BACK, Action.RETRY_SAME, Action.RETRY_SAME),
        (Trouble.FAILED, Action.RETRY_SAME, Action.FALL_BACK),
        (Trouble.STOPPED, Action.RETRY_SAME, Action.FALL_BACK),
        (Trouble.NONSENSE, Action.RETRY_SAME, Action.FALL_BACK),
        (Trouble.EXPIRED, Action.RETRY_SAME, Action.RETRY_SAME),
        (Trouble.REJECTED_CONTENT, Action.ABORT, Action.ABORT),
        (Trouble.NO_ENGINE, Action.ABORT, Action.FALL_BACK),
        (Trouble.UNABLE, Action.ABORT, Action.ABORT),
    ],
)
def test_every_trouble_has_its_remedy(trouble: Trouble, alone: Action, with_another: Action) -> None:
    """Fault 56, Fault 58: what a job does about a provider that is broke, away, cold, lost or wrong."""
    assert find_remedy(trouble, FRESH, NOW).action is alone
    assert find_remedy(trouble, RICH, NOW).action is with_another


def test_the_table_is_whole() -> None:
    assert set(RULES) == set(Trouble)


@pytest.mark.parametrize("trouble", [Trouble.AWAY, Trouble.THROTTLED, Trouble.NO_ACCESS, Trouble.BUSY])
def test_patience_ends_before_the_jobs_time_does(trouble: Trouble) -> None:
    """Fault 56: whoever waits falls back while the next provider still has half of the job's time."""
    assert find_remedy(trouble, RICH, NOW + HOUR / 2 + s(1)).action is Action.FALL_BACK
    assert find_remedy(trouble, FRESH, NOW + HOUR / 2 + s(1)).action is RULES[trouble].actions[0]
    # A hint that ends too late is not waited for.
    assert find_remedy(trouble, replace(RICH, wait_s=7200), NOW).action is Action.FALL_BACK


def test_a_provider_that_is_away_is_waited_for_only_so_long() -> None:
    assert find_remedy(Trouble.AWAY, RICH, NOW + s(59)).action is Action.RETRY_SAME
    assert find_remedy(Trouble.AWAY, RICH, NOW + s(61)).action is Action.FALL_BACK
    assert (
        find_remedy(Trouble.AWAY, replace(RICH, fall_back_after_s=0), NOW + s(1)).action is Action.FALL_BACK
    )


def test_a_failed_prediction_is_asked_for_differently_once_and_then_elsewhere() -> None:
    named = replace(RICH, has_variant=True)
    assert find_remedy(Trouble.FAILED, named, NOW).action is Action.RETRY_DIFFERENTLY
    assert find_remedy(Trouble.FAILED, replace(named, earlier=1), NOW).action is Action.FALL_BACK
    again = replace(FRESH, has_variant=True)
    assert find_remedy(Trouble.FAILED, again, NOW).action is Action.RETRY_DIFFERENTLY


@pytest.mark.parametrize("trouble", Trouble)
def test_the_last_try_and_the_deadline_end_the_job(trouble: Trouble) -> None:
    last = find_remedy(trouble, replace(RICH, tries=9, max_tries=3), NOW)
    assert (last.action is Action.ABORT) == (RULES[trouble].is_try)
    late = find_remedy(trouble, RICH, NOW + HOUR)
    hopeless = RULES[trouble].actions == (Action.ABORT,)
    assert late == Remedy(Action.ABORT, code=RULES[trouble].code if hopeless else "deadline_exceeded")


def test_a_worker_may_die_under_a_job_three_times_as_often() -> None:
    assert find_remedy(Trouble.WORKER_DIED, replace(FRESH, tries=8), NOW).action is Action.RETRY_SAME
    assert find_remedy(Trouble.WORKER_DIED, replace(FRESH, tries=9), NOW).action is Action.ABORT


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (ProviderRejected("", status=402), Trouble.NO_CREDIT),
        (ProviderRejected("", status=401), Trouble.NO_ACCESS),
        (ProviderRejected("", status=403), Trouble.NO_ACCESS),
        (ProviderRejected("", status=422), Trouble.BAD_INPUT),
        (ProviderRejected("", status=400), Trouble.BAD_INPUT),
        (ProviderRejected(""), Trouble.BAD_INPUT),
        (ProviderRejected("", status=404), Trouble.NOT_OFFERED),
        (ProviderThrottled(""), Trouble.THROTTLED),
        (ProviderUnavailable(""), Trouble.AWAY),
        (ProviderBusy(""), Trouble.BUSY),
        (ProviderBadResponse(""), Trouble.NONSENSE),
        (EngineUnavailable(""), Trouble.NO_ENGINE),
    ],
)
def test_every_refusal_is_a_trouble(error: AppError, trouble: Trouble) -> None:
    assert trouble_of(error) is trouble


# ── the choice ──────────────────────────────────────────────────────────────────────────────────────────

FELL, SAME, OTHER = Action.FALL_BACK, Action.RETRY_SAME, Action.RETRY_DIFFERENTLY


def pick(
    wanted: str,
    route: list[str],
    past: list[tuple[str, Action | None]] = [],  # noqa: B006 - never changed
    shut: dict[str, tuple[Trouble, float]] | None = None,
) -> object:
    shuts = {name: Shut(why, NOW + s(wait_s), "why") for name, (why, wait_s) in (shut or {}).items()}
    before = [Past(name, is_over=True, action=action) for name, action in past]
    choice = choose(wanted, route, before, shuts, created_at=NOW, deadline_at=NOW + HOUR)
    if isinstance(choice, Go):
        return choice.provider + ("!" if choice.differently else "")
    return None if choice is None else ("wait", choice.provider, (choice.until - NOW).total_seconds())


@pytest.mark.parametrize(
    ("wanted", "route", "past", "expected"),
    [
        ("auto", ["a", "b"], [], "a"),
        ("auto", ["a", "b"], [("a", FELL)], "b"),
        ("auto", ["a", "b"], [("a", None)], "b"),
        ("auto", ["a", "b"], [("a", SAME)], "a"),
        ("auto", ["a", "b"], [("a", OTHER)], "a!"),
        ("auto", ["a", "b"], [("a", OTHER), ("a", FELL)], "b"),
        ("auto", ["a", "b"], [("a", FELL), ("b", SAME)], "b"),
        ("auto", ["a", "b"], [("a", FELL), ("b", FELL)], "b"),
        ("auto", ["a", "b"], [("b", FELL)], "a"),
        ("auto", ["a"], [("a", FELL)], "a"),
        ("auto", [], [], None),
        ("auto", ["b"], [("a", FELL)], "b"),
        ("a", ["a", "b"], [("a", FELL)], "a"),
        ("b", ["a", "b"], [], "b"),
        ("c", ["a", "b"], [], None),
    ],
)
def test_which_provider_is_next(
    wanted: str, route: list[str], past: list[tuple[str, Action | None]], expected: str | None
) -> None:
    assert pick(wanted, route, past) == expected


@pytest.mark.parametrize(
    ("wanted", "shut", "expected"),
    [
        ("auto", {"a": (Trouble.AWAY, 10)}, "b"),
        ("auto", {"a": (Trouble.NO_CREDIT, 60)}, "b"),
        ("auto", {"a": (Trouble.NO_ACCESS, 60)}, ("wait", "a", 60)),
        ("auto", {"a": (Trouble.NO_ACCESS, 2000)}, "b"),
        ("auto", {"a": (Trouble.THROTTLED, 30)}, ("wait", "a", 30)),
        ("auto", {"a": (Trouble.THROTTLED, 1801)}, "b"),
        ("auto", {"a": (Trouble.AWAY, 10), "b": (Trouble.AWAY, 5)}, ("wait", "b", 5)),
        ("auto", {"b": (Trouble.AWAY, 10)}, "a"),
        ("a", {"a": (Trouble.AWAY, 10)}, ("wait", "a", 10)),
    ],
)
def test_an_open_circuit_is_passed_by_or_waited_for(
    wanted: str, shut: dict[str, tuple[Trouble, float]], expected: object
) -> None:
    """Fault 56: a whole outage parks jobs, it does not burn their attempts."""
    assert pick(wanted, ["a", "b"], shut=shut) == expected


def test_weights_draw_a_jobs_first_provider_and_the_job_stays_there() -> None:
    stops = [Stop("a", 70), Stop("b", 30), Stop("c")]
    first = Counter(arrange(stops, f"job_{number}")[0] for number in range(4000))
    assert 0.66 < first["a"] / 4000 < 0.74
    assert set(first) == {"a", "b"}
    assert all(arrange(stops, "job_1") == arrange(stops, "job_1") for _ in range(10))
    assert arrange(stops, "job_1", last=["a"])[-1] == "a"
    assert arrange([Stop("a"), Stop("b")], "job_1") == ["a", "b"]


# ── the circuit ─────────────────────────────────────────────────────────────────────────────────────────


def test_failures_in_a_row_open_the_circuit_and_a_success_closes_it() -> None:
    circuit = Circuit("a")
    for _ in range(FAILURES - 1):
        circuit = after_failure(circuit, Trouble.AWAY, NOW, reason="502")
        assert circuit.state(NOW) is CircuitState.CLOSED
    circuit = after_failure(circuit, Trouble.AWAY, NOW, reason="502")
    assert circuit.state(NOW) is CircuitState.OPEN
    shut = find_shut(circuit, NOW)
    assert shut is not None
    assert "502" in shut.reason
    assert circuit.state(shut.until) is CircuitState.HALF_OPEN
    assert find_shut(circuit, shut.until) is None, "one may try"
    trying = replace(circuit, probe_until=shut.until + s(30))
    assert find_shut(trying, shut.until) is not None, "and the others wait for it"
    assert after_success(circuit).is_quiet


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_a_most() -> None:
    circuit, at, open_s = Circuit("a", failures=FAILURES - 1), NOW, []
    for _ in range(10):
        circuit = after_failure(circuit, Trouble.AWAY, at, reason="x")
        assert circuit.open_until is not None
        open_s.append((circuit.open_until - at).total_seconds())
        at = circuit.open_until
    assert open_s[:4] == [5, 10, 20, 40]
    assert set(open_s[4:]) == {60}


def test_an_answer_from_before_it_opened_does_not_open_it_again() -> None:
    circuit = Circuit("a", failures=FAILURES - 1)
    opened = after_failure(circuit, Trouble.AWAY, NOW, reason="x")
    late = after_failure(opened, Trouble.AWAY, NOW + s(1), reason="x")
    assert late.open_until == opened.open_until


@pytest.mark.parametrize(
    ("trouble", "wait_s", "open_s"),
    [
        (Trouble.NO_CREDIT, None, 60),
        (Trouble.NO_ACCESS, None, 60),
        (Trouble.THROTTLED, 30, 30),
        (Trouble.THROTTLED, 86_400, 3600),
        (Trouble.THROTTLED, None, None),
        (Trouble.AWAY, 1, None),
        *((trouble, 5, None) for trouble in (Trouble.BUSY, Trouble.BAD_INPUT, Trouble.NOT_OFFERED)),
    ],
)
def test_what_opens_it_at_once(trouble: Trouble, wait_s: float | None, open_s: float | None) -> None:
    """Fault 56: credit and credentials open it, a throttle with a time too; a bad request never does."""
    circuit = after_failure(Circuit("a"), trouble, NOW, reason="x", wait_s=wait_s)
    assert circuit.open_until == (None if open_s is None else NOW + s(open_s))


@given(st.lists(st.tuples(st.sampled_from(list(Trouble)), st.floats(0, 100), st.none() | st.floats(0, 1e5))))
def test_a_circuit_never_stays_open_for_longer_than_an_hour(
    troubles: list[tuple[Trouble, float, float | None]],
) -> None:
    circuit, now = Circuit("a"), NOW
    for trouble, passed_s, wait_s in troubles:
        now += s(passed_s)
        circuit = after_failure(circuit, trouble, now, reason="x", wait_s=wait_s)
        assert circuit.open_until is None or circuit.open_until <= now + HOUR


def test_a_remedy_never_leads_to_a_provider_that_is_not_there() -> None:
    for trouble, earlier, tries in product(Trouble, range(3), range(1, 5)):
        case = replace(FRESH, earlier=earlier, tries=tries)
        assert find_remedy(trouble, case, NOW).action not in (Action.FALL_BACK, Action.RETRY_DIFFERENTLY)


def test_a_wait_says_what_it_is_for() -> None:
    shut = {"a": Shut(Trouble.AWAY, NOW + s(9), "circuit open until 00:00:09 UTC, 502")}
    choice = choose("auto", ["a"], [], shut, created_at=NOW, deadline_at=NOW + HOUR)
    assert choice == Wait("a", NOW + s(9), "circuit open until 00:00:09 UTC, 502")
