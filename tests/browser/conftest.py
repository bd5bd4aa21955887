"""A real Chromium in front of a really served service; what a page complains about fails its test.

The browser is the machine's own, driven by playwright: neither is downloaded. Nothing here sleeps; whatever
is waited for is a state of the page.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from app.main import create_app
from app.web.server import listening, reached_at, serving
from tests.flow.conftest import Stage, excused, open_stage, sqlite_template, sqlite_url, stage_on_sqlite

__all__ = ["excused", "open_stage", "sqlite_template", "sqlite_url", "stage_on_sqlite"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 90_000
"""For whatever is waited for: a machine that stalls must not fail a test."""
CLOSING_S = 15
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    # Only the service itself can be reached.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}


@dataclass(slots=True)
class Window:
    """A browser window with one page, and all that it complained about."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    async def open(self, address: str) -> None:
        """Go there, and wait until the page is told of what happens."""
        await self.page.goto(address)
        await self.is_in("online")

    async def is_in(self, *states: str) -> None:
        """Wait until the page says that its connection is in one of these states."""
        await self.page.wait_for_selector(", ".join(f'#link[data-state="{state}"]' for state in states))


class OpenWindow(Protocol):
    def __call__(
        self, *, may_complain: bool = ..., **context: Any
    ) -> AbstractAsyncContextManager[Window]: ...


@pytest.fixture
def chromium() -> str:
    """The browser's path. Skips, with the reason, where there is none, or nothing to drive it."""
    pytest.importorskip("playwright.async_api", reason="playwright is not installed: scripts/setup --test")
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)}")


@pytest.fixture
async def window(chromium: str) -> AsyncIterator[OpenWindow]:
    """Opens windows. Unless `may_complain`, what stands in a page's console fails the test."""
    from playwright.async_api import async_playwright

    async with AsyncExitStack() as stack:
        driver = await stack.enter_async_context(async_playwright())
        browser = await driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        stack.push_async_callback(_close, browser)

        @asynccontextmanager
        async def opened(*, may_complain: bool = False, **context: Any) -> AsyncIterator[Window]:
            inside = await browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | context))
            inside.set_default_timeout(PATIENCE_MS)
            window = Window(await inside.new_page())
            window.page.on("console", lambda said: _note(window, said.type, said.text))
            window.page.on("pageerror", lambda raised: _note(window, "error", str(raised)))
            try:
                yield window
            finally:
                await _close(inside)
            assert may_complain or not window.complaints

        yield opened


async def _close(opened: Any) -> None:
    """Close a window or the browser. It does not always answer, a window least of all that is just going
    somewhere else, and playwright waits for it without a limit. By then all has been seen: it is killed."""
    from playwright.async_api import Error

    with suppress(Error):  # killed before
        try:
            async with asyncio.timeout(CLOSING_S):
                await opened.close()
        except TimeoutError:
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if child.name().startswith("chrom"):
                        child.kill()


@asynccontextmanager
async def served_on(stage: Stage) -> AsyncIterator[str]:
    """The stage's service on a real socket; its address."""
    with listening("127.0.0.1", 0) as listener:
        front = create_app(stage.runtime)
        async with serving(front, listener, ws="websockets-sansio", timeout_graceful_shutdown=5):
            yield f"http://{reached_at(listener)}"
            front.close_intake()
            stage.runtime.feed.release()


@pytest.fixture
def axe() -> Callable[[Window], Any]:
    """Judges a page by the rules of WCAG 2.2 A and AA that a machine can check: what it breaks, in words."""
    source = (Path(__file__).parent / "axe" / "axe.min.js").read_text()
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

    async def judge(window: Window) -> list[str]:
        await window.page.evaluate(source)
        found = await window.page.evaluate("(rules) => axe.run(document, rules)", rules)
        return [
            f"{each['id']}: {node['target']} {node['failureSummary']}"
            for each in found["violations"]
            for node in each["nodes"]
        ]

    return judge


def _note(window: Window, kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        window.complaints.append(f"{kind}: {text}")
