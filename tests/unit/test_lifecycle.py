"""The law of what news does, as a table: every status, every state, every piece of news."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backoff import backoff_s
from app.lifecycle import (
    Advance,
    Decision,
    Fail,
    Finish,
    Ignore,
    News,
    Silence,
    Standing,
    TryAgain,
    decide,
    next_check,
)
from app.provider.base import Prediction
from app.routing.recovery import Action, Case, Trouble
from db.states import ATTEMPT_MOVES, JOB_MOVES, AttemptStatus, DeliveryOutcome, JobState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
MOST = 3

LIVE_STATUSES = [status for status in AttemptStatus if not status.is_terminal]
ENDED_STATUSES = [status for status in AttemptStatus if status.is_terminal]
LIVE_STATES = [state for state in JobState if not state.is_terminal]
ENDED_STATES = [state for state in JobState if state.is_terminal]
BAD_ENDS = ["failed", "canceled", "aborted"]


def standing(
    status: AttemptStatus = AttemptStatus.STARTING,
    state: JobState = JobState.RUNNING,
    *,
    number: int = 1,
    deadline_at: datetime = LATER,
) -> Standing:
    return Standing(status, state, Case(NOW, deadline_at, tries=number, max_tries=MOST))


def said(status: str, **more: object) -> Prediction:
    return Prediction("p", status, **more)  # type: ignore[arg-type]


def again(status: AttemptStatus, reason: str, trouble: Trouble) -> TryAgain:
    """Another attempt at the only provider there is, after a second."""
    return TryAgain(status, reason, 1.0, trouble, Action.RETRY_SAME)


SUCCESS = said("succeeded", output="https://x")
EVERY_NEWS: list[News] = [
    *(
        said(status)
        for status in ("starting", "processing", *BAD_ENDS, "pending", "lost", "pondering", "", "SUCCEEDED")
    ),
    SUCCESS,
    said("succeeded"),
    said("succeeded", data_removed=True),
    said("failed", error="E005 flagged"),
    Silence("quiet"),
    Silence("deadline", whole_job=True),
    Silence("its worker died", worker_died=True),
    Silence("its worker stopped", worker_died=True, handed_back=True),
]
EVERY_STANDING = [
    standing(status, state, number=number, deadline_at=deadline_at)
    for status, state, number, deadline_at in product(
        AttemptStatus, JobState, (1, MOST), (LATER, NOW - timedelta(seconds=1))
    )
]


@pytest.mark.parametrize("state", ENDED_STATES)
def test_a_job_that_has_ended_is_moved_by_nothing(state: JobState) -> None:
    for status, news in product(AttemptStatus, EVERY_NEWS):
        assert isinstance(decide(standing(status, state), news, NOW), Ignore)


@pytest.mark.parametrize("status", ENDED_STATUSES)
def test_an_attempt_that_has_ended_is_moved_by_nothing(status: AttemptStatus) -> None:
    for state, news in product(JobState, EVERY_NEWS):
        decision = decide(standing(status, state), news, NOW)
        assert isinstance(decision, Ignore)
        assert decision.attempt_status is None


def test_every_decision_is_a_legal_move() -> None:
    for held, news in product(EVERY_STANDING, EVERY_NEWS):
        decision = decide(held, news, NOW)
        status = decision.attempt_status
        if status is not None and not isinstance(decision, Advance):
            assert status in ATTEMPT_MOVES[held.attempt_status], (held, news, decision)
        if isinstance(decision, (Finish, TryAgain, Fail)):
            assert not held.job_state.is_terminal


@pytest.mark.parametrize("status", LIVE_STATUSES)
@pytest.mark.parametrize(
    ("news", "expected"),
    [
        (said("starting"), Advance(AttemptStatus.STARTING)),
        (said("processing"), Advance(AttemptStatus.PROCESSING)),
        (SUCCESS, Finish()),
        (said("succeeded", output=["https://x"]), Finish()),
        (said("succeeded", output={"audio": "https://x"}), Finish()),
        (said("failed", error="oom"), again(AttemptStatus.FAILED, "oom", Trouble.FAILED)),
        (
            said("canceled"),
            again(AttemptStatus.CANCELED, "the provider ended it as canceled", Trouble.STOPPED),
        ),
        (said("aborted"), again(AttemptStatus.ABORTED, "the provider ended it as aborted", Trouble.STOPPED)),
        (said("succeeded"), again(AttemptStatus.FAILED, "succeeded without an output", Trouble.NONSENSE)),
        (
            said("succeeded", output=[]),
            again(AttemptStatus.FAILED, "succeeded without an output", Trouble.NONSENSE),
        ),
        (
            said("succeeded", data_removed=True),
            again(AttemptStatus.FAILED, "the provider removed the output", Trouble.EXPIRED),
        ),
        (
            said("failed", error="E005 x"),
            Fail(AttemptStatus.FAILED, "content_rejected", "E005 x", Trouble.REJECTED_CONTENT),
        ),
        (Silence("quiet"), again(AttemptStatus.LOST, "quiet", Trouble.LOST)),
        (Silence("not begun", cold=True), again(AttemptStatus.LOST, "not begun", Trouble.COLD)),
        (
            said("failed", error="EngineError: no such voice"),
            Fail(AttemptStatus.FAILED, "prediction_failed", "no such voice", Trouble.UNABLE),
        ),
        (
            said("failed", error="EngineUnavailable: no weights"),
            Fail(AttemptStatus.FAILED, "engine_unavailable", "no weights", Trouble.NO_ENGINE),
        ),
        (
            said("failed", error="WorkerStopped: told to stop"),
            TryAgain(AttemptStatus.FAILED, "told to stop", 0.0, Trouble.HANDED_BACK, Action.RETRY_SAME),
        ),
        (Silence("over", whole_job=True), Fail(AttemptStatus.LOST, "deadline_exceeded", "over")),
    ],
)
def test_news_of_a_live_attempt(status: AttemptStatus, news: News, expected: Decision) -> None:
    assert decide(standing(status), news, NOW) == expected


@pytest.mark.parametrize(
    ("news", "code"),
    [
        (said("failed", error="oom"), "prediction_failed"),
        (said("aborted"), "prediction_failed"),
        (said("succeeded"), "provider_bad_response"),
        (said("succeeded", data_removed=True), "output_expired"),
        (Silence("quiet"), "prediction_lost"),
    ],
)
def test_the_last_attempts_end_is_the_jobs(news: News, code: str) -> None:
    decision = decide(standing(number=MOST), news, NOW)
    assert isinstance(decision, Fail)
    assert decision.code == code
    # And past the deadline no other attempt is begun, however many are left.
    late = decide(standing(deadline_at=NOW), news, NOW)
    assert isinstance(late, Fail)
    assert late.code == "deadline_exceeded"


def test_a_success_past_the_deadline_is_still_a_success() -> None:
    assert decide(standing(deadline_at=NOW - timedelta(days=1)), SUCCESS, NOW) == Finish()


@pytest.mark.parametrize("status", ["pondering", "pending", "lost", "", "SUCCEEDED", "Succeeded ", "\u0000"])
def test_an_unknown_word_is_kept_for_a_person_and_moves_nothing(status: str) -> None:
    for held in EVERY_STANDING:
        decision = decide(held, said(status, output="https://x"), NOW)
        assert isinstance(decision, Ignore)
        assert (decision.outcome, decision.attempt_status) == (DeliveryOutcome.QUARANTINED, None)


def test_a_late_success_is_told_apart_from_other_late_news() -> None:
    for status in ENDED_STATUSES:
        decision = decide(standing(status), SUCCESS, NOW)
        assert isinstance(decision, Ignore)
        late = status is not AttemptStatus.SUCCEEDED
        assert (decision.outcome is DeliveryOutcome.LATE_RESULT) == late
    for state in ENDED_STATES:
        decision = decide(standing(state=state), SUCCESS, NOW)
        assert isinstance(decision, Ignore)
        assert decision.outcome is DeliveryOutcome.LATE_RESULT
        assert decision.attempt_status is AttemptStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("state", "end"),
    [
        (JobState.CANCELED, AttemptStatus.CANCELED),
        (JobState.FAILED, AttemptStatus.LOST),
        (JobState.SUCCEEDED, AttemptStatus.LOST),
    ],
)
def test_silence_ends_an_attempt_whose_job_has_ended(state: JobState, end: AttemptStatus) -> None:
    decision = decide(standing(state=state), Silence("x"), NOW)
    assert isinstance(decision, Ignore)
    assert decision.attempt_status is end


news_strategy = st.one_of(
    st.builds(
        said,
        st.sampled_from([*AttemptStatus, "pondering"]),
        output=st.sampled_from([None, "https://x", [], {"a": "https://x"}]),
        data_removed=st.booleans(),
        error=st.sampled_from([None, "oom", "E005"]),
    ),
    st.builds(Silence, st.just("x"), st.booleans()),
)


@given(st.lists(news_strategy, max_size=30), st.integers(min_value=0, max_value=5))
def test_any_sequence_of_news_reaches_at_most_one_end_and_never_leaves_it(
    sequence: list[News], late_from: int
) -> None:
    status, state, number = AttemptStatus.PENDING, JobState.RUNNING, 1
    ends: list[JobState] = []
    for step, news in enumerate(sequence):
        now = LATER if step >= 25 - late_from else NOW
        decision = decide(standing(status, state, number=number), news, now)
        moved = decision.attempt_status
        if moved is not None and moved in ATTEMPT_MOVES[status]:
            status = moved
        target = {Finish: JobState.FINISHING, TryAgain: JobState.QUEUED, Fail: JobState.FAILED}.get(
            type(decision)
        )
        if target is not None:
            assert target in JOB_MOVES[state]
            state = target
        if state is JobState.QUEUED:
            status, state, number = AttemptStatus.PENDING, JobState.RUNNING, number + 1
        if state.is_terminal:
            ends.append(state)
    assert number <= MOST
    assert len(set(ends)) <= 1
    assert not ends or state is ends[0]


def test_waits_double_up_to_a_most() -> None:
    assert [backoff_s(tries) for tries in (0, 1, 2, 3, 6, 7, 8, 30, 10_000)] == [
        1,
        1,
        2,
        4,
        32,
        60,
        60,
        60,
        60,
    ]
    assert backoff_s(3, first_s=0.5, most_s=1.5) == 1.5


@pytest.mark.parametrize(
    ("age_s", "due_s"),
    [
        (0, 30),
        (30, 60),
        (60, 90),
        (100, 150),
        (200, 300),
        (290, 300),
        (299, 300),
        (300, 450),
        (600, 900),
    ],
)
def test_a_silent_attempt_is_asked_about_ever_less_often_and_at_its_limit(age_s: int, due_s: int) -> None:
    due = next_check(NOW, NOW + timedelta(seconds=age_s), silence_s=30, limit_at=NOW + timedelta(seconds=300))
    assert due == NOW + timedelta(seconds=due_s)


@given(st.floats(0, 10_000), st.floats(1, 1000), st.floats(1, 10_000))
def test_the_next_check_is_always_in_the_future(age_s: float, silence_s: float, limit_s: float) -> None:
    at = NOW + timedelta(seconds=age_s)
    due = next_check(NOW, at, silence_s=silence_s, limit_at=NOW + timedelta(seconds=limit_s))
    assert due > at or age_s < limit_s <= age_s + 1e-5


@pytest.mark.parametrize("number", [1, MOST, 100])
def test_an_attempt_that_was_handed_back_is_followed_by_another_at_once_however_many_there_were(
    number: int,
) -> None:
    """Fault 53: whoever restarts a service does not use up its jobs' attempts."""
    news = Silence("its worker stopped", worker_died=True, handed_back=True)
    decision = decide(standing(number=number), news, NOW)
    reason = "handed back: its worker stopped"
    assert decision == TryAgain(AttemptStatus.LOST, reason, 0.0, Trouble.HANDED_BACK, Action.RETRY_SAME)


def test_nothing_is_handed_back_past_the_deadline() -> None:
    news = Silence("its worker stopped", worker_died=True, handed_back=True)
    decision = decide(standing(deadline_at=NOW), news, NOW)
    assert isinstance(decision, Fail)
    assert decision.code == "deadline_exceeded"
