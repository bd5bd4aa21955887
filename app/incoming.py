"""News as a postman brings it, and the row that it becomes: its id, its key against doubles.

Owns what makes two pieces of news the same: the attempt, the postman, the provider and the message id, or
what it says where it has none. Leaves the storing, and whatever it means, to the inbox.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from db.ids import make_id
from db.ingress import NewDelivery
from db.states import DeliverySource

_ATTEMPT_ID = re.compile(r"att_[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Incoming:
    """News as a postman brings it."""

    source: DeliverySource
    provider: str
    attempt_id: str
    body: bytes
    message_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    job_id: str | None = None
    copy_of: str | None = None
    """For a replay: the delivery that is sent again."""
    wish: str | None = None
    """For a replay of many: which one. It sends each delivery once, however often it is begun."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of incoming news: the delivery's id, and whether it was not known before."""

    delivery_id: str
    is_new: bool


def as_row(incoming: Incoming, now: datetime) -> NewDelivery:
    """News as it is stored, received now."""
    return NewDelivery(
        id=make_id("dlv"),
        source=incoming.source.value,
        provider=incoming.provider,
        attempt_id=incoming.attempt_id[:64],
        job_id=incoming.job_id,
        message_id=incoming.message_id,
        dedupe_key=dedupe_key(incoming),
        headers=dict(incoming.headers),
        body=incoming.body,
        received_at=now,
    )


def dedupe_key(incoming: Incoming) -> bytes:
    """The same news by the same postman has the same key; a digest, so that its length is bounded.

    It begins with the time at which the attempt was made, as its id does. The index over keys is written by
    every webhook: so at places that were written a moment before, and not all over it.
    """
    if incoming.copy_of is not None:
        # A replay is a wish of a person's: each has an effect of its own, if only to say "nothing to do".
        name = f"{incoming.copy_of}:{incoming.wish or make_id('replay')}"
    elif incoming.message_id is not None:
        name = incoming.message_id
    else:
        name = f"{incoming.attempt_id}:{hashlib.sha256(incoming.body).hexdigest()}"
    whole = f"{incoming.source}:{incoming.provider}:{name}"
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).digest()
    began = incoming.attempt_id[4:16] if _ATTEMPT_ID.fullmatch(incoming.attempt_id) else ""
    return (bytes.fromhex(began) + digest)[:16]
