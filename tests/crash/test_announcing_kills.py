"""SIGKILL around an announcement: it is sent, or sent again under the same id, and never lost."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from app.crash_points import CrashPoint
from tests.conftest import TEMPLATE, PostgresServer
from tests.crash.child import END_LIMIT_S, Child, until
from tests.fakes.provider import SECRET, TOKEN, FakeReplicate, served
from tests.flow.receiver import Receiver, listening

pytestmark = pytest.mark.real


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    if request.param == "sqlite":
        yield {}
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"crash_{secrets.token_hex(6)}"
    server.create(name, TEMPLATE)
    # The dead process's lease is waited for there: a second of a try, and the margin beside it.
    yield {"DATABASE_URL": server.url(name), "ANNOUNCE_TIMEOUT_S": "1"}
    server.drop(name)


@pytest.fixture
async def child(tmp_path: Path, place: dict[str, str]) -> AsyncIterator[Child]:
    async with served(FakeReplicate()) as url:
        child = Child(
            tmp_path,
            REPLICATE_API_TOKEN=TOKEN,
            REPLICATE_BASE_URL=url,
            REPLICATE_WEBHOOK_SECRET=SECRET,
            OUTBOUND_ALLOW="127.0.0.1",
            **place,
        )
        yield child
        await child.aclose()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening(Receiver()) as it:
        yield it


AT_LEAST = {
    CrashPoint.ANNOUNCEMENT_CLAIMED: (0, 1),
    CrashPoint.ANNOUNCEMENT_SENT: (1, 2),
    CrashPoint.ANNOUNCEMENT_NOTED: (1, 1),
}
"""Posts before the kill, and in the end."""


@pytest.mark.parametrize("point", AT_LEAST)
async def test_an_announcement_outlives_a_kill_at(
    child: Child, receiver: Receiver, point: CrashPoint
) -> None:
    """Fault 52."""
    before, after = AT_LEAST[point]
    await child.start()
    child.arm(point)
    asked: dict[str, Any] = {
        "kind": "sound_effect",
        "input": {"prompt": "rain"},
        "callback_url": receiver.url(),
    }
    job_id = await child.submit(asked)
    await asyncio.gather(canceled(child, job_id), child.dies())
    assert len(receiver.posts) == before
    await child.start()
    await until(lambda: len(receiver.posts) >= after, END_LIMIT_S)
    assert {post.headers["webhook-id"] for post in receiver.posts} == {await delivered(child)}
    assert len({post.body for post in receiver.posts}) == 1
    items = (await child.client.get("/v1/webhook-secrets")).json()["items"]
    for post in receiver.posts:
        assert Webhook(items[0]["secret"]).verify(post.body, post.headers)["data"]["id"] == job_id
    assert len(receiver.posts) == after


async def canceled(child: Child, job_id: str) -> None:
    """Cancel it. The announcement follows the commit at once: death may come before the answer is out."""
    with suppress(httpx.TransportError):
        assert (await child.client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200


async def delivered(child: Child) -> str:
    """The id of the one announcement, once it says that it was delivered."""
    async with asyncio.timeout(END_LIMIT_S):
        while True:
            (found,) = (await child.client.get("/v1/announcements")).json()["items"]
            if found["state"] == "delivered":
                return str(found["id"])
            await asyncio.sleep(0.02)
