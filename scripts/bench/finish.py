"""CPU of finishing a 10 s mp3 (fetch, trim, measure, store, commit) beside bare ffmpeg doing the trim alone.

Both take turns in one process tree; CPU is user and system time of this process and its children, so waiting
costs nothing. Usage: scripts/bench/finish.py [COUNT]
"""

from __future__ import annotations

import base64
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import uvloop

from app.audio import default_binary
from app.inbox import Incoming
from app.jobs import JobRequest
from app.logs import configure_logs
from app.settings import load_settings
from app.wiring import Runtime, open_runtime
from db.attempts import insert_attempt
from db.ids import make_id
from db.jobs import move_job
from db.states import AttemptStatus, DeliverySource, JobState
from db.tables import Attempt

TRIM = (
    "silenceremove=start_periods=1:start_threshold=-60dB:start_silence=0.02:detection=rms,areverse,"
    "silenceremove=start_periods=1:start_threshold=-60dB:start_silence=0.02:detection=rms,areverse"
)


def make_clip(path: Path, number: int) -> bytes:
    """A 10 s mono mp3 at 128 kbit/s with 1.5 s of near-silence at both ends; each number another tone."""
    tone = f"sine=frequency={300 + number}:duration=7,aformat=sample_rates=44100,adelay=1500,apad=pad_dur=1.5"
    subprocess.run(
        [default_binary(), "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", tone, "-b:a", "128k", path],
        check=True,
    )
    return path.read_bytes()


def run_bare(folder: Path) -> None:
    argv = [default_binary(), "-v", "error", "-nostdin", "-y", "-i", folder / "clip.mp3", "-af", TRIM]
    argv += ["-c:a", "libmp3lame", "-b:a", "192k", "-f", "mp3", folder / "bare.mp3"]
    subprocess.run(argv, check=True)


def cpu_s() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


async def prepare(runtime: Runtime, clip: bytes) -> str:
    """A job whose prediction has just succeeded, with the clip as a data URI in its delivery."""
    view = await runtime.jobs.submit(JobRequest("sound_effect", {"prompt": "tone"}, {}))
    now = datetime.now(UTC)
    attempt = Attempt(
        id=make_id("att"), job_id=view.job.id, number=1, provider="cog", model="sound_effect",
        status=AttemptStatus.STARTING, created_at=now, check_at=now,
    )  # fmt: skip
    async with runtime.line.database.transaction() as tx:
        await move_job(tx, view.job.id, JobState.RUNNING, values={})
        await insert_attempt(tx, attempt)
    uri = "data:audio/mpeg;base64," + base64.b64encode(clip).decode()
    body = json.dumps({"id": attempt.id, "status": "succeeded", "output": uri}).encode()
    receipt = await runtime.inbox.receive(Incoming(DeliverySource.WEBHOOK, "cog", attempt.id, body))
    await runtime.inbox.step(receipt.delivery_id)
    return view.job.id


async def main(count: int) -> None:
    configure_logs("console", "error")
    ours: list[float] = []
    bare: list[float] = []
    walls: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = load_settings(
            _env_file=None,
            database_url=f"sqlite+aiosqlite:///{folder}/bench.db",
            storage_url=f"file://{folder}/assets",
            var_dir=folder,
            cog_urls="http://127.0.0.1:9",
        )
        async with open_runtime(settings) as runtime:
            for number in range(count + 2):
                clip = make_clip(folder / "clip.mp3", number)
                job_id = await prepare(runtime, clip)
                began, cpu = time.perf_counter(), cpu_s()
                await runtime.finisher.step(job_id)
                ours.append(cpu_s() - cpu)
                walls.append(time.perf_counter() - began)
                assert (await runtime.jobs.get(job_id)).job.state == "succeeded"
                cpu = cpu_s()
                run_bare(folder)
                bare.append(cpu_s() - cpu)
    ours_ms, bare_ms = (1000 * statistics.median(values[2:]) for values in (ours, bare))
    print(f"{'finish a clip':24s} {ours_ms:7.1f} ms CPU  {1000 * statistics.median(walls[2:]):7.1f} ms wall")
    print(f"{'bare ffmpeg':24s} {bare_ms:7.1f} ms CPU")
    print(f"ratio {ours_ms / bare_ms:.2f}")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 30))
