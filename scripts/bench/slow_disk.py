"""The same ingress on a disk whose every sync takes 2 ms longer: grouped commits beside a commit a
webhook.

A library built here by gcc (`slow_fsync.c`) is preloaded into our process with SQLite, and into the server
with PostgreSQL; it adds 2 ms to every fsync and fdatasync. "One by one" is the same code with groups of
one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ground import HERE, Figure, Skipped, durable_postgres, median, pin, run_bench, skipped, two_cores
from webhooks import Trial, load, need_wrk, prepare, server


def measure(quick: bool) -> list[Figure]:
    need_wrk()
    if shutil.which("gcc") is None:
        raise Skipped("needs `gcc` to build the library that slows fsync down")
    seconds, rounds = (2, 1) if quick else (4, 3)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
        Path(folder).chmod(0o755)
        shim = build_shim(Path(folder))
        for name in ("SQLite FULL", "PostgreSQL"):
            try:
                figures.append(_figure(name, Path(folder, name.split()[0]), shim, seconds, rounds))
            except Skipped as exc:
                figures.append(skipped(2, f"ack, fsync + 2 ms, {name}", str(exc)))
    return figures


def build_shim(folder: Path) -> Path:
    built = folder / "slow_fsync.so"
    source = HERE / "slow_fsync.c"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built


def _figure(name: str, folder: Path, shim: Path, seconds: int, rounds: int) -> Figure:
    """Two servers on two databases, one grouping and one not, take turns."""
    os.environ["BENCH_FSYNC_US"] = "2000"
    trials: dict[bool, list[Trial]] = {True: [], False: []}
    with ExitStack() as stack:
        urls: dict[bool, str] = {}
        preload: Path | None = shim
        if name == "PostgreSQL":
            postgres = stack.enter_context(durable_postgres(preload=shim))
            urls = {grouped: postgres.make(f"bench_{grouped}".lower()) for grouped in trials}
            pin({two_cores()[0]}, postgres.pid)
            preload = None
        ready: dict[bool, dict[str, Any]] = {}
        for grouped in trials:
            place = folder / str(grouped)
            place.mkdir(parents=True)
            url = urls.get(grouped, f"sqlite+aiosqlite:///{place}/bench.db")
            ready[grouped] = stack.enter_context(server(place, url, grouped=grouped, preload=preload))
        for _ in range(rounds):
            for grouped, kept in trials.items():
                place = folder / str(grouped)
                prepare(place, seconds)
                kept.append(load(place, ready[grouped]["url"], ready[grouped]["paths"], seconds))
    ours, single = (median([trial.rate for trial in trials[grouped]]) for grouped in (True, False))
    note = f"p99 {median([trial.p99_ms for trial in trials[True]]):.0f} ms"
    return Figure(2, f"ack, fsync + 2 ms, {name}", ours, "/s", "one by one", single, ours / single, 15, 25,
                  note=note)  # fmt: skip


if __name__ == "__main__":
    run_bench(__doc__, measure)
