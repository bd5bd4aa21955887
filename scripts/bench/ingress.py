"""How many signed 2 KB webhooks a second one process stores durably, beside a no-op route of the same
server.

Every webhook is verified, deduplicated by the database and answered after its own commit, which is synced
to the disk; on PostgreSQL its work item is in that commit. One uvicorn process on one core; `wrk` with 64
connections, and PostgreSQL (fsync and synchronous_commit on), on the other. The two routes take turns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ground import Figure, Skipped, durable_postgres, median, pin, run_bench, skipped, two_cores
from webhooks import NOOP, Trial, load, need_wrk, prepare, server


def measure(quick: bool) -> list[Figure]:
    need_wrk()
    seconds, rounds = (2, 2) if quick else (5, 5)
    figures: list[Figure] = []
    for name, aim in (("SQLite FULL", 0.45), ("PostgreSQL", 0.50)):
        with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
            try:
                with _database(name, folder) as url:
                    figures += _figures(name, aim, Path(folder), url, seconds, rounds)
            except Skipped as exc:
                figures.append(skipped(1, f"webhook ack, {name}", str(exc)))
    return figures


def _figures(name: str, aim: float, folder: Path, url: str, seconds: int, rounds: int) -> list[Figure]:
    noop: list[Trial] = []
    ours: list[Trial] = []
    with server(folder, url) as ready:
        prepare(folder, 1)
        load(folder, ready["url"], ready["paths"], 1)
        for _ in range(rounds):
            prepare(folder, seconds)
            noop.append(load(folder, ready["url"], [NOOP], seconds))
            ours.append(load(folder, ready["url"], ready["paths"], seconds))
    rate, bare = (median([trial.rate for trial in trials]) for trials in (ours, noop))
    late, bare_late = (median([trial.p99_ms for trial in trials]) for trials in (ours, noop))
    refused = sum(trial.not_2xx for trial in ours)
    note = f"{refused} not 2xx" if refused else ""
    return [
        Figure(1, f"webhook ack, {name}", rate, "/s", "no-op route", bare, rate / bare, 0.30, aim, note=note),
        Figure(1, f"p99 of that ack, {name}", late, "ms", "no-op route", bare_late, late / bare_late,
               20, 12, is_low_good=True, judged="ours"),
    ]  # fmt: skip


@contextmanager
def _database(name: str, folder: str) -> Iterator[str]:
    if name.startswith("SQLite"):
        yield f"sqlite+aiosqlite:///{folder}/bench.db"
        return
    with durable_postgres() as postgres:
        url = postgres.make("bench")
        pin({two_cores()[0]}, postgres.pid)
        yield url


if __name__ == "__main__":
    run_bench(__doc__, measure)
