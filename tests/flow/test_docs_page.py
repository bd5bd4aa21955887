"""`/docs` in a real browser without a network: it shows the API, and nothing on it breaks its policy."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from app.main import create_app
from app.web.server import listening, reached_at, serving
from tests.flow.conftest import Stage

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def browser() -> str:
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)}")


@pytest.mark.real
async def test_the_docs_work_in_a_browser_without_a_network(
    sqlite_line: Stage, browser: str, tmp_path: Path
) -> None:
    with listening("127.0.0.1", 0) as listener:
        async with serving(create_app(sqlite_line.runtime), listener):
            dom, console = await _opened(browser, f"http://{reached_at(listener)}/docs", tmp_path)
    for name in ("submit_job", "get_job", "receive_webhook"):
        assert f'-{name}"' in dom, f"{name} is not on the page"
    assert "Content Security Policy" not in console, console
    assert "Uncaught" not in console, console


async def _opened(browser: str, url: str, folder: Path) -> tuple[str, str]:
    """The page as it stands once its scripts have run, and what they had to say."""
    process = await asyncio.create_subprocess_exec(
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=20000",
        # Only the service itself can be reached.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--dump-dom", url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(180):
            dom, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = [line for line in said.decode(errors="replace").splitlines() if "CONSOLE" in line]
    return dom.decode(errors="replace"), "\n".join(lines)
