"""Voices in the browser: made, refused figure by figure, renamed, exported, deleted; each tenant's own."""

from __future__ import annotations

import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.access.callers import Caller, Scope
from tests.browser.conftest import OpenWindow, Window, served_on
from tests.browser.test_pages import LOOKS
from tests.fakes.examiner import FakeExaminer, vector
from tests.flow.conftest import OpenStage, Stage, tone

pytestmark = pytest.mark.real


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "ada.wav"
    path.write_bytes(tone(20.0))
    return path


@pytest.fixture
def heard(stage_on_sqlite: OpenStage) -> Any:
    """A stage whose examiner hears what it is told to hear."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[Stage, FakeExaminer]]:
        examiner = FakeExaminer()
        async with stage_on_sqlite(routes=("cog",), ports={"examiner": examiner}) as line:
            yield line, examiner

    return opened


async def make(page: Any, name: str, path: Path) -> None:
    await page.locator("#voice-name").fill(name)
    await page.locator("#voice-file").set_input_files(path)
    await page.locator("#voice-form [type=submit]").click()


def row(page: Any, name: str) -> Any:
    return page.locator(".job", has=page.get_by_role("heading", name=name, exact=True))


async def test_a_recording_that_is_too_short_or_too_noisy_is_refused_with_what_was_measured(
    heard: Any, window: OpenWindow, recording: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.wav"
    short.write_bytes(tone(4.5))
    async with heard() as (line, examiner), served_on(line) as url, window(may_complain=True) as opened:
        page = opened.page
        await opened.open(f"{url}/voices")
        assert "15 to 60 s" in await page.locator("#voice-file-help").inner_text()
        await make(page, "Ada", short)
        refusal = page.locator("[data-refusal]")
        await refusal.wait_for()
        assert await refusal.locator("li").all_inner_texts() == ["it lasts 4.5 s, 15 to 60 s are needed"]
        examiner.hears(snr_db=4.2, silence_share=0.7)
        await make(page, "Ada", recording)
        await refusal.locator("li", has_text="SNR").wait_for()
        assert await refusal.locator("li").all_inner_texts() == [
            "its SNR is 4.2 dB, at least 10 dB are needed",
            "70% of it is silence, at most 60% may be",
        ]
        assert (await line.client.get("/v1/voices")).json()["items"] == []
        # The name stays, so that another recording is all that is to be chosen.
        assert await page.locator("#voice-name").input_value() == "Ada"
        examiner.hears()
        await page.locator("#voice-file").set_input_files(recording)
        await page.locator("#voice-form [type=submit]").click()
        await row(page, "Ada").wait_for()
        assert await refusal.is_hidden()


async def test_a_voice_is_made_renamed_taken_along_and_deleted_once_that_is_confirmed(
    heard: Any, window: OpenWindow, recording: Path
) -> None:
    async with heard() as (line, _), served_on(line) as url, window() as opened:
        page = opened.page
        await opened.open(f"{url}/voices")
        await make(page, "Ada", recording)
        await row(page, "Ada").wait_for()
        figures = await row(page, "Ada").locator(".measures").inner_text()
        for figure in ("20.0 s", "31.5 dB", "0.91", "A2 to A4"):
            assert figure in figures
        await make(page, "Ada again", recording)
        await row(page, "Ada again").wait_for()
        alike = await row(page, "Ada again").locator(".alike").inner_text()
        assert "Sounds the same as Ada (1.00)" in alike

        await row(page, "Ada again").get_by_role("button", name="Rename").click()
        await page.locator("#renaming-name").fill("Ada, alto")
        await page.keyboard.press("Enter")
        await row(page, "Ada, alto").wait_for()
        async with page.expect_download() as download:
            await row(page, "Ada, alto").get_by_role("link", name="Export").click()
        with zipfile.ZipFile(await (await download.value).path()) as parcel:
            assert "voice.json" in parcel.namelist()

        remove = row(page, "Ada, alto").get_by_role("button", name="Delete")
        await remove.click()
        assert await page.locator("#deleting-title").inner_text() == "Delete Ada, alto?"
        assert await page.evaluate("document.activeElement.textContent") == "Keep it"
        await page.keyboard.press("Enter")
        await page.locator("#deleting").wait_for(state="hidden")
        assert len((await line.client.get("/v1/voices")).json()["items"]) == 2
        await remove.click()
        await page.locator("#deleting [type=submit]").click()
        await row(page, "Ada, alto").wait_for(state="detached")
        left = (await line.client.get("/v1/voices")).json()["items"]
        assert [(each["name"], each["duplicates"]) for each in left] == [("Ada", [])]

        await row(page, "Ada").get_by_role("button", name="Play Ada").click()
        await page.wait_for_selector('[data-play][aria-pressed="true"]')
        await row(page, "Ada").get_by_role("link", name="Convert a song").click()
        await page.wait_for_url("**/songs?voice=*")
        await page.wait_for_function(
            "(id) => document.querySelector('[data-voices]').value === id", arg=left[0]["id"]
        )


async def test_the_queue_offers_the_voices_that_there_are(
    heard: Any, window: OpenWindow, recording: Path
) -> None:
    async with heard() as (line, _), served_on(line) as url, window() as opened:
        page = opened.page
        await opened.open(url)
        picker = page.locator('form[data-kind="voice_transfer"] [data-voices]')
        hint = page.locator('form[data-kind="voice_transfer"] [data-no-voice]')
        await page.locator("[data-kinds]").select_option("voice_transfer")
        await hint.get_by_role("link", name="Make a voice").click()
        await page.wait_for_url("**/voices")
        await opened.is_in("online")
        await make(page, "Ada", recording)
        await row(page, "Ada").wait_for()
        await opened.open(url)
        await page.locator("[data-kinds]").select_option("voice_transfer")
        await picker.select_option(label="Ada, A2 to A4")
        assert await hint.is_hidden()
        form = page.locator('form[data-kind="voice_transfer"]')
        await form.locator('input[type="file"]').set_input_files(recording)
        await form.get_by_role("button", name="Ask").click()
        await page.locator(".job").wait_for()
        [job] = (await line.client.get("/v1/jobs")).json()["items"]
        [voice] = (await line.client.get("/v1/voices")).json()["items"]
        assert (job["input"]["voice_id"], job["metadata"]) == (voice["id"], {"title": "ada.wav"})
        assert await page.locator(".job .title").inner_text() == "ada.wav"


async def key_for(line: Stage, tenant: str) -> str:
    by = Caller(tenant, frozenset(Scope))
    issued = await line.runtime.key_desk.create(by, name="browser", scopes=[Scope.ADMIN])
    line.runtime.keyring.close_house()
    return issued.text


async def test_one_tenants_voices_and_songs_are_not_seen_by_another(
    heard: Any, window: OpenWindow, recording: Path
) -> None:
    """Fault 18."""
    async with heard() as (line, examiner), served_on(line) as url:
        seen: dict[str, str] = {}
        songs: dict[str, str] = {}
        for number, tenant in enumerate(("acme", "umbrella")):
            key = await key_for(line, tenant)
            # The same voice at both: neither is told of the other's.
            examiner.hears(embedding=vector(1))
            async with window(may_complain=True) as opened:
                page = opened.page
                await page.goto(f"{url}/voices")
                await page.fill("#key", key)
                await page.get_by_role("button", name="Sign in").click()
                await opened.is_in("online")
                assert "No voice yet" in await page.locator("#part-voices").inner_text()
                await make(page, f"voice of {tenant}", recording)
                await row(page, f"voice of {tenant}").wait_for()
                assert await page.locator(".alike").count() == 0
                await opened.open(f"{url}/songs")
                await page.wait_for_function(
                    "() => document.querySelectorAll('[data-voices] option').length > 1"
                )
                seen[tenant] = await page.locator("[data-voices]").inner_text()
                await page.locator("[data-voices]").select_option(index=1)
                await page.locator("#song-file").set_input_files(recording)
                await page.locator("#song-form [type=submit]").click()
                await page.wait_for_url("**/songs/job_*")
                songs[tenant] = page.url
                if number:
                    await page.goto(songs["acme"])
                    assert "there is no job" in (await page.locator("main").inner_text()).lower()
                    await opened.open(f"{url}/songs")
                    assert await page.locator(".job").count() == 1
        for tenant, other in (("acme", "umbrella"), ("umbrella", "acme")):
            assert f"voice of {tenant}" in seen[tenant]
            assert other not in seen[tenant]


@pytest.mark.parametrize("look", LOOKS)
async def test_the_page_of_voices_can_be_used_by_everybody_and_complains_of_nothing(
    heard: Any,
    window: OpenWindow,
    axe: Callable[[Window], Awaitable[list[str]]],
    recording: Path,
    look: str,
) -> None:
    """Fault 23."""
    async with heard() as (line, _), served_on(line) as url, window(**LOOKS[look]) as opened:
        wrong: dict[str, Any] = {}
        page = opened.page

        async def look_at(name: str) -> None:
            wrong[name] = await axe(opened)
            width = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert width <= 0, f"{name} is wider than its window by {width} px"

        await opened.open(f"{url}/voices")
        await look_at("no voice")
        for name in ("Ada", "<b>Ada</b> again, " + "with a name of one hundred characters " * 3):
            await make(page, name[:100].strip(), recording)
            await row(page, name[:100].strip()).wait_for()
        await look_at("voices")
        for verb in ("Rename", "Delete"):
            await row(page, "Ada").get_by_role("button", name=verb).click()
            await look_at(verb)
            await page.keyboard.press("Escape")
        assert {name: each for name, each in wrong.items() if each} == {}
