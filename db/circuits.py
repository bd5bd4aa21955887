"""Verbs on circuits: what all processes hold against a provider. When it opens is not decided here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import or_, select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import Circuit


async def list_circuits(tx: Transaction) -> list[Circuit]:
    """All that there are: one a provider that anything was ever held against."""
    rows = await tx.execute(select(Circuit.__table__))  # type: ignore[attr-defined]
    return [Circuit(**row) for row in rows.mappings()]


async def lock_circuit(tx: Transaction, provider: str) -> Circuit:
    """The provider's circuit, to be changed in this transaction; made where there was none."""
    await tx.insert_new(Circuit, Circuit(provider=provider).model_dump())
    statement = select(Circuit.__table__).where(col(Circuit.provider) == provider).with_for_update()  # type: ignore[attr-defined]
    return Circuit(**(await tx.execute(statement)).mappings().one())


async def save_circuit(tx: Transaction, provider: str, **values: Any) -> None:
    """Write a circuit that this transaction has locked."""
    await tx.execute(update(Circuit).where(col(Circuit.provider) == provider).values(**values))


async def claim_probe(tx: Transaction, provider: str, *, now: datetime, until: datetime) -> bool:
    """Be the one who tries a half-open circuit until then; False when somebody else is."""
    claimed = await tx.execute(
        update(Circuit)
        .where(
            col(Circuit.provider) == provider,
            col(Circuit.open_until) <= now,
            or_(col(Circuit.probe_until).is_(None), col(Circuit.probe_until) <= now),
        )
        .values(probe_until=until)
    )
    return claimed.rowcount == 1


async def bring_circuits_forward(tx: Transaction, latest: datetime) -> int:
    """Let no circuit be open for longer than until `latest`; how many were."""
    statement = update(Circuit).where(col(Circuit.open_until) > latest)
    return (await tx.execute(statement.values(open_until=latest, probe_until=None))).rowcount
