"""The browser's own modules under node: what `client.js` and the stage promise (`*.test.mjs`)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no node on this machine")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").partition(".")[0]) < 18:
        pytest.skip(f"node {version.strip()} has no test runner; 18 has")
    return found


@pytest.mark.parametrize("name", ["client", "stage"])
def test_a_module_of_browsers_keeps_its_promises(node: str, name: str) -> None:
    tests = FOLDER / f"{name}.test.mjs"
    done = subprocess.run(
        [node, "--test", str(tests)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"^. pass (\d+)", done.stdout, re.MULTILINE)
    assert passed, done.stdout[-2000:]
    assert int(passed[1]) >= tests.read_text().count('\ntest("')
