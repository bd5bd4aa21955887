"""Tiny models and a Cog server that has them loaded, once a run. Skipped, and said so, without PyTorch."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from app.gpu.groups import NEURAL_PREDICTOR

ROOT = Path(__file__).resolve().parents[2]
MISSING = [
    name for name in ("torch", "transformers", "diffusers", "demucs") if not importlib.util.find_spec(name)
]
BOUND_S = 240.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if MISSING:
        why = f"{', '.join(MISSING)} not installed (scripts/setup --neural)"
        here = Path(__file__).parent
        for item in items:
            if item.path.is_relative_to(here):
                item.add_marker(pytest.mark.skip(reason=why))


Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a folder for each model."""
    folder = tmp_path_factory.mktemp("tiny") / "models"
    command = [sys.executable, "-W", "ignore", "-m", "tests.neural.tiny", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=BOUND_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def names_of(tiny: Path) -> dict[str, str]:
    return {
        "background_music": str(tiny / "musicgen"),
        "sound_effect": str(tiny / "stable_audio"),
        "transcription": str(tiny / "whisper" / "fast"),
        "translation": str(tiny / "m2m100"),
        "speech": str(tiny / "vits"),
        "stem_separation": str(tiny / "demucs" / "bag"),
    }


@pytest.fixture(scope="session")
def ask(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Ask the server that has one model of every kind for a prediction; its last word."""
    with serving(names_of(tiny), tmp_path_factory.mktemp("server")) as asking:
        yield asking


@contextmanager
def serving(models: dict[str, str], folder: Path, *, allow: bool = True) -> Iterator[Ask]:
    """A Cog server of the neural predictor with these models."""
    told = {"NEURAL_MODELS": json.dumps(models), "COG_PREDICT_TYPE_STUB": NEURAL_PREDICTOR, "PORT": "0"}
    told |= {"REPRISE_WORKER_TMP": str(folder / "worker"), "PATH": _path()}
    if allow:
        told["NEURAL_ALLOW_NONCOMMERCIAL"] = "true"
    log = folder / "server.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"],
            cwd=folder, env=_environment() | told, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            url = _await_ready(process, log)
            with httpx.Client(base_url=url, timeout=BOUND_S, trust_env=False) as client:

                def asking(**inputs: Any) -> dict[str, Any]:
                    while True:  # the one before has been answered, and may still hold the only slot
                        answer = client.post("/predictions", json={"input": inputs})
                        if answer.status_code != 409:
                            word: dict[str, Any] = answer.json()
                            return word
                        time.sleep(0.05)

                yield asking
        finally:
            os.killpg(process.pid, signal.SIGKILL)


class SetupFailed(Exception):
    """What the server said when it could not load its models."""


def _await_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + BOUND_S
    mark = "Starting coglet server on "
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        assert process.poll() is None, text[-3000:]
        if mark in text:
            url = "http://" + text.split(mark)[1].split('"')[0]
            page = httpx.get(f"{url}/health-check", trust_env=False).json()
            if page["status"] == "SETUP_FAILED":
                raise SetupFailed(json.dumps(page["setup"]))
            if page["status"] == "READY":
                return url
        time.sleep(0.05)
    raise AssertionError(f"not ready: {log.read_text(errors='replace')[-3000:]}")


def _environment() -> dict[str, str]:
    # One thread each: two cores are shared by everything else that is tested.
    return os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def _path() -> str:
    """Cog starts its worker as a bare `python`."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of four seconds of stereo: a tone that swells, and noise. Beside it lies `not-sound`."""
    file = tmp_path_factory.mktemp("recording") / "recording.wav"
    rate = 16_000
    at = np.arange(4 * rate) / rate
    tone = 0.3 * np.sin(2 * np.pi * 220 * at) * np.abs(np.sin(2 * np.pi * at))
    noise = np.random.default_rng(1).normal(0, 0.05, (len(at), 2))
    soundfile.write(file, tone[:, None] + noise, rate)
    (file.parent / "not-sound").write_text("hello")
    answer = functools.partial(SimpleHTTPRequestHandler, directory=str(file.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/recording.wav"
        server.shutdown()
