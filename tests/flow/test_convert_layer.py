"""`/api/v1/convert`: the names of other services' clients over the same jobs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from db.tables import Job, Upload
from tests.flow.conftest import OpenStage
from tests.flow.songs import Studio, sound
from tests.flow.test_tenants import key_for

SONG = ("my song.flac", sound(440, 110), "audio/flac")
NOBODY = "voi_" + "0" * 32


@pytest.fixture
async def studio(stage_on_sqlite: OpenStage) -> AsyncIterator[Studio]:
    async with stage_on_sqlite(routes=("cog",)) as line:
        yield Studio(line)


async def send(
    studio: Studio, data: dict[str, str], *, part: str = "song", headers: dict[str, str] | None = None
) -> httpx.Response:
    return await studio.line.client.post(
        "/api/v1/convert/song", files={part: SONG}, data=data, headers=headers
    )


async def status(studio: Studio, job_id: str) -> dict[str, Any]:
    reply = await studio.line.client.get(f"/api/v1/convert/status/{job_id}")
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def test_a_song_is_sent_watched_and_fetched(studio: Studio) -> None:
    client = studio.line.client
    voice = await studio.voice()
    settings = {"vocalVolume": 0.5, "returnStems": True, "outputQuality": "studio"}
    reply = await send(studio, {"profile_id": voice, "settings": json.dumps(settings)})
    assert reply.status_code == 202, reply.text
    told = reply.json()
    assert (told["status"], told["conversion_id"]) == ("queued", told["job_id"])
    assert told["ignored_settings"] == ["output_quality"]
    assert reply.headers["location"] == told["status_url"]
    job_id = told["job_id"]
    first = (await client.get(told["status_url"])).json()
    assert (first["status"], first["public_status"], first["progress"]) == ("queued", "queued", 0)
    assert (first["output_url"], first["stem_urls"], first["rtf"]) == (None, None, None)
    early = await client.get(f"/api/v1/convert/download/{job_id}")
    assert (early.status_code, early.json()["code"]) == (409, "conversion_incomplete")
    await studio.do()
    second = await status(studio, job_id)
    assert (second["status"], second["public_status"]) == ("in_progress", "processing")
    assert (second["stage"], second["progress"]) == ("voice_conversion", 25)
    await studio.do()
    done = await status(studio, job_id)
    assert (done["status"], done["stage"], done["progress"]) == ("completed", None, 100)
    assert done["audio_duration_seconds"] == 2
    assert done["rtf"] == pytest.approx(done["processing_time_seconds"] / 2, abs=1e-3)
    assert set(done["quality_metrics"]) >= {"mix_true_peak_db", "mix_gain_db", "mix_loudness_lufs"}
    assert set(done["stem_urls"]) == {"vocals", "instrumental"}
    contents = {}
    for variant in ("mix", "vocals", "instrumental"):
        found = await client.get(
            f"/api/v1/convert/download/{job_id}", params={"variant": variant}, follow_redirects=True
        )
        assert found.status_code == 200
        contents[variant] = found.content
    assert contents["mix"] == (await client.get(done["output_url"])).content
    assert contents["vocals"] == (await client.get(done["stem_urls"]["vocals"])).content
    assert len(set(contents.values())) == 3


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({"pitch_shift": "-3"}, {"pitch_shift": -3}),
        ({"pitchShift": "4", "strength": "0.25"}, {"pitch_shift": 4, "strength": 0.25}),
        ({"settings": '{"pitch_shift_semitones": 2}'}, {"pitch_shift": 2}),
        ({"settings": '{"vocalVolume": 2}', "vocal_volume": "0.5"}, {"vocal_volume": 0.5}),
        ({"settings": "{}", "returnStems": "true"}, {"return_stems": True, "instrumental_volume": 0.9}),
    ],
)
async def test_settings_are_taken_in_either_spelling_and_a_part_goes_first(
    studio: Studio, data: dict[str, str], wanted: dict[str, Any]
) -> None:
    voice = await studio.voice()
    reply = await send(studio, {"targetProfileId": voice, **data}, part="audio")
    assert reply.status_code == 202, reply.text
    asked = (await studio.line.read(reply.json()["job_id"]))["input"]
    assert asked["voice_id"] == voice
    assert {name: asked[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("data", "status_code", "code", "field"),
    [
        ({}, 422, "invalid_input", "profile_id"),
        ({"profile_id": NOBODY, "target_profile_id": "voi_" + "1" * 32}, 422, "invalid_input", "profile_id"),
        ({"profile_id": NOBODY}, 404, "profile_not_found", None),
        ({"profile_id": "somebody"}, 404, "profile_not_found", None),
        ({"profile_id": NOBODY, "pitch_shift": "13"}, 422, "invalid_input", "pitch_shift"),
        ({"profile_id": NOBODY, "vocal_volume": "loud"}, 422, "invalid_input", "vocal_volume"),
        ({"profile_id": NOBODY, "settings": "["}, 422, "invalid_input", "settings"),
        ({"profile_id": NOBODY, "settings": "[]"}, 422, "invalid_input", "settings"),
        ({"profile_id": NOBODY, "tempo": "2"}, 422, "invalid_input", "tempo"),
        ({"profile_id": NOBODY, "audio_url": "http://x"}, 422, "invalid_input", "audio_url"),
        ({"profile_id": NOBODY, "pitch_shift": "1" * 20_000}, 422, "invalid_input", "pitch_shift"),
    ],
)
async def test_what_is_wrong_is_named_as_it_was_sent(
    studio: Studio, data: dict[str, str], status_code: int, code: str, field: str | None
) -> None:
    reply = await send(studio, data)
    assert (reply.status_code, reply.json()["code"], reply.json().get("field")) == (status_code, code, field)
    assert await studio.line.rows(Job) == []


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/octet-stream", b"x", "unsupported_media_type"),
        ("multipart/form-data", b"x", "unsupported_media_type"),
        ("multipart/form-data; boundary=b", b"no form", "invalid_multipart"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="song"\r\n\r\nfLaC',
            "invalid_multipart",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="profile_id"\r\n\r\nx\r\n--b--\r\n',
            "invalid_input",
        ),
    ],
)
async def test_what_is_no_form_leaves_nothing(
    studio: Studio, content_type: str, body: bytes, code: str
) -> None:
    reply = await studio.line.client.post(
        "/api/v1/convert/song", content=body, headers={"content-type": content_type}
    )
    assert (reply.status_code // 100, reply.json()["code"]) == (4, code)
    assert await studio.line.rows(Upload) == []


async def test_what_is_no_sound_is_refused_by_the_name_it_was_sent_under(studio: Studio) -> None:
    song = {"song": ("song.flac", b"<html>Sign in</html>", "audio/flac")}
    reply = await studio.line.client.post("/api/v1/convert/song", files=song, data={"profile_id": NOBODY})
    assert (reply.status_code, reply.json()["field"]) == (422, "song")
    assert reply.json()["detail"] == "song: this is not audio: it looks like a web page"


async def test_the_same_key_makes_one_conversion_also_when_the_song_is_sent_again(studio: Studio) -> None:
    """Fault 46."""
    voice = await studio.voice()
    data, headers = {"profile_id": voice}, {"Idempotency-Key": "song-1"}
    first, second = [await send(studio, data, headers=headers) for _ in range(2)]
    assert first.json()["job_id"] == second.json()["job_id"]
    other = await send(studio, data | {"pitch_shift": "1"}, headers=headers)
    assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")


async def test_a_cancel_and_a_failure_are_told_in_their_words(studio: Studio) -> None:
    voice = await studio.voice()
    canceled, failed = [
        (await send(studio, {"profile_id": voice, "pitch_shift": str(shift)})).json()["job_id"]
        for shift in (0, 1)
    ]
    reply = await studio.line.client.post(f"/api/v1/convert/cancel/{canceled}")
    assert (reply.status_code, reply.json()["public_status"]) == (200, "cancelled")
    await studio.do(error="EngineError: nobody sings")
    told = await status(studio, failed)
    assert (told["status"], told["public_status"], told["code"]) == ("failed", "error", "prediction_failed")
    assert told["error"] == "separation: nobody sings"
    late = await studio.line.client.post(f"/api/v1/convert/cancel/{failed}")
    assert late.status_code == 409


async def test_only_conversions_of_ones_own_are_shown(studio: Studio) -> None:
    """Fault 18."""
    line = studio.line
    effect = await line.ask()
    assert (await line.client.get(f"/api/v1/convert/status/{effect}")).status_code == 404
    ours, theirs = [
        {"authorization": f"Bearer {(await key_for(line, tenant)).text}"} for tenant in ("acme", "globex")
    ]
    voice = await studio.voice("acme", ours)
    job_id = (await send(studio, {"profile_id": voice}, headers=ours)).json()["job_id"]
    assert (await send(studio, {"profile_id": voice}, headers=theirs)).status_code == 404
    for method, path in (("GET", "status"), ("GET", "download"), ("POST", "cancel")):
        reply = await line.client.request(method, f"/api/v1/convert/{path}/{job_id}", headers=theirs)
        assert reply.status_code == 404
