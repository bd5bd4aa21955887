"""Send stored deliveries again: an operator's postman.

A replay copies a delivery's raw bytes into a new one with `source=replay`, so the original stays as it was
and the copy goes through the same inbox, with the same law, as any news.
"""

from __future__ import annotations

from app.access.callers import OPEN_HOUSE, Caller
from app.access.trail import Act, note_act
from app.errors import Conflict, NotFound
from app.inbox import Inbox
from app.incoming import Incoming, Receipt
from app.line import Line
from db.inbox import find_delivery, list_deliveries
from db.states import DeliveryOutcome, DeliverySource
from db.tables import Delivery


class Replay:
    """Reading the ledger, and sending from it."""

    def __init__(self, *, line: Line, inbox: Inbox) -> None:
        self._line = line
        self._inbox = inbox

    async def get(self, delivery_id: str, *, by: Caller = OPEN_HOUSE) -> Delivery:
        """One delivery with its body. Raises NotFound, also for one of another tenant's job."""
        async with self._line.database.reading() as tx:
            delivery = await find_delivery(tx, delivery_id, tenant=by.tenant, with_strays=by.sees_strays)
        if delivery is None:
            raise NotFound(f"there is no delivery {delivery_id[:64]}")
        return delivery

    async def list_deliveries(
        self,
        *,
        by: Caller = OPEN_HOUSE,
        job_id: str | None = None,
        outcome: DeliveryOutcome | None = None,
        before_id: str | None = None,
        limit: int,
    ) -> list[Delivery]:
        """The ledger without bodies, newest first."""
        async with self._line.database.reading() as tx:
            return await list_deliveries(
                tx,
                tenant=by.tenant,
                with_strays=by.sees_strays,
                job_id=job_id,
                outcome=outcome,
                before_id=before_id,
                limit=limit,
            )

    async def send_again(self, delivery_id: str, *, by: Caller = OPEN_HOUSE) -> Receipt:
        """Post a copy of a stored delivery. Raises NotFound, and Conflict for news of our own clock."""
        original = await self.get(delivery_id, by=by)
        if original.source == DeliverySource.DEADLINE:
            raise Conflict("a passed deadline cannot be replayed; retry the job instead")
        # Before the act, since the inbox has transactions of its own: none is done that was not written down.
        async with self._line.database.transaction() as tx:
            await note_act(tx, by, Act.DELIVERY_REPLAYED, original.id, at=self._line.clock.now())
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
