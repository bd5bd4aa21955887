"""From a prompt's words to a brief: what kind of music is wanted.

Owns the reading of prompts. Promises a complete brief for every string, the same one every time; whatever
the caller said outright (tempo, key, metre, instruments, "no drums") wins over the taste of the genre.
Leaves the words to `vocabulary` and the taste to `genres`.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
import zlib
from dataclasses import dataclass

import numpy as np

from app.engines.music import ensembles
from app.engines.music.genres import GENRES, NEUTRAL_GENRE, Genre
from app.engines.music.moods import MOODS, NEUTRAL_MOOD, Mood
from app.engines.music.score.notation import Role, stream
from app.engines.music.vocabulary import GENRE_WORDS, INSTRUMENT_WORDS, MOOD_WORDS, PACE_WORDS, TEMPO_TERMS

_TEMPO_BPM = (40, 220)
_LONGEST_PROMPT = 2000
_TONICS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_ACCIDENTALS = {"sharp": 1, "#": 1, "♯": 1, "flat": -1, "b": -1, "♭": -1}
_MODE_NAMES = {"maj": "major", "min": "minor", "ionian": "major", "aeolian": "minor"}
_MODE = r"(harmonic minor|major|minor|maj|min|dorian|mixolydian|lydian|phrygian|ionian|aeolian)"
_KEY = re.compile(rf"\b([a-g])[ -]?(sharp|flat|#|♯|♭|b)?[ -]?{_MODE}\b")
_KEY_OF = re.compile(r"\b(?:key of|in) ([A-G])(#|♯|b|♭)?(m)?(?![\w#♯♭'])")
_BPM = re.compile(r"\b(\d{2,3})(?:\.\d+)? ?bpm\b|\b(?:tempo|bpm)(?: of| at|:)? ?(\d{2,3})\b")
_TRIPLE = re.compile(r"\bwaltz(?:es)?\b|(?<!\d)3[/-]4(?!\d)|\b(?:three[ -]four|triple met(?:er|re)|6/8)\b")
_QUADRUPLE = re.compile(r"(?<!\d)4[/-]4(?!\d)|\bfour[ -]four\b")
_INSTRUMENT_GENRES = {
    "piano": "piano",
    "guitar": "acoustic",
    "ukulele": "acoustic",
    "strings": "classical",
    "violin": "classical",
    "cello": "classical",
    "harp": "lullaby",
    "synth": "synthwave",
    "saxophone": "jazz",
    "trumpet": "jazz",
    "organ": "jazz",
    "brass": "cinematic",
    "choir": "cinematic",
    "drums": "hiphop",
    "music box": "lullaby",
}


@dataclass(frozen=True, slots=True)
class Brief:
    """What to compose."""

    genre: str
    mood: str
    tempo_bpm: float
    tempo_fixed: bool
    """The caller named it, so the form may not bend it."""
    tonic: int
    """Pitch class, C = 0."""
    mode: str
    beats_per_bar: int
    ensemble: tuple[tuple[Role, str], ...]
    matched: str
    """Words understood, comma separated; a guessed spelling reads `cinematik~cinematic`."""
    note: str
    """Why the brief is a guess, or empty."""


def read_brief(prompt: str, seed: int) -> Brief:
    """Understands `prompt`; never fails. `seed` chooses only what the prompt leaves open."""
    original = unicodedata.normalize("NFKC", prompt[:_LONGEST_PROMPT])
    wanted, unwanted = _split_negations(_normalised(original))
    genres, moods = _matches(wanted, GENRE_WORDS), _matches(wanted, MOOD_WORDS)
    instruments = _matches(wanted, INSTRUMENT_WORDS)
    guesses: list[str] = []
    if not genres and not moods:
        genres, moods, guesses = _nearest(wanted)
    asked = list(dict.fromkeys(name for _, name in instruments))
    genre, mood, note = _style(genres, moods, asked)
    # The style has a say in the draw, or one seed would put every style in the same key.
    rng = stream(seed, zlib.crc32(f"{genre.name}/{mood.name}".encode()))
    tempo_bpm, tempo_fixed, tempo_words = _tempo(wanted, genre, mood, rng)
    tonic, mode, key_words = _key(original, wanted, genre, mood, rng)
    triple = bool(_TRIPLE.search(wanted)) and not _QUADRUPLE.search(wanted)
    words = [*(word for word, _ in genres + moods + instruments), *tempo_words, *key_words]
    if triple:
        words.append("3/4")
    words += [f"no {word}" for word in unwanted]
    return Brief(
        genre.name,
        mood.name,
        tempo_bpm,
        tempo_fixed,
        tonic,
        mode,
        3 if triple else 4,
        ensembles.choose(genre, asked, unwanted, wanted, rng),
        ", ".join(dict.fromkeys(words + guesses)),
        note if not (tempo_words or key_words) else "",
    )


def _normalised(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    return re.sub(r"[^\w#♯♭&/.,;:'-]+", " ", plain).replace("'s", "").strip()


def _split_negations(text: str) -> tuple[str, list[str]]:
    """The text without what it refuses, and the refused words: `no drums or bass` refuses both."""
    pattern = re.compile(
        r"\b(?:no|without|minus|not|never|sans) (?:any |the |too )?([\w-]+(?:(?: or | nor |/)[\w-]+)*)"
    )
    refused = [word for match in pattern.finditer(text) for word in re.split(r" or | nor |/", match.group(1))]
    rest = pattern.sub(" ", text)
    if re.search(r"\b(drumless|beatless)\b", text):
        refused.append("drums")
    return rest, list(dict.fromkeys(refused))


def _matches(text: str, words: dict[str, str]) -> list[tuple[str, str]]:
    """(word, meaning) in order of appearance; of overlapping words the longest one counts."""
    pattern = re.compile(
        r"(?<![\w&])("
        + "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        + r")s?(?![\w&])"
    )
    return [(match.group(1), words[match.group(1)]) for match in pattern.finditer(text)]


def _nearest(text: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[str]]:
    """Forgives spelling: the closest genre and mood words to the prompt's longer words."""
    genres: list[tuple[str, str]] = []
    moods: list[tuple[str, str]] = []
    guesses: list[str] = []
    for token in list(dict.fromkeys(re.findall(r"[a-z]{5,20}", text)))[:40]:
        for table, found in ((GENRE_WORDS, genres), (MOOD_WORDS, moods)):
            close = difflib.get_close_matches(token, [word for word in table if len(word) > 4], 1, 0.82)
            if close and not found:
                found.append((close[0], table[close[0]]))
                guesses.append(f"{token}~{close[0]}")
    return genres, moods, guesses


def _style(
    genres: list[tuple[str, str]], moods: list[tuple[str, str]], asked: list[str]
) -> tuple[Genre, Mood, str]:
    """What is named most wins, then what is named first; what is not named follows from the rest."""
    # A waltz is a metre first: "rock waltz" is rock, and only a waltz of no other kind is classical.
    genre, mood = _winner([match for match in genres if match[0] != "waltz"] or genres), _winner(moods)
    if genre and not mood:
        mood = GENRES[genre].mood
    elif mood and not genre:
        genre = ensembles.genre_for(asked, _INSTRUMENT_GENRES) or MOODS[mood].genre
    elif not genre:
        genre = ensembles.genre_for(asked, _INSTRUMENT_GENRES)
        mood = GENRES[genre].mood if genre else None
    if genre and mood:
        return GENRES[genre], MOODS[mood], ""
    return GENRES[NEUTRAL_GENRE], MOODS[NEUTRAL_MOOD], "no word of the prompt names a style: a neutral bed"


def _winner(matches: list[tuple[str, str]]) -> str | None:
    scores: dict[str, int] = {}
    for word, meaning in matches:
        scores[meaning] = scores.get(meaning, 0) + 1 + (" " in word)
    return max(scores, key=lambda meaning: scores[meaning]) if scores else None


def _tempo(text: str, genre: Genre, mood: Mood, rng: np.random.Generator) -> tuple[float, bool, list[str]]:
    low, high = genre.tempo_bpm
    jitter = float(rng.uniform(-0.12, 0.12))
    if found := _BPM.search(text):
        bpm = int(found.group(1) or found.group(2))
        return float(min(max(bpm, _TEMPO_BPM[0]), _TEMPO_BPM[1])), True, [f"{bpm} bpm"]
    terms = [term for term in TEMPO_TERMS if re.search(rf"\b{term}\b", text)]
    if terms:
        return float(TEMPO_TERMS[terms[0]]), False, terms[:1]
    pace = min(max(mood.pace + jitter, 0.0), 1.0)
    paces = [
        word for word in sorted(PACE_WORDS, key=len, reverse=True) if re.search(rf"\b{word}\b(?!-)", text)
    ]
    if paces:
        change = PACE_WORDS[paces[0]]
        end = high if change > 0 else low
        bpm = round(end * (1 + 0.5 * change))
        return float(min(max(bpm, _TEMPO_BPM[0]), _TEMPO_BPM[1])), False, paces[:1]
    return float(round(low + pace * (high - low))), False, []


def _key(
    original: str, text: str, genre: Genre, mood: Mood, rng: np.random.Generator
) -> tuple[int, str, list[str]]:
    tonic = int(rng.integers(12))
    mode = genre.modes[0 if mood.bright else 1]
    if found := _KEY.search(text):
        accidental = _ACCIDENTALS.get(found.group(2) or "", 0)
        name = found.group(3)
        return (_TONICS[found.group(1)] + accidental) % 12, _MODE_NAMES.get(name, name), [found.group(0)]
    if found := _KEY_OF.search(original):
        accidental = _ACCIDENTALS.get(found.group(2) or "", 0)
        letter = found.group(1).lower()
        return (_TONICS[letter] + accidental) % 12, "minor" if found.group(3) else "major", [found.group(0)]
    if named := re.search(rf"\b{_MODE}\b(?: key| scale| mode)?", text):
        name = named.group(1)
        return tonic, _MODE_NAMES.get(name, name), [name]
    return tonic, mode, []
