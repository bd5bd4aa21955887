"""Lists: newest first, filtered, in pages that neither skip nor double a job while others come."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.tables import Job
from tests.flow.conftest import Stage


async def listed(line: Stage, **wanted: Any) -> list[str]:
    reply = await line.client.get("/v1/jobs", params=wanted)
    assert reply.status_code == 200, reply.text
    return [job["id"] for job in reply.json()["items"]]


async def test_pages_neither_skip_nor_double_while_jobs_come(line: Stage) -> None:
    """Fault 20."""
    before = [await line.ask(f"rain {number}") for number in range(11)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await line.client.get("/v1/jobs", params=params)).json()
        seen += [job["id"] for job in page["items"]]
        await line.ask("snow")
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == before[::-1]


async def test_a_full_last_page_has_no_next(sqlite_line: Stage) -> None:
    for _ in range(4):
        await sqlite_line.ask()
    first = (await sqlite_line.client.get("/v1/jobs", params={"limit": "2"})).json()
    last = (
        await sqlite_line.client.get("/v1/jobs", params={"limit": "2", "cursor": first["next_cursor"]})
    ).json()
    assert (len(last["items"]), last["next_cursor"]) == (2, None)


async def test_every_filter_narrows_the_list(line: Stage) -> None:
    rain = await line.ask("Rain on 100% tin")
    song = await line.ask(kind="background_music", input={"prompt": "calm piano"})
    said = await line.ask(kind="speech", input={"text": "It rains_again"})
    await line.client.post(f"/v1/jobs/{song}/cancel")
    assert await listed(line) == [said, song, rain]
    assert await listed(line, kind="speech") == [said]
    assert await listed(line, state="canceled") == [song]
    assert await listed(line, state="queued", kind="sound_effect") == [rain]
    assert await listed(line, q="RAIN") == [rain]
    assert await listed(line, q="rain*") == [said, rain]
    assert await listed(line, q="again") == [said]
    assert await listed(line, kind="nothing") == []


async def test_times_bound_the_list(line: Stage) -> None:
    old, new = await line.ask(), await line.ask()
    middle = datetime.now(UTC) - timedelta(hours=1)
    await line.change(Job, old, created_at=middle - timedelta(hours=1))
    assert await listed(line, since=middle.isoformat()) == [new]
    assert await listed(line, until=middle.isoformat()) == [old]
    # The same moment in another zone.
    assert await listed(line, until=middle.astimezone().isoformat()) == [old]
    elsewhere = middle.isoformat().replace("+00:00", "Z")
    assert await listed(line, since=elsewhere) == [new]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "=",
        base64.urlsafe_b64encode(b"job_").decode(),
        base64.urlsafe_b64encode(b"dlv_" + b"0" * 32).decode(),
        base64.urlsafe_b64encode(b"job_" + b"'" * 32).decode(),
        base64.urlsafe_b64encode(b"job_" + b"\x00" * 32).decode(),
        base64.urlsafe_b64encode(b"\xff" * 36).decode(),
        "ä" * 10,
        "a" * 201,
    ],
)
async def test_a_cursor_that_was_not_made_here_is_refused(sqlite_line: Stage, cursor: str) -> None:
    """Fault 20."""
    reply = await sqlite_line.client.get("/v1/jobs", params={"cursor": cursor})
    assert reply.status_code in (400, 422), reply.text
    reply = await sqlite_line.client.get("/v1/deliveries", params={"cursor": cursor})
    assert reply.status_code in (400, 422), reply.text


async def test_the_ledger_pages_like_the_list(line: Stage) -> None:
    for number in range(5):
        body = b'{"status": "starting", "number": %d}' % number
        reply = await line.post("", body, line.fake.signed(f"msg_{number}", body), token="x" * 48)
        assert reply.status_code in (200, 404)
        body += b" "
        reply = await line.post("att_nobody", body, line.fake.signed(f"msg_b{number}", body))
        assert reply.status_code == 200
    await line.drain()
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2", "outcome": "orphaned"} | ({"cursor": cursor} if cursor else {})
        page = (await line.client.get("/v1/deliveries", params=params)).json()
        seen += [item["message_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"msg_b{number}" for number in (4, 3, 2, 1, 0)]
