"""Events over Socket.IO: from commit to subscriber with a slow one beside, and the memory of 10,000 sockets.

The service is one process on SQLite, its clients are another. 200 jobs get on at once, each every two
seconds, and are canceled in the end; 100 clients subscribe to all of it. An event's time runs from the return
of its commit in the service to the frame at the client, on the machine's one clock. Then the same with a
client beside that reads nothing. Last, 10,000 clients connect and subscribe, and nothing happens: the
resident memory of the service's process, before and after, divided by their number.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import uvloop
from ground import Figure, await_file, end, migrate, run_bench

CONNECT = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\n"
    b"connection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
JOB_SEQ = re.compile(rb'"job_id":"(\w+)".*"job_seq":(\d+)')
EVERY_S = 2.0


def measure(quick: bool) -> list[Figure]:
    jobs, clients, seconds, sockets = (50, 25, 6, 1_000) if quick else (200, 100, 20, 10_000)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sockets = min(sockets, most - 500)
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        folder = Path(name)
        url = f"sqlite+aiosqlite:///{folder}/bench.db"
        asyncio.run(migrate(url))
        environment = {**os.environ, "SOCKET_CONNECTIONS_PER_CALLER": "100000", "MAX_QUEUED_JOBS": "100000"}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, "--serve", name, "--url", url],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment,
                start_new_session=True,
            )  # fmt: skip
        try:
            port = await_file(folder / "ready", process, folder / "log")["port"]
            return uvloop.run(_figures(process, port, jobs, clients, seconds, sockets))
        except Exception:
            print((folder / "log").read_text(errors="replace")[-2000:], file=sys.stderr)
            raise
        finally:
            end(process, kill=True)


async def _figures(
    process: subprocess.Popen[bytes],
    port: int,
    jobs: int,
    clients: int,
    seconds: float,
    sockets: int,
) -> list[Figure]:
    alone, count = await _round(process, port, jobs, clients, seconds, is_slow_beside=False)
    beside, _ = await _round(process, port, jobs, clients, seconds, is_slow_beside=True)
    what = f"commit to event, {jobs} jobs at once, {clients} subscribers"
    note = f"{count:,} events told"
    figures = [
        Figure(13, f"{what}, p50", _at(alone, 0.5), "ms", note=note),
        Figure(13, f"{what}, p99", _at(alone, 0.99), "ms", note=note),
        Figure(13, "the same beside one that reads nothing, p99", _at(beside, 0.99), "ms", "without it",
               _at(alone, 0.99), _at(beside, 0.99) / _at(alone, 0.99)),
    ]  # fmt: skip
    before = await _still(process.pid)
    began = time.monotonic()
    lines = await _connect(port, sockets)
    took_s = time.monotonic() - began
    after = await _still(process.pid)
    figures.append(
        Figure(13, f"resident, {sockets:,} subscribed sockets", (after - before) / sockets / 1000, "kB each",
               note=f"{before / 1e6:.0f} to {after / 1e6:.0f} MB; {sockets / took_s:.0f} connected a second")
    )  # fmt: skip
    for line in lines:
        line.close()
    return figures


async def _round(
    process: subprocess.Popen[bytes],
    port: int,
    jobs: int,
    clients: int,
    seconds: float,
    *,
    is_slow_beside: bool,
) -> tuple[list[float], int]:
    """Times from commit to each client in ms, and how many. Raises RuntimeError where one was missed."""
    lines = await _connect(port, clients)
    slow = (await _connect(port, 1, is_slow=True)) if is_slow_beside else []
    said = await asyncio.to_thread(_ask, process, {"jobs": jobs, "seconds": seconds})
    committed = {(job, seq): at for job, seq, at in said["committed"]}
    until = time.monotonic() + 60
    while time.monotonic() < until and any(
        len(committed.keys() & line.heard.keys()) < len(committed) for line in lines
    ):
        await asyncio.sleep(0.2)
    for line in (*lines, *slow):
        line.close()
    if any(committed.keys() - line.heard.keys() or line.doubled for line in lines):
        raise RuntimeError("an event was missed or doubled")
    times = [1000 * (line.heard[key] - at) for line in lines for key, at in committed.items()]
    return times, len(times)


def _at(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


class Line(asyncio.Protocol):
    """A client of the least cost: it subscribes, answers pings, and notes when which event came."""

    def __init__(self, *, is_slow: bool) -> None:
        self.heard: dict[tuple[str, int], float] = {}
        self.doubled = 0
        self.subscribed = asyncio.get_running_loop().create_future()
        self._is_slow = is_slow
        self._rest = b""
        self._is_open = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(CONNECT)

    def close(self) -> None:
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.subscribed.done():
            self.subscribed.set_exception(exc or ConnectionError("closed"))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self._rest += data
        if not self._is_open:
            head, found, self._rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            self._is_open = True
        while (frame := self._next()) is not None:
            self._take(frame, now)

    def _next(self) -> bytes | None:
        rest = self._rest
        if len(rest) < 2:
            return None
        size, at = rest[1], 2
        if size == 126:
            size, at = int.from_bytes(rest[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(rest[2:10], "big"), 10
        if len(rest) < at + size:
            return None
        self._rest = rest[at + size :]
        return rest[at : at + size]

    def _take(self, frame: bytes, now: float) -> None:
        if frame[:1] == b"0":
            self._send(b"40/jobs,")
        elif frame == b"2":
            self._send(b"3")
        elif frame.startswith(b"40"):
            self._send(b'42/jobs,["subscribe_to_jobs",{}]')
        elif frame.startswith(b'42/jobs,["subscribed"'):
            self.subscribed.set_result(None)
            if self._is_slow:
                self.transport.pause_reading()
        elif found := JOB_SEQ.search(frame):
            key = (found[1].decode(), int(found[2]))
            self.doubled += key in self.heard
            self.heard[key] = now

    def _send(self, text: bytes) -> None:
        # A mask of zeros is a mask.
        self.transport.write(bytes((0x81, 0x80 | len(text))) + b"\0\0\0\0" + text)


async def _connect(port: int, count: int, *, is_slow: bool = False) -> list[Line]:
    """Clients that have subscribed, fifty at a time."""
    loop, lines = asyncio.get_running_loop(), []
    for at in range(0, count, 50):
        some = []
        for _ in range(min(50, count - at)):
            raw = socket.socket()
            if is_slow:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setblocking(False)
            await loop.sock_connect(raw, ("127.0.0.1", port))
            _, line = await loop.create_connection(lambda: Line(is_slow=is_slow), sock=raw)
            some.append(line)
        async with asyncio.timeout(120):
            await asyncio.gather(*(line.subscribed for line in some))
        lines += some
    return lines


async def _still(pid: int) -> int:
    """The resident size once it has not grown by more than 0.5 MB for 3 s, or after 40 s."""
    resident = psutil.Process(pid).memory_info
    last, since, until = int(resident().rss), time.monotonic(), time.monotonic() + 40
    while time.monotonic() < min(since + 3, until):
        await asyncio.sleep(0.25)
        now = int(resident().rss)
        if abs(now - last) > 500_000:
            last, since = now, time.monotonic()
    return int(resident().rss)


def _ask(process: subprocess.Popen[bytes], message: Any) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


async def _serve(folder: str, url: str) -> None:
    """The child: the whole service, told on stdin to let jobs get on."""
    from app.logs import configure_logs
    from app.serve import running_service
    from app.settings import load_settings

    configure_logs("json", "error")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    settings = load_settings(
        _env_file=None, database_url=url, storage_url=f"file://{folder}/assets", var_dir=folder,
        cog_urls="http://127.0.0.1:9", db_pool_timeout=60,
    )  # fmt: skip
    stdin = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with running_service(settings) as service:
        Path(folder, "ready").write_text(json.dumps({"port": int(service.url.rsplit(":", 1)[1])}))
        while line := await stdin.readline():
            asked = json.loads(line)
            committed = await _get_on(service.runtime, asked["jobs"], asked["seconds"])
            gc.collect()
            sys.stdout.write(json.dumps({"committed": committed}) + "\n")
            sys.stdout.flush()


async def _get_on(runtime: Any, jobs: int, seconds: float) -> list[tuple[str, int, float]]:
    """Let so many jobs get on at once; job, number and time of commit of each event."""
    from sqlalchemy import update
    from sqlmodel import col

    from app.jobs import JobRequest
    from db.events import append_event
    from db.jobs import find_job
    from db.tables import Job

    committed: list[tuple[str, int, float]] = []
    asked = JobRequest("sound_effect", {"prompt": "rain"}, {})
    ids = [view.job.id for view in await asyncio.gather(*(runtime.jobs.submit(asked) for _ in range(jobs)))]

    async def step(job_id: str, number: int) -> None:
        async with runtime.line.database.transaction() as tx:
            await tx.execute(update(Job).where(col(Job.id) == job_id).values(seq=col(Job.seq) + 1))
            at = datetime.now(UTC)
            await append_event(tx, job_id, "job.progress", at=at, status="running", progress=number / 100)
            job = await find_job(tx, job_id)
            runtime.line.hint_job(tx, job)
        committed.append((job_id, job.seq, time.monotonic()))

    async def run(job_id: str, place: int) -> None:
        await asyncio.sleep(EVERY_S * place / jobs)
        for number in range(int(seconds / EVERY_S)):
            await step(job_id, number)
            await asyncio.sleep(EVERY_S)
        await runtime.jobs.cancel(job_id)

    await asyncio.gather(*(run(job_id, place) for place, job_id in enumerate(ids)))
    return committed


if __name__ == "__main__":
    if "--serve" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--serve")
        parser.add_argument("--url")
        given = parser.parse_args()
        uvloop.run(_serve(given.serve, given.url))
    else:
        run_bench(__doc__, measure)
