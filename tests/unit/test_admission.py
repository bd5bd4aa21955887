"""Whether one more job is accepted: a table of queues, and what is told to whoever is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.errors import Overloaded
from app.intake.admission import FEW, Admission, Count, Lane, _ahead_of
from app.routing.router import Router
from app.settings import Settings
from db.jobs import Crowd
from db.tables import Job

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class _Line:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.router = Router(settings, ["replicate"])


def gate(settings: Settings, count: Count, **changed: Any) -> Admission:
    admission = Admission(line=_Line(settings.model_copy(update=changed)))  # type: ignore[arg-type]
    admission._count = count
    return admission


def job(tenant: str = "a", *, deadline_s: float = 600, provider: str = "auto") -> Job:
    return Job(
        id="job_1",
        tenant=tenant,
        provider=provider,
        created_at=NOW,
        deadline_at=NOW + timedelta(seconds=deadline_s),
    )


def queue(tenant: str, queued: int, provider: str = "auto") -> Crowd:
    return Crowd(tenant, provider, queued, queued, NOW)


@pytest.mark.parametrize(
    ("live", "tenant", "accepted"),
    [
        ({}, "a", True),
        ({"a": 99}, "a", True),
        ({"a": 100}, "a", False),
        # Somebody else is there: the last fifth is not for whoever has the most.
        ({"a": 79, "b": 1}, "a", True),
        ({"a": 80, "b": 1}, "a", False),
        ({"a": 80, "b": 1}, "b", True),
        # Who was alone took all: others still come in, until they have their fifth.
        ({"a": 100}, "b", True),
        ({"a": 100, "b": 19}, "b", True),
        ({"a": 100, "b": 20}, "b", False),
        ({"a": 100, "b": 10, "c": 10}, "d", False),
    ],
)
def test_a_tenant_has_all_the_room_while_alone_and_never_the_share_of_others(
    settings: Settings, live: dict[str, int], tenant: str, accepted: bool
) -> None:
    admission = gate(settings, Count())
    admission._count.live.update(live)
    if accepted:
        admission._check_room(tenant, 100)
        return
    with pytest.raises(Overloaded):
        admission._check_room(tenant, 100)


@pytest.mark.parametrize(
    ("age_s", "queued", "began", "deadline_s", "accepted"),
    [
        # A fresh batch, however long: nothing is known against it yet.
        (59, 9_000, 0, 600, True),
        (59, 9_000, 30, 60, True),
        # One a second: 500 are through in 500 s, 1,000 are not in 600.
        (100, 500, 100, 600, True),
        (100, 1_000, 100, 600, False),
        (100, 1_000, 100, 3600, True),
        # One in 60 s is little evidence: the first may have been a cold start.
        (60, 45, 1, 600, True),
        (60, 500, 1, 600, False),
        # Nothing begins: refused once those before have waited longer than this one could.
        (599, 500, 0, 600, True),
        (601, 500, 0, 600, False),
        # A few are let in always: how else would it be seen that it goes on?
        (3600, FEW - 1, 0, 600, True),
    ],
)
def test_a_job_is_refused_only_when_its_deadline_would_most_likely_come_before_its_turn(
    settings: Settings, age_s: float, queued: int, began: int, deadline_s: float, accepted: bool
) -> None:
    count = Count(lanes={"auto": Lane([queue("a", queued)], age_s, began)})
    admission = gate(settings, count, queue_age_s=60)
    if accepted:
        admission._check_time(job(deadline_s=deadline_s))
        return
    with pytest.raises(Overloaded) as refused:
        admission._check_time(job(deadline_s=deadline_s))
    assert refused.value.retry_after_s is not None
    assert 1 <= refused.value.retry_after_s <= 300


def test_who_is_refused_is_told_the_time_until_the_queue_is_short_enough(settings: Settings) -> None:
    """10,000 at one a second take 10,000 s, or a tenth more than that is certain; 9,900 of them are given."""
    count = Count(lanes={"auto": Lane([queue("a", 10_000)], 300.0, 300)})
    with pytest.raises(Overloaded) as refused:
        gate(settings, count)._check_time(job(deadline_s=8_800))
    assert refused.value.retry_after_s == pytest.approx(10_000 * 300 / 335.7 - 8_800, abs=1)


def test_the_jobs_of_others_count_only_as_far_as_they_take_turns() -> None:
    lane = [queue("heavy", 10_000), queue("heavy", 5, "cog"), queue("light", 2)]
    assert _ahead_of("light", lane) == 2 + 3
    assert _ahead_of("new", lane) == 1 + 1
    assert _ahead_of("heavy", lane) == 10_005 + 2
