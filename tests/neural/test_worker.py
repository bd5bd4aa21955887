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

pytestmark = pytest.mark.real
BOUND_S = 240.0


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
