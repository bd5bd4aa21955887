"""What the pages say of the Python client runs as it stands, against a service with its own engines."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from tests.flow.test_cli import LIMIT_S, environment

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`reprise serve`, as anybody starts it."""
    folder = tmp_path_factory.mktemp("service")
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", "0"],
        cwd=folder,
        env=environment(folder, LOG_LEVEL="error"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
        process.stdout.close()


def run(folder: Path, url: str, code: str) -> str:
    """A stranger's script, in a folder of its own; what it prints."""
    script = folder / "pipeline.py"
    script.write_text(code)
    ended = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=folder,
        env=environment(folder, REPRISE_URL=url, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def test_every_block_of_the_guide_runs(tmp_path: Path, url: str) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "how-to" / "use-the-python-client.md").read_text())
    assert len(blocks) >= 9
    printed = run(tmp_path, url, "\n".join(blocks))
    made = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.flac"))
    assert made == ["out/creak.flac", "out/garden.flac", "out/line.flac", "out/steps.flac", "rain.flac"]
    for name in made:
        assert 0.3 < soundfile.info(tmp_path / name).duration < 4
    assert "input.duration_s input.duration_s: " in printed
    assert re.search(r"^1 job\.created None$", printed, re.MULTILINE)
    assert re.search(r"^cog ", printed, re.MULTILINE), "a forecast"


def test_the_receiver_of_the_guide_takes_what_is_signed_and_nothing_else(tmp_path: Path, url: str) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "how-to" / "use-the-python-client.md").read_text())
    (receiver,) = [block for block in blocks if "def receive" in block]
    tried = """
import time
from datetime import UTC, datetime
from standardwebhooks import Webhook

body = b'{"type": "job.succeeded", "data": {"id": "job_1"}}'
for secret, text in ((SECRETS[0], body), (SECRETS[1], body), (SECRETS[0], b"{}")):
    now = datetime.now(UTC)
    signature = Webhook(secret).sign("ann_" + secret[6:9], now, body.decode())
    headers = {"webhook-id": "ann_" + secret[6:9], "webhook-timestamp": str(int(now.timestamp()))}
    print(receive(headers | {"webhook-signature": signature}, text))
"""
    printed = run(tmp_path, url, receiver + tried)
    assert re.findall(r"^\d+$", printed, re.MULTILINE) == ["204", "204", "401"]
    assert printed.count("job.succeeded {'id': 'job_1'}") == 2


def test_the_lines_of_the_tutorial_run(tmp_path: Path, url: str) -> None:
    (block,) = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text())
    run(tmp_path, url, block.replace("http://127.0.0.1:8000", url))
    assert soundfile.info(tmp_path / "hello.flac").duration > 0.5


def test_the_lines_of_the_readme_run(tmp_path: Path, url: str) -> None:
    (block,) = BLOCK.findall((ROOT / "README.md").read_text())
    assert len([line for line in block.splitlines() if line]) <= 5
    run(tmp_path, url, block.replace("http://127.0.0.1:8000", url))
    assert soundfile.info(tmp_path / "rain.flac").duration == pytest.approx(6, abs=1)
