"""A performance in real browsers: two screens, one state; a guest's phone; words that go with the sound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.browser.conftest import PATIENCE_MS, PHONE, OpenWindow, Window, served_on
from tests.browser.test_pages import LOOKS, key_of
from tests.fakes.proxy import proxied
from tests.flow.conftest import OpenStage, Stage, as_data_uri, tone

pytestmark = pytest.mark.real

SONG_S = 60.0
LRC = "\n".join(
    ["[00:00.00]<00:00.00>The <00:00.50>first <00:01.00>line"]
    + [f"[00:{second:02}.00]Line number {second}" for second in range(2, 58, 2)]
)


@dataclass
class Evening:
    """A performance with a song that has lyrics."""

    line: Stage
    id: str
    job_id: str
    lyrics_id: str

    @property
    def path(self) -> str:
        return f"/performances/{self.id}"

    async def state(self) -> dict[str, Any]:
        shown: dict[str, Any] = (await self.line.client.get(f"/v1{self.path}")).json()
        return shown["state"]

    async def add_singer(self, name: str, title: str) -> str:
        song = {"singer": name, "title": title, "job_id": self.job_id}
        entry = await self.line.client.post(f"/v1{self.path}/singers", json=song)
        return str(entry.json()["id"])


async def separated(line: Stage, song_s: float = SONG_S) -> str:
    """A job that has taken a song apart."""
    sent = await line.client.post("/v1/uploads", files={"file": ("song.wav", tone(song_s), "audio/wav")})
    asked = {"kind": "stem_separation", "input": {"audio": sent.json()["upload_id"]}}
    job_id, prediction = await line.start(metadata={"title": "Our song"}, **asked)
    stems = {name: as_data_uri(tone(song_s, hz=hz)) for name, hz in (("vocals", 440.0), ("other", 220.0))}
    await line.fake.finish(prediction, output=stems | {"instrumental": stems["other"]})
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    return job_id


async def evening(line: Stage, song_s: float = SONG_S) -> Evening:
    job_id = await separated(line, song_s)
    lyrics = (await line.client.post("/v1/lyrics", json={"lrc": LRC, "title": "Our song"})).json()
    asked = {"title": "Friday", "job_id": job_id, "lyrics_id": lyrics["id"]}
    made = await line.client.post("/v1/performances", json=asked)
    assert made.status_code == 201, made.text
    return Evening(line, made.json()["id"], job_id, lyrics["id"])


async def come_in(window: Window, address: str) -> None:
    await window.page.goto(address)
    await window.page.wait_for_selector('#stage-link[data-state="online"]')
    await window.page.wait_for_function(
        "() => document.getElementById('song-title').textContent !== 'Remote'"
    )


async def is_playing(window: Window, *, playing: bool) -> None:
    await window.page.wait_for_selector(f'[data-turn][aria-pressed="{str(playing).lower()}"]')


async def position(window: Window) -> float:
    return float(await window.page.locator("[data-seek]").input_value())


async def reaches(window: Window, seconds: float) -> None:
    await window.page.wait_for_function(
        "(least) => Number(document.querySelector('[data-seek]').value) >= least", arg=seconds
    )


async def shows(window: Window, control: str, value: str) -> None:
    await window.page.wait_for_function(
        "([name, value]) => document.querySelector(`[data-control=${name}]`).value === value",
        arg=[control, value],
    )


async def shown_on(*screens: Window) -> set[str]:
    """Where their slider for the voice is."""
    return {await screen.page.locator("[data-control=vocal_volume]").input_value() for screen in screens}


async def put(window: Window, control: str, value: str) -> None:
    """Move a slider as a hand does: the value, then letting go."""
    await window.page.locator(f"[data-control={control}]").evaluate(
        """(slider, value) => {
            slider.value = value;
            for (const name of ["input", "change"]) slider.dispatchEvent(new Event(name, { bubbles: true }));
        }""",
        value,
    )


@asynccontextmanager
async def two_screens(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> AsyncIterator[tuple[Evening, str, Window, Window]]:
    async with stage_on_sqlite() as line, served_on(line) as url, window() as one, window() as other:
        held = await evening(line)
        await come_in(one, url + held.path)
        await come_in(other, url + held.path)
        yield held, url, one, other


async def test_what_one_screen_plays_seeks_and_stops_the_other_shows(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with two_screens(stage_on_sqlite, window) as (held, _, one, other):
        await one.page.locator("[data-turn]").click()
        await is_playing(other, playing=True)
        await one.page.locator("[data-seek]").evaluate(
            "(bar) => { bar.value = 20; bar.dispatchEvent(new Event('change', { bubbles: true })); }"
        )
        await reaches(other, 20.0)
        # The line that is on, on both; the song may have gone on to a later one by now.
        for screen in (one, other):
            await screen.page.locator("#lyrics [aria-current]", has_text="Line number").wait_for()
        await other.page.locator("[data-turn]").click()
        await is_playing(one, playing=False)
        stopped_at = (await held.state())["current_time"]
        for screen in (one, other):
            await screen.page.wait_for_function(
                "(at) => Math.abs(Number(document.querySelector('[data-seek]').value) - at) < 0.1",
                arg=stopped_at,
            )


async def test_two_screens_that_move_one_slider_end_with_the_same_value(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with two_screens(stage_on_sqlite, window) as (held, _, one, other):
        for step in range(20):
            await put(one, "vocal_volume", f"{step / 40}")
            await put(other, "vocal_volume", f"{1 - step / 40}")
        await put(one, "lyrics_offset", "150")
        await shows(other, "lyrics_offset", "150")
        # Whoever came last: the row says it, and both show it, once nothing is on its way any more.
        async with asyncio.timeout(PATIENCE_MS / 1000):
            while await shown_on(one, other) != {f"{(await held.state())['vocal_volume']:g}"}:
                pass


async def test_who_comes_late_is_where_the_others_are(stage_on_sqlite: OpenStage, window: OpenWindow) -> None:
    async with two_screens(stage_on_sqlite, window) as (held, url, one, _), window() as late:
        await held.line.client.get(f"/v1{held.path}")
        await one.page.locator("[data-turn]").click()
        await reaches(one, 2.0)
        await come_in(late, url + held.path)
        await is_playing(late, playing=True)
        assert await position(late) >= 2.0


HEARKEN = """
    window.begun = [];
    const start = AudioBufferSourceNode.prototype.start;
    AudioBufferSourceNode.prototype.start = function (when, offset) {
        window.begun.push([when, offset]);
        start.call(this, when, offset);
    };
"""
"""What the audio hardware is given: when each stem begins, and from where."""


async def test_both_stems_are_played_on_one_clock_and_go_where_the_others_are(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with two_screens(stage_on_sqlite, window) as (held, url, _, other), window() as heard:
        await heard.page.add_init_script(HEARKEN)
        await come_in(heard, url + held.path)
        await other.page.locator("[data-turn]").click()
        await is_playing(heard, playing=True)
        assert await heard.page.evaluate("begun") == [], "nothing is heard that nobody has asked for"
        await heard.page.locator("#join").click()
        await heard.page.wait_for_function("() => begun.length >= 2")
        await other.page.locator("[data-seek]").evaluate(
            "(bar) => { bar.value = 30; bar.dispatchEvent(new Event('change', { bubbles: true })); }"
        )
        await heard.page.wait_for_function("() => begun.at(-1)[1] >= 30")
        begun = await heard.page.evaluate("begun")
        for one, two in zip(begun[::2], begun[1::2], strict=True):
            assert one == two, "sample on sample"
        assert await heard.page.locator("#trouble").is_hidden()


async def test_a_song_that_ends_brings_the_next_singer_on_every_screen(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with stage_on_sqlite() as line, served_on(line) as url, window() as one, window() as other:
        held = await evening(line, song_s=3.0)
        for name in ("Ana", "Bo", "Cy"):
            await held.add_singer(name, f"{name}'s song")
        for screen in (one, other):
            await come_in(screen, url + held.path)
        await other.page.get_by_role("button", name="Cy earlier").click()
        await one.page.locator("#singers li:nth-child(2)", has_text="Cy").wait_for()
        await other.page.get_by_role("button", name="Take Bo out of the line").click()
        # Whoever calls the next one calls the line that is shown: an older one is refused.
        await one.page.locator("#singers li", has_text="Bo").wait_for(state="detached")
        await one.page.locator("#next").click()
        for screen in (one, other):
            await screen.page.locator("#singer", has_text="Ana sings").wait_for()
        await one.page.locator("#join").click()
        await one.page.locator("#leave-sound").wait_for()
        await one.page.locator("[data-turn]").click()
        # It is played to its end here, and nobody touches anything.
        for screen in (one, other):
            await screen.page.locator("#singer", has_text="Cy sings").wait_for()
            await screen.page.locator("#song-title", has_text="Cy's song").wait_for()
            await screen.page.locator("#nobody").wait_for()


async def test_a_guests_phone_turns_every_screen_and_has_no_key(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with (
        stage_on_sqlite() as line,
        served_on(line) as url,
        window(may_complain=True) as screen,
        window(may_complain=True, **PHONE) as phone,
    ):
        held = await evening(line)
        key = await key_of(line)
        await screen.page.goto(url + held.path)
        await screen.page.fill("#key", key)
        await screen.page.get_by_role("button", name="Sign in").click()
        await screen.page.wait_for_selector('#stage-link[data-state="online"]')
        await screen.page.locator("#invite").click()
        await screen.page.wait_for_function("() => document.getElementById('invitation-link').value")
        link = await screen.page.locator("#invitation-link").input_value()
        await come_in(phone, url + link[link.index("/performances/") :])
        await phone.page.locator("[data-turn]").click()
        await is_playing(screen, playing=True)
        await phone.page.get_by_role("button", name="10 s on").click()
        await reaches(screen, 10.0)
        await put(phone, "vocal_volume", "0.35")
        await shows(screen, "vocal_volume", "0.35")
        seen = await phone.page.evaluate("fetch('/v1/jobs').then((reply) => reply.status)")
        assert seen == 401
        await screen.page.locator("#change-title").click()
        await screen.page.locator("#delete").click()
        await screen.page.locator("#deleting").get_by_role("button", name="Delete").click()
        await phone.page.get_by_text("The performance is over.").first.wait_for()
        await screen.page.wait_for_url("**/performances")


async def test_a_screen_that_was_cut_off_comes_back_to_what_stands(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with (
        stage_on_sqlite() as line,
        served_on(line) as url,
        proxied(int(url.rpartition(":")[2])) as way,
        window() as steady,
        window(may_complain=True) as cut,
    ):
        held = await evening(line)
        await come_in(steady, url + held.path)
        await come_in(cut, f"http://127.0.0.1:{way.port}{held.path}")
        await way.down()
        await cut.page.wait_for_selector('#stage-link[data-state="reconnecting"]')
        await put(steady, "instrumental_volume", "0.5")
        await steady.page.locator("[data-turn]").click()
        await is_playing(steady, playing=True)
        await way.up()
        await cut.page.wait_for_selector('#stage-link[data-state="online"]')
        await is_playing(cut, playing=True)
        await shows(cut, "instrumental_volume", "0.5")


async def test_a_performance_and_its_lyrics_are_made_and_corrected(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with stage_on_sqlite() as line, served_on(line) as url, window(may_complain=True) as opened:
        page = opened.page
        await separated(line)
        await opened.open(f"{url}/performances")
        await page.locator("#lyrics-name").fill("Our words")
        await page.locator("#lyrics-lrc").fill("no times at all")
        await page.get_by_role("button", name="Make lyrics").click()
        await page.locator("#lyrics-form [data-wrong]", has_text="line 1").wait_for()
        await page.locator("#lyrics-lrc").fill(LRC)
        await page.get_by_role("button", name="Make lyrics").click()
        await page.wait_for_url("**/lyrics/lyr_*")
        await page.get_by_label("Line 2", exact=True).fill("What she really sings")
        await page.get_by_label("Remove line 3", exact=True).check()
        await page.get_by_role("button", name="Save the changes").click()
        await page.get_by_text("version 2").wait_for()
        await page.get_by_role("button", name="Move them").click()
        await page.get_by_text("version 3").wait_for()
        assert await page.get_by_label("Start of line 1", exact=True).input_value() == "0.25"
        assert await page.get_by_label("Line 2", exact=True).input_value() == "What she really sings"
        lyrics_id = page.url.rpartition("/")[2]
        # Another hand is faster: what is typed here is not thrown away.
        await line.client.post(f"/v1/lyrics/{lyrics_id}/shift", json={"version": 3, "ms": 10})
        await page.get_by_label("Line 1", exact=True).fill("mine")
        await page.get_by_role("button", name="Save the changes").click()
        await page.get_by_text("Somebody else has changed these lyrics").wait_for()
        assert await page.get_by_label("Line 1", exact=True).input_value() == "mine"
        await page.get_by_role("button", name="Forget them").click()

        await opened.open(f"{url}/performances")
        await page.locator("#performance-song").select_option(label="Our song")
        await page.locator("#performance-lyrics").select_option(label="Our words")
        await page.get_by_role("button", name="Open the stage").click()
        await page.wait_for_url("**/performances/prf_*")
        await page.get_by_text("What she really sings").wait_for()


@pytest.mark.parametrize("look", LOOKS)
async def test_the_stage_can_be_used_by_everybody_and_complains_of_nothing(
    stage_on_sqlite: OpenStage, window: OpenWindow, axe: Callable[[Window], Awaitable[list[str]]], look: str
) -> None:
    """Fault 23: no policy is broken on stage, remote and lyrics, in light, dark and on a phone."""
    async with stage_on_sqlite() as line, served_on(line) as url, window(**LOOKS[look]) as opened:
        held = await evening(line)
        for name in ("Ana", "Bo", "Cy"):
            await held.add_singer(name, f"{name}'s song")
        await line.client.post(f"/v1{held.path}/singers/next", json={})
        wrong = {}
        for path in (held.path, f"{held.path}/remote", f"/lyrics/{held.lyrics_id}", "/performances"):
            await opened.page.goto(url + path)
            sign = "#stage-link" if path.startswith(held.path) else "#link"
            await opened.page.wait_for_selector(f'{sign}[data-state="online"]')
            if path.startswith(held.path):
                await opened.page.locator("#singer", has_text="Ana sings").wait_for()
            wrong[path] = await axe(opened)
            width = await opened.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert width <= 0, f"{path} is wider than its window by {width} px"
        assert {path: each for path, each in wrong.items() if each} == {}
