"""Verbs on families: a parent, the children that do its work, and what was made before by the same recipe.

A parent is `queued` until its first children are made and `running` while they live. `plan_at` says when it
is to be looked at. It never waits in the line for a provider: `waiting_for` has PLANNED, or the recipe of the
child of another family whose result it would have too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import aliased
from sqlmodel import col

from db.session import Transaction
from db.states import LIVE_ATTEMPT_STATUSES, LIVE_JOB_STATES, JobState
from db.tables import Attempt, Job

PLANNED = "children"
"""What a parent waits for: no provider is called so."""
_BEFORE_ITS_END = (JobState.QUEUED, JobState.RUNNING)
_NEXT_SEQ = {"seq": col(Job.seq) + 1}


@dataclass(frozen=True, slots=True)
class Sibling:
    """A child as its parent's progress sees it."""

    step: str
    state: JobState
    progress: float


async def list_due_parents(tx: Transaction, *, now: datetime, limit: int) -> Sequence[str]:
    """Ids of parents that are to be looked at by now, the longest due first."""
    statement = (
        select(col(Job.id))
        .where(col(Job.plan_at) <= now, col(Job.state).in_(_BEFORE_ITS_END))
        .order_by(col(Job.plan_at))
        .limit(limit)
    )
    return list((await tx.execute(statement)).scalars())


async def list_children(tx: Transaction, *parent_ids: str) -> list[Job]:
    """The children of these jobs, in the order in which they were made."""
    statement = (
        select(Job.__table__)  # type: ignore[attr-defined]
        .where(col(Job.parent_id).in_(parent_ids))
        .order_by(col(Job.id))
    )
    return [Job(**row) for row in (await tx.execute(statement)).mappings()]


async def list_siblings(tx: Transaction, parent_id: str) -> list[Sibling]:
    statement = select(col(Job.step), col(Job.state), col(Job.progress)).where(
        col(Job.parent_id) == parent_id
    )
    return [Sibling(row.step or "", JobState(row.state), row.progress) for row in await tx.execute(statement)]


async def lock_live_children(tx: Transaction, parent_id: str) -> list[Job]:
    """Those that have not ended, held until the commit."""
    statement = (
        select(Job.__table__)  # type: ignore[attr-defined]
        .where(col(Job.parent_id) == parent_id, col(Job.state).in_(LIVE_JOB_STATES))
        .order_by(col(Job.id))
        .with_for_update()
    )
    return [Job(**row) for row in (await tx.execute(statement)).mappings()]


async def make_parent_due(tx: Transaction, parent_id: str, *, now: datetime) -> bool:
    """A child of it has ended; False when the parent has ended itself, or is past its children."""
    made = await tx.execute(
        update(Job).where(col(Job.id) == parent_id, col(Job.state).in_(_BEFORE_ITS_END)).values(plan_at=now)
    )
    return made.rowcount == 1


async def wake_for_recipe(tx: Transaction, tenant: str, recipe: str, *, now: datetime) -> Sequence[str]:
    """Make the parents due that wait for a result by this recipe; their ids."""
    waiting = (
        col(Job.waiting_for) == recipe,
        col(Job.tenant) == tenant,
        col(Job.state).in_(_BEFORE_ITS_END),
    )
    ids = list((await tx.execute(select(col(Job.id)).where(*waiting).order_by(col(Job.id)))).scalars())
    if ids:
        await tx.execute(
            update(Job).where(col(Job.id).in_(ids), *waiting).values(plan_at=now, waiting_for=PLANNED)
        )
    return ids


async def note_planned(tx: Transaction, parent_id: str, stage: str, progress: float) -> bool:
    """A running parent has new children; it makes the `seq` of one event."""
    noted = await tx.execute(
        update(Job)
        .where(col(Job.id) == parent_id, col(Job.state) == JobState.RUNNING)
        .values(
            {
                "stage": stage,
                "progress": progress,
                "plan_at": None,
                "waiting_reason": None,
                "waiting_for": None,
                **_NEXT_SEQ,
            }
        )
    )
    return noted.rowcount == 1


async def note_looked(
    tx: Transaction,
    parent_id: str,
    *,
    plan_at: datetime | None = None,
    waiting_reason: str | None = None,
    recipe: str | None = None,
) -> None:
    """A parent was looked at and nothing was begun: it is looked at again then, or when `recipe` is made."""
    await tx.execute(
        update(Job)
        .where(col(Job.id) == parent_id)
        .values(plan_at=plan_at, waiting_reason=waiting_reason, waiting_for=recipe or PLANNED)
    )


async def find_made(tx: Transaction, tenant: str, recipe: str) -> Job | None:
    """The newest job of the tenant's that succeeded by this recipe and still has what it made."""
    statement = (
        select(Job.__table__)  # type: ignore[attr-defined]
        .where(
            col(Job.tenant) == tenant,
            col(Job.recipe) == recipe,
            col(Job.state) == JobState.SUCCEEDED,
            col(Job.expunged_at).is_(None),
        )
        .order_by(col(Job.id).desc())
        .limit(1)
    )
    row = (await tx.execute(statement)).mappings().first()
    return Job(**row) if row else None


async def find_under_way(tx: Transaction, tenant: str, recipe: str) -> str | None:
    """A live job of the tenant's that will have made this; its id."""
    statement = (
        select(col(Job.id))
        .where(
            col(Job.tenant) == tenant,
            col(Job.recipe) == recipe,
            col(Job.state).in_(LIVE_JOB_STATES),
        )
        .limit(1)
    )
    found: str | None = (await tx.execute(statement)).scalar_one_or_none()
    return found


async def look_at_attempts(tx: Transaction, job_ids: Sequence[str], *, now: datetime) -> None:
    """Let recovery ask about the attempts of these jobs at once, and stop those that nobody wants."""
    if job_ids:
        await tx.execute(update(Attempt).where(col(Attempt.job_id).in_(job_ids)).values(check_at=now))


async def bring_plans_forward(tx: Transaction, latest: datetime) -> int:
    """Let no parent wait for a time after `latest`; how many did."""
    statement = update(Job).where(col(Job.plan_at) > latest, col(Job.state).in_(_BEFORE_ITS_END))
    return (await tx.execute(statement.values(plan_at=latest))).rowcount


def is_by_itself() -> ColumnElement[bool]:
    """The jobs that go by themselves: no children, but for those whose parent is gone."""
    parent = aliased(Job)
    there = select(col(parent.id)).where(col(parent.id) == col(Job.parent_id))
    return col(Job.parent_id).is_(None) | ~there.exists()


def has_child_under_way() -> ColumnElement[bool]:
    """The jobs of whose children a prediction is still being ended at its provider."""
    child = aliased(Job)
    under_way = (
        select(col(Attempt.id))
        .join(child, col(child.id) == col(Attempt.job_id))
        .where(col(child.parent_id) == col(Job.id), col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES))
    )
    return under_way.exists()
