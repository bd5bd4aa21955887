"""What follows for a parent, by its kind and its children: pure, no clock, no rows.

A part begins when all parts that it comes after have ended well. When all have, the parent's own files are
made; when one has failed, or was ended by somebody, so has the parent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.kinds import Family
from app.kinds.base import Part
from db.states import JobState

JOINED_FROM = 0.8
"""A parent's progress is never taken for more than this before its own files are begun."""


@dataclass(frozen=True, slots=True)
class Child:
    """A child as the plan looks at it."""

    state: JobState
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """Make children for these parts, none of which has one."""

    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Wait:
    """Those that live come first."""


@dataclass(frozen=True, slots=True)
class Join:
    """Every part has ended well."""


@dataclass(frozen=True, slots=True)
class Fail:
    """A part will never end well."""

    code: str
    message: str


Next = Begin | Wait | Join | Fail


def plan(family: Family, children: Mapping[str, Child]) -> Next:
    """What to do next; `children` by the name of their part."""
    for part in family.parts:
        child = children.get(part.name)
        if child is not None and child.state in (JobState.FAILED, JobState.CANCELED):
            code = child.code or "prediction_failed"
            return Fail(code, f"{part.name}: {child.message or 'it was canceled'}")
    done = {name for name, child in children.items() if child.state is JobState.SUCCEEDED}
    ready = [part for part in family.parts if part.name not in children and done.issuperset(part.after)]
    if ready:
        return Begin(ready)
    return Join() if len(done) == len(family.parts) else Wait()


def progress_of(family: Family, children: Mapping[str, float]) -> float:
    """The parent's progress, 0 to 1: each part's own by its share, what has not begun counting nothing."""
    total = sum(part.share * children.get(part.name, 0.0) for part in family.parts)
    return round(min(JOINED_FROM, total), 4)
