"""The port to whoever makes the audio: what a provider is asked, what it answers, what it must promise.

Owns the words `Order` (our side) and `Prediction` (theirs) and the `Provider` protocol. An implementation
translates every foreign exception into `app.errors` and keeps the provider's own status words; what a
status means for a job is decided in `app.lifecycle`, never here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from app.errors import ProviderBadResponse

Json = Any
"""A value as `json.loads` gives it."""


@dataclass(frozen=True, slots=True)
class Order:
    """One attempt, as the provider is asked for it."""

    attempt_id: str
    """Ours; a provider that takes client-made ids uses it as the prediction's id."""
    kind: str
    model: str
    """`owner/name[:version]` on Replicate; the job kind for a Cog server that serves several."""
    input: Mapping[str, Json]
    callback_url: str
    """Where news must be posted; ends in our attempt id and an unguessable token."""
    deadline_s: float | None = None
    """Seconds after which the provider should give up by itself, where it knows how to."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A provider's prediction as last heard of. Every field but `status` may be missing."""

    id: str | None
    status: str
    """The provider's own word, also when we do not know it."""
    output: Json = None
    """As given: null, a string, a list, an object; URLs or data URIs inside."""
    error: str | None = None
    logs_tail: str = ""
    """The last 4 kB of the model's log."""
    progress: float | None = None
    """0-1, read from the log where the model prints it."""
    step: str | None = None
    """The word beside the progress, if any."""
    metrics: Mapping[str, Json] = field(default_factory=dict)
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    engine: str | None = None
    """What made it, where the provider says: a model version, or our engine's name."""
    data_removed: bool = False
    """True when the provider has already deleted input and output."""
    callback_url: str | None = None
    """The callback URL that the provider echoes, where it does."""
    raw: bytes = field(default=b"", repr=False)
    """The body that this was read from, as received: what the inbox stores."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a verified callback proves. `message_id` is the provider's id of it, to deduplicate by."""

    message_id: str | None


@dataclass(frozen=True, slots=True)
class DownloadRules:
    """How outputs of this provider may be fetched."""

    hosts: tuple[str, ...]
    """Allowed hosts: `example.com` or `*.example.com`. Empty: any public host."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent only over https (or to `plain_http`), only to `hosts`; dropped when a redirect leaves the host."""
    plain_http: tuple[str, ...] = ()
    """`host:port` pairs that may be spoken to without TLS and without the address guard."""


class Provider(Protocol):
    """One provider. Errors: the methods raise only what they name, and `ProviderBadResponse`."""

    name: str
    """`replicate` or `cog`: the word in routes, rows and metrics."""
    can_poll: bool
    """Whether `get` and `find` can answer at all."""
    signs_callbacks: bool
    """Whether `verify` proves who sent a callback; otherwise the token in its URL is the only proof."""

    async def prepare(self) -> None:
        """Learn what `verify` needs and was not given. Raises ProviderUnavailable: try again later."""
        ...

    async def create(self, order: Order) -> Prediction:
        """Ask for one. Raises ProviderBusy, ProviderUnavailable (see `ambiguous`), ProviderRejected."""
        ...

    async def get(self, prediction_id: str) -> Prediction:
        """Read one. Raises PredictionUnknown (gone, or it cannot be asked for), ProviderUnavailable."""
        ...

    async def find(self, attempt_id: str, *, since: datetime) -> Prediction | None:
        """The prediction whose callback URL names this attempt, created after `since`; None if there is none.

        Never returns somebody else's: the attempt id must stand in the echoed callback URL's path.
        Raises PredictionUnknown where the provider cannot be asked, ProviderUnavailable.
        """
        ...

    async def cancel(self, prediction_id: str) -> None:
        """Ask it to stop. Unknown or ended already is not an error. Raises ProviderUnavailable."""
        ...

    async def health(self) -> Health:
        """How it is, within a few seconds. Never raises."""
        ...

    def verify(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Proof:
        """Prove that a callback is the provider's. Raises Unauthenticated; for unsigned providers never.
        Raises ProviderUnavailable while the provider's secret has not been fetched yet.

        `headers` has lower-case names. A header that came twice arrives joined by a comma and is refused.
        """
        ...

    def parse(self, body: bytes) -> Prediction:
        """Understand a callback's or a poll's body. Raises ProviderBadResponse with the raw body."""
        ...

    def download_rules(self) -> DownloadRules: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Health:
    """`ready` takes work, `busy` would later, `starting` is not up yet, `down` needs someone."""

    state: str
    detail: str = ""


LARGE_BYTES = 256 * 1024
"""Bodies from here on are parsed in a thread: they would hold the event loop for milliseconds."""


MOST_VALUES = 2_000_000
"""Lists, objects and members in a body: each takes about 100 bytes of memory once it is read. A 30 MB log
full of progress bars has a million commas; 100 MB of `[[],[],…` would take gigabytes."""


async def understand(provider: Provider, body: bytes) -> Prediction:
    """Parse a body of any size without holding the event loop. Raises ProviderBadResponse."""
    if len(body) < LARGE_BYTES:
        return provider.parse(body)
    return await asyncio.to_thread(_parse_large, provider, body)


def _parse_large(provider: Provider, body: bytes) -> Prediction:
    if sum(body.count(mark) for mark in (b"[", b"{", b",")) > MOST_VALUES:
        raise ProviderBadResponse(f"a body of more than {MOST_VALUES} values", raw=body[:1000])
    return provider.parse(body)
