"""Which engines share a server, and which group a kind finds."""

from __future__ import annotations

import importlib.util
import json

import pytest

from app.engines.predict import KINDS as EMBEDDED
from app.errors import StartupError
from app.gpu.groups import EMBEDDED_KINDS, NEURAL_PREDICTOR, Group, find_group, groups_for
from app.settings import Settings, load_settings

NEURAL = {"transcription": "Systran/faster-whisper-large-v3", "speech": "facebook/mms-tts-ben"}
needs_torch = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")


def settings(**more: object) -> Settings:
    return load_settings(_env_file=None, **more)


def test_without_models_of_its_own_the_installations_engines_are_served() -> None:
    assert tuple(EMBEDDED) == EMBEDDED_KINDS
    groups = groups_for(settings(), [*EMBEDDED_KINDS, "transcription"])
    assert [(group.name, group.kinds, group.need_bytes) for group in groups] == [
        ("embedded", EMBEDDED_KINDS, 0)
    ]
    assert groups_for(settings(), ["transcription"]) == []


@needs_torch
def test_each_neural_engine_has_a_group_of_its_own_and_its_kind() -> None:
    given = settings(neural_models=NEURAL, neural_allow_noncommercial=True, hf_token="hush")
    groups = {group.name: group for group in groups_for(given, [*EMBEDDED_KINDS, "transcription"])}
    assert groups["embedded"].kinds == ("sound_effect", "background_music")
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
