"""The pages over a provider in hand: cancel, missed webhooks, a lost connection, signing in, everybody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.access.callers import Caller, Scope
from tests.browser.conftest import PHONE, OpenWindow, Window, served_on
from tests.fakes.proxy import proxied
from tests.flow.conftest import TONE, OpenStage, Stage, as_data_uri, tone

pytestmark = pytest.mark.real

LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": PHONE | {"color_scheme": "light", "reduced_motion": "reduce"},
}


async def key_of(line: Stage) -> str:
    by = Caller("default", frozenset(Scope))
    issued = await line.runtime.key_desk.create(by, name="browser", scopes=[Scope.ADMIN])
    line.runtime.keyring.close_house()
    return issued.text


async def test_a_job_is_canceled_and_asked_for_again_from_the_queue(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with stage_on_sqlite() as line, served_on(line) as url, window() as opened:
        job_id, _ = await line.start(prompt="to be canceled")
        await opened.open(url)
        row = opened.page.locator(f"#{job_id}")
        await row.get_by_role("button", name="Cancel").click()
        await opened.page.wait_for_selector(f'#{job_id}[data-state="canceled"]')
        assert await line.state(job_id) == "canceled"
        await row.get_by_role("button", name="Retry").click()
        await opened.page.wait_for_function("() => document.querySelectorAll('.job').length === 2")
        newest = await opened.page.locator(".job").first.get_attribute("id")
        assert (await line.read(newest))["retry_of"] == job_id


async def test_a_webhook_that_never_came_is_found_in_the_ledger_and_made_up_for(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with stage_on_sqlite() as line, served_on(line) as url, window() as opened:
        page = opened.page
        job_id, prediction = await line.start(prompt="missed")
        line.fake.lose_hooks = frozenset({"completed"})
        await line.fake.finish(prediction, output=TONE)
        await line.drain()
        assert await line.state(job_id) == "running"
        await opened.open(f"{url}/ledger")
        recover = page.locator('[data-many="/v1/recoveries"]')
        await recover.get_by_role("button", name="Dry run").click()
        await recover.get_by_text("1 finishes").wait_for()
        assert await line.state(job_id) == "running", "a dry run changes nothing"
        await recover.get_by_role("button", name="Recover").click()
        await page.wait_for_selector("[data-recovery]")
        await line.runtime.ledger.recoveries.work()
        await line.drain()
        await page.locator(".missed", has_text="missed").wait_for()
        assert await line.state(job_id) == "succeeded"

        # What came instead, byte for byte, and once more through the inbox: it changes nothing twice.
        await opened.open(f"{url}/jobs/{job_id}")
        delivery = page.locator(".delivery", has=page.locator('[data-source="poll"]')).first
        await delivery.locator("summary").click()
        await delivery.get_by_text(prediction).first.wait_for()
        await delivery.get_by_role("button", name="Replay").click()
        await page.locator('#part-deliveries [data-source="replay"]').wait_for()
        await line.drain()
        assert (await line.outcomes(job_id=job_id))[-1] == "ignored"
        assert (await line.events(job_id)).count("job.succeeded") == 1


async def test_a_page_that_lost_its_connection_has_missed_nothing_when_it_is_back(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with (
        stage_on_sqlite() as line,
        served_on(line) as url,
        proxied(int(url.rpartition(":")[2])) as way,
        window(may_complain=True) as opened,
    ):
        page = opened.page
        job_id, prediction = await line.start(prompt="under way")
        await opened.open(f"http://127.0.0.1:{way.port}/")
        await page.evaluate("""() => import(document.querySelector('script[src*="shell.js"]').src)
            .then(({ live }) => { window.heard = []; live.on("job", (job) => heard.push(job.seq)); })""")
        await way.down()
        await opened.is_in("reconnecting", "offline")
        # Whatever happens meanwhile: one ends, another is asked for and fails.
        await line.fake.finish(prediction, output=TONE)
        await line.drain()
        other, lost = await line.start(prompt="meanwhile")
        await line.fake.finish(lost, error="no")
        await line.drain()
        await way.up()
        await opened.is_in("online")
        await page.wait_for_selector(f'#{job_id}[data-state="succeeded"]')
        await page.wait_for_selector(f"#{other}")
        items = (await line.client.get("/v1/events")).json()["items"]
        missed = [
            each["position"] for each in items if each["job_id"] == other or each["type"] == "job.succeeded"
        ]
        await page.wait_for_function("(missed) => missed.every((seq) => heard.includes(seq))", arg=missed)
        heard = await page.evaluate("heard")
        assert heard == sorted(set(heard)), "in order, and each once"


async def test_without_websockets_the_page_polls_and_says_so(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with stage_on_sqlite() as line, served_on(line) as url, window(may_complain=True) as opened:
        await opened.page.add_init_script(
            "window.WebSocket = class { constructor() { throw new Error('none'); } }"
        )
        await opened.page.goto(url)
        await opened.is_in("polling")
        assert "asks for news" in await opened.page.locator("#banner").inner_text()
        job_id = await line.ask("told by polling")
        await opened.page.wait_for_selector(f"#{job_id}")


async def test_a_browser_signs_in_is_told_of_its_jobs_and_signs_out(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with stage_on_sqlite() as line, served_on(line) as url, window(may_complain=True) as opened:
        page, key = opened.page, await key_of(line)
        await page.goto(f"{url}/ledger")
        await page.fill("#key", "rp_aaaaaaaaaa_" + "x" * 43)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_text("does not hold").wait_for()
        await page.fill("#key", key)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/ledger")
        await opened.open(url)
        assert await page.evaluate("document.cookie") == "", "no script reads it"
        await page.locator("[data-starter]").first.click()
        await page.wait_for_selector(".job")
        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_selector("#sign-in")


async def test_an_upload_that_is_cut_in_the_middle_goes_on_and_becomes_a_job(
    stage_on_sqlite: OpenStage, window: OpenWindow, tmp_path: Path
) -> None:
    song = tmp_path / "song.wav"
    song.write_bytes(tone(600.0, volume=0.2))
    size_bytes = song.stat().st_size
    assert size_bytes > 2 * 4 * 1024 * 1024, "it takes several pieces"
    async with (
        stage_on_sqlite() as line,
        served_on(line) as url,
        proxied(int(url.rpartition(":")[2])) as way,
        window(may_complain=True) as opened,
    ):
        page = opened.page
        await opened.open(f"http://127.0.0.1:{way.port}/")
        await page.locator("[data-kinds]").select_option("stem_separation")
        form = page.locator('form[data-kind="stem_separation"]')
        await form.locator('input[type="file"]').set_input_files(song)
        way.spoil(bandwidth_bytes_s=4_000_000)
        await form.get_by_role("button", name="Ask").click()
        await page.wait_for_function(
            "() => { const bar = document.querySelector('form:not([hidden]) [data-upload]');"
            " return !bar.hidden && bar.value > 0.4; }"
        )
        await way.down()
        await opened.is_in("reconnecting", "offline")
        way.heal()
        await way.up()
        row = page.locator(".job")
        await row.wait_for()
        [job] = (await line.client.get("/v1/jobs")).json()["items"]
        assert job["kind"] == "stem_separation"
        asset = (await line.client.get(f"/v1/assets/{job['input']['audio']}")).json()
        assert asset["duration_s"] == pytest.approx(600, abs=1)


async def test_stems_are_compared_on_one_clock(stage_on_sqlite: OpenStage, window: OpenWindow) -> None:
    async with stage_on_sqlite() as line, served_on(line) as url, window() as opened:
        page = opened.page
        sent = await line.client.post("/v1/uploads", files={"file": ("song.wav", tone(3.0), "audio/wav")})
        job_id, prediction = await line.start(
            kind="stem_separation", input={"audio": sent.json()["upload_id"]}
        )
        stems = {name: as_data_uri(tone(3.0, hz=hz)) for name, hz in (("vocals", 440.0), ("other", 220.0))}
        await line.fake.finish(prediction, output=stems | {"instrumental": stems["other"]})
        await line.drain()
        assert await line.state(job_id) == "succeeded", (await line.read(job_id))["error"]
        await opened.open(f"{url}/jobs/{job_id}")
        await page.locator("[data-mix]").click()
        await page.wait_for_selector('[data-mix][aria-pressed="true"]')
        await page.locator(".mixer .chip", has_text="vocals").click()
        assert await page.locator("[data-channel]:checked").count() == 1
        # It runs to its end, in its own time, and stands at the start again.
        await page.wait_for_selector('[data-mix][aria-pressed="false"]')
        assert "0:03" in await page.locator("[data-mix-clock]").inner_text()


async def fill(line: Stage) -> dict[str, str]:
    """A job in each state that a page shows otherwise; the newest of each by its state."""
    found = {}
    for state in ("succeeded", "failed", "running"):
        found[state], prediction = await line.start(prompt=f"a job that {state}")
        if state == "succeeded":
            await line.fake.finish(prediction, output=TONE)
        elif state == "failed":
            await line.fake.finish(prediction, error="The prompt was flagged")
        await line.drain()
    return found


@pytest.mark.parametrize("look", LOOKS)
async def test_every_page_can_be_used_by_everybody_and_complains_of_nothing(
    stage_on_sqlite: OpenStage, window: OpenWindow, axe: Callable[[Window], Awaitable[list[str]]], look: str
) -> None:
    """Fault 23: no policy is broken on any page, in light, dark and on a phone; axe finds nothing."""
    async with stage_on_sqlite() as line, served_on(line) as url, window(**LOOKS[look]) as opened:
        wrong: dict[str, Any] = {}
        await opened.open(url)
        wrong["empty"] = await axe(opened)
        jobs = await fill(line)
        await line.runtime.history.take()
        for path in (
            "/",
            f"/jobs/{jobs['succeeded']}",
            f"/jobs/{jobs['failed']}",
            "/ledger",
            "/ledger?view=deliveries",
            "/status",
            "/songs",
            "/voices",
        ):
            await opened.open(url + path)
            if path == "/status":
                await opened.page.wait_for_selector("#parts tr")
                await opened.page.wait_for_selector("#chart-depth canvas")
            wrong[path] = await axe(opened)
            width = await opened.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert width <= 0, f"{path} is wider than its window by {width} px"
        assert {path: each for path, each in wrong.items() if each} == {}


async def test_the_choice_of_light_or_dark_stays(stage_on_sqlite: OpenStage, window: OpenWindow) -> None:
    async with stage_on_sqlite() as line, served_on(line) as url, window(color_scheme="light") as opened:
        page = opened.page
        await opened.open(url)
        paper = "getComputedStyle(document.body).backgroundColor"
        light = await page.evaluate(paper)
        await page.locator("#theme").click()
        dark = await page.evaluate(paper)
        await opened.open(f"{url}/status")
        assert light != dark == await page.evaluate(paper)


async def test_the_queue_is_used_by_the_keyboard_alone(
    stage_on_sqlite: OpenStage, window: OpenWindow
) -> None:
    async with stage_on_sqlite() as line, served_on(line) as url, window() as opened:
        page = opened.page
        ids = [await line.ask(f"number {number}") for number in range(3)]
        await opened.open(url)
        focused = "document.activeElement.closest('.job')?.id"
        for key, expected in (("j", ids[2]), ("j", ids[1]), ("k", ids[2])):
            await page.keyboard.press(key)
            assert await page.evaluate(focused) == expected
        # A row that is fetched again keeps the focus.
        await line.drain()
        await page.wait_for_selector(f'#{ids[2]}[data-state="running"]')
        assert await page.evaluate(focused) == ids[2]
        await page.keyboard.press("/")
        await page.keyboard.type("state:canceled")
        await page.keyboard.press("Enter")
        await page.get_by_text("Nothing matches").wait_for()
        assert "state%3Acanceled" in page.url
