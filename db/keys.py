"""Verbs on idempotency keys and on the installation's own secrets."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import IdempotencyKey, Secret


async def find_idempotency_key(tx: Transaction, tenant: str, key: str) -> IdempotencyKey | None:
    statement = select(IdempotencyKey.__table__).where(*_is(tenant, key))  # type: ignore[attr-defined]
    row = (await tx.execute(statement)).mappings().first()
    return IdempotencyKey(**row) if row else None


async def insert_idempotency_key(tx: Transaction, key: IdempotencyKey) -> IdempotencyKey:
    """Write the key, or return the one that another transaction wrote first."""
    if await tx.insert_new(IdempotencyKey, key.model_dump()):
        return key
    statement = select(IdempotencyKey.__table__).where(*_is(key.tenant, key.key))  # type: ignore[attr-defined]
    return IdempotencyKey(**(await tx.execute(statement)).mappings().one())


async def claim_idempotency_key(
    tx: Transaction, tenant: str, key: str, *, mark: str, now: datetime, until: datetime
) -> IdempotencyKey | None:
    """Take a key for a request that will be under way; None when it is ours, else the row of whose it is.

    `mark` tells one claim from another. One whose `open_until` has passed is taken over: its request died.
    """
    ours = IdempotencyKey(
        tenant=tenant, key=key, fingerprint=mark, job_id="", created_at=now, open_until=until
    )
    known = await insert_idempotency_key(tx, ours)
    if known is ours or known.fingerprint == mark:
        return None
    if known.open_until is None or known.open_until > now:
        return known
    taken = update(IdempotencyKey).where(*_is(tenant, key), col(IdempotencyKey.open_until) <= now)
    moved = await tx.execute(taken.values(fingerprint=mark, open_until=until, created_at=now))
    return None if moved.rowcount == 1 else known


async def settle_idempotency_key(
    tx: Transaction, tenant: str, key: str, *, mark: str, fingerprint: str, made_id: str
) -> bool:
    """Write down what the request made; False when the claim with this mark is not there any more."""
    statement = update(IdempotencyKey).where(*_is(tenant, key), col(IdempotencyKey.fingerprint) == mark)
    settled = await tx.execute(statement.values(open_until=None, fingerprint=fingerprint, job_id=made_id))
    return settled.rowcount == 1


async def release_idempotency_key(tx: Transaction, tenant: str, key: str, *, mark: str) -> None:
    """Give a claim back: its request made nothing."""
    await tx.execute(delete(IdempotencyKey).where(*_is(tenant, key), col(IdempotencyKey.fingerprint) == mark))


def _is(tenant: str, key: str) -> tuple[ColumnElement[bool], ...]:
    return col(IdempotencyKey.tenant) == tenant, col(IdempotencyKey.key) == key


async def delete_idempotency_keys(tx: Transaction, *, before: datetime) -> int:
    """Forget keys that were written before this time."""
    statement = delete(IdempotencyKey).where(col(IdempotencyKey.created_at) < before)
    return (await tx.execute(statement)).rowcount


async def claim_secret(tx: Transaction, name: str, proposed: str, *, now: datetime) -> str:
    """The secret of that name: the proposed value if there was none, else the one all others use."""
    await tx.insert_new(Secret, {"name": name, "value": proposed, "created_at": now})
    statement = select(col(Secret.value)).where(col(Secret.name) == name)
    return str((await tx.execute(statement)).scalar_one())
