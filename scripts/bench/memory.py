"""Resident memory per waiting job: 100,000 queued jobs in a service, and waiters on a job's end.

The service is one process on SQLite whose only provider is away, so that every job waits. The rows are
written by another process, in bulk; the service finds them by its sweeps. Memory is the resident size of
the service's process before and after, once it stands still, divided by their number. Waiters are
coroutines in `Jobs.wait`, one a job, and `GET /v1/jobs/ID?wait=60` over a connection each.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from fill import fill
from ground import Figure, await_file, end, migrate, run_bench


def measure(quick: bool) -> list[Figure]:
    jobs, waiters, connections = (20_000, 5_000, 500) if quick else (100_000, 20_000, 2_000)
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        folder = Path(name)
        url = f"sqlite+aiosqlite:///{folder}/bench.db"
        asyncio.run(migrate(url))
        environment = {**os.environ, "MAX_QUEUED_JOBS": "1000000", "SWEEP_INTERVAL_S": "0.2"}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, "--serve", name, "--url", url],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment,
                start_new_session=True,
            )  # fmt: skip
        try:
            port = await_file(folder / "ready", process, folder / "log")["port"]
            return asyncio.run(_figures(process, url, port, jobs, waiters, connections))
        finally:
            end(process, kill=True)


async def _figures(
    process: subprocess.Popen[bytes], url: str, port: int, jobs: int, waiters: int, connections: int
) -> list[Figure]:
    resident = psutil.Process(process.pid).memory_info
    # What a first use loads is not the jobs': it happens before the count.
    ids = await fill(url, 2_000, state="queued")
    _ask(process, {"waiters": ids[:500]})
    _ask(process, {"waiters": []})
    await _still(resident)
    before = await _still(resident)
    ids = await fill(url, jobs, state="queued")
    after = await _still(resident)
    figures = [_figure(f"resident, {jobs:,} queued jobs", before, after, jobs, 8, 3)]
    before = await _still(resident)
    _ask(process, {"waiters": ids[:waiters]})
    after = await _still(resident)
    figures.append(
        _figure(f"resident, {waiters:,} waiters in the process", before, after, waiters, None, None)
    )
    _ask(process, {"waiters": []})
    before = await _still(resident)
    held = [await _wait_over_http(port, job_id) for job_id in ids[:connections]]
    after = await _still(resident)
    figures.append(_figure(f"resident, {connections:,} GET ?wait=60", before, after, connections, None, None))
    for writer in held:
        writer.close()
    return figures


def _figure(name: str, before: int, after: int, count: int, floor: float | None, aim: float | None) -> Figure:
    note = f"{before / 1e6:.0f} to {after / 1e6:.0f} MB"
    return Figure(9, name, (after - before) / count / 1000, "kB", "", None, None, floor, aim,
                  is_low_good=True, judged="ours", note=note)  # fmt: skip


async def _still(resident: Any) -> int:
    """The resident size once it has not grown by more than 0.5 MB for 3 s, or after 40 s."""
    last, since, until = int(resident().rss), time.monotonic(), time.monotonic() + 40
    while time.monotonic() < min(since + 3, until):
        await asyncio.sleep(0.25)
        now = int(resident().rss)
        if abs(now - last) > 500_000:
            last, since = now, time.monotonic()
    return int(resident().rss)


def _ask(process: subprocess.Popen[bytes], message: Any) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()
    process.stdout.readline()


async def _wait_over_http(port: int, job_id: str) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /v1/jobs/{job_id}?wait=60 HTTP/1.1\r\nhost: bench\r\n\r\n".encode())
    return writer


async def _serve(folder: str, url: str) -> None:
    """The child: the whole service, told on stdin which jobs to wait for."""
    from app.logs import configure_logs
    from app.serve import running_service
    from app.settings import load_settings

    configure_logs("json", "error")
    settings = load_settings(
        _env_file=None, database_url=url, storage_url=f"file://{folder}/assets", var_dir=folder,
        cog_urls="http://127.0.0.1:9",
    )  # fmt: skip
    stdin = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    tasks: list[asyncio.Task[Any]] = []
    async with running_service(settings) as service:
        Path(folder, "ready").write_text(json.dumps({"port": int(service.url.rsplit(":", 1)[1])}))
        while line := await stdin.readline():
            wanted = json.loads(line)["waiters"]
            if not wanted:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                tasks.clear()
            runtime = service.runtime
            before = runtime.line.notifier.count_subscriptions()
            tasks += [asyncio.create_task(runtime.jobs.wait(job_id, timeout_s=600)) for job_id in wanted]
            while runtime.line.notifier.count_subscriptions() < before + len(wanted):
                await asyncio.sleep(0.01)
            gc.collect()
            sys.stdout.write("done\n")
            sys.stdout.flush()


if __name__ == "__main__":
    if "--serve" in sys.argv:
        import uvloop

        parser = argparse.ArgumentParser()
        parser.add_argument("--serve")
        parser.add_argument("--url")
        given = parser.parse_args()
        uvloop.run(_serve(given.serve, given.url))
    else:
        run_bench(__doc__, measure)
