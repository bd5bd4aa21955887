"""Every neural engine end to end: a tiny random model, loaded and run by the real code in a Cog server."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.neural.conftest import Ask, SetupFailed, names_of, serving

pytestmark = pytest.mark.real


def sound(address: str) -> tuple[Any, int]:
    media_type, _, encoded = address.partition(";base64,")
    assert media_type == "data:audio/flac"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)), always_2d=True)
    return samples, rate


def succeeded(word: dict[str, Any]) -> dict[str, Any]:
    assert word["status"] == "succeeded", (word.get("error"), word.get("logs"))
    assert "progress" in word["logs"]
    output: dict[str, Any] = word["output"]
    assert json.loads(output["details"])["device"]
    return output


def test_music_has_the_length_that_was_asked(ask: Ask) -> None:
    output = succeeded(ask(kind="background_music", prompt="calm piano", duration_s=3.0, seed=7))
    samples, rate = sound(output["audio"])
    assert (output["engine"], rate, len(samples)) == ("musicgen", 16_000, 48_000)


def test_music_beyond_the_models_window_is_continued_from_its_own_end(ask: Ask) -> None:
    word = ask(kind="background_music", prompt="calm piano", duration_s=65.0, seed=7)
    samples, rate = sound(succeeded(word)["audio"])
    assert len(samples) / rate == 65.0
    steps = [float(line.split()[1]) for line in word["logs"].splitlines() if line.startswith("progress")]
    assert steps == sorted(steps)


def test_the_same_seed_gives_the_same_bytes(ask: Ask) -> None:
    for wanted in (
        {"kind": "background_music", "prompt": "calm", "duration_s": 1.0},
        {"kind": "sound_effect", "prompt": "bark", "duration_s": 0.4},
        {"kind": "speech", "text": "আজ আবহাওয়া", "language": "bn"},
    ):
        first, second, other = (succeeded(ask(**wanted, seed=seed))["audio"] for seed in (3, 3, 4))
        assert first == second != other


@pytest.mark.parametrize("loop", [False, True])
def test_a_sound_effect_has_the_length_that_was_asked(ask: Ask, loop: bool) -> None:
    output = succeeded(ask(kind="sound_effect", prompt="dog bark", duration_s=0.5, loop=loop, seed=1))
    samples, rate = sound(output["audio"])
    assert (output["engine"], rate, samples.shape) == ("stable-audio", 1600, (800, 2))


def test_a_sound_longer_than_the_model_is_refused_with_its_length(ask: Ask) -> None:
    word = ask(kind="sound_effect", prompt="dog bark", duration_s=20.0)
    assert word["status"] == "failed"
    assert "duration_s: this model makes at most 2 s" in word["error"]


def test_a_recording_is_transcribed(ask: Ask, recording: str) -> None:
    output = succeeded(ask(kind="transcription", audio=recording, language="en"))
    transcript = json.loads(output["transcript"])
    assert (output["engine"], transcript["language"], transcript["duration"]) == ("faster-whisper", "en", 4.0)
    assert output["duration_s"] == 4.0
    assert_transcript(transcript)


def test_a_folder_of_transformers_is_transcribed_by_transformers(
    tiny: Path, tmp_path: Path, recording: str
) -> None:
    with serving({"transcription": str(tiny / "whisper" / "plain")}, tmp_path) as ask:
        output = succeeded(ask(kind="transcription", audio=recording, language="es"))
        refused = ask(kind="transcription", audio=recording, language="fr")
    transcript = json.loads(output["transcript"])
    assert (output["engine"], transcript["language"], transcript["duration"]) == ("whisper", "es", 4.0)
    assert_transcript(transcript)
    assert "language: this model does not know fr" in refused["error"]


def assert_transcript(transcript: dict[str, Any]) -> None:
    for segment in transcript["segments"]:
        assert 0 <= segment["start"] <= segment["end"] <= transcript["duration"]
        assert {"start", "end", "text", "words"} == set(segment)
        for word in segment["words"]:
            assert word["start"] <= word["end"]


def test_english_is_translated_into_bengali(ask: Ask) -> None:
    output = succeeded(
        ask(kind="translation", text="The weather is nice. Open the window.", source="en", target="bn")
    )
    told = json.loads(output["text"])
    assert (output["engine"], told["source"], told["target"]) == ("m2m_100", "en", "bn")
    assert "segments" not in told
    assert told["engine"] == "m2m_100"


def test_segments_are_translated_one_by_one(ask: Ask) -> None:
    segments = [{"text": f"she bought {number} apples", "start": number} for number in range(20)]
    output = succeeded(ask(kind="translation", segments=segments, source="en", target="es"))
    told = json.loads(output["text"])["segments"]
    assert [segment["start"] for segment in told] == list(range(20))


def test_the_lines_of_a_text_stay_lines(ask: Ask) -> None:
    word = ask(
        kind="translation", text="hello\n\nopen the window", source="en", target="es", allow_poorer=True
    )
    assert json.loads(succeeded(word)["text"])["text"].count("\n") == 2


def test_a_language_that_the_model_does_not_know_is_refused(ask: Ask) -> None:
    word = ask(kind="translation", text="hello", source="en", target="tlh")
    assert "target: the model that is configured does not know tlh" in word["error"]


def test_madlad_is_told_the_language_before_the_text(tiny: Path, tmp_path: Path) -> None:
    with serving({"translation": str(tiny / "madlad")}, tmp_path) as ask:
        output = succeeded(ask(kind="translation", text="open the window", source="en", target="bn"))
        refused = ask(kind="translation", text="open the window", source="en", target="fr")
    assert (output["engine"], json.loads(output["text"])["target"]) == ("t5", "bn")
    assert "target: the model that is configured does not know fr" in refused["error"]


def test_bengali_is_spoken_and_another_language_is_refused(ask: Ask) -> None:
    one = succeeded(ask(kind="speech", text="আজ আবহাওয়া", language="bn", seed=1))
    two = succeeded(ask(kind="speech", text="আজ আবহাওয়া। আজ আবহাওয়া", language="bn", seed=1))
    assert one["engine"] == "vits"
    assert sound(one["audio"])[1] == 16_000
    assert two["duration_s"] > one["duration_s"] + 0.25
    assert "speaks bn, not en" in ask(kind="speech", text="hello", language="en")["error"]
    assert "nothing in it that this model can say" in ask(kind="speech", text="你好", language="bn")["error"]


def test_two_stems_are_what_is_given_unasked(ask: Ask, recording: str) -> None:
    output = succeeded(ask(kind="stem_separation", audio=recording))
    sounds = {name for name, value in output.items() if str(value).startswith("data:")}
    assert sounds == {"vocals", "instrumental"}


@pytest.mark.parametrize("form", ["bag", "old.th"])
def test_a_song_is_separated_into_stems_that_add_up(
    tiny: Path, tmp_path: Path, ask: Ask, recording: str, form: str
) -> None:
    if form == "bag":
        output = succeeded(ask(kind="stem_separation", audio=recording, all_stems=True))
    else:
        with serving({"stem_separation": str(tiny / "demucs" / form)}, tmp_path) as asking:
            output = succeeded(asking(kind="stem_separation", audio=recording, all_stems=True))
    stems = {name: sound(output[name])[0] for name in ("vocals", "drums", "bass", "other", "instrumental")}
    assert {stem.shape for stem in stems.values()} == {(32_000, 2)}
    together = stems["drums"] + stems["bass"] + stems["other"]
    assert np.abs(together - stems["instrumental"]).max() < 4 / 32768  # each is rounded by itself
    assert np.abs(stems["instrumental"]).max() > 0.001
    assert output["duration_s"] == 4.0


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"kind": "opera"}, "kind: 'opera' is not one of"),
        ({"kind": "background_music"}, "prompt: a text that is not empty is needed"),
        ({"kind": "transcription"}, "audio: a text that is not empty is needed"),
        ({"kind": "transcription", "prompt": "x"}, "prompt: is not an input of transcription"),
        (
            {"kind": "translation", "source": "en", "target": "es"},
            "text: either a text or segments is needed",
        ),
        ({"kind": "stem_separation", "audio": "file:///etc/passwd"}, "audio: an http or https address"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(ask: Ask, inputs: dict[str, Any], said: str) -> None:
    word = ask(**inputs)
    assert word["status"] == "failed"
    assert f"EngineError: {said}" in word["error"]


def test_a_file_that_is_no_sound_is_refused(ask: Ask, recording: str) -> None:
    for kind in ("transcription", "stem_separation"):
        word = ask(kind=kind, audio=recording.replace("recording.wav", "not-sound"))
        assert "EngineError: audio: cannot be read as sound" in word["error"]


def test_weights_that_are_not_free_are_not_loaded_unasked(tiny: Path, tmp_path: Path) -> None:
    names = {"speech": names_of(tiny)["speech"]}
    with pytest.raises(SetupFailed, match="under CC-BY-NC-4"), serving(names, tmp_path, allow=False):
        pass


@pytest.mark.parametrize("spoil", ["cut", "missing"])
def test_weights_that_are_not_whole_are_refused_with_their_path(
    tiny: Path, tmp_path: Path, spoil: str
) -> None:
    """Fault 70: model files that are missing or cut are never served in part."""
    folder = tmp_path / "model"
    shutil.copytree(tiny / "vits", folder)
    weights = folder / "model.safetensors"
    if spoil == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    else:
        weights.unlink()
    with pytest.raises(SetupFailed) as caught, serving({"speech": str(folder)}, tmp_path):
        pass
    assert str(folder) in str(caught.value)
