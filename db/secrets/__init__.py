"""Verbs on a secret that rotates: the live one and the one before it, both good until the next rotation.

Rows of `secrets`: `NAME`, and `NAME-before` once it was rotated. Whatever is signed is signed with the first;
both prove. So a rotation breaks nothing that was handed out since the last one, and a second rotation, or one
at once, ends everything from before it.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import Secret


async def claim_secrets(tx: Transaction, name: str, proposed: str, *, now: datetime) -> tuple[str, ...]:
    """The one or two live secrets, the one that signs first; `proposed` where there was none."""
    await tx.insert_new(Secret, {"name": name, "value": proposed, "created_at": now})
    return await find_secrets(tx, name)


async def find_secrets(tx: Transaction, name: str) -> tuple[str, ...]:
    """The one or two live secrets, the one that signs first; none before they were claimed."""
    names = (name, _before(name))
    statement = select(col(Secret.name), col(Secret.value)).where(col(Secret.name).in_(names))
    found = {row["name"]: str(row["value"]) for row in (await tx.execute(statement)).mappings()}
    return tuple(found[each] for each in names if each in found)


async def rotate_secret(
    tx: Transaction, name: str, fresh: str, *, now: datetime, keep_old: bool = True
) -> None:
    """Sign with `fresh` from now on; the one until now still proves, if it is to be kept."""
    statement = select(col(Secret.value)).where(col(Secret.name) == name).with_for_update()
    old = (await tx.execute(statement)).scalar_one_or_none()
    await tx.execute(delete(Secret).where(col(Secret.name) == _before(name)))
    if old is None:
        await tx.insert_new(Secret, {"name": name, "value": fresh, "created_at": now})
        return
    await tx.execute(update(Secret).where(col(Secret.name) == name).values(value=fresh, created_at=now))
    if keep_old:
        await tx.insert_new(Secret, {"name": _before(name), "value": old, "created_at": now})


def _before(name: str) -> str:
    return f"{name}-before"
