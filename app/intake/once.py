"""One upload for one `Idempotency-Key`: its making outlasts a transaction, so the key is claimed first.

While the first request is under way a second one is refused (409); once it has ended well, the same bytes are
answered with the same upload and others are refused (422); when it failed, or its process died and
`CLAIM_S` have passed, the key is free again. A job needs no claim: its key is written with it, and whoever
comes at the same moment waits for that commit (`app.intake`).
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from app.errors import Conflict, InvalidInput
from app.line import Line
from db.keys import claim_idempotency_key, release_idempotency_key, settle_idempotency_key
from db.session import DatabaseUnavailable, Transaction
from db.tables import IdempotencyKey

CLAIM_S = 600.0
"""Longer than an upload may take; so long the key of a process that died in the middle stays taken."""


class UnderWay(Conflict):
    """The first request with this Idempotency-Key has not been answered yet: ask again when it has."""

    code = "request_under_way"
    retry_after_s = 1.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A key in the hands of one request."""

    tenant: str
    key: str
    mark: str
    """What the row has for a fingerprint while it is ours."""
    known: IdempotencyKey | None = None
    """The row of a request that has ended well before."""

    def find_known(self, fingerprint: str) -> str | None:
        """The id that these bytes made before. Raises InvalidInput where the key made another's."""
        if self.known is None:
            return None
        if self.known.fingerprint != fingerprint:
            raise InvalidInput("this Idempotency-Key was used for another request", field="Idempotency-Key")
        return self.known.job_id

    async def settle(self, tx: Transaction, fingerprint: str, made_id: str) -> None:
        """Write down what came of it, in the transaction that makes it. Raises UnderWay when it took so long
        that somebody else has the key."""
        if not await settle_idempotency_key(
            tx, self.tenant, self.key, mark=self.mark, fingerprint=fingerprint, made_id=made_id
        ):
            raise UnderWay("another request took this Idempotency-Key over; ask again")


class Once:
    """Gives out claims. One a runtime."""

    def __init__(self, *, line: Line) -> None:
        self._line = line

    @asynccontextmanager
    async def claim(self, tenant: str, key: str | None) -> AsyncIterator[Claim | None]:
        """The claim, given back if the block raises; None without a key. Raises UnderWay."""
        if key is None:
            yield None
            return
        claim = await self._take(tenant, key)
        try:
            yield claim
        except BaseException:
            if claim.known is None:
                await self._give_back(claim)
            raise

    async def _take(self, tenant: str, key: str) -> Claim:
        now = self._line.clock.now()
        mark, until = secrets.token_hex(16), now + timedelta(seconds=CLAIM_S)

        async def take(tx: Transaction) -> IdempotencyKey | None:
            return await claim_idempotency_key(tx, tenant, key, mark=mark, now=now, until=until)

        # Idempotent by the mark: a claim whose commit was not answered is found to be ours.
        known = await self._line.database.transact(take, is_idempotent=True)
        if known is None:
            return Claim(tenant, key, mark)
        if known.open_until is not None:
            raise UnderWay("the first request with this Idempotency-Key is still under way")
        return Claim(tenant, key, known.fingerprint, known)

    async def _give_back(self, claim: Claim) -> None:
        with suppress(DatabaseUnavailable):
            async with self._line.database.transaction() as tx:
                await release_idempotency_key(tx, claim.tenant, claim.key, mark=claim.mark)
