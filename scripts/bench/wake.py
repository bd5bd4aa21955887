"""How long after a job's end is committed a waiter is awake and holds the row.

From the moment the commit has returned to the moment `Jobs.wait` returns with the ended job, its re-read of
the row included. In one process on SQLite, beside a bare asyncio event; across two processes on PostgreSQL
(LISTEN/NOTIFY), beside a bare NOTIFY from its sending to a bare connection in that other process. Both
processes read the machine's one monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import uvloop
from ground import Figure, Skipped, durable_postgres, median, migrate, p99, run_bench, skipped

from app.jobs import JobRequest
from app.settings import load_settings
from app.wiring import Runtime, open_runtime
from db.jobs import find_job
from db.session import dsn_of
from db.states import JobState

CHANNEL = "bench_bare"


def measure(quick: bool) -> list[Figure]:
    count = 200 if quick else 1000
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
        lone, crowd, bare = uvloop.run(_one_process(folder, count))
    note = f"n={len(lone)}; each of 100 waiters on one job: p99 {p99(crowd):.2f} ms"
    figures = [*_figures("one process", lone, "bare event", bare, (10, 3), note)]
    try:
        with durable_postgres() as postgres, tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
            url = postgres.make("bench")
            across, heard = uvloop.run(_two_processes(folder, url, count))
        figures += _figures("across processes", across, "bare NOTIFY", heard, (40, 15), f"n={len(across)}")
    except Skipped as exc:
        figures.append(skipped(6, "commit to waiter, across processes", str(exc)))
    return figures


def _figures(
    name: str, ours: list[float], anchor: str, bare: list[float], bounds: tuple[float, float], note: str
) -> list[Figure]:
    floor, aim = bounds
    return [
        Figure(6, f"commit to waiter, {name}, p50", median(ours), "ms", anchor, median(bare)),
        Figure(6, f"commit to waiter, {name}, p99", p99(ours), "ms", anchor, p99(bare), None, floor, aim,
               is_low_good=True, judged="ours", note=note),
    ]  # fmt: skip


@asynccontextmanager
async def _runtime(folder: str, url: str) -> AsyncIterator[Runtime]:
    settings = load_settings(
        _env_file=None, database_url=url, storage_url=f"file://{folder}/assets", var_dir=folder,
        cog_urls="http://127.0.0.1:9", max_queued_jobs=1_000_000,
    )  # fmt: skip
    async with open_runtime(settings) as runtime:
        yield runtime


async def _one_process(folder: str, count: int) -> tuple[list[float], list[float], list[float]]:
    url = f"sqlite+aiosqlite:///{folder}/bench.db"
    await migrate(url)
    bare = [await _bare_event() for _ in range(count)]
    async with _runtime(folder, url) as runtime:
        await _one_round(runtime, 1)
        lone = [value for _ in range(count) for value in await _one_round(runtime, 1)]
        crowd = [value for _ in range(count // 20) for value in await _one_round(runtime, 100)]
    return lone, crowd, bare


async def _one_round(runtime: Runtime, waiters: int) -> list[float]:
    """Milliseconds from the commit to each waiter's return."""
    view = await runtime.jobs.submit(JobRequest("speech", {"text": "hello"}, {}))
    tasks = [asyncio.create_task(_awake_at(runtime, view.job.id)) for _ in range(waiters)]
    while runtime.line.notifier.count_subscriptions() < waiters:
        await asyncio.sleep(0)
    # Every waiter has read the row once and sleeps on its hint by now.
    await asyncio.sleep(0.005)
    committed_at = await _end(runtime, view.job.id)
    return [(awake_at - committed_at) / 1e6 for awake_at in await asyncio.gather(*tasks)]


async def _end(runtime: Runtime, job_id: str) -> int:
    """End a job; the monotonic nanosecond at which its commit had returned."""
    committed_at = 0

    def note() -> None:
        nonlocal committed_at
        committed_at = time.monotonic_ns()

    async with runtime.line.database.transaction() as tx:
        job = await find_job(tx, job_id)
        assert job is not None
        tx.after_commit(note)
        await runtime.line.end_job(tx, job, JobState.CANCELED, now=datetime.now(UTC))
    return committed_at or time.monotonic_ns()


async def _awake_at(runtime: Runtime, job_id: str) -> int:
    view = await runtime.jobs.wait(job_id, timeout_s=30)
    assert view.is_ended
    return time.monotonic_ns()


async def _bare_event() -> float:
    event = asyncio.Event()

    async def wait() -> int:
        await event.wait()
        return time.monotonic_ns()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    set_at = time.monotonic_ns()
    event.set()
    return (await task - set_at) / 1e6


# --- Two processes ------------------------------------------------------------------------------------------


async def _two_processes(folder: str, url: str, count: int) -> tuple[list[float], list[float]]:
    """The other process waits for what it is told on stdin and says on stdout when it was awake."""
    import asyncpg

    waiter = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--wait", folder, "--url", url,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    across, heard = [], []
    try:
        assert await _said(waiter) == "up"
        connection = await asyncpg.connect(dsn_of(url))
        async with _runtime(folder, url) as runtime:
            for number in range(count):
                view = await runtime.jobs.submit(JobRequest("speech", {"text": "hello"}, {}))
                await _tell(waiter, {"job": view.job.id})
                assert await _said(waiter) == "waiting"
                await asyncio.sleep(0.005)
                committed_at = await _end(runtime, view.job.id)
                across.append((await _said(waiter) - committed_at) / 1e6)
                notified_at = time.monotonic_ns()
                await connection.execute(f"NOTIFY {CHANNEL}, '{number}'")
                heard.append((await _said(waiter) - notified_at) / 1e6)
        await connection.close()
    finally:
        waiter.kill()
        await waiter.wait()
    return across[1:], heard[1:]


async def _tell(process: asyncio.subprocess.Process, message: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    await process.stdin.drain()


async def _said(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return json.loads(await process.stdout.readline())


async def _waiter(folder: str, url: str) -> None:
    """The other process."""
    import asyncpg

    def say(value: object) -> None:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    connection = await asyncpg.connect(dsn_of(url))
    await connection.add_listener(CHANNEL, lambda *_: say(time.monotonic_ns()))
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with _runtime(folder, url) as runtime:
        say("up")
        while line := await stdin.readline():
            task = asyncio.create_task(_awake_at(runtime, json.loads(line)["job"]))
            while not runtime.line.notifier.count_subscriptions():
                await asyncio.sleep(0)
            say("waiting")
            say(await task)


if __name__ == "__main__":
    if "--wait" in sys.argv:
        from app.logs import configure_logs

        configure_logs("console", "error")
        parser = argparse.ArgumentParser()
        parser.add_argument("--wait")
        parser.add_argument("--url")
        given = parser.parse_args()
        uvloop.run(_waiter(given.wait, given.url))
    else:
        run_bench(__doc__, measure)
