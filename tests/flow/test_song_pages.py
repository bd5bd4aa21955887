"""The pages of songs and voices over HTTP: whose they are, what they show, what they say of what is gone."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col

from app.access.callers import Scope
from app.web.dashboard.pages.song_figures import NOT_MEASURED, figures_of
from app.web.schemas import JobOut
from db.tables import Voice
from tests.flow.conftest import OpenStage, Stage
from tests.flow.songs import Studio
from tests.flow.test_dashboard import HOSTILE, PAGE, key_of, sign_in

SONGS, VOICES = "/songs", "/voices"


async def page_of(line: Stage, path: str, status: int = 200) -> str:
    reply = await line.client.get(path, headers=PAGE)
    assert reply.status_code == status, reply.text
    return reply.text


@pytest.fixture
async def studio(stage_on_sqlite: OpenStage) -> Any:
    async with stage_on_sqlite(routes=("cog",)) as line:
        yield Studio(line)


async def test_a_conversion_is_shown_with_all_that_was_asked_for_made_and_measured(studio: Studio) -> None:
    job_id = await studio.convert(await studio.upload(), return_stems=True, pitch_shift=-3, strength=0.25)
    running = await page_of(studio.line, f"{SONGS}/{job_id}")
    assert "Measured when the result is there" in running
    await studio.do_all()
    job = await studio.line.read(job_id)
    shown = html.unescape(await page_of(studio.line, f"{SONGS}/{job_id}"))
    for text in ("sung by somebody", "pitch -3", "strength 0.25", "vocals at 1, music at 0.9"):
        assert text in shown
    for name in ("audio", "vocals", "instrumental"):
        assert job["outputs"][name]["asset_id"] in shown
    assert job["input"]["audio"] in shown, "and what was sent"
    assert f"{job['measured']['mix_true_peak_db']:.1f} dBTP".replace("-", "−") in shown
    assert NOT_MEASURED in shown
    assert [job_id] == re.findall(r'id="row-(job_\w+)"', await page_of(studio.line, SONGS))


async def test_a_song_outlives_its_voice_and_says_so_when_it_is_gone_itself(studio: Studio) -> None:
    job_id = await studio.convert(await studio.upload())
    await studio.do_all()
    gone = await studio.line.client.delete(f"/v1/voices/{await studio.voice()}")
    assert gone.status_code == 204
    assert "sung by a voice that is gone" in await page_of(studio.line, f"{SONGS}/{job_id}")
    expunged = await studio.line.client.post(f"/v1/jobs/{job_id}/expunge")
    assert expunged.status_code == 200, expunged.text
    assert "The song is not kept any more" in await page_of(studio.line, f"{SONGS}/{job_id}")
    assert "expunged" in await page_of(studio.line, SONGS)


async def test_what_is_no_song_is_not_found_among_them(sqlite_line: Stage) -> None:
    job_id = await sqlite_line.ask()
    assert "there is no song" in await page_of(sqlite_line, f"{SONGS}/{job_id}", 404)
    assert "No song yet" in await page_of(sqlite_line, SONGS)


async def test_names_of_voices_and_songs_are_inert_on_every_page(studio: Studio) -> None:
    """Fault 23."""
    voice_id = await studio.voice()
    named = HOSTILE.replace("\x1b", "")
    renamed = await studio.line.client.patch(f"/v1/voices/{voice_id}", json={"name": named[:100]})
    assert renamed.status_code == 200, renamed.text
    wanted = {"audio": await studio.upload(), "voice_id": voice_id}
    asked = {"kind": "voice_conversion", "input": wanted, "metadata": {"title": named}}
    job_id = (await studio.line.client.post("/v1/jobs", json=asked)).json()["id"]
    for path in (VOICES, SONGS, f"{SONGS}/{job_id}", "/", f"/jobs/{job_id}"):
        text = await page_of(studio.line, path)
        assert "<img src=x" not in text, path
        assert "<script>" not in text, path
        assert "{{ 7*7 }}" in text, path


async def test_a_key_that_may_only_read_is_shown_no_forms(studio: Studio) -> None:
    job_id = await studio.convert(await studio.upload())
    await sign_in(studio.line, await key_of(studio.line, "default", Scope.JOBS_READ))
    for path in (VOICES, SONGS, f"{SONGS}/{job_id}"):
        text = await page_of(studio.line, path)
        assert not re.search(r'id="song-form"|id="voice-form"|data-rename=|data-delete=|data-act=', text), (
            path
        )
        assert "somebody" in text, "but all that there is"


async def test_the_latest_songs_are_shown_and_the_queue_has_the_rest(studio: Studio) -> None:
    song = await studio.upload()
    for kind in ["stem_separation"] * 16 + ["voice_conversion"] * 16:
        asked: dict[str, Any] = {"kind": kind, "input": {"audio": song}}
        if kind == "voice_conversion":
            asked["input"]["voice_id"] = await studio.voice()
        assert (await studio.line.client.post("/v1/jobs", json=asked)).status_code == 202
    text = await page_of(studio.line, SONGS)
    shown = re.findall(r'id="row-(job_\w+)"', text)
    assert (len(shown), shown) == (30, sorted(shown, reverse=True))
    assert "The latest 30" in text


async def test_voices_lead_on_page_by_page_and_their_cursor_fits_no_other_list(studio: Studio) -> None:
    first = await studio.voice()
    async with studio.line.runtime.line.database.transaction() as tx:
        row = (await studio.line.rows(Voice))[0]
        for number in range(52):
            copy = row.model_dump() | {"id": f"voi_{number:032x}", "name": f"voice {number}"}
            await tx.execute(Voice.__table__.insert(), copy)  # type: ignore[attr-defined]
        await tx.execute(update(Voice).where(col(Voice.id) == first).values(name="the newest"))
    text = await page_of(studio.line, VOICES)
    [more] = re.findall(r'href="(/voices\?cursor=[^"]+)"', text)
    second = await page_of(studio.line, more.replace("&amp;", "&"))
    found = [re.findall(r'<li class="job" id="(voi_\w+)"', each) for each in (text, second)]
    assert [len(each) for each in found] == [50, 3]
    assert not set(found[0]) & set(found[1])
    cursor = more.partition("cursor=")[2]
    assert (await studio.line.client.get(f"/v1/voices?cursor={cursor}")).status_code == 400


def test_a_figure_that_was_not_measured_says_so_and_silence_is_no_number() -> None:
    def said(kind: str, measured: dict[str, Any] | None) -> dict[str, tuple[str, bool]]:
        job = JobOut.model_construct(kind=kind, measured=measured)
        return {each.name: (each.said, each.is_measured) for each in figures_of(job)}

    assert set(said("stem_separation", None).values()) == {(NOT_MEASURED, False)}
    assert set(said("voice_conversion", None).values()) == {(NOT_MEASURED, False)}
    silent = said(
        "voice_conversion",
        {
            "mix_true_peak_db": None,
            "mix_loudness_lufs": None,
            "mix_gain_db": 0.0,
            "similarity_before": 0.38,
            "similarity_after": None,
        },
    )
    assert silent["True peak of the mix"] == ("silence", True)
    assert silent["Loudness of the mix"] == ("too quiet to be measured", True)
    assert silent["Gain"] == ("0.0 dB", True)
    assert silent["Likeness of the song's voice"] == ("0.38", True)
    assert silent["Likeness of the result"] == (NOT_MEASURED, False)
