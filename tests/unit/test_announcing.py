"""What follows an answer, what an address is, and what an announcement says: pure, as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.announcing.endpoints import address_of
from app.announcing.letters import MOST_BYTES, write_letter
from app.announcing.schedule import MOST_FAILURES, WAITS_S, is_steady, judge, wait_after
from app.announcing.turns import Turns
from db.states import AnnouncementOutcome as Outcome
from db.states import JobState
from db.tables import Job

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (299, Outcome.DELIVERED),
        (301, Outcome.REFUSED),
        (304, Outcome.REFUSED),
        (400, Outcome.REFUSED),
        (404, Outcome.REFUSED),
        (410, Outcome.GONE),
        (429, Outcome.THROTTLED),
        (500, Outcome.REFUSED),
        (502, Outcome.THROTTLED),
        (503, Outcome.THROTTLED),
        (504, Outcome.THROTTLED),
    ],
)
def test_a_status_means(status: int, outcome: Outcome) -> None:
    assert judge(status) is outcome


def test_the_schedule_goes_on_for_days_and_ends() -> None:
    waits = [
        wait_after(Outcome.REFUSED, tries=tries, told_s=None, failures=tries, chance=0.5).again_s
        for tries in range(1, len(WAITS_S) + 2)
    ]
    assert waits == [*WAITS_S, None]
    assert 2.5 * 86_400 < sum(WAITS_S) < 4 * 86_400


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_chance_moves_a_wait_by_a_fifth_at_most(chance: float) -> None:
    again_s = wait_after(Outcome.REFUSED, tries=2, told_s=None, failures=2, chance=chance).again_s
    assert again_s == pytest.approx(300 * (0.8 + 0.4 * chance))


@pytest.mark.parametrize(
    ("outcome", "tries", "told_s", "again_s", "pause_s"),
    [
        (Outcome.THROTTLED, 1, 60.0, 60.0, 60.0),  # as told
        (Outcome.THROTTLED, 3, 60.0, 1800.0, 60.0),  # the others may go then; this one keeps its schedule
        (Outcome.THROTTLED, 1, 1e9, 86_400.0, 86_400.0),  # believed up to a day
        (Outcome.THROTTLED, 1, 0.0, 5.0, 5.0),
        (Outcome.THROTTLED, 1, None, 5.0, 5.0),
        (Outcome.UNREACHABLE, 1, None, 5.0, 5.0),
        (Outcome.REFUSED, 1, None, 5.0, None),  # it answers: the others need not wait
        (Outcome.BLOCKED, 1, None, 5.0, None),
    ],
)
def test_a_receiver_is_left_alone_for_as_long_as_it_says(
    outcome: Outcome, tries: int, told_s: float | None, again_s: float, pause_s: float | None
) -> None:
    """Fault 22."""
    wait = wait_after(outcome, tries=tries, told_s=told_s, failures=1, chance=0.5)
    assert (wait.again_s, wait.pause_s) == (again_s, pause_s)


def test_an_endpoint_that_does_not_answer_is_asked_ever_more_rarely_and_still_every_few_minutes() -> None:
    pauses = [
        wait_after(Outcome.UNREACHABLE, tries=1, told_s=None, failures=failures, chance=0.5).pause_s or 0
        for failures in range(1, 40)
    ]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (5, 300)


@pytest.mark.parametrize(
    ("days", "failures", "steady"),
    [(5, MOST_FAILURES, True), (4.9, 1000, False), (30, MOST_FAILURES - 1, False)],
)
def test_only_steady_failure_gives_an_endpoint_up(days: float, failures: int, *, steady: bool) -> None:
    since = NOW - timedelta(days=days)
    assert is_steady(since, failures, now=NOW, after_s=5 * 86_400) is steady


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://Example.ORG", "https://example.org/"),
        ("https://example.org:443/a?token=x#y", "https://example.org/a"),
        ("https://example.org:8443/a/../b", "https://example.org:8443/b"),
        ("http://[2001:DB8::1]/a", "http://[2001:db8::1]/a"),
        ("https://bücher.example/a", "https://xn--bcher-kva.example/a"),
    ],
)
def test_an_endpoint_is_an_address_without_its_query(url: str, shown: str) -> None:
    assert address_of("default", url).url == shown


def test_endpoints_of_one_host_are_one_receiver_and_tenants_share_none() -> None:
    one, other = (address_of("a", f"https://example.org/{path}") for path in ("one", "other"))
    assert one.endpoint_id != other.endpoint_id
    assert one.receiver == other.receiver
    foreign = address_of("b", "https://example.org/one")
    assert foreign.endpoint_id != one.endpoint_id
    assert foreign.receiver != one.receiver


@pytest.mark.parametrize("filling", ["x", "\N{MUSICAL SYMBOL G CLEF}", '"', "\0", "\ud800"])
def test_an_announcement_stays_thin_whatever_the_job_holds(filling: str) -> None:
    job = Job(
        id="job_" + "0" * 32, kind="k" * 64, state="running", input={"prompt": filling * 100_000},
        caller_metadata={"all": "x" * 16_370}, provider="auto", turn_at=NOW, created_at=NOW, deadline_at=NOW,
        run_after=NOW,
    )  # fmt: skip
    letter = write_letter(
        job, "https://example.org/", JobState.FAILED, now=NOW, code="c" * 64, message=filling * 5000
    )
    assert len(letter.payload.encode()) < MOST_BYTES


def test_a_receiver_has_so_many_turns_and_others_have_theirs() -> None:
    turns = Turns(2)
    assert [turns.take("a"), turns.take("a"), turns.take("a"), turns.take("b")] == [True, True, False, True]
    turns.give_back("a")
    assert turns.take("a")
