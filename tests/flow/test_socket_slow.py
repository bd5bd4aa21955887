"""One reader that does not read: bounded, thinned out, closed with a word; and nobody else waits for it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import websockets
from sqlalchemy import update
from sqlmodel import col

from app.main import Front
from app.web.socket.jobs.subscriptions import FanoutLimits
from app.web.socket.library import MOST_WAITING
from app.web.socket.server import Sockets
from db.events import append_event
from db.jobs import find_job
from db.tables import Job
from tests.conftest import becomes
from tests.flow.conftest import Stage
from tests.flow.sockets import LIMIT_S, listening_to, served
from tests.flow.test_socket_jobs import told

LONG = "x" * 3000
"""A stage's name that fills a line soon."""


def sockets_of(app: Front, **limits: Any) -> Sockets:
    sockets: Sockets = app.api.state.sockets
    if limits:
        sockets.library.namespace_handlers["/jobs"]._limits = FanoutLimits(**limits)
    return sockets


@asynccontextmanager
async def reader(url: str) -> AsyncIterator[websockets.ClientConnection]:
    """A subscriber with a small window that reads no more than it is asked to."""
    address = urlsplit(url)
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.setblocking(False)
    await asyncio.get_running_loop().sock_connect(line, (str(address.hostname), address.port))
    client = await websockets.connect(
        f"ws://{address.netloc}/socket.io/?EIO=4&transport=websocket",
        sock=line, compression=None, max_queue=1, ping_interval=None, open_timeout=30, close_timeout=1,
    )  # fmt: skip
    await client.recv()
    await client.send("40/jobs,")
    await client.recv()
    await client.send('42/jobs,["subscribe_to_jobs",{}]')
    assert json.loads(str(await client.recv()).removeprefix("42/jobs,"))[0] == "subscribed"
    try:
        yield client
    finally:
        client.transport.abort()


async def progress(stage: Stage, job_id: str, times: int) -> None:
    """Much news at once, in one transaction each hundred."""
    for _ in range(times // 100):
        async with stage.runtime.line.database.transaction() as tx:
            for _ in range(100):
                await tx.execute(update(Job).where(col(Job.id) == job_id).values(seq=col(Job.seq) + 1))
                at = datetime.now(UTC)
                await append_event(tx, job_id, "job.progress", at=at, status="running", stage=LONG)
            job = await find_job(tx, job_id)
            assert job is not None
            stage.runtime.line.hint_job(tx, job)


async def test_a_reader_that_takes_nothing_is_closed_and_nobody_waits_for_it(sqlite_line: Stage) -> None:
    """Fault 64: a zero window. What waits is bounded, the others hear everything, the line is cut."""
    async with served(sqlite_line.runtime) as (url, app):
        sockets = sockets_of(app, stall_s=3.0, look_s=0.2)
        async with reader(url), listening_to(url) as fast:
            await fast.ask("subscribe_to_jobs", {})
            job_id = await sqlite_line.ask()
            for _ in range(5):
                await progress(sqlite_line, job_id, 200)
            await sqlite_line.client.post(f"/v1/jobs/{job_id}/cancel")
            await fast.wait_for("job_cancelled")
            assert told(fast) == await feed_of(sqlite_line)
            waiting = [each.queue.qsize() for each in sockets.library.eio.sockets.values()]
            assert max(waiting, default=0) <= MOST_WAITING
            await becomes(lambda: sockets.count == 1, within_s=LIMIT_S)
            closed = sqlite_line.runtime.line.metrics.render().decode()
            assert 'reprise_sockets_closed_total{reason="too_slow"} 1.0' in closed
            other = await sqlite_line.ask("after it")
            await fast.until(lambda: told(fast)[-1][1] == other)


async def test_a_reader_that_was_slow_gets_every_end_and_the_newest_progress(sqlite_line: Stage) -> None:
    """Fault 64: progress is coalesced for who is behind; everything else is told, in order."""
    async with served(sqlite_line.runtime) as (url, app):
        sockets_of(app, look_s=0.2, slow_s=0.2, stall_s=600, kept=100)
        async with reader(url) as slow, listening_to(url) as fast:
            await fast.ask("subscribe_to_jobs", {})
            jobs = []
            for number in range(5):
                jobs.append(await sqlite_line.ask(f"job {number}"))
                await progress(sqlite_line, jobs[-1], 200)
                await sqlite_line.client.post(f"/v1/jobs/{jobs[-1]}/cancel")
            await fast.wait_for("job_cancelled", 5)
            heard: list[tuple[str, dict[str, Any]]] = []
            async with asyncio.timeout(LIMIT_S):
                while [event for event, _ in heard].count("job_cancelled") < 5:
                    text = str(await slow.recv())
                    if text.startswith("42/jobs,"):
                        heard.append(tuple(json.loads(text.removeprefix("42/jobs,"))))
            seqs = [payload["seq"] for _, payload in heard]
            assert seqs == sorted(set(seqs))
            for event in ("job_created", "job_cancelled"):
                assert [each["job_id"] for name, each in heard if name == event] == jobs
            assert len(heard) < len(told(fast)) == 5 * 202
            assert (
                "reprise_socket_coalesced_total 0.0" not in sqlite_line.runtime.line.metrics.render().decode()
            )


async def feed_of(stage: Stage) -> list[tuple[int, str]]:
    """The whole feed, over pages."""
    items: list[tuple[int, str]] = []
    while True:
        after = {"after": items[-1][0]} if items else {}
        page = (await stage.client.get("/v1/events", params={"limit": 500, **after})).json()
        items += [(item["position"], item["job_id"]) for item in page["items"]]
        if not page["has_more"]:
            return items
