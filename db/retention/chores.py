"""Verbs on chores: one process at a time does what all of them could."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import update
from sqlmodel import col

from db.session import Transaction
from db.tables import Chore


async def claim_chore(tx: Transaction, name: str, *, now: datetime, due_again: datetime) -> bool:
    """Take a chore that is due; False when it is not, or another process has just taken it."""
    await tx.insert_new(Chore, {"name": name, "due_at": now})
    claimed = await tx.execute(
        update(Chore).where(col(Chore.name) == name, col(Chore.due_at) <= now).values(due_at=due_again)
    )
    return claimed.rowcount == 1
