"""The promises of the speech engine, kept by the real hibari and the real espeak-ng."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from app.engines import espeak, speech
from app.engines.base import EngineError, Rendering

SAMPLES = {
    "en": "The train to London leaves at seven in the morning.",
    "es": "El tren a Londres sale a las siete de la mañana.",
    "fr": "Le train pour Londres part à sept heures du matin.",
    "bn": "লন্ডনের ট্রেন সকাল সাতটায় ছাড়ে।",
    "hi": "लंदन की ट्रेन सुबह सात बजे निकलती है।",
    "zh": "去伦敦的火车早上七点开。",
}


def speak(text: str, **wanted: object) -> Rendering:
    return speech.render(text, **{"seed": 7, **wanted})  # type: ignore[arg-type]


@pytest.mark.parametrize("language", SAMPLES)
def test_every_language_is_spoken_at_a_plausible_pace(language: str) -> None:
    sound = speak(SAMPLES[language], language=language)
    assert 1.5 < sound.duration_s < 6
    assert sound.samples.dtype == np.float32
    assert sound.samples.shape == (round(sound.duration_s * sound.sample_rate), 1)
    assert np.abs(sound.samples).max() == pytest.approx(10 ** (-3 / 20), abs=1e-3)
    assert sound.engine.startswith("hibari/0." if language == "en" else "espeak-ng/1.52")
    assert sound.sample_rate == (24_000 if language == "en" else 22_050)
    assert {"language": language, "sentences": 1, "seed": 7}.items() <= sound.details.items()


@pytest.mark.parametrize("language", ["en", "es"])
def test_longer_text_takes_longer_and_speed_shortens_it(language: str) -> None:
    once = speak(SAMPLES[language], language=language).duration_s
    thrice = speak(f"{SAMPLES[language]} " * 3, language=language).duration_s
    assert thrice == pytest.approx(3 * once + 2 * 0.3, rel=0.1)
    assert speak(SAMPLES[language], language=language, speed=2.0).duration_s == pytest.approx(
        once / 2, rel=0.3
    )
    assert speak(SAMPLES[language], language=language, speed=0.5).duration_s == pytest.approx(
        once * 2, rel=0.3
    )


@pytest.mark.parametrize(
    ("language", "voice"), [("en", None), ("bn", None), ("en", "whisper"), ("es", "klatt2")]
)
def test_the_same_seed_gives_the_same_samples(language: str, voice: str | None) -> None:
    first = speak(SAMPLES[language], language=language, voice=voice)
    speak("Etwas anderes dazwischen.", language="de")
    again = speak(SAMPLES[language], language=language, voice=voice)
    assert np.array_equal(first.samples, again.samples)


def test_another_seed_changes_the_breath_of_the_neural_voice() -> None:
    assert not np.array_equal(speak("Hello.", seed=1).samples, speak("Hello.", seed=2).samples)


def test_the_pause_between_paragraphs_is_silent_and_longer_than_between_sentences() -> None:
    assert longest_silence_s(speak("One more. And then.")) == pytest.approx(0.3, abs=0.12)
    assert longest_silence_s(speak("One more.\n\nAnd then.")) == pytest.approx(0.65, abs=0.12)


def longest_silence_s(sound: Rendering) -> float:
    loud = np.flatnonzero(np.abs(sound.samples[:, 0]) > 0.01)
    return float(np.diff(loud).max()) / sound.sample_rate


def test_progress_is_told_after_every_sentence_and_ends_at_one() -> None:
    told: list[float] = []
    speak("One. Two. Three.", progress=lambda fraction, _step: told.append(fraction))
    assert len(told) == 4
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)


def test_a_voice_of_espeak_can_speak_english_too() -> None:
    sound = speak("Good evening.", voice="M3")
    assert (sound.recipe, sound.engine) == ("en-us+m3", f"espeak-ng/{espeak.catalogue().version}")


@pytest.mark.parametrize(
    ("language", "recipe", "note"),
    [
        ("es_MX", "es-mx", None),
        ("pt-AO", "pt", "pt-AO is not known, pt was used"),
        ("en-GB", "heart", "no en-gb voice is installed: spoken by the en-us voice heart"),
        ("en-IN", "heart", "en-IN is not known, en-us was used"),
    ],
)
def test_a_near_variety_is_used_and_said(
    language: str, recipe: str, note: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("HIBARI_HOME", str(tmp_path))  # no voice but the packaged one
    sound = speak("Taxi.", language=language)
    assert (sound.recipe, sound.details.get("note")) == (recipe, note)


def test_english_is_still_spoken_where_hibari_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hibari.voices", None)
    assert speak("Hello.").recipe == "en-us"
    assert "heart" not in speech.list_voices("en")


@pytest.mark.parametrize(
    ("text", "wanted", "said"),
    [
        ("", {}, "nothing to speak"),
        ("… !!! 😀 —", {}, "nothing to speak"),
        ("你好", {"language": "en"}, "nothing in the text can be spoken in the language 'en'"),
        ("x" * 5_001, {}, "5001 characters; at most 5000"),
        ("Hi.", {"speed": 2.1}, "0.5 (slow) to 2.0 (fast)"),
        ("Hi.", {"speed": float("nan")}, "out of range"),
        ("Hi.", {"language": "Bengali"}, "bn (Bengali)"),
        ("Hi.", {"language": "xq"}, "the nearest are: "),
        ("Hi.", {"voice": "nobody"}, "there are: heart, "),
        ("Hola.", {"language": "es", "voice": "heart"}, "there are: alex, "),
    ],
)
def test_what_cannot_be_spoken_is_refused_in_plain_words(
    text: str, wanted: dict[str, object], said: str
) -> None:
    with pytest.raises(EngineError) as refusal:
        speak(text, **wanted)
    assert said in str(refusal.value)


@pytest.mark.parametrize("text", ["9" * 300, "word " * 1000, "a" * 5000, "$1e99 ½ Ⅳ [a](/b/) <b> \0 C:\\x"])
def test_odd_text_is_spoken_all_the_same(text: str) -> None:
    assert speak(text).duration_s > 1


def test_sentences_end_where_a_reader_would_stop() -> None:
    text = "Dr. Smith met J. Doe, i.e. nobody. “Really?” he said.\nYes!\n\n请坐。谢谢。 আসুন। যান।"
    phrases = speech.split_phrases(text)
    assert [phrase.text for phrase in phrases] == [
        "Dr. Smith met J. Doe, i.e. nobody.", "“Really?” he said.", "Yes!", "请坐。", "谢谢。", "আসুন।", "যান।",
    ]  # fmt: skip
    assert [phrase.pause for phrase in phrases] == [
        "sentence", "sentence", "paragraph", "sentence", "sentence", "sentence", "paragraph",
    ]  # fmt: skip


def test_a_long_sentence_is_cut_at_commas_then_spaces_then_anywhere_and_loses_nothing() -> None:
    for text in ("and so on, " * 90, "and so on " * 90, "x" * 901):
        phrases = speech.split_phrases(text)
        assert all(len(phrase.text) <= 300 for phrase in phrases)
        assert "".join(phrase.text for phrase in phrases).replace(" ", "") == text.replace(" ", "")
        assert {phrase.pause for phrase in phrases[:-1]} == {"breath"}


def test_a_rendering_that_is_left_early_leaves_no_espeak_behind(
    children: Callable[[], list[object]],
) -> None:

    class Leaving(BaseException):
        """As Cog's cancellation: not an Exception."""

    def leave(fraction: float, _step: str) -> None:
        if fraction > 0:
            raise Leaving

    with pytest.raises(Leaving):
        speak("Uno. Dos. Tres. " * 200, language="es", progress=leave)
    assert children() == []


def test_a_dead_espeak_is_an_error_and_not_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    espeak.catalogue()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EngineError, match="espeak-ng stopped"):
        speak("Hola.", language="es")


def test_every_listed_language_loads_a_voice() -> None:
    def sounds(file: str) -> Iterator[Sequence[float]]:
        return (
            list(samples)
            for _rate, samples in espeak.synthesize(["1"], voice=file, words_per_minute=450, seed=0)
        )

    files = sorted(set(espeak.catalogue().languages.values()))[::12]
    assert all(len(next(sounds(file))) > 0 for file in files)
