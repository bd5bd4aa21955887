"""Verbs on the secrets that sign announcements: numbered from 1 in each tenant, the highest is current."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select, update
from sqlmodel import col

from db.session import Transaction
from db.tables import WebhookSecret

_SECRETS = WebhookSecret.__table__  # type: ignore[attr-defined]


async def list_live_secrets(tx: Transaction, tenant: str, *, now: datetime) -> list[WebhookSecret]:
    """Those that sign now, the newest first."""
    live = col(WebhookSecret.expires_at).is_(None) | (col(WebhookSecret.expires_at) > now)
    statement = select(_SECRETS).where(col(WebhookSecret.tenant) == tenant, live)
    rows = await tx.execute(statement.order_by(col(WebhookSecret.number).desc()))
    return [WebhookSecret(**row) for row in rows.mappings()]


async def insert_secret(tx: Transaction, secret: WebhookSecret) -> bool:
    """Whether it was the first of its number: somebody else may have made one at the same moment."""
    return await tx.insert_new(WebhookSecret, secret.model_dump()) == 1


async def retire_secrets(tx: Transaction, tenant: str, *, before: int, at: datetime) -> None:
    """Let those numbered below `before` sign until `at` at the latest."""
    older = (col(WebhookSecret.tenant) == tenant) & (col(WebhookSecret.number) < before)
    longer = col(WebhookSecret.expires_at).is_(None) | (col(WebhookSecret.expires_at) > at)
    await tx.execute(update(WebhookSecret).where(older, longer).values(expires_at=at))


async def delete_expired_secrets(tx: Transaction, tenant: str, *, now: datetime) -> None:
    """Forget those whose time is over."""
    expired = (col(WebhookSecret.tenant) == tenant) & (col(WebhookSecret.expires_at) <= now)
    await tx.execute(delete(WebhookSecret).where(expired))
