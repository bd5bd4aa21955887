"""Text to speech: English through hibari (neural, 24 kHz), everything else through espeak-ng.

Owns the choice of a voice, the cutting of text into sentences, the pauses between them and the loudness.
Promises mono float32 with its peak at -3 dBFS, the same samples for the same arguments on the same machine,
progress after every sentence, and an EngineError in plain words for whatever cannot be spoken. One gain for
the whole text, so nothing pumps. Leaves espeak-ng's own ways to `espeak`, file formats to `predict`.

hibari would fetch a voice that is not on the disk: only voices that are there already are offered, so a
rendering never goes to the network.
"""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.engines import espeak
from app.engines.base import EngineError, Progress, Rendering, ignore_progress
from app.engines.loading.resident import Resident

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy as np
    from numpy.typing import NDArray

MAX_CHARACTERS = 5_000
SPEEDS = (0.5, 2.0)
"""Slowest and fastest; hibari garbles past 2, espeak-ng stops slowing down at 0.46."""

_PEAK = 10 ** (-3 / 20)
_LONGEST = 300
"""Characters or phonemes said in one breath: hibari takes 1.8 GB of memory for 5,000 phonemes at once."""
_WORDS_PER_MINUTE = 175
_ENGLISH = {"en": "en-us", "en-us": "en-us", "en-gb": "en-gb"}
_PAUSES_S = {"breath": 0.10, "sentence": 0.30, "paragraph": 0.65}
_MARGIN_S = 0.04

_SENTENCE_END = re.compile(r"(?<=[.!?…؟۔])[\"”’»)\]]*\s+(?=\S)|(?<=[。！？।॥])\s*(?=\S)")
_ENDLESS_NUMBER = re.compile(r"\d{16,}")
_BREATHS = (re.compile(r"(?<=[,;:—،、，；])\s*"), re.compile(r"\s+"))


@dataclass(frozen=True, slots=True)
class Phrase:
    """Something said in one breath, and the kind of pause after it: a key of `_PAUSES_S`."""

    text: str
    pause: str


@dataclass(frozen=True, slots=True)
class _Narrator:
    """Who speaks. `speak` yields (sample rate, samples of shape (frames,)) for each phrase, in order."""

    engine: str
    recipe: str
    speak: Callable[[Sequence[str], float, int], Generator[tuple[int, NDArray[np.float32]]]]
    details: dict[str, str | int | float | bool] = field(default_factory=dict)


def render(
    text: str,
    *,
    language: str = "en",
    voice: str | None = None,
    speed: float = 1.0,
    seed: int,
    progress: Progress = ignore_progress,
) -> Rendering:
    """Speak `text`; samples of shape (frames, 1) at 24,000 Hz (English) or 22,050 Hz.

    `language` is a tag such as `en-GB` or `bn`; `voice` a name from `list_voices`; `speed` 1.0 is the
    voice's own pace. Raises EngineError for text that is empty, too long or unspeakable, and for an unknown
    language or voice, naming what there is instead.
    """
    _check(text, speed)
    narrator = _choose(language, voice)
    phrases = split_phrases(text)
    spoken: list[NDArray[np.float32]] = []
    total, done, rate = sum(len(phrase.text) for phrase in phrases), 0, 0
    progress(0.0, "speaking")
    with closing(narrator.speak([phrase.text for phrase in phrases], speed, seed)) as sounds:
        for phrase, (rate, samples) in zip(phrases, sounds, strict=True):
            spoken.append(_trim(samples, rate))
            done += len(phrase.text)
            progress(done / total, "speaking")
    joined = _join(spoken, [_PAUSES_S[phrase.pause] / speed for phrase in phrases], rate)
    if joined is None:
        raise EngineError(f"nothing in the text can be spoken in the language {language!r}")
    sentences = sum(phrase.pause != "breath" for phrase in phrases)
    details = {"language": language, "sentences": sentences, "speed": speed, "seed": seed, **narrator.details}
    return Rendering(joined[:, None], rate, narrator.engine, narrator.recipe, details)


def list_voices(language: str = "en") -> list[str]:
    """Names that `voice` may have for this language. Raises EngineError for an unknown language."""
    tag, _note = _find_language(language)
    return [*(_installed_hibari_voices() if tag in _ENGLISH.values() else ()), *espeak.catalogue().variants]


def split_phrases(text: str) -> list[Phrase]:
    """Cut at paragraphs, sentence ends and, where a sentence is too long, at commas, spaces or anywhere."""
    phrases: list[Phrase] = []
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in _split_sentences(" ".join(paragraph.split())):
            parts = [part for part in _break_long(sentence) if _is_speakable(part)]
            phrases += [Phrase(part, "breath") for part in parts[:-1]]
            phrases += [Phrase(part, "sentence") for part in parts[-1:]]
        if phrases:
            phrases[-1] = Phrase(phrases[-1].text, "paragraph")
    return phrases


def _check(text: str, speed: float) -> None:
    if len(text) > MAX_CHARACTERS:
        raise EngineError(
            f"the text has {len(text)} characters; at most {MAX_CHARACTERS} can be spoken at once"
        )
    if not _is_speakable(text):
        raise EngineError("there is nothing to speak: the text has no letters or digits")
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise EngineError(f"the speed {speed:g} is out of range: {SPEEDS[0]} (slow) to {SPEEDS[1]} (fast)")


def _is_speakable(text: str) -> bool:
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def _split_sentences(paragraph: str) -> Iterator[str]:
    start = 0
    for end in _SENTENCE_END.finditer(paragraph):
        # A small letter after a full stop means an abbreviation; so does a title or an initial before it.
        word = paragraph[start : end.start()].rpartition(" ")[2].strip("(\"'“‘")
        if paragraph[end.end()].islower() or re.fullmatch(r"(?:[A-Z]|Mrs?|Ms|Dr|Prof|St|Sr|Sra|No)\.", word):
            continue
        yield paragraph[start : end.end()].strip()
        start = end.end()
    yield paragraph[start:].strip()


def _break_long(sentence: str, marks: Sequence[re.Pattern[str]] = _BREATHS) -> list[str]:
    if len(sentence) <= _LONGEST:
        return [sentence]
    if not marks:
        return [sentence[at : at + _LONGEST] for at in range(0, len(sentence), _LONGEST)]
    parts: list[str] = [""]
    for piece in marks[0].split(sentence):
        joined = f"{parts[-1]} {piece}".strip()
        if len(joined) <= _LONGEST:
            parts[-1] = joined
        else:
            parts += _break_long(piece, marks[1:])
    return [part for part in parts if part]


def _choose(language: str, voice: str | None) -> _Narrator:
    tag, note = _find_language(language)
    details: dict[str, str | int | float | bool] = {"note": note} if note else {}
    own = _installed_hibari_voices() if tag in _ENGLISH.values() else {}
    variants = espeak.catalogue().variants
    if voice is not None and voice.lower() not in {*own, *variants}:
        there = ", ".join([*own, *variants])
        raise EngineError(f"there is no voice {voice!r} for {language!r} on this machine; there are: {there}")
    name = voice.lower() if voice is not None else _default_voice(tag, own)
    if name in own:
        if voice is None and own[name] != tag:
            details["note"] = f"no {tag} voice is installed: spoken by the {own[name]} voice {name}"
        return _Narrator(_hibari_version(), name, functools.partial(_speak_hibari, name), details)
    file = espeak.catalogue().languages[tag]
    file, recipe = (f"{file}+{variants[name]}", f"{tag}+{name}") if name else (file, tag)
    engine = f"espeak-ng/{espeak.catalogue().version}"
    return _Narrator(engine, recipe, functools.partial(_speak_espeak, file), details)


def _default_voice(tag: str, own: dict[str, str]) -> str:
    """The first neural voice with the right accent, else the first one; '' means espeak-ng's plain voice."""
    return next((name for name, accent in own.items() if accent == tag), next(iter(own), ""))


def _find_language(language: str) -> tuple[str, str]:
    """The tag to use and a note where it is not the one asked for. Raises EngineError with near matches."""
    asked = language.strip().lower().replace("_", "-")
    tags = espeak.catalogue().languages
    base = asked.partition("-")[0]
    for tag in (_ENGLISH.get(asked, asked), _ENGLISH.get(base, base)):
        if tag in tags:
            return tag, "" if asked in {tag, *_ENGLISH} else f"{language} is not known, {tag} was used"
    names = espeak.catalogue().names
    by_name = {name.lower(): tag for tag, name in names.items()}
    near = [tag for name, tag in by_name.items() if len(asked) > 2 and asked in name]
    near = near or [by_name[name] for name in difflib.get_close_matches(asked, [*by_name], n=4)]
    near = near or difflib.get_close_matches(asked, [*tags], n=4, cutoff=0.5)
    nearest = ", ".join(f"{tag} ({names[tag]})" for tag in dict.fromkeys(near)) or ", ".join(tags)
    raise EngineError(f"there is no voice for the language {language!r}; the nearest are: {nearest}")


def _speak_espeak(
    file: str, phrases: Sequence[str], speed: float, seed: int
) -> Generator[tuple[int, NDArray[np.float32]]]:
    pace = round(_WORDS_PER_MINUTE * speed)
    yield from espeak.synthesize(phrases, voice=file, words_per_minute=pace, seed=seed)


def _speak_hibari(
    name: str, phrases: Sequence[str], speed: float, seed: int
) -> Generator[tuple[int, NDArray[np.float32]]]:
    import numpy as np

    noise = np.random.default_rng(seed)
    with _resident_voice(name).use() as hibari:
        for phrase in phrases:
            sounds = [hibari.from_ids(hibari.ids(part), speed, noise) for part in _pronounce(hibari, phrase)]
            yield hibari.sample_rate, np.concatenate([np.zeros(0, np.float32), *sounds])


def _pronounce(hibari: Any, phrase: str) -> list[str]:
    """The phonemes of a phrase, cut again: numbers and symbols grow when they are spelled out."""
    # hibari has no word past 10**63 and fails on one; nobody wants to hear it either.
    phrase = _ENDLESS_NUMBER.sub(lambda number: " ".join(number[0]), phrase)
    try:
        said = hibari.phonemize(phrase)
    except (LookupError, ValueError) as error:
        raise EngineError("hibari cannot read a sentence of the text") from error
    return [part for phonemes in said for part in _break_long(phonemes)]


@functools.cache
def _resident_voice(name: str) -> Resident[Any]:
    return Resident(functools.partial(_load_hibari, name))


def _load_hibari(name: str) -> Any:
    from hibari import Hibari

    return Hibari(voice=name)  # one thread: 200 times faster than speech already


def _hibari_version() -> str:
    from hibari import __version__

    return f"hibari/{__version__}"


def _installed_hibari_voices() -> dict[str, str]:
    """Voice name to accent (`en-us`, `en-gb`), the packaged one first. Empty without the package."""
    try:
        from hibari.voices import VOICES, voice_path
    except ImportError:
        return {}
    there = {}
    for name, about in VOICES.items():
        try:
            voice_path(name, download_missing=False)
        except FileNotFoundError:
            continue
        there[name] = str(about["language"]).lower()
    return there


def _trim(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Cut the silence at both ends down to a margin: the engines' own pauses differ a lot."""
    import numpy as np

    level = np.abs(samples)
    loud = np.flatnonzero(level > 0.01 * level.max(initial=0.0))
    if not len(loud):
        return samples[:0]
    margin = round(_MARGIN_S * rate)
    kept = samples[max(0, loud[0] - margin) : loud[-1] + margin].copy()
    ramp = np.linspace(0, 1, min(margin // 4, len(kept)), dtype=np.float32)
    kept[: len(ramp)] *= ramp
    kept[len(kept) - len(ramp) :] *= ramp[::-1]
    return kept


def _join(
    spoken: Sequence[NDArray[np.float32]], pauses_s: Sequence[float], rate: int
) -> NDArray[np.float32] | None:
    """All phrases with the pauses between them at the target peak; None where there is no sound at all."""
    import numpy as np

    parts: list[NDArray[np.float32]] = []
    for samples, pause_s in zip(spoken, pauses_s, strict=True):
        if len(samples):
            parts += [samples, np.zeros(round(pause_s * rate), np.float32)]
    if not parts:
        return None
    joined = np.concatenate(parts[:-1])
    peak = float(np.abs(joined).max(initial=0.0))
    return None if peak < 1e-4 else joined * np.float32(_PEAK / peak)
