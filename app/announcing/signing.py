"""Whose secrets sign: each tenant's own, made at first use, at most two of them live.

A rotation overlaps: the old secret signs beside the new one until its time is over, so a receiver changes
over whenever it likes meanwhile. Secrets are shown to administrators alone and stand in no log and no error.
"""

from __future__ import annotations

import base64
import secrets
from datetime import datetime, timedelta

from app.access.callers import Caller
from app.access.trail import Act, note_act
from app.errors import Conflict, InvalidInput
from app.line import Line
from db.announcements.secrets import (
    delete_expired_secrets,
    insert_secret,
    list_live_secrets,
    retire_secrets,
)
from db.session import Transaction
from db.tables import WebhookSecret

_SECRET_BYTES = 32
"""Standard Webhooks asks for 24 to 64."""
MOST_OVERLAP_S = 30 * 86_400.0


def make_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


async def secrets_of(tx: Transaction, tenant: str, *, now: datetime) -> list[WebhookSecret]:
    """The tenant's live secrets, the newest first; the first one is made here."""
    live = await list_live_secrets(tx, tenant, now=now)
    if live:
        return live
    await insert_secret(tx, WebhookSecret(tenant=tenant, number=1, value=make_secret(), created_at=now))
    # Another process may have been first.
    return await list_live_secrets(tx, tenant, now=now)


class WebhookKeys:
    """The secrets, for those who administer them."""

    def __init__(self, *, line: Line) -> None:
        self._line = line

    async def show(self, tenant: str) -> list[WebhookSecret]:
        """Those that sign now, the newest first."""

        async def look(tx: Transaction) -> list[WebhookSecret]:
            return await secrets_of(tx, tenant, now=self._line.clock.now())

        return await self._line.database.transact(look, is_idempotent=True)

    async def rotate(self, *, by: Caller, overlap_s: float) -> list[WebhookSecret]:
        """Put a new secret in the place of the current one, which signs along for `overlap_s`.

        Raises InvalidInput, and Conflict while an earlier rotation overlaps: with `overlap_s` 0 all older
        ones end at once, which is what a secret that has leaked needs.
        """
        if not 0 <= overlap_s <= MOST_OVERLAP_S:
            raise InvalidInput(f"overlap_s must be from 0 to {MOST_OVERLAP_S:.0f}", field="overlap_s")

        tenant = by.tenant

        async def put(tx: Transaction) -> list[WebhookSecret]:
            now = self._line.clock.now()
            live = await secrets_of(tx, tenant, now=now)
            if len(live) > 1 and overlap_s > 0:
                until = live[1].expires_at
                raise Conflict(
                    "two secrets sign already"
                    + (f", the older one until {until.isoformat(timespec='seconds')}" if until else "")
                    + "; an overlap of 0 ends it now"
                )
            fresh = WebhookSecret(
                tenant=tenant, number=live[0].number + 1, value=make_secret(), created_at=now
            )
            if not await insert_secret(tx, fresh):
                raise Conflict("somebody else has just rotated the secret")
            await retire_secrets(tx, tenant, before=fresh.number, at=now + timedelta(seconds=overlap_s))
            await delete_expired_secrets(tx, tenant, now=now)
            await note_act(tx, by, Act.SECRET_ROTATED, f"webhook-secret {fresh.number}", at=now)
            return await list_live_secrets(tx, tenant, now=now)

        return await self._line.database.transact(put)
