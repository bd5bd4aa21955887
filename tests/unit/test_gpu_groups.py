"""Which engines share a server, and which group a kind finds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from app.engines.inputs import KINDS as EMBEDDED
from app.engines.neural.placement import machine_bytes
from app.errors import EngineUnavailable, StartupError
from app.gpu.groups import NEURAL_PREDICTOR, Group, find_group, groups_for
from app.gpu.lanes import reason_of
from app.gpu.memory import FreeMemory
from app.settings import Settings, load_settings

NEURAL = {"transcription": "Systran/faster-whisper-large-v3", "speech": "facebook/mms-tts-ben"}
LOG = (
    '{"level":"INFO","fields":{"message":"loading"}}\n'
    '{"level":"ERROR","fields":{"message":"Worker initialization failed","error":"worker setup'
    ' failed: Setup failed: setup failed: EngineUnavailable: speech: /m cannot be loaded"}}'
)
needs_torch = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")


def settings(**more: object) -> Settings:
    return load_settings(_env_file=None, **more)


def test_without_models_of_its_own_the_installations_engines_are_served() -> None:
    groups = groups_for(settings(), [*EMBEDDED, "dubbing"])
    assert [(group.name, group.kinds, group.need_bytes) for group in groups] == [
        ("embedded", tuple(EMBEDDED), 0)
    ]
    assert groups_for(settings(), ["dubbing"]) == []


@needs_torch
def test_each_neural_engine_has_a_group_of_its_own_and_its_kind() -> None:
    given = settings(neural_models=NEURAL, neural_allow_noncommercial=True, hf_token="hush")
    groups = {group.name: group for group in groups_for(given, list(EMBEDDED))}
    assert set(groups["embedded"].kinds) == set(EMBEDDED) - set(NEURAL)
    speech = groups["speech"]
    assert (speech.kinds, speech.predictor) == (("speech",), NEURAL_PREDICTOR)
    assert speech.need_bytes > 0
    assert json.loads(speech.environment["NEURAL_MODELS"]) == {"speech": NEURAL["speech"]}
    assert speech.environment["HF_TOKEN"] == "hush"
    assert list(groups) == ["transcription", "speech", "embedded"]


def test_weights_that_are_not_free_stop_the_start() -> None:
    with pytest.raises(StartupError, match=r"NEURAL_MODELS: speech: the weights .* CC-BY-NC-4.0"):
        groups_for(settings(neural_models=NEURAL), ["speech"])


def test_a_kind_finds_its_group() -> None:
    one, two = Group("a", ("speech",), "p"), Group("b", ("music", "stems"), "p")
    assert find_group([one, two], "stems") is two
    assert find_group([one, two], "opera") is None
    assert find_group([one, two], None) is None
    assert find_group([one], None) is one
    assert find_group([one], "opera") is None
    assert find_group([Group("any", (), "p")], "whatever") is not None


@pytest.mark.parametrize(
    ("answer", "is_asked_again", "expected"),
    [
        ("echo 12345", True, 12345),
        ("echo none", False, None),
        ("echo \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1", False, None),
        ("echo 'RuntimeError: CUDA driver error' >&2; exit 1", True, 0),
    ],
)
async def test_free_memory_is_the_gpus_as_long_as_there_is_one(
    tmp_path: Path, answer: str, is_asked_again: bool, expected: int | None
) -> None:
    python, calls = tmp_path / "python", tmp_path / "calls"
    python.write_text(f"#!/bin/sh\necho asked >> {calls}\n{answer}\n")
    python.chmod(0o755)
    free_bytes = FreeMemory(python=str(python))
    for _ in range(2):
        found = await free_bytes()
        assert found == expected if expected is not None else 0 < found <= machine_bytes() * 2
    assert len(calls.read_text().split()) == (2 if is_asked_again else 1)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "the Cog server's setup failed (SETUP_FAILED):\n" + LOG,
            "(SETUP_FAILED): speech: /m cannot be loaded",
        ),
        (
            "the Cog server was not ready within 60 s:\nnot JSON\n[]",
            "the Cog server was not ready within 60 s",
        ),
        ("port 5000 cannot be used", "port 5000 cannot be used"),
    ],
)
def test_why_an_engine_did_not_start_is_one_line(message: str, said: str) -> None:
    reason = reason_of(EngineUnavailable(message))
    assert reason.startswith("EngineUnavailable: ")
    assert reason.endswith(said)
    assert "\n" not in reason
