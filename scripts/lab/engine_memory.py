#!/usr/bin/env python
"""See whether the embedded worker grows over many jobs of mixed kinds, and what it gives back when idle.

    scripts/lab/engine_memory.py [--jobs 500] [--no-idle] [--json FILE]

A real Cog server of ours takes every kind, one job at a time, as in a service. Its resident memory is the sum
over its processes (PSS, so that shared pages count once), read after each job; it is warm after a fifth of
them, and after each kind has come twice. Exit code 1 when the last fifth needs more than 5 % and 40 MB beyond
the first one that was warm, when a job fails, or when an idle minute leaves a model in memory: more than 60 %
of the most.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import http.server
import io
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx
import psutil
import structlog

from app.engines import music, speech
from app.engines.loading.resident import IDLE_S
from app.engines.predict import write_flac
from app.engines.supervisor import CogSupervisor
from app.logs import configure_logs

GROWTH, GROWTH_BYTES = 0.05, 40e6
LEFT_SHARE = 0.6
SENTENCE = "The train for London leaves at seven in the morning."
WISHES: list[dict[str, Any]] = [
    {"kind": "sound_effect", "prompt": "rain", "duration_s": 2.0},
    {"kind": "background_music", "prompt": "calm piano", "duration_s": 4.0},
    {"kind": "speech", "text": SENTENCE, "language": "en"},
    {"kind": "speech", "text": "El tren sale a las siete.", "language": "es"},
    {"kind": "transcription", "audio": "speech.flac"},
    {"kind": "translation", "text": SENTENCE, "source": "en", "target": "pt"},
    {"kind": "stem_separation", "audio": "song.flac"},
]


async def main() -> int:
    given = _arguments()
    configure_logs("console", "error")
    with tempfile.TemporaryDirectory() as folder, _served(Path(folder)) as url:
        found = await _measure(Path(folder), url, given.jobs, wait_idle=given.idle)
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")
    return _judge(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--idle", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    if given.jobs < 3 * len(WISHES):
        parser.error(f"--jobs: at least {3 * len(WISHES)}, so that each kind has come when it is warm")
    return given


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Our own speech and music on loopback, as the service's links would give them."""
    spoken = speech.render(text=SENTENCE, language="en", voice=None, speed=1.0, seed=1)
    song = music.render(prompt="calm piano", duration_s=20.0, seed=1)
    write_flac(spoken, folder / "speech.flac", seed=1)
    write_flac(song, folder / "song.flac", seed=1)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


async def _measure(folder: Path, url: str, jobs: int, *, wait_idle: bool) -> dict[str, Any]:
    async def ignore(_gone_at: object) -> None: ...

    supervisor = CogSupervisor(tmp=folder / "worker", on_restart=ignore, log=structlog.get_logger())
    await supervisor.start()
    try:
        fresh = _memory_of(supervisor)
        samples: list[int] = []
        failed: list[str] = []
        pick, began = random.Random(7), time.monotonic()
        async with httpx.AsyncClient(base_url=supervisor.url, timeout=300, trust_env=False) as client:
            for number in range(jobs):
                turn = number < 2 * len(WISHES)
                wish = dict(WISHES[number % len(WISHES)] if turn else pick.choice(WISHES))
                if "audio" in wish:
                    wish["audio"] = f"{url}/{wish['audio']}"
                answer = await _ask(client, wish)
                if answer.get("status") != "succeeded":
                    failed.append(f"{wish['kind']}: {answer.get('error')}")
                samples.append(_memory_of(supervisor))
                if (number + 1) % 50 == 0:
                    print(f"{number + 1} jobs: {samples[-1] / 1e6:.0f} MB", flush=True)
        took_s, idle = time.monotonic() - began, None
        if wait_idle:
            await asyncio.sleep(IDLE_S + 5)
            idle = _memory_of(supervisor)
    finally:
        await supervisor.stop()
    return {
        "jobs": jobs,
        "seconds": took_s,
        "fresh": fresh,
        "samples": samples,
        "idle": idle,
        "failed": failed,
    }


async def _ask(client: httpx.AsyncClient, wish: dict[str, Any]) -> dict[str, Any]:
    """The prediction as it ended. The slot of the one before comes free a moment after its answer."""
    while True:
        answer = await client.post("/predictions", json={"input": wish})
        if answer.status_code != httpx.codes.CONFLICT:
            return dict(answer.json())
        await asyncio.sleep(0.01)


def _memory_of(supervisor: CogSupervisor) -> int:
    server = psutil.Process(supervisor.pid)
    total = 0
    for process in (server, *server.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def _judge(found: dict[str, Any]) -> int:
    samples, fifth = found["samples"], max(1, found["jobs"] // 5)
    warm = max(fifth, 2 * len(WISHES))
    early = statistics.median(samples[warm : warm + fifth])
    late = statistics.median(samples[-fifth:])
    most = max(samples)
    out = io.StringIO()
    print(f"jobs                     {found['jobs']} in {found['seconds']:.0f} s", file=out)
    print(f"fresh                    {found['fresh'] / 1e6:.0f} MB", file=out)
    print(f"first warm fifth, median {early / 1e6:.0f} MB", file=out)
    print(f"last fifth, median       {late / 1e6:.0f} MB", file=out)
    print(f"most                     {most / 1e6:.0f} MB", file=out)
    broken = [*found["failed"][:5]]
    if late - early > GROWTH * early + GROWTH_BYTES:
        broken.append("the worker grew")
    if found["idle"] is not None:
        print(f"after {IDLE_S + 5:.0f} s idle          {found['idle'] / 1e6:.0f} MB", file=out)
        if found["idle"] > LEFT_SHARE * most:
            broken.append("a model stayed in memory when nobody used it")
    print(out.getvalue(), end="")
    for each in broken:
        print(f"BROKEN: {each}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
