"""What prompts are understood as: families, layers, modifiers, and the nearest guess."""

from __future__ import annotations

import pytest

from app.engines.effects.families import FAMILIES
from app.engines.effects.prompts import MOST_LAYERS, stem, understand

PROMPTS = {
    "rain": "rain",
    "Heavy rain on a tin roof": "rain",
    "a summer downpour": "rain",
    "light drizzle": "rain",
    "hailstones on the roof": "hail",
    "howling wind in the mountains": "wind",
    "wind howling": "wind",
    "a gentle breeze": "wind",
    "a loud thunderclap": "thunder",
    "storm": "thunder",
    "crackling campfire": "fire",
    "fire crackling": "fire",
    "a babbling brook": "stream",
    "running water from a tap": "stream",
    "ocean waves crashing on the shore": "ocean",
    "waves crashing on rocks": "ocean",
    "water boiling in a pot": "bubbles",
    "leaky faucet dripping": "drip",
    "someone splashing in a pool": "splash",
    "birds singing in the morning": "birds",
    "forest ambience": "birds",
    "an owl hooting": "owl",
    "crickets at night": "crickets",
    "a swarm of bees": "bees",
    "a frog croaking in a pond": "frog",
    "dog barking": "dog",
    "a puppy": "dog",
    "wolves howling": "wolf",
    "a cat meowing": "cat",
    "a lion roaring": "roar",
    "a cow mooing on a farm": "cow",
    "machine gun fire": "gunshot",
    "a galloping horse": "horse",
    "glass shattering": "glass",
    "breaking a window": "glass",
    "a huge explosion": "explosion",
    "gunshots": "gunshot",
    "snare drum roll": "drum",
    "swords clashing": "sword",
    "a metallic clang": "sword",
    "car crash": "crash",
    "knocking on a wooden door": "knock",
    "creaky door slams shut": "door",
    "a car door closing": "door",
    "motorcycle engine revving": "engine",
    "cars passing by": "car",
    "a steam train": "train",
    "helicopter hovering": "helicopter",
    "airplane taking off": "plane",
    "a chainsaw": "saw",
    "ticking clock": "clock",
    "fast typing on a keyboard": "typing",
    "police car siren": "siren",
    "alarm clock beeping": "alarm",
    "phone ringing": "telephone",
    "church bells ringing": "bell",
    "doorbell": "chime",
    "coin pickup": "chime",
    "car horn honking": "horn",
    "referee whistle": "whistle",
    "radio static": "static",
    "footsteps on gravel": "footsteps",
    "someone walking up the stairs": "footsteps",
    "people talking in a restaurant": "crowd",
    "crowd clapping": "applause",
    "a nervous heartbeat": "heartbeat",
    "heavy breathing": "breath",
    "evil laugh": "laugh",
    "crumpling paper": "paper",
    "unzipping a jacket": "zipper",
    "laser gun": "laser",
    "R2D2 beeps": "robot+alarm",
    "spaceship interior": "drone",
    "dark ambience": "drone",
    "opening a portal": "teleport",
    "electric hum": "hum",
    "sword whoosh": "sword+whoosh",
    "magic sparkles": "magic",
    "retro game power up": "powerup",
    "lluvia": "rain",
    "perro": "dog",
}

LAYERS = {
    "rain with distant thunder": "rain+thunder",
    "footsteps in the rain": "footsteps+rain",
    "birds and a river": "birds+stream",
    "a dog barking while it rains and thunder rolls": "dog+rain+thunder",
    "wind howling, an owl, and a creaking door": "wind+owl+door",
}


@pytest.mark.parametrize(("prompt", "recipe"), (PROMPTS | LAYERS).items())
def test_a_prompt_is_the_sound_it_names(prompt: str, recipe: str) -> None:
    understanding = understand(prompt)
    assert understanding.recipe == recipe
    assert not understanding.nearest


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_family_answers_to_every_word_of_its_own(family) -> None:
    for phrase in family.phrases:
        assert understand(phrase).recipe == family.name, phrase


def test_no_two_families_share_a_word() -> None:
    owners: dict[tuple[str, ...], str] = {}
    for family in FAMILIES:
        for phrase in (*family.phrases, *family.hint_phrases):
            stems = tuple(stem(word) for word in phrase.split())
            assert owners.setdefault(stems, family.name) == family.name, phrase
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) >= 32


def test_more_families_than_can_be_layered_keep_the_first_of_equals() -> None:
    assert understand("rain, wind, fire, thunder and birds").recipe == "rain+wind+fire"
    assert len(understand(" ".join(family.name for family in FAMILIES)).layers) == MOST_LAYERS


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("rain with distant thunder", [set(), {"distant"}]),
        ("heavy rain and a far away train", [{"heavy"}, {"distant"}]),
        ("a dog barking in the distance", [{"distant"}]),
        ("footsteps and a bell in a cave", [{"cave"}, {"cave"}]),
        ("slow deep footsteps", [{"slow", "deep"}]),
        ("muffled crowd", [{"muffled"}]),
        ("underwater explosion", [{"underwater"}]),
        ("a single gunshot with long echo", [{"once", "long", "echo"}]),
        ("several tiny bells", [{"many", "small"}]),
        ("a puppy", [{"small"}]),
    ],
)
def test_a_modifier_belongs_to_what_it_describes(prompt: str, expected: list[set[str]]) -> None:
    assert [set(layer.modifiers) for layer in understand(prompt).layers] == expected


@pytest.mark.parametrize(
    "prompt",
    ["", "   ", "🌧️🔥", "дождь и гром", "雨の音", "qqqq xxxx", "!!!", "\x00\ud800", "z" * 5000, "the " * 2000],
)
def test_any_text_is_understood_as_its_nearest_family_the_same_each_time(prompt: str) -> None:
    first, second = understand(prompt), understand(prompt)
    assert first == second
    assert first.nearest
    assert len(first.layers) == 1
    assert first.matched.startswith("nearest: ")


def test_a_misspelt_word_is_nearest_to_the_word_meant() -> None:
    understanding = understand("thundr")
    assert understanding.recipe == "thunder"
    assert understanding.nearest
