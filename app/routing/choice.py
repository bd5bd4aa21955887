"""Which provider the next attempt goes to, or what the job waits for. Pure.

`arrange` makes a job's route of what the settings say about its kind; `choose` takes the first provider on it
that the job has not left and that may be asked now. Both give the same answer for the same job as often as
they are asked: a job that was sent to a provider by its weight stays there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.routing.circuits import Shut
from app.routing.recovery import RULES, Action, Patience, patience_ends

ANY = "auto"
"""What a caller says who leaves the provider to us."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A provider on a kind's route."""

    provider: str
    weight: int | None = None
    """With weights, a job's first provider is drawn by them; the others follow in order."""


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier attempt of the job."""

    provider: str
    is_over: bool
    trouble: str | None = None
    action: str | None = None
    """What was done about it; None too for an attempt from before this was written down."""


@dataclass(frozen=True, slots=True)
class Go:
    """Ask this provider; `why` in a few words."""

    provider: str
    why: str
    differently: bool = False
    """With the other parameters that the kind names."""
    has_other: bool = False
    """Whether there is another to fall back to."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nobody may be asked before `until`."""

    provider: str
    until: datetime
    reason: str


def arrange(stops: Sequence[Stop], job_id: str, last: Collection[str] = ()) -> list[str]:
    """The job's own order: the first by weight, drawn by its id; those in `last` (spent, full) at the end."""
    names = [stop.provider for stop in stops]
    weights = [(stop.provider, stop.weight) for stop in stops if stop.weight]
    total = sum(weight for _, weight in weights if weight)
    if total:
        drawn = int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:8]) % total
        for name, weight in weights:
            drawn -= weight or 0
            if drawn < 0:
                names.sort(key=lambda each, first=name: each != first)  # type: ignore[misc]  # stable
                break
    return sorted(names, key=lambda each: each in last)


def left_of(past: Sequence[Past]) -> set[str]:
    """The providers that the job has left for another."""
    return {each.provider for each in past if each.is_over and each.action in (Action.FALL_BACK, None)}


def choose(
    wanted: str,
    route: Sequence[str],
    past: Sequence[Past],
    shut: Mapping[str, Shut],
    *,
    created_at: datetime,
    deadline_at: datetime,
) -> Go | Wait | None:
    """The next provider, or what is waited for; None when none that is configured may take the job.

    `route` is the job's own order. A provider that the caller named is kept to. One whose circuit is open is
    passed by, unless jobs wait for what opened it (credentials, a throttle that ends in time).
    """
    if wanted != ANY:
        route = [name for name in route if name == wanted]
    if not route:
        return None
    left = left_of(past)
    # Who has been everywhere stays with the last one.
    order = [name for name in route if name not in left] or [route[-1]]
    again = past[-1] if past and past[-1].is_over and past[-1].provider in order else None
    if again is not None:
        order.sort(key=lambda name: name != again.provider)
    waits: list[Wait] = []
    for place, name in enumerate(order):
        has_other = len(order) > 1
        if name not in shut:
            differently = (
                again is not None and name == again.provider and again.action == Action.RETRY_DIFFERENTLY
            )
            return Go(name, _why(name, place, wanted, past, waits), differently, has_other)
        closed = shut[name]
        wait = Wait(name, closed.until, closed.reason)
        if has_other and _is_worth_waiting(closed, created_at, deadline_at):
            return wait
        waits.append(wait)
    return min(waits, key=lambda wait: wait.until)


def _is_worth_waiting(shut: Shut, created_at: datetime, deadline_at: datetime) -> bool:
    """Whether jobs wait for this although another provider could have them now."""
    if RULES[shut.trouble].patience is not Patience.LONG:
        return False
    return shut.until <= patience_ends(Patience.LONG, created_at, deadline_at, 0.0)


def _why(name: str, place: int, wanted: str, past: Sequence[Past], waits: Sequence[Wait]) -> str:
    if wanted != ANY:
        return "the caller named it"
    if waits:
        return "; ".join(f"{wait.provider}: {wait.reason}" for wait in waits)
    if past and past[-1].provider != name:
        return f"{past[-1].provider} was left: {past[-1].trouble or 'its attempt ended'}"
    if past:
        return "it is asked again"
    return "first on the route" if place == 0 else "next on the route"
