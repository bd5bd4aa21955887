"""What the tests of conversions share: a song, a voice, a worker that does its part when it is told."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import soundfile

from db.assets import find_assets_by_digest
from db.ids import make_id
from db.session import Database
from db.tables import Voice
from db.voices import insert_voice
from tests.flow.conftest import Stage, as_data_uri

RATE = 22_050
SONG_S = 2.0


def sound(
    *hz: float, rate: int = RATE, seconds: float = SONG_S, channels: int = 2, level: float = 0.3
) -> bytes:
    """A FLAC of tones under each other, each as loud as `level`."""
    at = np.arange(round(seconds * rate)) / rate
    mono = sum((level * np.sin(2 * np.pi * each * at) for each in hz), np.zeros_like(at))
    target = io.BytesIO()
    soundfile.write(target, np.stack([mono] * channels, axis=1), rate, format="FLAC", subtype="PCM_16")
    return target.getvalue()


VOCALS, REST, SUNG = 440.0, 110.0, 660.0
"""Hz: what is sung in the song, what is not, and what the other voice sings."""
STEMS = {"vocals": as_data_uri(sound(VOCALS)), "instrumental": as_data_uri(sound(REST))}
TRANSFERRED = as_data_uri(sound(SUNG, channels=1))


@dataclass
class Studio:
    """A stage with one Cog worker that does a part when the test says so."""

    line: Stage
    done: list[str] = field(default_factory=list)
    """The kinds of the parts that were done, in order."""
    voices: dict[str, str] = field(default_factory=dict)

    async def upload(self, content: bytes = b"", headers: dict[str, str] | None = None) -> str:
        reply = await self.line.client.post(
            "/v1/uploads",
            files={"file": ("song.flac", content or sound(VOCALS, REST), "audio/flac")},
            headers=headers,
        )
        assert reply.status_code == 201, reply.text
        return str(reply.json()["upload_id"])

    async def voice(self, tenant: str = "default", headers: dict[str, str] | None = None) -> str:
        """The id of the tenant's voice profile, made when it is first asked for."""
        if tenant not in self.voices:
            database = self.line.runtime.line.database
            made = await make_voice(self.line.client, database, tenant=tenant, headers=headers)
            self.voices[tenant] = made
        return self.voices[tenant]

    async def convert(
        self, song: str, headers: dict[str, str] | None = None, *, tenant: str = "default", **more: Any
    ) -> str:
        """Ask for a conversion into the tenant's voice; the job's id."""
        voice = await self.voice(tenant, headers)
        asked = {"kind": "voice_conversion", "input": {"audio": song, "voice_id": voice, **more}}
        reply = await self.line.client.post("/v1/jobs", json=asked, headers=headers)
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    async def do(self, *, error: str | None = None, details: str | None = None) -> str:
        """Let the worker end what it is at, and say so much of a transfer; the kind that it was."""
        await self.line.drain()
        [(prediction_id, asked)] = self.line.cog.running.items()
        kind = "voice_transfer" if "pitch_shift" in asked["input"] else "stem_separation"
        output: Any = STEMS if kind == "stem_separation" else TRANSFERRED
        if details is not None and kind == "voice_transfer":
            output = {"audio": TRANSFERRED, "engine": "reprise-voice/1", "details": details}
        told = {"error": error} if error else {"output": output}
        assert await self.line.cog.finish(prediction_id, **told) == 200
        self.done.append(kind)
        # Whoever waits for the slot waits for no clock here.
        await self.line.hurry()
        await self.line.drain()
        return kind

    async def tell_progress(self, share: float) -> None:
        """Let the worker say how far it is, as its log does."""
        [(prediction_id, asked)] = self.line.cog.running.items()
        body = {"id": prediction_id, "status": "processing", "logs": f"progress {share} working\n"}
        headers = {"content-type": "application/json"}
        reply = await self.line.client.post(
            asked["webhook"], content=json.dumps(body).encode(), headers=headers
        )
        assert reply.status_code == 200
        await self.line.drain()

    async def do_all(self) -> list[str]:
        """Until there is nothing to do; the kinds of what there was."""
        before = len(self.done)
        await self.line.drain()
        while self.line.cog.running:
            await self.do()
        return self.done[before:]

    async def children(self, job_id: str) -> dict[str, dict[str, Any]]:
        """The parts of a job's work as jobs, by step."""
        found = (await self.line.client.get("/v1/jobs", params={"parent_id": job_id})).json()["items"]
        return {each["step"]: each for each in found}

    async def hear(self, output: dict[str, Any]) -> tuple[np.ndarray[Any, Any], int]:
        """A stored sound's samples, (frames, channels), and its rate."""
        reply = await self.line.client.get(output["url"])
        assert reply.status_code == 200
        samples, rate = soundfile.read(io.BytesIO(reply.content), always_2d=True)
        return samples, int(rate)


def loudness_of(samples: np.ndarray[Any, Any], rate: int, hz: float) -> float:
    """How loud one tone is in the middle of a sound, as the amplitude of its sine."""
    part = samples[rate // 4 : -rate // 4, 0]
    at = np.arange(len(part)) / rate
    return float(2 * abs(np.mean(part * np.exp(-2j * np.pi * hz * at))))


async def make_voice(
    client: httpx.AsyncClient,
    database: Database,
    *,
    tenant: str = "default",
    headers: dict[str, str] | None = None,
) -> str:
    """A voice profile with a recording of its own, as it stands in the rows; its id.

    What a profile must be is judged elsewhere: here any sound will do.
    """
    sample = sound(sum(tenant.encode()) % 300 + 100.0, seconds=1)
    sent = await client.post("/v1/uploads", files={"file": ("voice.flac", sample)}, headers=headers)
    assert sent.status_code == 201, sent.text
    digest = sent.json()["sha256"]
    async with database.transaction() as tx:
        recording = (await find_assets_by_digest(tx, [digest]))[digest]
        voice = Voice(
            id=make_id("voi"), tenant=tenant, name="somebody", created_at=datetime.now(UTC),
            asset_id=recording.id, upload_id=make_id("upl"), duration_s=1.0, embedding_model="none",
            embedding=b"",
        )  # fmt: skip
        await insert_voice(tx, voice)
    return voice.id
