"""Clips a second, hook to stored: two workers on two cores beside one on one, PostgreSQL and SQLite.

The webhooks of N jobs are stored; the workers start, fetch each 10 s mp3 from a file server on this
machine, trim, measure and store it, and commit its end. "One core" means that everything is on it, the
database and the file server too; "two cores" that everything is on two. The rate is that between the first
and the last tenth. SQLite has one process: there it is one `serve` whose stations may use one core or two.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import psutil
from ground import (
    Figure,
    Postgres,
    Skipped,
    cores,
    durable_postgres,
    median,
    migrate,
    pin,
    run_bench,
    skipped,
    two_cores,
)  # fmt: skip
from machines import await_ended, clip_server, machines, make_waiting, steady_rate


def measure(quick: bool) -> list[Figure]:
    two_cores()
    count, rounds = (40, 1) if quick else (100, 3)
    figures: list[Figure] = []
    with clip_server() as (files, port):
        try:
            with durable_postgres() as postgres:
                rates: dict[int, list[float]] = {1: [], 2: []}
                for turn in range(rounds):
                    for workers, kept in rates.items():
                        url = postgres.make(f"bench_{turn}_{workers}")
                        kept.append(_postgres_run(postgres, url, files.pid, port, count * workers, workers))
                figures.append(_scaled("clips, PostgreSQL, two workers", rates))
        except Skipped as exc:
            figures.append(skipped(4, "clips, PostgreSQL, two workers", str(exc)))
        rates = {1: [], 2: []}
        costs: list[float] = []
        for _ in range(rounds):
            for width, kept in rates.items():
                rate, cpu_s = _sqlite_run(files.pid, port, count * width, width)
                kept.append(rate)
                costs.append(1000 * cpu_s)
    figures.append(_scaled("clips, SQLite, one process", rates))
    figures.append(
        Figure(
            3, "CPU of the whole service per clip", median(costs), "ms", note="process tree, hook to stored"
        )
    )
    return figures


def _scaled(name: str, rates: dict[int, list[float]]) -> Figure:
    one, two = median(rates[1]), median(rates[2])
    return Figure(4, name, two, "/s", "one core", one, two / one, 1.7, 1.9)


def _postgres_run(postgres: Postgres, url: str, files_pid: int, port: int, count: int, workers: int) -> float:
    wanted = cores()[:workers]
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        folder = Path(name)
        asyncio.run(make_waiting(url, folder, count, port, received=True))
        pin(set(wanted), postgres.pid, files_pid)
        with machines(folder, url, port) as made:
            for _ in range(workers):
                worker = made.start("worker", "--stations", "apply,finish")
                pin(set(wanted), worker.pid)
            return steady_rate(asyncio.run(await_ended(url, count))["succeeded"])


def _sqlite_run(files_pid: int, port: int, count: int, width: int) -> tuple[float, float]:
    """Clips a second, and CPU seconds a clip of the service with all it started."""
    wanted = set(cores()[:width])
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        folder = Path(name)
        url = f"sqlite+aiosqlite:///{folder}/bench.db"
        asyncio.run(migrate(url))
        asyncio.run(make_waiting(url, folder, count, port, received=True))
        pin(wanted, files_pid)
        with machines(folder, url, port) as made:
            service = made.start("serve", "--port", "0", "--no-gpu-worker")
            pin(wanted, service.pid)
            process = psutil.Process(service.pid)
            # What the start cost is not a clip's; the few that are done by now are nearly all of the error.
            before, at = _cpu_s(process), time.time()
            ends = asyncio.run(await_ended(url, count))["succeeded"]
            cpu_s = _cpu_s(process) - before
            return steady_rate(ends), cpu_s / max(1, sum(end > at for end in ends))


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system + used.children_user + used.children_system)


if __name__ == "__main__":
    run_bench(__doc__, measure)
