"""What the music engine understands from a prompt. No sound is made here."""

from __future__ import annotations

from typing import Any

import pytest

from app.engines.music import brief as briefs
from app.engines.music.ensembles import choose
from app.engines.music.genres import GENRES
from app.engines.music.instruments import INSTRUMENTS
from app.engines.music.moods import MOODS
from app.engines.music.score import accompaniment, bass, drums
from app.engines.music.score.harmony import MODES
from app.engines.music.score.notation import stream
from app.engines.music.vocabulary import GENRE_WORDS, INSTRUMENT_WORDS, MOOD_WORDS

PROMPTS: list[tuple[str, dict[str, Any]]] = [
    ("calm lofi beat for studying", {"genre": "lofi", "mood": "calm"}),
    ("Chillhop, nostalgic, rainy window", {"genre": "lofi"}),
    ("ambient meditation drone", {"genre": "ambient", "mood": "calm"}),
    ("dreamy ambient soundscape", {"genre": "ambient", "mood": "dreamy"}),
    ("epic trailer music", {"genre": "epic", "mood": "epic"}),
    ("heroic battle theme", {"genre": "epic", "mood": "epic"}),
    ("dark cinematic underscore", {"genre": "cinematic", "mood": "dark"}),
    ("sad orchestral film score", {"genre": "cinematic", "mood": "sad"}),
    ("upbeat corporate presentation", {"genre": "corporate"}),
    ("inspiring startup explainer", {"genre": "corporate", "mood": "hopeful"}),
    ("energetic techno", {"genre": "electronic", "mood": "energetic"}),
    ("EDM workout banger", {"genre": "electronic", "mood": "energetic"}),
    ("80s synthwave night drive", {"genre": "synthwave", "mood": "nostalgic"}),
    ("retrowave outrun", {"genre": "synthwave"}),
    ("smooth jazz for a dinner", {"genre": "jazz", "mood": "romantic"}),
    ("mysterious jazz noir detective", {"genre": "jazz", "mood": "mysterious"}),
    ("acoustic folk campfire", {"genre": "acoustic", "mood": "hopeful"}),
    ("happy ukulele song", {"mood": "happy", "genre": "acoustic", "plays": ["ukulele"]}),
    ("sad piano solo", {"genre": "piano", "mood": "sad", "plays": ["grand piano"]}),
    ("angry metal riff", {"genre": "rock", "mood": "angry"}),
    ("indie rock, energetic", {"genre": "rock", "mood": "energetic"}),
    ("hip hop beat", {"genre": "hiphop", "mood": "confident"}),
    ("dark trap, 140 bpm", {"genre": "hiphop", "mood": "dark", "tempo": 140.0}),
    ("classical string quartet", {"genre": "classical"}),
    ("a romantic waltz in 3/4", {"genre": "classical", "mood": "romantic", "beats": 3}),
    ("8-bit video game level", {"genre": "chiptune", "mood": "playful"}),
    ("chiptune boss fight", {"genre": "chiptune"}),
    ("salsa fiesta", {"genre": "latin", "mood": "happy"}),
    ("flamenco, passionate", {"genre": "latin", "mood": "romantic"}),
    ("scary halloween haunted house", {"genre": "horror", "mood": "tense"}),
    ("baby lullaby", {"genre": "lullaby", "mood": "calm"}),
    ("playful music for kids", {"genre": "lullaby", "mood": "playful"}),
    ("tense thriller chase", {"genre": "cinematic", "mood": "tense"}),
    ("romantic wedding music", {"genre": "piano", "mood": "romantic"}),
    ("mysterious", {"genre": "ambient", "mood": "mysterious"}),
    ("ambient in D minor", {"genre": "ambient", "tonic": 2, "mode": "minor"}),
    ("rock in F# minor", {"tonic": 6, "mode": "minor"}),
    ("jazz in Bb major", {"tonic": 10, "mode": "major"}),
    ("piano in the key of G", {"tonic": 7, "mode": "major"}),
    ("folk in Em, 96bpm", {"tonic": 4, "mode": "minor", "tempo": 96.0}),
    ("E dorian hip hop", {"genre": "hiphop", "tonic": 4, "mode": "dorian"}),
    ("electronic in A flat minor", {"tonic": 8, "mode": "minor"}),
    ("lofi at 70 BPM", {"tempo": 70.0}),
    ("house, tempo 126", {"tempo": 126.0}),
    ("rock at 999 bpm", {"tempo": 220.0}),
    ("classical allegro", {"tempo": 132.0}),
    ("rock waltz", {"beats": 3, "genre": "rock"}),
    ("waltz chiptune 40 bpm", {"beats": 3, "genre": "chiptune", "tempo": 40.0}),
    ("lofi without drums", {"genre": "lofi", "silent": ["drums"]}),
    ("hip hop, no bass, no drums", {"genre": "hiphop", "silent": ["drums", "bass"]}),
    ("synthwave with no melody", {"genre": "synthwave", "silent": ["melody"]}),
    ("cinematic piano and strings", {"genre": "cinematic", "plays": ["grand piano", "strings"]}),
    ("jazz with a trumpet", {"genre": "jazz", "plays": ["trumpet"]}),
    ("only cello, slow and sad", {"mood": "sad", "sole": "cello"}),
    ("solo harp", {"sole": "harp"}),
    ("ambient with electric guitar", {"genre": "ambient", "plays": ["electric guitar"]}),
    ("not sad, happy corporate", {"mood": "happy", "genre": "corporate"}),
    ("cinematik musik", {"genre": "cinematic"}),
    ("Café bossa, décontracté", {"genre": "jazz"}),
]


@pytest.mark.parametrize(("prompt", "wanted"), PROMPTS, ids=[prompt for prompt, _ in PROMPTS])
def test_a_prompt_is_understood_as_people_mean_it(prompt: str, wanted: dict[str, Any]) -> None:
    brief = briefs.read_brief(prompt, 1)
    seats = dict(brief.ensemble)
    found = {
        "genre": brief.genre,
        "mood": brief.mood,
        "tempo": brief.tempo_bpm,
        "tonic": brief.tonic,
        "mode": brief.mode,
        "beats": brief.beats_per_bar,
    }
    assert {key: found[key] for key in wanted if key in found} == {
        k: v for k, v in wanted.items() if k in found
    }
    assert set(wanted.get("plays", [])) <= set(seats.values())
    assert not set(wanted.get("silent", [])) & set(seats)
    if "sole" in wanted:
        assert set(seats.values()) == {wanted["sole"]}


@pytest.mark.parametrize(
    "prompt", ["", "   ", "🎉🔥", "qwzx vbnk", "la " * 1700, "\x00\n\t", "12345 !!! ???"]
)
def test_a_prompt_without_meaning_becomes_a_neutral_bed_and_says_so(prompt: str) -> None:
    brief = briefs.read_brief(prompt, 1)
    assert (brief.genre, brief.mood) == ("acoustic", "calm")
    assert "neutral" in brief.note
    assert brief == briefs.read_brief(prompt, 1)


def test_fast_and_slow_move_the_tempo_out_of_the_usual() -> None:
    slow, usual, fast = (briefs.read_brief(f"{word} jazz", 4).tempo_bpm for word in ("slow", "", "fast"))
    assert slow < usual < fast


def test_a_guessed_spelling_is_told() -> None:
    assert "cinematik~cinematic" in briefs.read_brief("cinematik", 0).matched


def test_an_asked_tempo_is_fixed_and_a_chosen_one_is_not() -> None:
    assert briefs.read_brief("lofi 91 bpm", 0).tempo_fixed
    assert not briefs.read_brief("lofi", 0).tempo_fixed


def test_seeds_choose_what_the_prompt_leaves_open() -> None:
    seen = {briefs.read_brief("jazz", seed) for seed in range(8)}
    assert len({brief.tonic for brief in seen}) > 2
    assert len({brief.ensemble for brief in seen}) > 1
    assert {brief.genre for brief in seen} == {"jazz"}


def test_refusing_everything_still_leaves_something_to_hear() -> None:
    left = choose(GENRES["piano"], [], ["piano", "melody", "bass", "drums", "pad"], "", stream(1, 1))
    assert left == (("pad", "warm pad"),)


def test_every_word_leads_to_something_that_exists() -> None:
    assert set(GENRE_WORDS.values()) == set(GENRES)
    assert set(MOOD_WORDS.values()) == set(MOODS)
    assert set(INSTRUMENT_WORDS.values()) <= set(INSTRUMENTS)
    assert {mood.genre for mood in MOODS.values()} <= set(GENRES)


@pytest.mark.parametrize("name", list(GENRES))
def test_a_genre_asks_only_for_what_the_house_has(name: str) -> None:
    genre = GENRES[name]
    assert genre.mood in MOODS
    assert set(genre.modes) <= set(MODES)
    assert set(genre.comp) <= set(accompaniment.FIGURES)
    assert set(genre.bass) <= set(bass.FIGURES)
    assert set(genre.groove) <= set(drums.GROOVES)
    assert {instrument for seats in genre.ensembles for _, instrument in seats} <= set(INSTRUMENTS)


def test_grooves_fill_their_bar() -> None:
    for name, variants in drums.GROOVES.items():
        steps = 12 if name == "waltz" else 16
        lengths = {len(line) for groove in variants for line in groove.values()}
        assert lengths == {steps}, name
