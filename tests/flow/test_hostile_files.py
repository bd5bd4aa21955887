"""Files and texts made to harm, through the whole service: from a provider, and from a caller.

Nothing of the canary that lies beside the files is ever stored, nobody is called, nothing is left behind;
texts come back as they were sent, inside of JSON and of nothing else.
"""

from __future__ import annotations

import io
import json
import stat
import tarfile
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest

from app.audio import default_binary
from db.tables import Asset, Upload
from tests.fakes.hostile import CANARY_HZ, CANARY_NAME, day_of_silence_opus, disguises, sine, wav
from tests.fakes.texts import HOSTILE, NUL
from tests.flow.conftest import OpenStage, Stage, as_data_uri, tone
from tests.flow.test_uploads import leftovers, stored

SOME = (
    "hls-file",
    "hls-http",
    "ffconcat-relative",
    "dash",
    "mp3-then-hls",
    "wav-then-ffconcat",
    "id3-then-hls",
)
NAMES = [
    "../../x.wav",
    "%2e%2e/x.wav",
    "/etc/passwd",
    "CON",
    "-y",
    "a|b.wav",
    "concat:a|b",
    "http://127.0.0.1/x",
    "a\nb\r\nX-Evil: 1",
    "\x1b[2J\x00.wav",
    "\u202egnp.wav",
    "😀" * 75,
    "x" * 300,
    "<script>alert(1)</script>",
    "'; amovie=/etc/passwd",
]


def disguise(name: str, folder: Path) -> bytes:
    (folder / CANARY_NAME).write_bytes(wav(sine(2, CANARY_HZ)))
    return dict(disguises(folder, 9))[name]


@pytest.mark.parametrize("name", SOME)
async def test_an_output_in_disguise_fails_its_job_and_stores_nothing(
    sqlite_line: Stage, tmp_path: Path, name: str
) -> None:
    """Fault 37."""
    job_id, prediction_id = await sqlite_line.start()
    output = as_data_uri(disguise(name, tmp_path), "audio/mpeg")
    await sqlite_line.fake.finish(prediction_id, output=output)
    await sqlite_line.drain()
    job = await sqlite_line.read(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "audio_rejected")
    assert str(tmp_path) not in str(job["error"])
    assert (await sqlite_line.count(Asset), stored(sqlite_line), leftovers(sqlite_line)) == (0, [], [])


@pytest.mark.parametrize("name", SOME)
async def test_an_upload_in_disguise_is_refused_and_stores_nothing(
    sqlite_line: Stage, tmp_path: Path, name: str
) -> None:
    """Fault 37."""
    content = disguise(name, tmp_path)
    reply = await sqlite_line.client.post("/v1/uploads", files={"file": ("talk.mp3", content, "audio/mpeg")})
    assert (reply.status_code, reply.json()["field"]) == (422, "file")
    assert str(tmp_path) not in reply.text
    assert (await sqlite_line.count(Upload), stored(sqlite_line), leftovers(sqlite_line)) == (0, [], [])


async def test_a_day_of_silence_is_no_output_and_no_upload(sqlite_line: Stage) -> None:
    """Fault 39."""
    bomb = day_of_silence_opus()
    reply = await sqlite_line.client.post("/v1/uploads", files={"file": ("talk.opus", bomb)})
    assert reply.status_code == 422
    assert "the limit is" in reply.json()["detail"]
    job_id, prediction_id = await sqlite_line.start()
    await sqlite_line.fake.finish(prediction_id, output=as_data_uri(bomb, "audio/ogg"))
    await sqlite_line.drain()
    assert (await sqlite_line.read(job_id))["error"]["code"] == "audio_rejected"
    assert (stored(sqlite_line), leftovers(sqlite_line)) == ([], [])


@pytest.mark.parametrize("name", NAMES)
async def test_the_name_of_a_file_is_nowhere_used(
    stage_on_sqlite: OpenStage, tmp_path: Path, name: str
) -> None:
    """Faults 23, 24, 38: not on the disk, not in a command, not in a header."""
    told = tmp_path / "told"
    spy = tmp_path / "ffmpeg"
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {told}\nexec {default_binary()} "$@"\n')
    spy.chmod(spy.stat().st_mode | stat.S_IXUSR)
    boundary = "b0undary"
    quoted = name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quoted}"\r\n\r\n'.encode()
        + tone()
        + f"\r\n--{boundary}--\r\n".encode()
    )
    async with stage_on_sqlite(ffmpeg_binary=str(spy)) as line:
        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        reply = await line.client.post("/v1/uploads", content=body, headers=headers)
        assert reply.status_code == 201, reply.text
        asset = (await line.rows(Asset))[0]
        assert stored(line) == [f"{asset.sha256}.wav"]
        sent = await line.client.get(f"/v1/assets/{asset.id}/content?download=1")
        assert sent.headers["content-disposition"] == f'attachment; filename="upload-{asset.id}.wav"'
        given = told.read_text().splitlines()
        files = [each for each in given if each.startswith("file:")]
        assert {Path(each).name for each in files} == {"upload"}
        assert not any(name in each for each in given if each not in ("-y", *files))


def zipped(count: int = 3, *, name: str = "talk.wav") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for nth in range(count):
            archive.writestr(name if nth == 0 else f"{nth}-{name}", bytes(100_000))
    return target.getvalue()


def tarred() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        link = tarfile.TarInfo("talk.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return target.getvalue()


@pytest.mark.parametrize(
    "archive",
    [zipped(), zipped(name="../../x"), zipped(name="/etc/x"), zipped(2000), tarred()],
    ids=["zip", "climbing", "absolute", "many", "tar-with-a-link"],
)
async def test_an_archive_is_refused_unopened(sqlite_line: Stage, archive: bytes) -> None:
    """Fault 24: nothing here opens one, so nothing in one can climb out or explode."""
    reply = await sqlite_line.client.post("/v1/uploads", files={"file": ("talk.wav", archive, "audio/wav")})
    assert (reply.status_code, reply.json()["field"]) == (422, "file")
    assert "an archive" in reply.json()["detail"] or "compressed data" in reply.json()["detail"]
    assert (stored(sqlite_line), leftovers(sqlite_line)) == ([], [])


async def test_a_strangers_text_stays_inside_of_its_json(line: Stage) -> None:
    """Fault 23: as a prompt, a value, a name and an error of a model's; never in a header."""
    for text in HOSTILE:
        await _say_everywhere(line, text)


async def _say_everywhere(line: Stage, text: str) -> None:
    body = {
        "kind": "sound_effect",
        "input": {"prompt": text, "duration_s": 1},
        "metadata": {"title": text, text: "name"},
    }
    made = await line.client.post("/v1/jobs", json=body)
    assert made.status_code == 202, made.text
    await line.drain()
    prediction_id = list(line.fake.predictions)[-1]
    await line.fake.finish(prediction_id, error=text)
    await line.drain()
    unknown = await line.client.post("/v1/jobs", json={**body, "input": {"prompt": "x", text: 1}})
    missing = await line.client.get(f"/v1/jobs/{quote(text, safe='')}")
    read = await line.client.get(f"/v1/jobs/{made.json()['id']}")
    assert (unknown.status_code, missing.status_code) == (422, 404)
    assert read.json()["input"]["prompt"] == text.strip()
    assert read.json()["metadata"] == body["metadata"]
    for reply in (made, unknown, missing, read):
        assert reply.headers["content-type"].split(";")[0] in ("application/json", "application/problem+json")
        assert not any(text in value or "evil" in value for value in reply.headers.values())
        reply.json()


@pytest.mark.parametrize("text", [NUL, "x" * (1 << 20), "\ud800"], ids=["nul", "long", "half"])
async def test_a_text_that_cannot_be_kept_is_refused(sqlite_line: Stage, text: str) -> None:
    """Fault 23."""
    line = sqlite_line
    for body in ({"input": {"prompt": text}}, {"input": {"prompt": "x"}, "metadata": {"title": text}}):
        sent = json.dumps({"kind": "sound_effect", **body})
        reply = await line.client.post("/v1/jobs", content=sent, headers={"content-type": "application/json"})
        assert reply.status_code in (400, 413, 422), reply.text
        assert len(reply.text) < 2000
