"""Where keys are given out and taken back: create, list, rotate, revoke. By the routes and by the commands.

Promises: the text of a key leaves this room once, in the answer to whoever made it; each change is in the
audit log, in its transaction; what is not the tenant's is NotFound. Leaves the proof of a key to `keyring`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from app.access.callers import Caller, Scope
from app.access.keys import NewKey, make_key
from app.access.trail import Act, note_act
from app.errors import Conflict, InvalidInput, NotFound
from db.access.keys import (
    find_access_key,
    insert_access_key,
    list_access_keys,
    revoke_access_key,
    shorten_access_key,
)
from db.ids import make_id
from db.session import Database, Transaction
from db.tables import AccessKey

MOST_NAME_CHARACTERS = 100
LONGEST_OVERLAP_S = 90 * 86_400
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Issued:
    """A key with its text, which nobody can read again."""

    key: AccessKey
    text: str


class KeyDesk:
    """The verbs on keys. Raises DatabaseUnavailable beside what each says."""

    def __init__(self, *, database: Database, now: Callable[[], datetime]) -> None:
        """`now` tells the time that the rows go by."""
        self._database = database
        self._now = now

    async def create(
        self, by: Caller, *, name: str, scopes: Iterable[Scope], expires_at: datetime | None = None
    ) -> Issued:
        """A new key of the caller's tenant. Raises InvalidInput."""
        if not _TENANT.fullmatch(by.tenant):
            raise InvalidInput(
                "tenant: 1-63 lower-case letters, digits, dashes and underscores", field="tenant"
            )
        made, now = make_key(), self._now()
        row = _row(made, by.tenant, name, sorted(set(scopes)), now=now, expires_at=expires_at)

        async def store(tx: Transaction) -> None:
            await insert_access_key(tx, row)
            await note_act(tx, by, Act.KEY_CREATED, row.id, at=now)

        await self._database.transact(store)
        return Issued(row, made.text)

    async def list_keys(
        self, tenant: str | None, *, before_id: str | None = None, limit: int = 100
    ) -> list[AccessKey]:
        """Newest first, the ended ones too; None for those of all tenants."""
        async with self._database.reading() as tx:
            return await list_access_keys(tx, tenant=tenant, before_id=before_id, limit=limit)

    async def revoke(self, by: Caller, key_id: str, *, any_tenant: bool = False) -> AccessKey:
        """End a key now; one that was ended before stays as it is. Raises NotFound."""
        return await self._database.transact(
            partial(self._revoke, by=by, key_id=key_id, tenant=None if any_tenant else by.tenant)
        )

    async def rotate(
        self,
        by: Caller,
        key_id: str,
        *,
        overlap_s: float,
        expires_at: datetime | None = None,
        any_tenant: bool = False,
    ) -> Issued:
        """A new key with the same rights, while the old one holds on for the overlap and ends then.

        Without `expires_at` the new one lives as long as the old one was given. Raises NotFound, Conflict for
        a key that has ended, InvalidInput.
        """
        if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
            raise InvalidInput(f"overlap_s: from 0 to {LONGEST_OVERLAP_S} seconds", field="overlap_s")
        tenant = None if any_tenant else by.tenant
        return await self._database.transact(
            partial(self._rotate, by=by, key_id=key_id, tenant=tenant, overlap_s=overlap_s, ends=expires_at)
        )

    async def _revoke(self, tx: Transaction, *, by: Caller, key_id: str, tenant: str | None) -> AccessKey:
        now, key = self._now(), await _get(tx, key_id, tenant)
        if await revoke_access_key(tx, key.id, at=now):
            key.revoked_at = now
            await note_act(tx, _within(by, key), Act.KEY_REVOKED, key.id, at=now)
        return key

    async def _rotate(
        self,
        tx: Transaction,
        *,
        by: Caller,
        key_id: str,
        tenant: str | None,
        overlap_s: float,
        ends: datetime | None,
    ) -> Issued:
        now, old = self._now(), await _get(tx, key_id, tenant)
        if has_ended(old, now):
            raise Conflict("the key has ended; make a new one instead")
        if ends is None and old.expires_at is not None:
            ends = now + (old.expires_at - old.created_at)
        made = make_key()
        row = _row(made, old.tenant, old.name, old.scopes, now=now, expires_at=ends)
        await insert_access_key(tx, row)
        await shorten_access_key(tx, old.id, expires_at=now + timedelta(seconds=overlap_s))
        await note_act(tx, _within(by, old), Act.KEY_ROTATED, old.id, at=now)
        await note_act(tx, _within(by, old), Act.KEY_CREATED, row.id, at=now)
        return Issued(row, made.text)


def has_ended(key: AccessKey, now: datetime) -> bool:
    """Whether the key proves nothing any more."""
    return key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now)


async def _get(tx: Transaction, key_id: str, tenant: str | None) -> AccessKey:
    key = await find_access_key(tx, key_id, tenant=tenant, lock=True)
    if key is None:
        raise NotFound(f"there is no key {key_id[:64]}")
    return key


def _within(by: Caller, key: AccessKey) -> Caller:
    """Whoever acts, in the log of the tenant whose key it is: a command names no tenant."""
    return Caller(key.tenant, by.scopes, by.key_id, by.request_id)


def _row(
    made: NewKey, tenant: str, name: str, scopes: Iterable[str], *, now: datetime, expires_at: datetime | None
) -> AccessKey:
    name = name.strip()
    if not 1 <= len(name) <= MOST_NAME_CHARACTERS or not name.isprintable():
        raise InvalidInput(f"name: 1-{MOST_NAME_CHARACTERS} printable characters", field="name")
    wanted = [str(scope) for scope in scopes]
    if not wanted:
        raise InvalidInput("scopes: name at least one", field="scopes")
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("expires_at: must be in the future", field="expires_at")
    return AccessKey(
        id=make_id("key"),
        prefix=made.prefix,
        digest=made.digest,
        name=name,
        tenant=tenant,
        scopes=wanted,
        created_at=now,
        expires_at=expires_at,
    )
