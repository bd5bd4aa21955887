"""Verbs on bulk acts. Whoever holds an act's lease moves it on; who has lost it changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, delete, select, update
from sqlmodel import col

from db.session import Transaction
from db.states import BulkOutcome, BulkState
from db.tables import BulkAct, BulkItem

_ACTS = BulkAct.__table__  # type: ignore[attr-defined]
_ITEMS = BulkItem.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of one item."""

    number: int
    outcome: BulkOutcome
    detail: str | None


async def insert_act(tx: Transaction, act: BulkAct, job_ids: Sequence[str]) -> None:
    """Store an act with the jobs that it is about."""
    await tx.execute(_ACTS.insert(), act.model_dump())
    if job_ids:
        items = [
            {"act_id": act.id, "number": number, "job_id": job_id} for number, job_id in enumerate(job_ids)
        ]
        await tx.execute(_ITEMS.insert(), items)


async def find_act(tx: Transaction, act_id: str, *, tenant: str) -> BulkAct | None:
    statement = select(_ACTS).where(_ACTS.c.id == act_id, _ACTS.c.tenant == tenant)
    row = (await tx.execute(statement)).mappings().first()
    return BulkAct(**row) if row else None


async def list_acts(tx: Transaction, *, tenant: str, limit: int) -> list[BulkAct]:
    """The tenant's, newest first."""
    statement = select(_ACTS).where(_ACTS.c.tenant == tenant)
    newest = statement.order_by(_ACTS.c.created_at.desc(), _ACTS.c.id.desc()).limit(limit)
    return [BulkAct(**row) for row in (await tx.execute(newest)).mappings()]


async def list_troubles(tx: Transaction, act_id: str, *, limit: int) -> list[BulkItem]:
    """Items that were skipped or failed, in their order."""
    statement = (
        select(_ITEMS)
        .where(_ITEMS.c.act_id == act_id, _ITEMS.c.outcome.in_((BulkOutcome.SKIPPED, BulkOutcome.FAILED)))
        .order_by(_ITEMS.c.number)
        .limit(limit)
    )
    return [BulkItem(**row) for row in (await tx.execute(statement)).mappings()]


async def ask_to_abort(tx: Transaction, act_id: str, *, now: datetime) -> bool:
    """Let an act stop before its next job; False when it has ended."""
    asked = await tx.execute(
        update(BulkAct)
        .where(col(BulkAct.id) == act_id, col(BulkAct.finished_at).is_(None))
        .values(abort_at=now)
    )
    return asked.rowcount == 1


async def has_open_act(tx: Transaction) -> bool:
    """Whether any act has not ended."""
    open_ones = select(_ACTS.c.id).where(_ACTS.c.finished_at.is_(None)).limit(1)
    return (await tx.execute(open_ones)).first() is not None


async def claim_act(tx: Transaction, *, lease: str, now: datetime, lease_s: float) -> BulkAct | None:
    """Take the oldest act that nobody is at; None when there is none, or another was faster."""
    free = (_ACTS.c.lease.is_(None)) | (_ACTS.c.lease_until < tx.clock(now))
    oldest = (
        select(_ACTS.c.id)
        .where(_ACTS.c.finished_at.is_(None), free)
        .order_by(_ACTS.c.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    act_id = (await tx.execute(oldest)).scalar_one_or_none()
    if act_id is None:
        return None
    taken = await tx.execute(
        update(_ACTS)
        .where(_ACTS.c.id == act_id, _ACTS.c.finished_at.is_(None), free)
        .values(lease=lease, lease_until=tx.clock(now, later_s=lease_s), state=BulkState.RUNNING)
    )
    if taken.rowcount != 1:
        return None
    row = (await tx.execute(select(_ACTS).where(_ACTS.c.id == act_id))).mappings().one()
    return BulkAct(**row)


async def list_open_items(tx: Transaction, act_id: str, *, limit: int) -> list[BulkItem]:
    """What it has not come to yet, in order."""
    statement = (
        select(_ITEMS)
        .where(_ITEMS.c.act_id == act_id, _ITEMS.c.outcome.is_(None))
        .order_by(_ITEMS.c.number)
        .limit(limit)
    )
    return [BulkItem(**row) for row in (await tx.execute(statement)).mappings()]


async def note_progress(
    tx: Transaction, act_id: str, ended: Sequence[Ended], *, lease: str, now: datetime, lease_s: float
) -> BulkAct | None:
    """Count what has ended and keep the lease; the act as it stands, None when the lease is another's."""
    counts = Counter(each.outcome for each in ended)
    noted = await tx.execute(
        update(_ACTS)
        .where(_ACTS.c.id == act_id, _ACTS.c.lease == lease, _ACTS.c.finished_at.is_(None))
        .values(
            changed=_ACTS.c.changed + counts[BulkOutcome.CHANGED],
            skipped=_ACTS.c.skipped + counts[BulkOutcome.SKIPPED],
            failed=_ACTS.c.failed + counts[BulkOutcome.FAILED],
            lease_until=tx.clock(now, later_s=lease_s),
        )
    )
    if noted.rowcount != 1:
        return None
    if ended:
        statement = (
            update(_ITEMS)
            .where(_ITEMS.c.act_id == act_id, _ITEMS.c.number == bindparam("which"))
            .values(outcome=bindparam("came_to"), detail=bindparam("why"))
        )
        rows = [{"which": each.number, "came_to": each.outcome, "why": each.detail} for each in ended]
        await tx.execute(statement, rows)
    row = (await tx.execute(select(_ACTS).where(_ACTS.c.id == act_id))).mappings().one()
    return BulkAct(**row)


async def end_act(tx: Transaction, act_id: str, state: BulkState, *, lease: str, now: datetime) -> bool:
    """The last word on an act, by whoever holds it."""
    ended = await tx.execute(
        update(_ACTS)
        .where(_ACTS.c.id == act_id, _ACTS.c.lease == lease, _ACTS.c.finished_at.is_(None))
        .values(state=state, finished_at=now, lease=None, lease_until=None)
    )
    return ended.rowcount == 1


async def release_act(tx: Transaction, act_id: str, *, lease: str) -> None:
    """Give it back unfinished: the next process goes on at once."""
    await tx.execute(
        update(_ACTS).where(_ACTS.c.id == act_id, _ACTS.c.lease == lease).values(lease=None, lease_until=None)
    )


async def forget_acts(tx: Transaction, *, before: datetime, limit: int) -> int:
    """Delete acts that ended before this time, with their items."""
    old = select(_ACTS.c.id).where(_ACTS.c.finished_at < before).limit(limit)
    ids = list((await tx.execute(old)).scalars())
    if ids:
        # By us and not by the key alone: SQLite minds foreign keys only where it is told to.
        await tx.execute(delete(_ITEMS).where(_ITEMS.c.act_id.in_(ids)))
        await tx.execute(delete(_ACTS).where(_ACTS.c.id.in_(ids)))
    return len(ids)


KEPT_FOR = timedelta(days=30)
"""How long an act can be looked up after its end."""
