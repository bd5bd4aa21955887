"""Verbs on recoveries: chosen once, worked on by whoever holds the lease, ended once.

Every write of a worker's names its lease: one that was frozen and wakes up writes nothing. An item is written
once, after its news is stored; a death between the two is found by `begun_at`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from db.ids import make_id
from db.processes import heard_since
from db.session import Transaction
from db.states import RecoveryState
from db.tables import RecoveryItem, RecoveryRun

_RUNS = RecoveryRun.__table__  # type: ignore[attr-defined]
_ITEMS = RecoveryItem.__table__  # type: ignore[attr-defined]
_NO_LEASE: dict[str, Any] = {"lease": None, "lease_until": None, "leased_by": None}
_WRITTEN = ("effect", "finding", "detail", "delivery_id", "rerun_micros", "ended_at")


async def insert_recovery(tx: Transaction, run: RecoveryRun, items: Sequence[RecoveryItem]) -> None:
    """A new one with its items, numbered in the order given."""
    await tx.execute(insert(_RUNS), run.model_dump())
    rows = [item.model_dump() | {"recovery_id": run.id, "number": n} for n, item in enumerate(items, 1)]
    if rows:
        await tx.execute(insert(_ITEMS), rows)


async def find_recovery(tx: Transaction, recovery_id: str, *, tenant: str) -> RecoveryRun | None:
    statement = select(_RUNS).where(_RUNS.c.id == recovery_id, _RUNS.c.tenant == tenant)
    row = (await tx.execute(statement)).mappings().first()
    return RecoveryRun(**row) if row else None


async def list_recoveries(
    tx: Transaction, *, tenant: str, before_id: str | None, limit: int
) -> list[RecoveryRun]:
    """Newest first."""
    statement = select(_RUNS).where(_RUNS.c.tenant == tenant).order_by(_RUNS.c.id.desc()).limit(limit)
    if before_id:
        statement = statement.where(_RUNS.c.id < before_id)
    return [RecoveryRun(**row) for row in (await tx.execute(statement)).mappings()]


async def count_running(tx: Transaction, tenant: str) -> int:
    statement = select(func.count()).where(_RUNS.c.tenant == tenant, _RUNS.c.state == RecoveryState.RUNNING)
    return int((await tx.execute(statement)).scalar_one())


@dataclass(frozen=True, slots=True)
class Tally:
    """The items of a recovery that ended alike."""

    effect: str
    count: int
    rerun_micros: int | None


async def count_effects(tx: Transaction, recovery_ids: Sequence[str]) -> dict[str, list[Tally]]:
    """What came of the items so far, by recovery."""
    statement = (
        select(
            _ITEMS.c.recovery_id, _ITEMS.c.effect, func.count().label("items"),
            func.sum(_ITEMS.c.rerun_micros).label("micros"),
        )
        .where(_ITEMS.c.recovery_id.in_(recovery_ids), _ITEMS.c.effect.is_not(None))
        .group_by(_ITEMS.c.recovery_id, _ITEMS.c.effect)
        .order_by(_ITEMS.c.recovery_id, _ITEMS.c.effect)
    )  # fmt: skip
    found: dict[str, list[Tally]] = {}
    for row in await tx.execute(statement):
        micros = None if row.micros is None else int(row.micros)
        found.setdefault(row.recovery_id, []).append(Tally(row.effect, row.items, micros))
    return found


async def list_items(
    tx: Transaction, recovery_id: str, *, effect: str | None = None, after: int = 0, limit: int
) -> list[RecoveryItem]:
    """In the order in which they are worked on."""
    statement = (
        select(_ITEMS)
        .where(_ITEMS.c.recovery_id == recovery_id, _ITEMS.c.number > after)
        .order_by(_ITEMS.c.number)
        .limit(limit)
    )
    if effect:
        statement = statement.where(_ITEMS.c.effect == effect)
    return [RecoveryItem(**row) for row in (await tx.execute(statement)).mappings()]


async def claim_recovery(tx: Transaction, *, by: str, now: datetime, lease_s: float) -> RecoveryRun | None:
    """The oldest one that nobody works on, leased; None when there is none."""
    free = or_(_RUNS.c.lease.is_(None), _RUNS.c.lease_until < now)
    statement = (
        select(_RUNS)
        .where(_RUNS.c.state == RecoveryState.RUNNING, free)
        .order_by(_RUNS.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = (await tx.execute(statement)).mappings().first()
    if row is None:
        return None
    leased = {"lease": make_id("lease"), "lease_until": now + timedelta(seconds=lease_s), "leased_by": by}
    claimed = await tx.execute(update(_RUNS).where(_RUNS.c.id == row["id"], free).values(leased))
    return RecoveryRun(**{**row, **leased}) if claimed.rowcount == 1 else None


async def begin_items(
    tx: Transaction, run: RecoveryRun, *, now: datetime, lease_s: float, limit: int
) -> list[RecoveryItem] | None:
    """The next items, each with one try more, under a renewed lease; None when it is not ours to go on."""
    renewed = await tx.execute(
        update(_RUNS)
        .where(_ours(run), _RUNS.c.state == RecoveryState.RUNNING)
        .values(lease_until=now + timedelta(seconds=lease_s))
    )
    if renewed.rowcount != 1:
        return None
    statement = (
        select(_ITEMS)
        .where(_ITEMS.c.recovery_id == run.id, _ITEMS.c.ended_at.is_(None))
        .order_by(_ITEMS.c.number)
        .limit(limit)
    )
    items = [RecoveryItem(**row) for row in (await tx.execute(statement)).mappings()]
    begun = update(_ITEMS).where(_ITEMS.c.recovery_id == run.id)
    if items:
        await tx.execute(
            begun.where(_ITEMS.c.number.in_([item.number for item in items])).values(
                tries=_ITEMS.c.tries + 1, begun_at=func.coalesce(_ITEMS.c.begun_at, now)
            )
        )
    return items


async def end_items(tx: Transaction, run: RecoveryRun, items: Sequence[RecoveryItem]) -> bool:
    """Write what came of these; False when the lease is another's by now. Also after an abort: it is done."""
    if (await tx.execute(select(_RUNS.c.id).where(_ours(run)).with_for_update())).first() is None:
        return False
    statement = (
        update(_ITEMS)
        .where(_ITEMS.c.recovery_id == run.id, _ITEMS.c.number == bindparam("at"))
        .values({name: bindparam(f"new_{name}") for name in _WRITTEN})
    )
    rows = [
        {"at": item.number, **{f"new_{name}": getattr(item, name) for name in _WRITTEN}} for item in items
    ]
    await tx.execute(statement, rows)
    return True


async def release_recovery(tx: Transaction, run: RecoveryRun) -> None:
    """Give the lease back: another may go on at once."""
    await tx.execute(update(_RUNS).where(_ours(run)).values(_NO_LEASE))


async def end_recovery(tx: Transaction, run: RecoveryRun, *, now: datetime) -> bool:
    """Every item has an effect; False when it is not ours to say, or was aborted."""
    ended = await tx.execute(
        update(_RUNS)
        .where(_ours(run), _RUNS.c.state == RecoveryState.RUNNING)
        .values(state=RecoveryState.DONE, finished_at=now, **_NO_LEASE)
    )
    return ended.rowcount == 1


async def abort_recovery(tx: Transaction, recovery_id: str, *, tenant: str, now: datetime) -> bool:
    """End it; whoever works on it ends what is begun and takes no more. False when it had ended."""
    aborted = await tx.execute(
        update(_RUNS)
        .where(
            _RUNS.c.id == recovery_id, _RUNS.c.tenant == tenant, _RUNS.c.state == RecoveryState.RUNNING
        )
        .values(state=RecoveryState.ABORTED, finished_at=now)
    )  # fmt: skip
    return aborted.rowcount == 1


async def release_recoveries(tx: Transaction, *, silent_since: datetime | None = None) -> int:
    """Free what processes silent since then were at work on; all of it, for the only process there is."""
    statement = update(_RUNS).where(_RUNS.c.lease.is_not(None), _RUNS.c.state == RecoveryState.RUNNING)
    if silent_since is not None:
        statement = statement.where(_RUNS.c.leased_by.not_in(heard_since(silent_since)))
    return (await tx.execute(statement.values(_NO_LEASE))).rowcount


async def forget_recoveries(tx: Transaction, *, before: datetime, limit: int) -> int:
    """Delete those that ended before this time, with their items; how many."""
    ended = select(_RUNS.c.id).where(_RUNS.c.finished_at < before).limit(limit)
    ids = list((await tx.execute(ended)).scalars())
    if ids:
        await tx.execute(delete(_ITEMS).where(_ITEMS.c.recovery_id.in_(ids)))
        await tx.execute(delete(_RUNS).where(_RUNS.c.id.in_(ids)))
    return len(ids)


def _ours(run: RecoveryRun) -> Any:
    return (_RUNS.c.id == run.id) & (_RUNS.c.lease == run.lease)
