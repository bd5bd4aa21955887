"""Take a provider's original message late: an operator's copy of what was sent while nobody listened.

The public door refuses what is older than its window, because there age is all that tells a captured message
from a fresh one. Here a proven caller brings it, so the window is waived and nothing else: the signature must
hold for the time that it names, the message id is deduplicated against the door's, and the news must be that
of the attempt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.errors import InvalidInput, NotFound, ProviderBadResponse
from app.inbox import Inbox
from app.incoming import Incoming, Receipt, dedupe_key
from app.line import Line
from app.provider.base import Prediction, Provider, understand
from app.provider.signature import BadSignature
from db.inbox import find_known
from db.ledger.candidates import find_attempt_of, find_pair
from db.states import DeliverySource
from db.tables import Attempt

_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_KEPT = ("webhook-id", "webhook-timestamp", "webhook-signature", "content-type", "user-agent")
_LAST_S = 253_402_300_799
"""The calendar's end."""


@dataclass(frozen=True, slots=True)
class Original:
    """A message as the provider sent it. `attempt_id` as its address had it; None: found by what it says."""

    provider: str
    headers: Mapping[str, str]
    body: bytes
    attempt_id: str | None = None


class Originals:
    """Takes originals. One a runtime."""

    def __init__(self, *, line: Line, inbox: Inbox, providers: Mapping[str, Provider]) -> None:
        self._line = line
        self._inbox = inbox
        self._providers = providers

    async def take(self, original: Original, *, tenant: str) -> Receipt:
        """Store it as a replay, unless it is known. Raises InvalidInput, NotFound, ProviderUnavailable."""
        provider = self._providers.get(original.provider)
        if provider is None:
            raise InvalidInput(f"no provider {original.provider[:32]} is configured here", field="provider")
        if not provider.signs_callbacks:
            raise InvalidInput(
                f"{original.provider} signs nothing: an old message of it proves nothing", field="provider"
            )
        headers = {name.lower(): value for name, value in original.headers.items()}
        message_id = self._prove(provider, headers, original.body)
        try:
            news = await understand(provider, original.body)
        except ProviderBadResponse as exc:
            raise InvalidInput(f"the body is not understood: {exc.message}", field="body_base64") from exc
        attempt = await self._attempt_of(original, news, tenant)
        incoming = Incoming(
            DeliverySource.REPLAY,
            original.provider,
            attempt.id,
            original.body,
            message_id=message_id,
            headers={name: headers[name][:1024] for name in _KEPT if name in headers},
            job_id=attempt.job_id,
        )
        return await self._find_heard(incoming) or await self._inbox.receive(incoming)

    def _prove(self, provider: Provider, headers: Mapping[str, str], body: bytes) -> str | None:
        """Verified as of the moment that it was signed; one of the future is refused as ever."""
        text, now = headers.get("webhook-timestamp", ""), self._line.clock.wall()
        if _SECONDS.fullmatch(text) is None or int(text) > _LAST_S:
            raise InvalidInput("webhook-timestamp is not a plain number of seconds", field="headers")
        signed_at = datetime.fromtimestamp(int(text), UTC)
        if signed_at > now + timedelta(seconds=self._line.settings.webhook_tolerance_s):
            raise InvalidInput("webhook-timestamp is in the future", field="headers")
        try:
            return provider.verify(headers, body, now=signed_at).message_id
        except BadSignature as exc:
            # The caller is one of ours and may know.
            raise InvalidInput(f"it is not proven: {exc.reason}", field="headers") from exc

    async def _attempt_of(self, original: Original, news: Prediction, tenant: str) -> Attempt:
        """The attempt that this is news of, the caller's own. Raises NotFound, InvalidInput."""
        async with self._line.database.reading() as tx:
            attempt_id = original.attempt_id
            if attempt_id is None and news.id:
                attempt_id = await find_attempt_of(tx, original.provider, news.id)
            pair = await find_pair(tx, attempt_id) if attempt_id else None
        if pair is None or pair[1].tenant != tenant or pair[0].provider != original.provider:
            raise NotFound("there is no attempt that this is news of")
        attempt = pair[0]
        if attempt.prediction_id and attempt.prediction_id != news.id:
            raise InvalidInput("it is news of another prediction than the attempt's", field="attempt_id")
        return attempt

    async def _find_heard(self, incoming: Incoming) -> Receipt | None:
        """The delivery, if the door has had this very message already."""
        at_the_door = Incoming(
            DeliverySource.WEBHOOK, incoming.provider, incoming.attempt_id, incoming.body,
            message_id=incoming.message_id,
        )  # fmt: skip
        async with self._line.database.reading() as tx:
            known = await find_known(tx, dedupe_key(at_the_door), incoming.body)
        return Receipt(known.id, is_new=False) if known else None
