"""Send stored deliveries again: an operator's postman.

A replay copies a delivery's raw bytes into a new one with `source=replay`, so the original stays as it was
and the copy goes through the same inbox, with the same law, as any news.
"""

from __future__ import annotations

from app.access.callers import DEFAULT_TENANT
from app.errors import Conflict, NotFound
from app.inbox import Inbox
from app.incoming import Incoming, Receipt
from app.line import Line
from db.inbox import find_delivery, list_deliveries
from db.ledger.predictions import tenant_of_delivery
from db.states import DeliveryOutcome, DeliverySource
from db.tables import Delivery


class Replay:
    """Reading the ledger, and sending from it."""

    def __init__(self, *, line: Line, inbox: Inbox) -> None:
        self._line = line
        self._inbox = inbox

    async def get(self, delivery_id: str) -> Delivery:
        """One delivery with its body. Raises NotFound."""
        async with self._line.database.reading() as tx:
            delivery = await find_delivery(tx, delivery_id)
        if delivery is None:
            raise NotFound(f"there is no delivery {delivery_id[:64]}")
        return delivery

    async def get_of(self, delivery_id: str, *, tenant: str) -> Delivery:
        """The same for one tenant; what is nobody's is the default one's. Raises NotFound."""
        async with self._line.database.reading() as tx:
            whose = await tenant_of_delivery(tx, delivery_id) or DEFAULT_TENANT
        if whose != tenant:
            raise NotFound(f"there is no delivery {delivery_id[:64]}")
        return await self.get(delivery_id)

    async def list_deliveries(
        self,
        *,
        job_id: str | None = None,
        outcome: DeliveryOutcome | None = None,
        before_id: str | None = None,
        limit: int,
    ) -> list[Delivery]:
        """The ledger without bodies, newest first."""
        async with self._line.database.reading() as tx:
            return await list_deliveries(tx, job_id=job_id, outcome=outcome, before_id=before_id, limit=limit)

    async def send_again(self, delivery_id: str) -> Receipt:
        """Post a copy of a stored delivery. Raises NotFound, and Conflict for news of our own clock."""
        original = await self.get(delivery_id)
        if original.source == DeliverySource.DEADLINE:
            raise Conflict("a passed deadline cannot be replayed; retry the job instead")
        return await self._inbox.receive(copy_of(original))


def copy_of(original: Delivery, *, wish: str | None = None) -> Incoming:
    """The same news, to be sent again; with a `wish` once for that, else as something new each time."""
    return Incoming(
        DeliverySource.REPLAY,
        original.provider,
        original.attempt_id,
        original.body,
        job_id=original.job_id,
        copy_of=original.id,
        wish=wish,
    )
