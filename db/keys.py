"""Verbs on idempotency keys and on the installation's own secrets."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select
from sqlmodel import col

from db.session import Transaction
from db.tables import IdempotencyKey, Secret


async def find_idempotency_key(tx: Transaction, tenant: str, key: str) -> IdempotencyKey | None:
    statement = select(IdempotencyKey.__table__).where(  # type: ignore[attr-defined]
        col(IdempotencyKey.tenant) == tenant, col(IdempotencyKey.key) == key
    )
    row = (await tx.execute(statement)).mappings().first()
    return IdempotencyKey(**row) if row else None


async def insert_idempotency_key(tx: Transaction, key: IdempotencyKey) -> IdempotencyKey:
    """Write the key, or return the one that another transaction wrote first."""
    if await tx.insert_new(IdempotencyKey, key.model_dump()):
        return key
    statement = select(IdempotencyKey.__table__).where(  # type: ignore[attr-defined]
        col(IdempotencyKey.tenant) == key.tenant, col(IdempotencyKey.key) == key.key
    )
    return IdempotencyKey(**(await tx.execute(statement)).mappings().one())


async def delete_idempotency_keys(tx: Transaction, *, before: datetime) -> int:
    """Forget keys that were written before this time."""
    statement = delete(IdempotencyKey).where(col(IdempotencyKey.created_at) < before)
    return (await tx.execute(statement)).rowcount


async def claim_secret(tx: Transaction, name: str, proposed: str, *, now: datetime) -> str:
    """The secret of that name: the proposed value if there was none, else the one all others use."""
    await tx.insert_new(Secret, {"name": name, "value": proposed, "created_at": now})
    statement = select(col(Secret.value)).where(col(Secret.name) == name)
    return str((await tx.execute(statement)).scalar_one())
