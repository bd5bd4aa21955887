"""Lyrics over HTTP: made of a transcription or a file, corrected by versions, told as LRC."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.karaoke.lyrics import book
from db.tables import Audit, Lyrics, LyricsVersion
from tests.flow.conftest import OpenStage, Stage, as_data_uri, tone

SUNG = "I was here long before. You came along and sang this song. Now go"
WORDS = SUNG.split()
LRC = "[ti:Two lines]\n[00:01.00]Hello there\n[00:03.50]Good bye\n"
NOBODYS = "0" * 32


def transcript(*, probability: float = 0.9) -> dict[str, Any]:
    words = [
        {"word": word, "start": 1 + 0.5 * at, "end": 1.4 + 0.5 * at, "probability": probability}
        for at, word in enumerate(WORDS)
    ]
    segment = {"start": 1.0, "end": 8.0, "text": SUNG, "words": words}
    return {"language": "en", "duration": 9.5, "segments": [segment]}


async def transcribe(line: Stage, said: dict[str, Any], headers: dict[str, str] | None = None) -> str:
    """A transcription that has succeeded with this transcript; its id."""
    sent = await line.client.post(
        "/v1/uploads", files={"file": ("song.wav", tone(0.7), "audio/wav")}, headers=headers
    )
    body = {"kind": "transcription", "input": {"audio": sent.json()["upload_id"]}}
    asked = await line.client.post("/v1/jobs", json=body, headers=headers)
    assert asked.status_code == 202, asked.text
    await line.drain()
    await line.fake.finish(list(line.fake.predictions)[-1], output=said)
    await line.drain()
    job = (await line.client.get(f"/v1/jobs/{asked.json()['id']}", headers=headers)).json()
    assert job["state"] == "succeeded", job
    return str(job["id"])


async def made(line: Stage, **body: Any) -> dict[str, Any]:
    reply = await line.client.post("/v1/lyrics", json=body)
    assert reply.status_code == 201, reply.text
    assert reply.headers["location"] == f"/v1/lyrics/{reply.json()['id']}"
    return dict(reply.json())


async def test_a_transcription_becomes_lyrics_with_measured_figures(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        job_id = await transcribe(line, transcript())
        job = (await line.client.get(f"/v1/jobs/{job_id}")).json()
        asset_id = job["outputs"]["transcript"]["asset_id"]
        for body in ({"job_id": job_id, "title": " My\nsong "}, {"asset_id": asset_id, "title": "My song"}):
            lyrics = await made(line, **body)
            assert (lyrics["title"], lyrics["language"], lyrics["duration_ms"]) == ("My song", "en", 9500)
            assert (lyrics["source"], lyrics["version"]) == ("transcription", 1)
            assert [each["text"] for each in lyrics["lines"]] == [
                "I was here long before.", "You came along and sang this song.", "Now go",
            ]  # fmt: skip
            assert lyrics["lines"][0]["words"][1] == {
                "text": "was", "start_ms": 1500, "end_ms": 1900, "confidence": 0.9,
            }  # fmt: skip
            review = lyrics["review"]
            assert (review["words"], review["mean_confidence"], review["flags"]) == (14, 0.9, [])
            shown = await line.client.get(f"/v1/lyrics/{lyrics['id']}")
            assert shown.json() == lyrics
            assert shown.headers["etag"] == '"1"'
        listed = (await line.client.get("/v1/lyrics")).json()["items"]
        assert [each["title"] for each in listed] == ["My song", "My song"]
        assert "lines" not in listed[0]


async def test_lyrics_go_out_as_lrc_and_come_in_again(sqlite_line: Stage) -> None:
    job_id = await transcribe(sqlite_line, transcript())
    lyrics = await made(sqlite_line, job_id=job_id, title="Go [now]")
    plain = await sqlite_line.client.get(f"/v1/lyrics/{lyrics['id']}/lrc")
    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert plain.text.splitlines() == [
        "[ti:Go [now]]", "[length:00:09]", "[la:en]",
        "[00:01.00]I was here long before.", "[00:03.40]",
        "[00:03.50]You came along and sang this song.", "[00:06.90]",
        "[00:07.00]Now go", "[00:07.90]",
    ]  # fmt: skip
    enhanced = await sqlite_line.client.get(f"/v1/lyrics/{lyrics['id']}/lrc", params={"words": "true"})
    assert "[00:07.00]<00:07.00>Now <00:07.50>go <00:07.90>" in enhanced.text.splitlines()
    again = await made(sqlite_line, lrc=enhanced.text, duration_s=9.5)
    assert (again["title"], again["source"], again["review"]) == ("Go [now]", "lrc", None)
    times = [(each["start_ms"], each["end_ms"], each["text"]) for each in lyrics["lines"]]
    assert [(each["start_ms"], each["end_ms"], each["text"]) for each in again["lines"]] == times
    assert [word["start_ms"] for each in again["lines"] for word in each["words"]] == [
        word["start_ms"] for each in lyrics["lines"] for word in each["words"]
    ]


async def test_every_correction_is_a_version_and_an_older_one_can_be_restored(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        path = f"/v1/lyrics/{(await made(line, lrc=LRC))['id']}"
        shifted = await line.client.post(f"{path}/shift", json={"version": 1, "ms": -500})
        assert [each["start_ms"] for each in shifted.json()["lines"]] == [500, 3000]
        fixes = [{"index": 1, "text": "Good night"}, {"index": 0, "remove": True}]
        fixed = await line.client.patch(path, json={"version": 2, "lines": fixes, "title": "One line"})
        assert [each["text"] for each in fixed.json()["lines"]] == ["Good night"]
        lines = [{"start_ms": 9, "end_ms": 10, "text": "b"}, {"start_ms": 1, "end_ms": 2, "text": "a"}]
        put = await line.client.put(f"{path}/lines", json={"version": 3, "lines": lines})
        assert [each["text"] for each in put.json()["lines"]] == ["a", "b"]
        renamed = await line.client.patch(path, json={"version": 4, "title": "Renamed"})
        assert (renamed.json()["title"], renamed.json()["version"]) == ("Renamed", 4)
        restored = await line.client.post(f"{path}/restore", json={"version": 4, "number": 1})
        assert restored.headers["etag"] == '"5"'
        assert [each["text"] for each in restored.json()["lines"]] == ["Hello there", "Good bye"]
        versions = (await line.client.get(f"{path}/versions")).json()["items"]
        assert [(each["number"], each["made_by"]) for each in versions] == [
            (5, "version 1 restored"), (4, "lines replaced"), (3, "fix"), (2, "shift -500 ms"), (1, "lrc"),
        ]  # fmt: skip
        second = (await line.client.get(f"{path}/versions/2")).json()
        assert (second["shown"]["number"], second["version"]) == (2, 5)
        assert [each["start_ms"] for each in second["lines"]] == [500, 3000]
        assert (await line.client.get(f"{path}/versions/6")).status_code == 404
        acts = [row.act for row in await line.rows(Audit)]
        assert acts == ["lyrics.created"] + ["lyrics.changed"] * 5
        assert (await line.client.delete(path)).status_code == 204
        assert (await line.client.get(path)).status_code == 404
        assert await line.count(LyricsVersion) == await line.count(Lyrics) == 0


async def test_of_two_who_correct_one_version_the_second_is_told(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        path = f"/v1/lyrics/{(await made(line, lrc=LRC))['id']}"
        replies = await asyncio.gather(
            *(
                line.client.patch(path, json={"version": 1, "lines": [{"index": 0, "text": f"By {who}"}]})
                for who in range(5)
            )
        )
        assert sorted(reply.status_code for reply in replies) == [200, 409, 409, 409, 409]
        stale = next(reply for reply in replies if reply.status_code == 409).json()
        assert (stale["code"], stale["detail"]) == ("stale_version", "the lyrics are at version 2")
        won = next(reply for reply in replies if reply.status_code == 200).json()
        assert (await line.client.get(path)).json()["lines"] == won["lines"]


async def test_if_match_must_name_the_version_too(sqlite_line: Stage) -> None:
    path = f"/v1/lyrics/{(await made(sqlite_line, lrc=LRC))['id']}"
    for given, status in (('"7"', 412), ("nonsense", 412), ('"7", "1"', 200), ("*", 200)):
        version = (await sqlite_line.client.get(path)).json()["version"]
        reply = await sqlite_line.client.post(
            f"{path}/shift", json={"version": version, "ms": 10}, headers={"if-match": given}
        )
        assert reply.status_code == status, given
        if status == 412:
            assert reply.json()["code"] == "precondition_failed"


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"lrc": "[00:01.00]a\nwithout a time"}, "lrc", "line 2: there is no time tag"),
        ({"lrc": "[00:01.00]a", "title": " \u2028 "}, "title", "can be seen"),
        ({}, "job_id", "name one of"),
        ({"lrc": LRC, "job_id": f"job_{NOBODYS}"}, "job_id", "name one of"),
        ({"job_id": f"job_{NOBODYS}"}, "job_id", "no such job"),
        ({"asset_id": f"ast_{NOBODYS}"}, "asset_id", "no such asset"),
        ({"lrc": LRC, "more": 1}, "more", "not permitted"),
    ],
)
async def test_what_lyrics_cannot_be_made_of_is_named(
    sqlite_line: Stage, body: dict[str, Any], field: str, said: str
) -> None:
    reply = await sqlite_line.client.post("/v1/lyrics", json=body)
    assert (reply.status_code, reply.json()["field"]) == (422, field)
    assert said in reply.json()["detail"]
    assert await sqlite_line.count(Lyrics) == 0


async def test_what_is_no_transcript_makes_no_lyrics(sqlite_line: Stage) -> None:
    job_id, prediction_id = await sqlite_line.start()
    early = await sqlite_line.client.post("/v1/lyrics", json={"job_id": job_id})
    assert (early.status_code, early.json()["detail"]) == (
        422, "job_id: a sound_effect that is running has no `transcript`",
    )  # fmt: skip
    await sqlite_line.fake.finish(prediction_id, output=as_data_uri(tone()))
    await sqlite_line.drain()
    asset_id = (await sqlite_line.read(job_id))["outputs"]["audio"]["asset_id"]
    sound = await sqlite_line.client.post("/v1/lyrics", json={"asset_id": asset_id})
    assert (sound.status_code, sound.json()["detail"]) == (422, "asset_id: this asset is no transcript")
    silent = await transcribe(sqlite_line, {"language": "en", "duration": 3.0, "segments": []})
    nothing = await sqlite_line.client.post("/v1/lyrics", json={"job_id": silent})
    assert (nothing.status_code, nothing.json()["field"]) == (422, "job_id")


async def test_versions_are_kept_up_to_a_number(sqlite_line: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "KEPT_VERSIONS", 3)
    path = f"/v1/lyrics/{(await made(sqlite_line, lrc=LRC))['id']}"
    for version in range(1, 6):
        await sqlite_line.client.post(f"{path}/shift", json={"version": version, "ms": 100})
    kept = (await sqlite_line.client.get(f"{path}/versions")).json()["items"]
    assert [each["number"] for each in kept] == [6, 5, 4]
    gone = await sqlite_line.client.post(f"{path}/restore", json={"version": 6, "number": 1})
    assert gone.status_code == 404
    assert "not kept" in gone.json()["detail"]


async def test_lyrics_and_their_shapes_survive_as_json(sqlite_line: Stage) -> None:
    """Any character that can be shown, whatever the database."""
    text = "[00:01.00]Ünï©ode 歌 🎤\n[00:02.00]A <b>tag</b> & a \\ backslash"
    lyrics = await made(sqlite_line, lrc=text)
    shown = (await sqlite_line.client.get(f"/v1/lyrics/{lyrics['id']}/lrc")).text
    assert shown.splitlines()[1:] == [*text.splitlines()[:1], text.splitlines()[1], "[00:07.00]"]
    assert json.loads(json.dumps(lyrics)) == lyrics
