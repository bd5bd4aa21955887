"""The plan of a family and what makes two jobs the same work: tables, no rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.families.plan import Begin, Child, Fail, Join, Wait, plan, progress_of
from app.families.recipes import recipe_of
from app.kinds import KINDS, Family
from app.kinds.base import Part
from db.states import JobState
from db.tables import Job

AT = datetime(2026, 3, 1, tzinfo=UTC)
DONE, LIVE = Child(JobState.SUCCEEDED), Child(JobState.RUNNING)
FAILED, CANCELED = Child(JobState.FAILED, "no_voice", "nobody sings"), Child(JobState.CANCELED)


def part(name: str, share: float, *after: str) -> Part:
    return Part(name, "speech", share, lambda _wanted, _made: {}, after=after)


DUB = Family(
    parts=(part("hear", 0.2), part("see", 0.2), part("say", 0.3, "hear"), part("fit", 0.1, "say", "see")),
    layers=lambda _: (),
    places=lambda _: {},
)
"""Two parts that begin at once, one after the first, one after two."""


@pytest.mark.parametrize(
    ("children", "follows"),
    [
        ({}, ["hear", "see"]),
        ({"hear": LIVE}, ["see"]),
        ({"hear": LIVE, "see": LIVE}, Wait()),
        ({"hear": DONE, "see": LIVE}, ["say"]),
        ({"hear": LIVE, "see": DONE}, Wait()),
        ({"hear": DONE, "see": DONE, "say": LIVE}, Wait()),
        ({"hear": DONE, "see": LIVE, "say": DONE}, Wait()),
        ({"hear": DONE, "see": DONE, "say": DONE}, ["fit"]),
        ({"hear": DONE, "see": DONE, "say": DONE, "fit": DONE}, Join()),
        ({"hear": FAILED, "see": LIVE}, Fail("no_voice", "hear: nobody sings")),
        ({"hear": DONE, "see": FAILED, "say": DONE}, Fail("no_voice", "see: nobody sings")),
        ({"hear": CANCELED, "see": DONE}, Fail("prediction_failed", "hear: it was canceled")),
    ],
)
def test_what_follows(children: dict[str, Child], follows: Any) -> None:
    found = plan(DUB, children)
    if isinstance(found, Begin):
        assert [each.name for each in found.parts] == follows
    else:
        assert found == follows


@pytest.mark.parametrize(
    ("children", "progress"),
    [
        ({}, 0.0),
        ({"hear": 0.5}, 0.1),
        ({"hear": 1.0, "see": 0.5}, 0.3),
        ({"hear": 1.0, "see": 1.0, "say": 1.0, "fit": 1.0}, 0.8),
        ({"gone": 1.0}, 0.0),
    ],
)
def test_progress_is_the_sum_of_shares(children: dict[str, float], progress: float) -> None:
    assert progress_of(DUB, children) == pytest.approx(progress)


def test_the_parts_of_every_family_are_kinds_in_an_order_that_comes_to_an_end() -> None:
    for kind in KINDS.values():
        if kind.family is None:
            continue
        assert sum(each.share for each in kind.family.parts) == pytest.approx(0.8)
        children: dict[str, Child] = {}
        while isinstance(found := plan(kind.family, children), Begin):
            for each in found.parts:
                assert KINDS[each.kind].family is None
                children[each.name] = DONE
        assert found == Join()


def asked(kind: str = "voice_conversion", **more: Any) -> Job:
    wanted = {"audio": "ast_1", "voice_id": "voi_1", "pitch_shift": 0, "return_stems": False} | more
    return Job(
        id="job_1", kind=kind, state="queued", input=wanted, caller_metadata={}, provider="auto",
        created_at=AT, turn_at=AT, deadline_at=AT, run_after=AT,
    )  # fmt: skip


def test_the_same_song_in_the_same_voice_by_the_same_settings_is_the_same_work() -> None:
    recipe = recipe_of(asked())
    assert recipe is not None
    assert len(recipe) == 32
    assert recipe_of(asked(return_stems=True)) == recipe
    others = [{"audio": "ast_2"}, {"voice_id": "voi_2"}, {"pitch_shift": 1}, {"vocal_volume": 0.5}]
    assert len({recipe_of(asked(**other)) for other in others} | {recipe}) == 5
    assert recipe_of(asked("stem_separation")) not in (None, recipe)
    elsewhere = asked()
    elsewhere.provider = "cog"
    assert recipe_of(elsewhere) != recipe


def test_two_equal_effects_are_two_pieces_of_work() -> None:
    assert recipe_of(asked("sound_effect")) is None
