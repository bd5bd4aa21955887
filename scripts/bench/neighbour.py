"""One caller at ten times its limit, and what the other one sees.

Two callers on one service, at 127.0.0.1 and 127.0.0.2: without keys, each address has budgets of its own,
here 20 creates and 20 reads a second, counted over five. The quiet one asks 15 of each a second, evenly; the
loud one 200 of each, from a process of its own. Rounds with and without the loud one take turns, so that both
are measured on the same machine in the same minutes; then the same once more with `RATE_LIMITS=none`, which
is what the limits spare the quiet one. A latency is from the moment a request was due.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ground import ROOT, Figure, end, median, p99, pin, run_bench, two_cores

LIMITS = "jobs:write=100/5second,jobs:read=100/5second"
QUIET_PER_S = 15
LOUD_PER_S = 200
BODY = b'{"kind":"sound_effect","input":{"prompt":"rain"}}'
CONNECTIONS = 8


def measure(quick: bool) -> list[Figure]:
    load, served = two_cores()
    pin({load}, os.getpid())
    rounds, length_s = (2, 4.0) if quick else (5, 10.0)
    figures = []
    for limits in (LIMITS, "none"):
        with tempfile.TemporaryDirectory() as folder, _service(Path(folder), limits, served) as port:
            alone, beside, refused = asyncio.run(_trial(port, rounds, length_s, load))
        what = "with limits" if limits != "none" else "without limits"
        note = f"{len(beside)} requests each; p50 {median(alone):.1f} and {median(beside):.1f} ms"
        note += f"; {refused:.0%} of the loud one's were refused"
        figures.append(
            Figure(1, f"p99 beside a loud neighbour, {what}", p99(beside), "ms", "alone", p99(alone),
                   p99(beside) / p99(alone), 2.0 if limits != "none" else None,
                   1.2 if limits != "none" else None, is_low_good=True, note=note)
        )  # fmt: skip
    return figures


async def _trial(
    port: int, rounds: int, length_s: float, core: int
) -> tuple[list[float], list[float], float]:
    alone: list[float] = []
    beside: list[float] = []
    refused: list[float] = []
    await _quiet(port, 2.0)
    for _ in range(rounds):
        alone += await _quiet(port, length_s)
        argv = [sys.executable, __file__, "--loud", str(port), str(length_s + 1)]
        loud = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        pin({core}, loud.pid)
        assert loud.stdout is not None
        await loud.stdout.readline()
        beside += await _quiet(port, length_s)
        refused.append(float((await loud.communicate())[0]))
    return alone, beside, sum(refused) / len(refused)


async def _quiet(port: int, length_s: float) -> list[float]:
    """Latencies in ms of a caller within its budgets; raises where one is refused."""
    took: list[float] = []

    def note(status: int, took_ms: float) -> None:
        if status not in (200, 202):
            raise RuntimeError(f"the quiet one was answered {status}")
        took.append(took_ms)

    await _ask(port, "127.0.0.1", QUIET_PER_S, length_s, note)
    return took


async def _loud(port: int, length_s: float) -> None:
    answered: list[int] = []
    print("loud", flush=True)
    await _ask(port, "127.0.0.2", LOUD_PER_S, length_s, lambda status, _: answered.append(status))
    print(answered.count(429) / max(1, len(answered)))


async def _ask(port: int, address: str, per_s: int, length_s: float, note: object) -> None:
    """Creates and reads in turn, each `per_s` a second, over a few connections; evenly, answered or not."""
    requests = [
        b"POST /v1/jobs HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY),
        b"GET /v1/jobs?limit=1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    ]
    began, count = time.perf_counter(), int(2 * per_s * length_s)
    numbers = iter(range(count))

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        for number in numbers:
            due = began + number / (2 * per_s)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(requests[number % 2])
            status = await _answer(reader)
            note(status, (time.perf_counter() - due) * 1000)  # type: ignore[operator]
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head[9:12])


@contextmanager
def _service(folder: Path, limits: str, core: int) -> Iterator[int]:
    """A web process on SQLite, without a worker: what is asked for waits."""
    from tests.postgres import _free_port

    port = _free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/reprise.db",
        "STORAGE_URL": f"file://{folder}/assets",
        "VAR_DIR": str(folder / "var"),
        "RATE_LIMITS": limits,
        "MAX_QUEUED_JOBS": "1000000",
        "QUEUE_AGE_S": "100000",
        "LOG_LEVEL": "error",
    }
    argv = [sys.executable, "-m", "app", "serve", "--no-worker", "--port", str(port)]
    process = subprocess.Popen(
        argv, cwd=folder, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        pin({core}, process.pid)
        asyncio.run(_until_up(port))
        yield port
    finally:
        end(process)


async def _until_up(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


if __name__ == "__main__":
    if sys.argv[1:2] == ["--loud"]:
        asyncio.run(_loud(int(sys.argv[2]), float(sys.argv[3])))
    else:
        run_bench(__doc__, measure)
