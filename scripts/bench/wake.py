"""How long after a job's end is committed a waiter is awake and holds the row. One process, SQLite.

Measured from the moment the commit has returned to the moment `Jobs.wait` returns with the ended job, its
re-read of the row included; beside it, the same with a hundred waiters on the job, and a bare event for
comparison. Usage: scripts/bench/wake.py [COUNT]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import uvloop

from app.jobs import JobRequest
from app.logs import configure_logs
from app.settings import load_settings
from app.wiring import Runtime, open_runtime
from db.jobs import find_job
from db.states import JobState


async def one_round(runtime: Runtime, waiters: int) -> list[float]:
    """Milliseconds from the commit to each waiter's return."""
    view = await runtime.jobs.submit(JobRequest("speech", {"text": "hello"}, {}))
    tasks = [asyncio.create_task(_awake_at(runtime, view.job.id)) for _ in range(waiters)]
    while runtime.line.notifier.count_subscriptions() < waiters:
        await asyncio.sleep(0)
    # Every waiter has read the row once and sleeps on its hint by now.
    await asyncio.sleep(0.005)
    committed_at = 0.0

    def note() -> None:
        nonlocal committed_at
        committed_at = time.perf_counter()

    async with runtime.line.database.transaction() as tx:
        job = await find_job(tx, view.job.id)
        assert job is not None
        tx.after_commit(note)
        await runtime.line.end_job(tx, job, JobState.CANCELED, now=datetime.now(UTC))
    return [1000 * (awake_at - committed_at) for awake_at in await asyncio.gather(*tasks)]


async def _awake_at(runtime: Runtime, job_id: str) -> float:
    view = await runtime.jobs.wait(job_id, timeout_s=30)
    assert view.is_ended
    return time.perf_counter()


async def bare_event() -> float:
    event = asyncio.Event()

    async def wait() -> float:
        await event.wait()
        return time.perf_counter()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    set_at = time.perf_counter()
    event.set()
    return 1000 * (await task - set_at)


def show(name: str, values: list[float]) -> None:
    values.sort()
    p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
    print(f"{name:34s} n={len(values):6d}  median {statistics.median(values):7.3f} ms  p99 {p99:7.3f} ms")


async def main(count: int) -> None:
    configure_logs("console", "warning")
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(
            _env_file=None,
            database_url=f"sqlite+aiosqlite:///{folder}/bench.db",
            storage_url=f"file://{folder}/assets",
            var_dir=folder,
            cog_urls="http://127.0.0.1:9",
            max_queued_jobs=1_000_000,
        )
        async with open_runtime(settings) as runtime:
            await one_round(runtime, 1)
            lone = [value for _ in range(count) for value in await one_round(runtime, 1)]
            crowd = [value for _ in range(count // 20) for value in await one_round(runtime, 100)]
        show("bare asyncio event", [await bare_event() for _ in range(count)])
        show("one waiter", lone)
        show("each of 100 waiters on one job", crowd)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
