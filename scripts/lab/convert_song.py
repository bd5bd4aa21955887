#!/usr/bin/env python3
"""How long a song takes in another voice here, from the request to the stored mix, with the real worker.

Makes a song of a voice that reads over music, both of our own engines, and a voice profile of another
reader; asks for the conversion, then again with stems, then with another volume. Prints a row for each: how
long it took by the clock and in processor time, how long for a second of the song, what of it was which part,
and what was measured of the mix. The first conversion loads the models, and says so.
Usage: scripts/lab/convert_song.py [--seconds N]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx
import numpy as np
import psutil
import soundfile

from app.engines import music, speech
from app.logs import configure_logs
from app.serve import running_service
from app.settings import load_settings

RATE = 44_100
HEAD = (
    "request", "clock", "a second", "processor", "a second", "separation", "transfer", "mix", "measured",
)  # fmt: skip
VERSE = (
    "The river runs below the town, and all the lights are going down. I walk the road that no one knows, "
    "and where it ends the wind still blows. "
)
READ = (
    "My brother lives in Madrid. We have been waiting for two hours. It will rain in the north tomorrow. "
    "Please open the window before you leave. The train for London leaves at seven in the morning. "
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    asyncio.run(convert(parser.parse_args().seconds))


async def convert(seconds: float) -> None:
    configure_logs("console", "error")
    song, sample = make_song(seconds), make_sample()
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(
            _env_file=None,
            database_url=f"sqlite+aiosqlite:///{folder}/reprise.db",
            storage_url=f"file://{folder}/assets",
            var_dir=Path(folder) / "var",
        )
        async with (
            running_service(settings) as service,
            httpx.AsyncClient(base_url=service.url, timeout=120, trust_env=False) as client,
        ):
            voice = await make_voice(client, sample)
            upload = (await post(client, "/v1/uploads", files={"file": ("song.flac", song)}))["upload_id"]
            print(*(f"| {word} " for word in HEAD), "|", sep="")
            print("|---" * len(HEAD) + "|")
            asked = {"audio": upload, "voice_id": voice}
            for name, more in (
                ("first, models loading", {}),
                ("again, with stems", {"return_stems": True}),
                ("another volume", {"instrumental_volume": 0.5}),
                ("another pitch", {"pitch_shift": -2}),
                ("another song", {"audio": await again(client, song)}),
            ):
                await row(client, name, {**asked, **more}, seconds)


async def row(client: httpx.AsyncClient, name: str, wanted: dict[str, Any], seconds: float) -> None:
    before_s = processor_s()
    job = await post(client, "/v1/jobs", json={"kind": "voice_conversion", "input": wanted})
    while job["finished_at"] is None:
        job = (await client.get(f"/v1/jobs/{job['id']}", params={"wait": 60})).json()
    if job["state"] != "succeeded":
        sys.exit(f"{name}: {job['error']}")
    used_s = processor_s() - before_s
    parts = (await client.get("/v1/jobs", params={"parent_id": job["id"]})).json()["items"]
    took = {
        part["step"]: "reused" if part["started_at"] is None else f"{span_s(part):.1f} s" for part in parts
    }
    last = (await client.get(f"/v1/jobs/{job['id']}/events")).json()["items"][-1]["data"]
    mix = f"{last['trim_s']:.2f} s" if "trim_s" in last else "reused"
    told = ", ".join(f"{name} {value}" for name, value in (job["measured"] or {}).items())
    print(
        f"| {name} | {span_s(job):.1f} s | {span_s(job) / seconds:.2f} | {used_s:.1f} s "
        f"| {used_s / seconds:.2f} | {took['separation']} "
        f"| {took['transfer']} | {mix} | {told} |",
        flush=True,
    )


def processor_s() -> float:
    """What this process and its workers have used so far; an ffmpeg that has ended counts with us."""
    mine = psutil.Process()
    times = [each.cpu_times() for each in (mine, *mine.children(recursive=True))]
    return sum(each.user + each.system + each.children_user + each.children_system for each in times)


def span_s(job: dict[str, Any]) -> float:
    """From its beginning to its end."""
    begun, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return (ended - begun).total_seconds()


async def again(client: httpx.AsyncClient, song: bytes) -> str:
    """The same song with other bytes: nothing of it was made before."""
    samples, rate = soundfile.read(io.BytesIO(song), dtype="float32")
    reply = await post(client, "/v1/uploads", files={"file": ("other.flac", flac(samples * 0.9, rate))})
    return str(reply["upload_id"])


async def make_voice(client: httpx.AsyncClient, sample: bytes) -> str:
    upload = await post(client, "/v1/uploads", files={"file": ("voice.flac", sample)})
    made = await post(client, "/v1/voices", json={"name": "the reader", "upload_id": upload["upload_id"]})
    return str(made["id"])


async def post(client: httpx.AsyncClient, path: str, **sent: Any) -> dict[str, Any]:
    reply = await client.post(path, **sent)
    if reply.status_code >= 400:
        sys.exit(f"{path}: {reply.text}")
    return dict(reply.json())


def make_song(seconds: float) -> bytes:
    """Somebody reads verses over music, in stereo."""
    bed = music.render(prompt="calm piano and strings, slow", duration_s=seconds, seed=3)
    read = speech.render(text=VERSE * (1 + int(seconds / 8)), language="en", seed=1)
    frames = round(seconds * RATE)
    voice = fit(read.samples[:, 0], read.sample_rate, frames)
    rest = np.stack([fit(bed.samples[:, side], bed.sample_rate, frames) for side in (0, -1)], axis=1)
    return flac(0.7 * voice[:, None] + 0.5 * rest, RATE)


def make_sample() -> bytes:
    """Half a minute of another reader."""
    read = speech.render(text=READ * 2, language="de", seed=2)
    return flac(read.samples[: 40 * read.sample_rate], read.sample_rate)


def fit(samples: Any, rate: int, frames: int) -> Any:
    """At our rate, cut or padded to so many frames."""
    at = np.arange(frames) * rate / RATE
    return np.interp(at, np.arange(len(samples)), samples, right=0.0)


def flac(samples: Any, rate: int) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, np.clip(samples, -0.99, 0.99), rate, format="FLAC", subtype="PCM_16")
    return target.getvalue()


if __name__ == "__main__":
    main()
