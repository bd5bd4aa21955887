"""Telling the caller: a signed announcement of every end until it is taken; no byte to where none may go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from app.outbound import Outbound
from tests.flow.conftest import TONE, OpenStage, Stage
from tests.flow.receiver import Receiver, listening


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening(Receiver()) as it:
        yield it


@pytest.fixture
def telling(stage_on: OpenStage) -> Any:
    """Opens a stage whose callers may be on this machine."""

    def opened(**settings: Any) -> Any:
        door = Outbound(allow=("127.0.0.1",), idle_timeout_s=60, connect_timeout_s=30)
        return stage_on(ports={"outbound": door}, **settings)

    return opened


async def canceled(line: Stage, url: str, **body: Any) -> str:
    """A job that has ended, and was announced as far as that goes by itself; its id."""
    job_id = await line.ask(callback_url=url, **body)
    reply = await line.client.post(f"/v1/jobs/{job_id}/cancel")
    assert reply.status_code == 200, reply.text
    await line.drain()
    return job_id


async def told(line: Stage, **wanted: str) -> list[dict[str, Any]]:
    """Announcements, oldest first."""
    reply = await line.client.get("/v1/announcements", params={"limit": "200", **wanted})
    assert reply.status_code == 200, reply.text
    return list(reply.json()["items"][::-1])


async def detail(line: Stage, announcement_id: str) -> dict[str, Any]:
    return dict((await line.client.get(f"/v1/announcements/{announcement_id}")).json())


async def secrets(line: Stage) -> list[str]:
    items = (await line.client.get("/v1/webhook-secrets")).json()["items"]
    return [str(item["secret"]) for item in items]


# ── the main path ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_jobs_end_is_announced_signed(telling: Any, receiver: Receiver) -> None:
    async with telling() as line:
        job_id = await line.ask(callback_url=receiver.url("/hook?team=a"), metadata={"order": 7})
        await line.drain()
        await line.fake.finish(line.fake.live()[0], output=TONE)
        await line.drain()
        assert await line.state(job_id) == "succeeded"
        (post,) = receiver.posts
        (secret,) = await secrets(line)
        assert Webhook(secret).verify(post.body, post.headers) == post.said
        assert post.path == "/hook?team=a"
        assert post.said["type"] == "job.succeeded"
        job = await line.read(job_id)
        data = post.said["data"]
        assert (data["id"], data["kind"], data["state"], data["error"], data["metadata"]) == (
            job_id, "sound_effect", "succeeded", None, {"order": 7},
        )  # fmt: skip
        assert datetime.fromisoformat(data["finished_at"]) == datetime.fromisoformat(job["finished_at"])
        assert len(post.body) < 20_000
        (announcement,) = await told(line, job_id=job_id)
        assert announcement["id"] == post.headers["webhook-id"]
        assert (announcement["state"], announcement["attempts"], announcement["error"]) == (
            "delivered",
            1,
            None,
        )
        assert abs(int(post.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 600
        assert post.headers["content-type"] == "application/json"
