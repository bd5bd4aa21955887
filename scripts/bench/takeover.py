"""kill -9 of a machine, until its work runs on another: two `reprise worker` processes on one PostgreSQL.

A worker is fetching a clip that never ends; the other one is idle. The busy one is killed with its whole
process group. The time runs to the moment at which the file server is asked for that clip again, by the
survivor: fence, lease and engine included. Settings are the defaults. A new second machine comes up for
each trial.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
from ground import Figure, durable_postgres, median, run_bench
from machines import Machine, Machines, clip_server, machines, make_waiting
from webhooks import service_settings

from app.incoming import Incoming
from app.wiring import open_runtime
from db.states import DeliverySource

STATIONS = ("worker", "--stations", "apply,finish")


def measure(quick: bool) -> list[Figure]:
    trials = 3 if quick else 12
    with (
        clip_server() as (files, port),
        durable_postgres() as postgres,
        tempfile.TemporaryDirectory(prefix="reprise-bench-") as name,
        machines(Path(name), postgres.make("bench"), port) as made,
    ):
        took = asyncio.run(_trials(made, files, port, trials))
    note = f"n={len(took)}, least {min(took):.1f} s"
    return [
        Figure(7, f"kill -9 to work elsewhere, {name}", took_s, "s", floor=15, aim=5, is_low_good=True,
               judged="ours", note=note)
        for name, took_s in (("median", median(took)), ("worst", max(took)))
    ]  # fmt: skip


async def _trials(made: Machines, files: subprocess.Popen[bytes], port: int, trials: int) -> list[float]:
    took = []
    waiting = await make_waiting(made.url, made.folder, trials, port, kind="slow")
    alive = [made.start(*STATIONS), made.start(*STATIONS)]
    settings = service_settings(str(made.folder), made.url)
    async with open_runtime(settings) as runtime:
        for each in waiting:
            news = Incoming(
                DeliverySource.WEBHOOK, "replicate", each.attempt_id, each.body, message_id=each.attempt_id
            )
            await runtime.inbox.receive(news)
            peer, _ = await asyncio.to_thread(_asked, files)
            busy = _holder(alive, peer)
            # Long enough for renewals: the lease is not older than it would be in the middle of a long step.
            await asyncio.sleep(4)
            os.killpg(busy.pid, signal.SIGKILL)
            killed_at = time.monotonic_ns()
            busy.process.wait()
            _, again_at = await asyncio.to_thread(_asked, files)
            took.append((again_at - killed_at) / 1e9)
            alive.remove(busy)
            alive.append(await asyncio.to_thread(made.start, *STATIONS))
    return took


def _asked(files: subprocess.Popen[bytes]) -> tuple[int, int]:
    """The next request for a slow clip: the peer's port and when it came."""
    assert files.stdout is not None
    peer, at = files.stdout.readline().split()
    return int(peer), int(at)


def _holder(alive: list[Machine], peer: int) -> Machine:
    """Whose connection that is."""
    for machine in alive:
        for connection in psutil.Process(machine.pid).net_connections(kind="tcp"):
            if connection.laddr.port == peer:
                return machine
    raise RuntimeError("no machine has that connection")


if __name__ == "__main__":
    run_bench(__doc__, measure)
