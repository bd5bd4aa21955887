"""Webhooks acknowledged while clips are trimmed at capacity, and what a SIGKILL then costs.

A burst of webhooks says that N predictions are done: from then on clips are fetched, trimmed and stored on
all cores. Once the burst is acknowledged, webhooks of progress of other predictions come at a fixed rate,
signed, whether the ones before were answered or not; the time of each runs from when it was due (of who is
not done with the burst by then, the burst is timed). When half of the clips are stored the service is
killed with SIGKILL and started again; a hook is lost if it was acknowledged and its clip is never stored.
The plain design (`plain_design.py`: a session a hook, a background task after the reply, blocking ffmpeg)
has the same load on the same machine, in turn.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ground import HERE, Figure, end, median, migrate, p99, run_bench
from machines import Waiting, clip_server, ended_at, machines, make_waiting
from webhooks import BODY, sign

RATE = 50
"""Webhooks of progress a second: about two for every clip that two cores can trim."""
LANES = 64
"""Connections of the sender."""
LOOK_S = 0.1


@dataclass
class Seen:
    """What the sender saw, and what became of it."""

    ack_ms: list[float] = field(default_factory=list)
    burst_ms: list[float] = field(default_factory=list)
    clips_a_s: float = 0.0
    acknowledged: set[str] = field(default_factory=set)
    lost: int = 0

    @property
    def told_ms(self) -> list[float]:
        return self.ack_ms or self.burst_ms


def measure(quick: bool) -> list[Figure]:
    count, rounds = (120, 1) if quick else (400, 3)
    ours: list[Seen] = []
    plain: list[Seen] = []
    with clip_server() as (_, port):
        for _ in range(rounds):
            ours.append(asyncio.run(_ours(count, port)))
            plain.append(asyncio.run(_plain(count, port)))
    return _figures(ours, plain)


def _figures(ours: list[Seen], plain: list[Seen]) -> list[Figure]:
    anchor = "plain design"
    late, plain_late = (median([p99(seen.told_ms) for seen in all_seen]) for all_seen in (ours, plain))
    clips, plain_clips = (median([seen.clips_a_s for seen in all_seen]) for all_seen in (ours, plain))
    lost, plain_lost = (
        100 * sum(seen.lost for seen in all_seen) / sum(len(seen.acknowledged) for seen in all_seen)
        for all_seen in (ours, plain)
    )
    told = f"{sum(seen.lost for seen in ours)} of {sum(len(seen.acknowledged) for seen in ours)}"
    return [
        Figure(5, "ack while trimming, p99", late, "ms", anchor, plain_late, plain_late / late, 25, 15,
               is_low_good=True, judged="ours", note=f"p50 {median(ours[0].told_ms):.1f} ms"),
        Figure(5, "clips stored meanwhile", clips, "/s", anchor, plain_clips, clips / plain_clips, 30, 45,
               judged="ours"),
        Figure(5, "acknowledged and lost to SIGKILL", lost, "%", anchor, plain_lost, None, 0, 0,
               is_low_good=True, judged="ours", note=told),
    ]  # fmt: skip


async def _ours(count: int, port: int) -> Seen:
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        folder = Path(name)
        url = f"sqlite+aiosqlite:///{folder}/bench.db"
        await migrate(url)
        waiting = await make_waiting(url, folder, count, port)
        with machines(folder, url, port) as made:

            def start() -> tuple[subprocess.Popen[bytes], int]:
                service = made.start("serve", "--port", "0", "--no-gpu-worker")
                return service.process, service.port

            def stored() -> int:
                return sum(1 for _ in (folder / "assets").glob("*/*.mp3"))

            seen = await _load(waiting, start, stored)
            start()
            done = 0
            async with asyncio.timeout(180):
                while done < len(seen.acknowledged):
                    await asyncio.sleep(0.5)
                    ends = await ended_at(url)
                    done = len(ends.get("succeeded", ()))
            seen.lost = max(0, len(seen.acknowledged) - done)
            return seen


async def _plain(count: int, port: int) -> Seen:
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        folder = Path(name)
        waiting = [
            Waiting("", f"att_{number}", f"/v1/webhooks/replicate/att_{number}", json.dumps({
                "id": f"p{number}", "status": "succeeded",
                "output": f"http://127.0.0.1:{port}/clip/{number}"}).encode())
            for number in range(count)
        ]  # fmt: skip
        running: list[subprocess.Popen[bytes]] = []

        def start() -> tuple[subprocess.Popen[bytes], int]:
            process = subprocess.Popen(
                [sys.executable, HERE / "plain_design.py", folder],
                stdout=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            running.append(process)
            assert process.stdout is not None
            return process, int(process.stdout.readline())

        def stored() -> int:
            return sum(1 for path in (folder / "stored").glob("*.mp3") if path.stat().st_size)

        try:
            seen = await _load(waiting, start, stored)
            before = stored()
            start()
            # Nothing of it knows of the hooks that it has: what is not there soon never will be.
            await asyncio.sleep(5)
            seen.lost = len(seen.acknowledged) - max(before, stored())
            return seen
        finally:
            for process in running:
                end(process, kill=True)


async def _load(
    waiting: list[Waiting],
    start: Callable[[], tuple[subprocess.Popen[bytes], int]],
    stored: Callable[[], int],
) -> Seen:
    """The burst, the fixed rate beside it, and the kill when half is stored."""
    seen = Seen()
    process, port = start()
    with before_others():
        return await _flood(waiting, process, port, stored, seen)


async def _flood(
    waiting: list[Waiting],
    process: subprocess.Popen[bytes],
    port: int,
    stored: Callable[[], int],
    seen: Seen,
) -> Seen:
    sender = Sender(port)
    began, first = time.monotonic(), 0
    burst = [asyncio.create_task(_finished(sender, each, seen)) for each in waiting]
    beside = asyncio.create_task(_beside(sender, waiting, seen, burst))
    until = began + 90
    while stored() < len(waiting) // 2 and time.monotonic() < until:
        if not first and (first := stored()):
            began = time.monotonic()
        # Rarely: to look through the folders takes milliseconds, in which an answer is not seen.
        await asyncio.sleep(LOOK_S)
    seen.clips_a_s = (stored() - first) / (time.monotonic() - began)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for task in (*burst, beside):
        task.cancel()
    await asyncio.gather(*burst, beside, return_exceptions=True)
    sender.close()
    return seen


@contextmanager
def before_others() -> Iterator[None]:
    """The sender is another machine's: what it waits for a processor of this one is not to be counted."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


async def _finished(sender: Sender, waiting: Waiting, seen: Seen) -> None:
    began = time.monotonic()
    if await sender.post(waiting.path, waiting.body, f"done_{waiting.attempt_id}"):
        seen.burst_ms.append(1000 * (time.monotonic() - began))
        seen.acknowledged.add(waiting.attempt_id)


async def _beside(
    sender: Sender, waiting: list[Waiting], seen: Seen, burst: list[asyncio.Task[None]]
) -> None:
    """After the burst, progress of some attempt every 1/RATE s by the clock."""
    await asyncio.wait(burst)
    began = time.monotonic()
    number = 0
    async with asyncio.TaskGroup() as tasks:
        while True:
            due_at = began + number / RATE
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
            path = waiting[number % len(waiting)].path
            tasks.create_task(_progress(sender, path, f"progress_{number}", due_at, seen))
            number += 1


async def _progress(sender: Sender, path: str, name: str, due_at: float, seen: Seen) -> None:
    if await sender.post(path, BODY, name):
        seen.ack_ms.append(1000 * (time.monotonic() - due_at))


class Sender:
    """Posts signed webhooks over kept connections; as many at once as there are lanes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lanes = asyncio.Semaphore(LANES)
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: bytes, name: str) -> bool:
        """Whether it was answered 2xx."""
        signed = [f"{key}: {text}" for key, text in sign(name, body).items()]
        lines = [f"POST {path} HTTP/1.1", "host: bench", "content-type: application/json",
                 f"content-length: {len(body)}", *signed]  # fmt: skip
        async with self._lanes:
            try:
                lane = (
                    self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
                )
                reader, writer = lane
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                head = await reader.readuntil(b"\r\n\r\n")
                sized = next(
                    line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                )
                await reader.readexactly(int(sized.split(b":")[1]))
            except (OSError, asyncio.IncompleteReadError):
                return False
            self._free.append(lane)
        return head.startswith(b"HTTP/1.1 2")

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


if __name__ == "__main__":
    run_bench(__doc__, measure)
