"""The command as an operator runs it: a neural engine beside those of the installation, each in its group."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.gpu.groups import NEURAL_PREDICTOR, Group
from tests.contract.gpu_ground import calling, gpu_worker
from tests.contract.test_provider_cog import Receiver
from tests.fakes.provider import TERMINAL, served

pytestmark = pytest.mark.real
BOUND_S = 240.0


async def test_a_long_piece_can_be_canceled_on_its_way(tiny: Path, tmp_path: Path) -> None:
    receiver = Receiver()
    models = {"background_music": str(tiny / "musicgen")}
    environment = {"NEURAL_MODELS": json.dumps(models), "NEURAL_ALLOW_NONCOMMERCIAL": "true"}
    group = Group("music", ("background_music",), NEURAL_PREDICTOR, environment=environment)
    async with (
        served(receiver) as url,
        gpu_worker(tmp_path, [group], gpu_worker_setup_s=BOUND_S) as worker,
        calling(worker, url) as caller,
        asyncio.timeout(BOUND_S),
    ):
        await caller.put("long", kind="background_music", prompt="calm", duration_s=180.0)
        while "composing" not in json.loads((await receiver.hooks.get())[2])["logs"]:
            pass
        assert await caller.cancel("long") == 200
        while (word := json.loads((await receiver.hooks.get())[2]))["status"] not in TERMINAL:
            pass
        assert word["status"] == "canceled"
        assert worker.garage.bays["music"].supervisor is not None
        pid = worker.garage.bays["music"].supervisor.pid
        await caller.put("short", kind="background_music", prompt="calm", duration_s=1.0)
        while (word := json.loads((await receiver.hooks.get())[2]))["id"] != "short" or "output" not in word:
            pass
        # It gave way by itself: the engine that makes the next one is the same.
        assert worker.garage.bays["music"].supervisor.pid == pid


async def test_a_named_model_takes_its_kind_over_from_the_installations_engine(
    tiny: Path, tmp_path: Path
) -> None:
    environment = os.environ | {
        "VAR_DIR": str(tmp_path / "var"),
        "NEURAL_MODELS": json.dumps({"speech": str(tiny / "vits")}),
        "NEURAL_ALLOW_NONCOMMERCIAL": "true",
        "HF_HUB_OFFLINE": "1",
        "SHUTDOWN_S": "1",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "gpu-worker", "--port", "0", "--engines", "speech,sound_effect",
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(BOUND_S):
            while "COG_URLS=" not in (line := (await process.stdout.readline()).decode()):
                assert line, "it did not come up"
            url = line.split("COG_URLS=")[1].strip()
            async with httpx.AsyncClient(base_url=url, timeout=BOUND_S, trust_env=False) as client:
                spoken = {"kind": "speech", "text": "আজ আবহাওয়া", "language": "bn"}
                word = (await client.post("/predictions", json={"input": spoken})).json()
                assert word["output"]["engine"] == "vits", word
                rain = {"kind": "sound_effect", "prompt": "rain", "duration_s": 0.5}
                word = (await client.post("/predictions", json={"input": rain})).json()
                assert word["output"]["engine"].startswith("reprise-effects"), word
                groups = (await client.get("/health-check")).json()["groups"]
    finally:
        process.terminate()
        await process.wait()
    assert {name: group["state"] for name, group in groups.items()} == {"speech": "up", "embedded": "up"}
