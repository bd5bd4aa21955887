"""A source for `reprise listen`: what the service tells its callers, signed as it is sent to them.

A job's end makes its announcement in the same commit; this follows the feed for the one and reads the other.
What is forwarded is the announcement's own body under its own `webhook-id`, signed now by the secrets that
sign now, because signatures are not kept. The service's own tries go on beside it and are not touched.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from app.cli.live.forwards import Forward
from app.cli.live.streaming import follow_stream
from app.cli.tools.calls import Json, call
from app.cli.tools.connection import service_client
from app.provider.signature import WebhookSecrets
from app.settings import Settings

ENDS = frozenset({"job.succeeded", "job.failed", "job.canceled"})


@dataclass(frozen=True, slots=True)
class AnnouncedNews:
    """Announcements, each when it is made. Jobs without a `callback_url` have none."""

    settings: Settings
    events: frozenset[str]

    async def messages(self) -> AsyncIterator[Forward]:
        async with aclosing(follow_stream(self.settings, "/v1/events", {})) as stream:
            async for message in stream:
                if message.name in ENDS and (not self.events or message.name in self.events):
                    for forward in await self._of(message.data["job_id"]):
                        yield forward

    async def _of(self, job_id: str) -> list[Forward]:
        """The announcement of a job that has ended, in a list; an empty one where nobody asked for it."""
        async with service_client(self.settings, stations=False) as client:
            found = await call(client, "GET", "/v1/announcements", params={"job_id": job_id, "limit": 1})
            if not found["items"]:
                return []
            announcement = await call(client, "GET", f"/v1/announcements/{found['items'][0]['id']}")
            secrets = await call(client, "GET", "/v1/webhook-secrets")
        return [_forward_of(announcement, [each["secret"] for each in secrets["items"]])]


async def read_secrets(settings: Settings) -> list[str]:
    """The secrets that sign announcements now, the newest first. Raises CommandError."""
    async with service_client(settings, stations=False) as client:
        return [each["secret"] for each in (await call(client, "GET", "/v1/webhook-secrets"))["items"]]


def _forward_of(announcement: Json, secrets: list[str]) -> Forward:
    body, timestamp_s = announcement["payload"].encode(), int(time.time())
    return Forward(
        id=announcement["id"],
        name=announcement["type"],
        at=datetime.fromisoformat(announcement["created_at"]),
        headers={
            "content-type": "application/json",
            "webhook-id": announcement["id"],
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": WebhookSecrets(secrets).sign(announcement["id"], timestamp_s, body),
        },
        body=body,
        facts={"job_id": announcement["job_id"], "url": announcement["url"]},
    )
