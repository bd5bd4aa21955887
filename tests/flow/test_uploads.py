"""Uploads: what is sound is stored once and kept while a job needs it, what is not leaves nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.housekeeping import OWNER_KEY
from db.tables import Asset, Job, JobInput, Output, Upload
from tests.flow.conftest import OpenStage, Stage, as_data_uri, tone

PAST = timedelta(seconds=1)
SEGMENT = {"start": 0.1, "end": 0.5, "text": "Hello.", "words": []}


async def send(line: Stage, content: bytes, *, name: str = "file") -> httpx.Response:
    return await line.client.post("/v1/uploads", files={name: ("talk.wav", content, "audio/wav")})


async def uploaded(line: Stage, content: bytes | None = None) -> str:
    reply = await send(line, content or tone())
    assert reply.status_code == 201, reply.text
    return str(reply.json()["upload_id"])


async def asked(line: Stage, file_id: str, **body: Any) -> httpx.Response:
    wanted = {"kind": "transcription", "input": {"audio": file_id}, **body}
    return await line.client.post("/v1/jobs", json=wanted)


async def transcribed(line: Stage, file_id: str, output: Any = None) -> dict[str, Any]:
    """A transcription of the file, after the hosted model has answered."""
    job_id = (await asked(line, file_id)).json()["id"]
    await line.drain()
    answer = {"detected_language": "en", "segments": [SEGMENT]} if output is None else output
    await line.fake.finish(list(line.fake.predictions)[-1], output=answer)
    await line.drain()
    return await line.read(job_id)


def stored(line: Stage) -> list[str]:
    root = line.runtime.bench.storage.root
    assert root is not None
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.name != OWNER_KEY)


def leftovers(line: Stage) -> list[Path]:
    return [path for path in line.runtime.bench.workspace.root.iterdir() if path.name != "lock"]


async def expire_uploads(line: Stage) -> int:
    """Let the time of all uploads come; how many went."""
    for upload in await line.rows(Upload):
        await line.change(Upload, upload.id, expires_at=datetime.now(UTC) - PAST)
    gone = await line.runtime.housekeeper.expire_uploads()
    await line.runtime.housekeeper.remove_doomed()
    return gone


async def test_an_upload_is_measured_and_its_bytes_are_stored_as_they_were_sent(line: Stage) -> None:
    content = tone(1.5)
    reply = await send(line, content)
    assert reply.status_code == 201
    told = reply.json()
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert told["duration_s"] == 1.5
    assert (told["size_bytes"], told["media_type"]) == (len(content), "audio/wav")
    assert stored(line) == [f"{told['sha256']}.wav"]
    assert leftovers(line) == []


async def test_identical_bytes_are_stored_once_and_are_two_uploads(line: Stage) -> None:
    both = await asyncio.gather(uploaded(line), uploaded(line))
    assert len(set(both)) == 2
    assert await line.count(Asset) == 1
    assert len(stored(line)) == 1


WAV_OF_TEXT = b"This is a text that somebody has named talk.wav. " * 40
PLAYLIST = b"#EXTM3U\nfile:///etc/passwd\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (WAV_OF_TEXT, "it looks like text"),
        (PLAYLIST, "an HLS playlist"),
        (tone()[:6000], "cut short"),
        (b"", "empty"),
        (tone()[:44], "no samples"),
        (struct.pack("<4sI4s", b"RIFF", 4, b"WAVE"), "decoded"),
    ],
    ids=["text", "playlist", "cut", "empty", "header", "no-samples"],
)
async def test_what_is_no_whole_sound_is_refused_and_leaves_nothing(
    sqlite_line: Stage, content: bytes, words: str
) -> None:
    reply = await send(sqlite_line, content)
    assert reply.status_code == 422
    assert reply.json()["field"] == "file"
    assert words in reply.json()["detail"]
    assert (await sqlite_line.count(Upload), await sqlite_line.count(Asset)) == (0, 0)
    assert stored(sqlite_line) == []
    assert leftovers(sqlite_line) == []


async def test_a_sound_longer_than_the_limit_is_refused(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(max_upload_s=1.0) as line:
        reply = await send(line, tone(2.0))
    assert reply.status_code == 422
    assert "the limit is 1 s" in reply.json()["detail"]


async def test_a_file_past_the_limit_is_refused_before_it_has_all_come(stage_on_sqlite: OpenStage) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        while True:
            sent += 1
            assert sent < 100, "it was read on and on"
            yield b"\0" * 65_536

    async with stage_on_sqlite(max_upload_bytes=1_000_000) as line:
        headers = {"content-type": "multipart/form-data; boundary=b"}
        reply = await line.client.post("/v1/uploads", content=endless(), headers=headers)
        assert reply.status_code == 413
        assert reply.json()["code"] == "too_large"
        assert (stored(line), leftovers(line)) == ([], [])


HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (HEAD + tone(), 400, "invalid_multipart"),
        (HEAD + tone() + b"\r\n--b", 400, "invalid_multipart"),
        (b"no boundary in sight", 400, "invalid_multipart"),
        (b"--b--\r\n", 422, "invalid_input"),
        (HEAD.replace(b'"file"', b'"audio"') + tone() + b"\r\n--b--\r\n", 422, "invalid_input"),
        (HEAD + tone() + b"\r\n" + HEAD + tone() + b"\r\n--b--\r\n", 422, "invalid_input"),
        (b"--b\r\n" + b"X-Header: " + b"x" * 100_000 + b"\r\n\r\n", 400, "invalid_multipart"),
    ],
    ids=["no-end", "half-end", "no-parts", "nothing", "other-name", "two-files", "long-header"],
)
async def test_a_body_that_is_not_one_whole_file_is_refused(
    sqlite_line: Stage, body: bytes, status: int, code: str
) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    reply = await sqlite_line.client.post("/v1/uploads", content=body, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    assert await sqlite_line.count(Upload) == 0
    assert (stored(sqlite_line), leftovers(sqlite_line)) == ([], [])


async def test_another_media_type_is_refused(sqlite_line: Stage) -> None:
    for kind in ("audio/wav", "multipart/form-data", "multipart/mixed; boundary=b", ""):
        reply = await sqlite_line.client.post("/v1/uploads", content=tone(), headers={"content-type": kind})
        assert (reply.status_code, reply.json()["code"]) == (415, "unsupported_media_type"), kind


async def test_uploads_in_shards_of_any_size_are_the_same_file(sqlite_line: Stage) -> None:
    body = HEAD + tone() + b"\r\n--b--\r\n"

    async def shards(size: int) -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    headers = {"content-type": "multipart/form-data; boundary=b"}
    for size in (1, 7, 1000, 100_000):
        reply = await sqlite_line.client.post("/v1/uploads", content=shards(size), headers=headers)
        assert reply.status_code == 201, reply.text
    assert await sqlite_line.count(Asset) == 1


async def test_an_upload_that_nobody_made_or_somebody_else_did_is_a_422_that_names_the_field(
    line: Stage,
) -> None:
    mine = await uploaded(line)
    await line.change(Upload, mine, tenant="somebody-else")
    unknown = "upl_" + "0" * 32
    asset_of_theirs = (await line.rows(Asset))[0].id
    for file_id in (mine, unknown, asset_of_theirs, "ast_" + "0" * 32):
        reply = await asked(line, file_id)
        assert reply.status_code == 422
        assert reply.json()["field"] == "input.audio"
    assert await line.count(Job) == 0
    assert await line.count(JobInput) == 0


async def test_an_expired_upload_is_not_taken_and_goes_with_its_bytes(line: Stage) -> None:
    mine = await uploaded(line)
    await line.change(Upload, mine, expires_at=datetime.now(UTC) - PAST)
    assert (await asked(line, mine)).status_code == 422
    assert await expire_uploads(line) == 1
    assert await line.count(Asset) == 0
    assert stored(line) == []


@pytest.mark.breaks("I1")
async def test_a_job_keeps_its_file_past_the_upload_and_lets_it_go_with_itself(stage_on: OpenStage) -> None:
    async with stage_on(retention_s=86_400) as line:
        job = await transcribed(line, await uploaded(line))
        assert await expire_uploads(line) == 1
        asset_id = job["input"]["audio"]
        assert (await line.client.get(f"/v1/assets/{asset_id}/content")).content == tone()
        await line.change(Job, job["id"], expires_at=datetime.now(UTC) - PAST)
        assert (await line.client.get(f"/v1/assets/{asset_id}/content")).status_code == 410
        assert await line.runtime.housekeeper.expire() == 1
        await line.runtime.housekeeper.remove_doomed()
        assert (await line.count(Asset), await line.count(JobInput)) == (0, 0)
        assert stored(line) == []


async def test_no_search_for_orphans_takes_an_upload(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(orphan_age_s=0) as line:
        await uploaded(line)
        assert (await line.runtime.housekeeper.sweep()).count == 0
        assert len(stored(line)) == 1


async def test_the_provider_gets_a_signed_link_and_the_job_names_the_asset(line: Stage) -> None:
    job = await transcribed(line, await uploaded(line))
    assert job["state"] == "succeeded", job["error"]
    url = next(iter(line.fake.predictions.values()))["input"]["audio_file"]
    assert url.startswith(f"https://reprise.test/v1/assets/{job['input']['audio']}/content?tenant=default&")
    assert (await line.client.get(url)).content == tone()
    assert (await line.client.get(url[:-1] + "x")).status_code == 403


async def test_an_asset_of_an_earlier_job_is_a_file_too_unless_it_is_text(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=line.fake.keep_output("a.wav", tone()))
    first = await transcribed(line, await uploaded(line))
    again = await asked(line, first["input"]["audio"])
    assert again.status_code == 202
    text = await asked(line, first["outputs"]["transcript"]["asset_id"])
    assert (text.status_code, text.json()["field"]) == (422, "input.audio")
    assert "not sound" in text.json()["detail"]
    assert await line.state(job_id) != "succeeded"


async def test_a_retried_job_reads_the_same_file_although_the_upload_is_gone(line: Stage) -> None:
    job_id = (await asked(line, await uploaded(line))).json()["id"]
    await line.client.post(f"/v1/jobs/{job_id}/cancel")
    await expire_uploads(line)
    reply = await line.client.post(f"/v1/jobs/{job_id}/retry")
    assert reply.status_code == 202, reply.text
    assert await line.count(JobInput) == 2


async def test_an_idempotency_key_answers_also_when_the_upload_has_gone(line: Stage) -> None:
    body = {"kind": "transcription", "input": {"audio": await uploaded(line)}}
    headers = {"Idempotency-Key": "one"}
    first = await line.client.post("/v1/jobs", json=body, headers=headers)
    await expire_uploads(line)
    again = await line.client.post("/v1/jobs", json=body, headers=headers)
    assert again.json()["id"] == first.json()["id"]
    assert await line.count(Job) == 1


async def test_a_transcription_ends_with_json_and_subtitles(line: Stage) -> None:
    job = await transcribed(line, await uploaded(line))
    outputs = job["outputs"]
    assert {name: each["media_type"] for name, each in outputs.items()} == {
        "transcript": "application/json",
        "subtitles": "application/x-subrip",
    }
    assert [each["duration_s"] for each in outputs.values()] == [None, None]
    transcript = (await line.client.get(outputs["transcript"]["url"])).json()
    assert transcript == {"language": "en", "duration": 0.5, "segments": [SEGMENT]}
    subtitles = await line.client.get(outputs["subtitles"]["url"])
    assert subtitles.text == "1\n00:00:00,100 --> 00:00:00,933\nHello.\n"
    assert subtitles.headers["content-type"].startswith("application/x-subrip")
    asset = (await line.client.get(f"/v1/assets/{outputs['transcript']['asset_id']}")).json()
    assert (asset["duration_s"], asset["channels"]) == (None, None)
    assert (await line.client.get(f"/v1/assets/{asset['id']}/peaks")).status_code == 404


@pytest.mark.parametrize(
    "output",
    [
        {"transcript": "{not json", "engine": "x"},
        {"transcript": "data:application/json;base64,e25vdA==", "subtitles": "data:text/plain;base64,QQ=="},
        {"transcript": "data:application/json;base64,e30=", "subtitles": "data:text/plain;base64,QQ=="},
        {"segments": [{"start": 5, "end": 1, "text": "backwards"}]},
        "https://elsewhere.example/a.json",
    ],
    ids=["inline", "file", "empty-object", "backwards", "one-address"],
)
async def test_a_transcript_that_is_none_is_a_typed_failure(sqlite_line: Stage, output: Any) -> None:
    job = await transcribed(sqlite_line, await uploaded(sqlite_line), output)
    assert job["state"] == "failed"
    assert job["error"]["code"] == "provider_bad_response"
    assert await sqlite_line.count(Output) == 0
    assert leftovers(sqlite_line) == []


async def test_a_recording_too_long_for_its_kind_is_refused(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite() as line:
        mine = await uploaded(line)
        [asset] = await line.rows(Asset)
        await line.change(Asset, asset.id, duration_s=4000.0)
        reply = await asked(line, mine)
    assert reply.status_code == 422
    assert "lasts 4000 s" in reply.json()["detail"]


async def test_a_worker_without_an_engine_ends_the_job_as_engine_unavailable(stage_on: OpenStage) -> None:
    async with stage_on(routes=("cog",)) as line:
        job_id = (await asked(line, await uploaded(line))).json()["id"]
        await line.drain()
        [prediction_id] = line.cog.running
        said = "Prediction failed: EngineUnavailable: its weights are not installed: pip install x"
        await line.cog.finish(prediction_id, error=said)
        await line.drain()
        error = (await line.read(job_id))["error"]
    assert error == {
        "code": "engine_unavailable",
        "message": "its weights are not installed: pip install x",
    }


async def separated(line: Stage, vocals: bytes, instrumental: bytes) -> dict[str, Any]:
    """A separation, after the hosted model has answered with these."""
    wanted = {"kind": "stem_separation", "input": {"audio": await uploaded(line)}}
    job_id = (await line.client.post("/v1/jobs", json=wanted)).json()["id"]
    await line.drain()
    output = {"vocals": as_data_uri(vocals), "accompaniment": as_data_uri(instrumental)}
    await line.fake.finish(list(line.fake.predictions)[-1], output=output)
    await line.drain()
    return await line.read(job_id)


async def test_stems_keep_their_silence_so_that_they_lie_under_each_other(sqlite_line: Stage) -> None:
    silent, padded = tone(0.6, volume=0.0, pad_s=0.2), tone(0.6, pad_s=0.2)
    job = await separated(sqlite_line, silent, padded)
    assert job["state"] == "succeeded", job["error"]
    assert [job["outputs"][name]["duration_s"] for name in ("vocals", "instrumental")] == [1.0, 1.0]


async def test_stems_of_different_lengths_are_a_bad_response(sqlite_line: Stage) -> None:
    job = await separated(sqlite_line, tone(0.6), tone(1.2))
    assert job["error"]["code"] == "provider_bad_response"
    assert "0.60 s and 1.20 s" in job["error"]["message"]
