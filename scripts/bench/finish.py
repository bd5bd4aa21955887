"""CPU from hook to stored of a 10 s mp3 clip, beside bare ffmpeg doing the same trim of the same clip
alone.

Ours is the whole way of one clip in one process: store the webhook, apply it, fetch the clip from a file
server on this machine, trim, measure and store it, commit the job's end. CPU is user and system time of
this process and of the children it waited for, so waiting costs nothing. The two take turns, clip by clip.
"""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from pathlib import Path

import uvloop
from ground import TRIM, Figure, clips_folder, median, migrate, run_bench
from machines import CLIPS, Waiting, clip_server, make_waiting
from webhooks import service_settings

from app.audio import default_binary
from app.incoming import Incoming
from app.wiring import Runtime, open_runtime
from db.states import DeliverySource


def measure(quick: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name, clip_server() as (_, port):
        ours, bare, walls = uvloop.run(_take_turns(Path(name), port, 15 if quick else 60))
    cost, least = median(ours), median(bare)
    note = f"{median(walls):.0f} ms wall"
    return [
        Figure(3, "CPU per clip, hook to stored", cost, "ms", "bare ffmpeg", least, cost / least, 1.4, 1.15,
               is_low_good=True, note=note)
    ]  # fmt: skip


async def _take_turns(folder: Path, port: int, count: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds a clip: our CPU, ffmpeg's CPU, our wall time. The first two clips warm up."""
    url = f"sqlite+aiosqlite:///{folder}/bench.db"
    await migrate(url)
    waiting = await make_waiting(url, folder, count + 2, port)
    ours, bare, walls = [], [], []
    settings = service_settings(str(folder), url, replicate_base_url=f"http://127.0.0.1:{port}")
    async with open_runtime(settings) as runtime:
        for number, each in enumerate(waiting):
            began, cpu = time.perf_counter(), _cpu_s()
            await _hook_to_stored(runtime, each)
            ours.append(1000 * (_cpu_s() - cpu))
            walls.append(1000 * (time.perf_counter() - began))
            if (state := (await runtime.jobs.get(each.job_id)).job.state) != "succeeded":
                raise RuntimeError(f"the job is {state}")
            cpu = _cpu_s()
            _run_bare(clips_folder() / f"{number % CLIPS:04d}.mp3", folder / "bare.mp3")
            bare.append(1000 * (_cpu_s() - cpu))
    return ours[2:], bare[2:], walls[2:]


async def _hook_to_stored(runtime: Runtime, waiting: Waiting) -> None:
    news = Incoming(
        DeliverySource.WEBHOOK, "replicate", waiting.attempt_id, waiting.body, message_id=waiting.attempt_id
    )
    receipt = await runtime.inbox.receive(news)
    await runtime.inbox.step(receipt.delivery_id)
    await runtime.finisher.step(waiting.job_id)


def _run_bare(source: Path, target: Path) -> None:
    argv = [default_binary(), "-v", "error", "-nostdin", "-y", "-i", source, "-af", TRIM]
    argv += ["-c:a", "libmp3lame", "-b:a", "192k", "-f", "mp3", target]
    subprocess.run(argv, check=True)


def _cpu_s() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    run_bench(__doc__, measure)
