"""Verbs on performances: compare-and-set on both versions of the row."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import Performance

_PERFORMANCES = Performance.__table__  # type: ignore[attr-defined]
_FIXED = frozenset({"id", "tenant", "default_of", "created_at"})


async def insert_performance(tx: Transaction, performance: Performance) -> bool:
    """False where it is there already: a tenant has one default."""
    return bool(await tx.insert_new(Performance, performance.model_dump()))


async def find_performance(
    tx: Transaction, performance_id: str, *, tenant: str, lock: bool = False
) -> Performance | None:
    """A tenant's performance; with `lock` held until the commit, where the database has locks of rows."""
    statement = select(_PERFORMANCES).where(
        _PERFORMANCES.c.id == performance_id, _PERFORMANCES.c.tenant == tenant
    )
    if lock:
        statement = statement.with_for_update()
    row = (await tx.execute(statement)).mappings().first()
    return Performance(**row) if row else None


async def find_default(tx: Transaction, tenant: str) -> Performance | None:
    """The tenant's performance where none is named."""
    statement = select(_PERFORMANCES).where(_PERFORMANCES.c.default_of == tenant)
    row = (await tx.execute(statement)).mappings().first()
    return Performance(**row) if row else None


async def list_performances(
    tx: Transaction, *, tenant: str, before_id: str | None, limit: int
) -> list[Performance]:
    """The tenant's, newest first."""
    statement = select(_PERFORMANCES).where(_PERFORMANCES.c.tenant == tenant)
    if before_id is not None:
        statement = statement.where(_PERFORMANCES.c.id < before_id)
    found = await tx.execute(statement.order_by(_PERFORMANCES.c.id.desc()).limit(limit))
    return [Performance(**row) for row in found.mappings()]


async def move_performance(tx: Transaction, before: Performance, after: Performance) -> bool:
    """Put `after` in the place of `before`; False where it is not there any more."""
    moved = await tx.execute(
        update(Performance)
        .where(
            col(Performance.id) == before.id,
            col(Performance.version) == before.version,
            col(Performance.queue_version) == before.queue_version,
        )
        .values(**after.model_dump(exclude=set(_FIXED)))
    )
    return moved.rowcount == 1


async def delete_performance(tx: Transaction, performance_id: str) -> None:
    await tx.execute(delete(Performance).where(col(Performance.id) == performance_id))


async def read_performances(tx: Transaction, ids: Sequence[str]) -> dict[str, Performance]:
    """Of whoever's they are, by id: for whoever has proven a right to each of them before."""
    statement = select(_PERFORMANCES).where(_PERFORMANCES.c.id.in_(ids))
    return {row["id"]: Performance(**row) for row in (await tx.execute(statement)).mappings()}
