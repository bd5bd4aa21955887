"""The laboratory's own eyes: each law that is broken is seen, and nothing is seen where all is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.crash.laboratory import law
from tests.crash.laboratory.gauges import BOUNDS, Series
from tests.laws import Row, Rows, costs_booked, events_told_once

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB = {
    "id": "job_1",
    "state": "succeeded",
    "finished_at": NOW,
    "deadline_at": NOW + timedelta(hours=1),
    "waiting_reason": None,
    "error_code": None,
    "error_message": None,
}
ATTEMPT = {"id": "att_1", "job_id": "job_1", "status": "succeeded", "billed_at": NOW}
HOOK = {"id": "dlv_1", "source": "webhook", "message_id": "msg_1", "settled_at": NOW, "outcome": "applied"}
EVENTS = [
    {"job_id": "job_1", "seq": seq, "type": f"job.{name}"}
    for seq, name in enumerate(["created", "dispatched", "finishing", "succeeded"], 1)
]
WELL = Rows([JOB], [ATTEMPT], [HOOK | {"detail": None}], EVENTS, [{"job_id": "job_1"}], [])
BOOK = {"acknowledged": ["msg_1"], "predictions": {"p1": {"attempt_id": "att_1"}}}


def judged(rows: Rows, book: Mapping[str, Any] = BOOK, *, kills: int = 0) -> list[str]:
    return [
        *law.jobs_ended(rows, ["job_1"], may_fail_with=frozenset()),
        *law.ended_in_time(rows),
        *events_told_once(rows),
        *law.no_second_effect(rows, book, kills),
        *law.callbacks_stored_once(rows, book),
        *costs_booked(rows),
    ]


def job(**changed: object) -> Rows:
    return replace(WELL, jobs=[JOB | changed])


def hook(**changed: object) -> Rows:
    return replace(WELL, deliveries=[HOOK | {"detail": None} | changed])


def events(*kept: int) -> Rows:
    return replace(WELL, events=[EVENTS[number] for number in kept])


SECOND: Row = {"id": "att_2", "job_id": "job_1", "status": "lost", "billed_at": NOW}
BROKEN: dict[str, Rows] = {
    "accepted and gone": replace(WELL, jobs=[], events=[], outputs=[], attempts=[]),
    "asked for by nobody": replace(WELL, jobs=[JOB, JOB | {"id": "job_2"}]),
    "not ended": job(state="running", finished_at=None),
    "failed": job(state="failed", error_code="audio_rejected"),
    "after its deadline": job(finished_at=NOW + timedelta(hours=2)),
    "a gap": events(0, 2, 3),
    "its events end with": events(0, 1, 2),
    "attempts too many": replace(WELL, attempts=[ATTEMPT, SECOND]),
    "succeeded 2 times": replace(WELL, attempts=[ATTEMPT, SECOND | {"status": "succeeded"}]),
    "a prediction that is no attempt": replace(WELL, attempts=[ATTEMPT | {"id": "att_9"}]),
    "is succeeded and not booked": replace(WELL, attempts=[ATTEMPT | {"billed_at": None}]),
    "is processing and booked": replace(WELL, attempts=[ATTEMPT | {"status": "processing"}]),
    "has 2 outputs": replace(WELL, outputs=[{"job_id": "job_1"}] * 2),
    "acknowledged and gone": replace(WELL, deliveries=[]),
    "stored 2 times": replace(WELL, deliveries=[HOOK | {"detail": None}] * 2),
    "never settled": hook(settled_at=None),
    "quarantined": hook(outcome="quarantined"),
}


def test_nothing_is_said_where_all_is_well() -> None:
    assert judged(WELL) == []


@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_law_is_said_in_words(words: str) -> None:
    if words.startswith("accepted"):
        assert any(
            words in said for said in law.jobs_ended(BROKEN[words], ["job_1"], may_fail_with=frozenset())
        )
        return
    assert any(words in said for said in judged(BROKEN[words]))


def test_a_prediction_that_was_made_twice_is_seen() -> None:
    twice = BOOK | {"predictions": {"p1": {"attempt_id": "att_1"}, "p2": {"attempt_id": "att_1"}}}
    assert any("was created 2 times" in said for said in judged(WELL, twice))


def test_a_kill_may_cost_an_attempt() -> None:
    assert judged(replace(WELL, attempts=[ATTEMPT, SECOND]), kills=1) == []


def series(unit: str, figure: Callable[[int], float]) -> Series:
    return Series(unit, [(10.0 * at, figure(at)) for at in range(180)])


def test_memory_that_grows_to_the_end_is_a_leak_and_warming_up_or_noise_is_none() -> None:
    bound = BOUNDS["rss MB"]
    assert series("rss MB", lambda at: 100 + at * 2 * bound.growth / 90).leak()
    assert series("rss MB", lambda at: min(200.0, 100.0 + at * 4)).leak() is None
    assert series("rss MB", lambda at: 150.0 + 20 * (at % 2)).leak() is None


def test_a_figure_past_its_most_is_a_leak_even_for_a_moment() -> None:
    most = BOUNDS["temporary files"].most
    assert series("temporary files", lambda at: most + 1 if at == 90 else 0).leak()


def test_a_slope_is_told_by_the_hour() -> None:
    assert series("fds", lambda at: at / 36).slope() == pytest.approx(10.0)
