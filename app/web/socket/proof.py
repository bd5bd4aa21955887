"""Which caller a client's `auth` proves: a key, a short-lived token, or nothing in an open house."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from app.access.callers import Caller
from app.access.keys import KeyNeeded
from app.tokens import TICKET_PREFIX
from app.wiring import Runtime
from db.access.keys import find_ended

MOST_TOKEN_CHARACTERS = 2000


async def prove(runtime: Runtime, auth: object, authorization: str | None) -> Caller:
    """Whoever sent `auth: {token}`, else that header. Raises KeyNeeded, DatabaseUnavailable."""
    token = auth.get("token") if isinstance(auth, Mapping) else None
    if token is None:
        return await runtime.keyring.prove(authorization)
    if not isinstance(token, str) or len(token) > MOST_TOKEN_CHARACTERS:
        raise KeyNeeded
    if not token.startswith(TICKET_PREFIX):
        return await runtime.keyring.prove(f"Bearer {token}")
    caller = runtime.tickets.read(token, now=runtime.line.clock.now())
    if await has_ended(runtime, caller):
        raise KeyNeeded
    return caller


async def has_ended(runtime: Runtime, caller: Caller) -> bool:
    """Whether what this caller was proven by holds no more. Raises DatabaseUnavailable."""
    if caller.key_id is None:
        return not await runtime.keyring.is_open()
    return bool(await ended_keys(runtime, {caller.key_id}))


async def ended_keys(runtime: Runtime, key_ids: set[str], *, now: datetime | None = None) -> set[str]:
    """Those of these keys that are revoked, expired or gone. Raises DatabaseUnavailable."""
    async with runtime.line.database.reading() as tx:
        return await find_ended(tx, key_ids, now=now or runtime.line.clock.now())
