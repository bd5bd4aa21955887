"""From an empty page to a sound that plays, with the service as it comes: its own engines, its own worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.serve import running_service
from tests.browser.conftest import OpenWindow
from tests.conftest import make_settings

pytestmark = pytest.mark.real


async def test_the_first_job_leads_from_the_empty_page_to_a_sound_that_plays(
    window: OpenWindow, tmp_path: Path
) -> None:
    async with running_service(make_settings(tmp_path)) as service, window() as opened:
        page = opened.page
        await opened.open(service.url)
        assert await page.locator("#first h2").inner_text() == "No sound yet"
        # Only what happens without anybody loading the page again is live.
        await page.evaluate("window.isSamePage = true")
        await page.locator("[data-starter]").first.click()
        row = page.locator(".job")
        await row.locator("[data-progress]").or_(row.locator("[data-play]")).first.wait_for()
        await page.wait_for_selector('.job[data-state="succeeded"]')
        assert await page.evaluate("window.isSamePage")

        await row.locator("[data-play]").click()
        await page.wait_for_selector('[data-play][aria-pressed="true"]')
        await row.locator(".title").click()
        await page.wait_for_selector("#job[data-ended=true]")
        await opened.is_in("online")
        await page.wait_for_function(
            "() => document.querySelector('[data-wave] div')?.shadowRoot?.querySelector('canvas')"
        )
        await page.locator("[data-toggle]").click()
        await page.wait_for_function("() => document.querySelector('audio').currentTime > 0.3")
        await page.locator("[data-toggle]").click()
        assert await page.evaluate("document.querySelector('audio').paused")
        face = page.locator("[data-wave]")
        await face.press("End")
        await page.wait_for_function("() => document.querySelector('audio').currentTime > 4")
        await face.press("Home")
        await page.wait_for_function("() => document.querySelector('audio').currentTime < 1")
        await page.locator("[data-loop]").click()
        await page.wait_for_selector('[data-loop][aria-pressed="true"]')
        await page.locator("[data-loop]").click()
        said = await page.locator(".timeline strong").all_inner_texts()
        assert (said[0], said[-1]) == ("created", "succeeded")

        async with page.expect_download() as download:
            await page.locator("a", has_text="Download").click()
        kept = await (await download.value).path()
        assert Path(kept).read_bytes()[:4] == b"fLaC"

        # Once more from its last step: nobody is asked, and it is a job of its own.
        first = page.url
        await page.locator('[data-rerun="finish"] button').click()
        await page.wait_for_url(lambda url: url != first and "/jobs/" in url)
        await page.wait_for_selector("#job[data-ended=true]")
        assert "another end of" in await page.locator("#part-head").inner_text()


async def test_the_form_asks_for_what_it_says_and_shows_what_is_refused(
    window: OpenWindow, tmp_path: Path
) -> None:
    async with running_service(make_settings(tmp_path)) as service, window(may_complain=True) as opened:
        page = opened.page
        await opened.open(service.url)
        await page.keyboard.press("n")
        assert await page.evaluate("document.activeElement.name") == "prompt"
        await page.keyboard.type("a single bell")
        form = page.locator('form[data-kind="sound_effect"]')
        await form.locator('[name="duration_s"]').fill("1.5")
        await form.locator("summary").click()
        await form.locator('[name="seed"]').fill("7")
        await form.locator("button[type=submit]").click()
        await page.wait_for_selector('.job[data-state="succeeded"]')
        await page.keyboard.press("Escape")
        [job_id] = await page.eval_on_selector_all(".job", "(rows) => rows.map((row) => row.id)")
        job = await page.evaluate("(id) => fetch(`/v1/jobs/${id}`).then((reply) => reply.json())", job_id)
        asked = {"prompt": "a single bell", "duration_s": 1.5, "seed": 7, "loop": False, "trim_silence": True}
        assert job["input"] == asked
        await page.locator("[data-kinds]").select_option("speech")
        speech = page.locator('form[data-kind="speech"]')
        await speech.locator('[name="text"]').fill("Hello.")
        # What the browser would let pass: the service says no, at the field that it is about.
        await speech.locator('[name="language"]').evaluate("(field) => field.value = '!!'")
        await speech.locator("button[type=submit]").click()
        await speech.locator("[data-wrong]").wait_for()
        assert "language" in await speech.locator("[data-wrong]").inner_text()
        assert await speech.locator('[name="language"]').get_attribute("aria-invalid") == "true"
