"""From words to families and modifiers.

Owns: reading a prompt. Promises: the same answer for the same text, at least one family whatever the
text is (empty, emoji, another script), at most three. Leaves the words themselves to the families'
tables, and what a modifier does to `engine` and `spaces`.

How: accents folded, words stemmed lightly, the longest phrase at each place wins; a phrase weighs more
than a word, a hint counts only where nothing better was said. A modifier belongs to the next
family named, else to the one before it; words of a shared place (cave, underwater) belong to all.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from math import sqrt

from app.engines.effects.families import FAMILIES
from app.engines.effects.take import Family

MOST_LAYERS = 3
_LONGEST_PHRASE = 3
_MOST_TOKENS = 600
_SMALL_WORDS = frozenset({"a", "an", "the", "on", "of", "my", "his", "her", "some", "this", "that"})
_BREAK = ","
"""Stands for any punctuation: no phrase crosses it."""
_REACH = 4
"""How many words a modifier may stand before its family."""

_MODIFIER_WORDS = {
    "distant": "distant|distance|far|faraway|afar|remote|background|lejano|lointain",
    "close": "close|near|nearby|closeup|intimate",
    "heavy": "heavy|loud|hard|intense|strong|violent|furious|raging|torrential|powerful|dense|aggressive",
    "light": "light|gentle|soft|quiet|calm|faint|subtle|delicate|mild|weak|peaceful|slight",
    "fast": "fast|quick|rapid|hurried|frantic|rushing|brisk|speedy|accelerated",
    "slow": "slow|leisurely|lazy|sluggish|unhurried",
    "big": "big|large|giant|massive|grand",
    "huge": "huge|enormous|colossal|gigantic|epic",
    "small": "small|little|tiny|mini|miniature|baby|puppy|kitten",
    "deep": "deep|low|bass|dark|pitched down",
    "high": "high|shrill|bright|pitched up",
    "long": "long|lingering|sustained|extended|prolonged",
    "echo": "echo|echoing|echoey|delay|canyon|valley",
    "cave": "cave|cavern|cathedral|tunnel|hall|dungeon|church|reverb|reverberant|warehouse",
    "room": "room|indoor|hallway|corridor|kitchen|bathroom|garage|office",
    "muffled": "muffled|behind a wall|next door|through a wall|dull|from outside",
    "underwater": "underwater|submerged|under water|beneath the water",
    "once": "single|one|once|solitary|lone",
    "many": "multiple|several|many|repeated|repeatedly|group|lots|swarm|pack|flock",
}
_SHARED = frozenset({"cave", "room", "echo", "underwater", "muffled"})


@dataclass(frozen=True, slots=True)
class Layer:
    """One family to play, and how."""

    family: Family
    modifiers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Understanding:
    """What a prompt asks for: one to three layers, the head first."""

    layers: tuple[Layer, ...]
    matched: str
    nearest: bool = False

    @property
    def recipe(self) -> str:
        return "+".join(layer.family.name for layer in self.layers)

    @property
    def modifiers(self) -> tuple[str, ...]:
        """Every modifier understood, sorted."""
        return tuple(sorted(frozenset().union(*(layer.modifiers for layer in self.layers))))


@dataclass(frozen=True, slots=True)
class _Hit:
    """One phrase of a family found in the prompt."""

    place: int
    words: tuple[str, ...]
    family: Family
    hint: bool

    @property
    def end(self) -> int:
        return self.place + len(self.words)

    @property
    def participle(self) -> bool:
        return len(self.words) == 1 and self.words[0].endswith("ing")


@dataclass(slots=True)
class _Mention:
    """Where one family was named, and how strongly."""

    family: Family
    weight: float
    places: list[int] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)


def understand(prompt: str) -> Understanding:
    """The families and modifiers of a prompt; never fails."""
    hits, modifiers = _scan(_tokens(prompt))
    mentions = _mentions(hits)
    nearest = not mentions
    if nearest:
        family, why = _nearest(prompt)
        mentions, matched = [_Mention(family, 0.0, [0])], why
    else:
        mentions.sort(key=lambda mention: (-mention.weight, mention.places[0]))
        mentions = sorted(mentions[:MOST_LAYERS], key=lambda mention: mention.places[0])
        matched = ", ".join(phrase for mention in mentions for phrase in dict.fromkeys(mention.phrases))
    layers = [Layer(mention.family, _belonging(mention, mentions, modifiers)) for mention in mentions]
    return Understanding(tuple(layers), matched[:200], nearest)


def stem(word: str) -> str:
    """A word without plural, -ing, -ed, doubled or silent endings: enough for nouns and verbs of sound."""
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 4 and word.endswith(("shes", "ches", "sses", "xes")):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "sl":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def _tokens(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(letter for letter in folded if not unicodedata.combining(letter))
    found = re.findall(r"([a-z0-9]+)|([,;:.!?+&/|])", plain)
    return [_BREAK if mark else word for word, mark in found if word not in _SMALL_WORDS][:_MOST_TOKENS]


def _phrase(words: str) -> tuple[str, ...]:
    return tuple(stem(token) for token in _tokens(words))


@cache
def _lexicon() -> dict[tuple[str, ...], tuple[Family, bool]]:
    """Stemmed phrase → (family, whether it is only a hint)."""
    entries: dict[tuple[str, ...], tuple[Family, bool]] = {}
    for family in FAMILIES:
        entries |= {_phrase(words): (family, True) for words in family.hint_phrases}
    for family in FAMILIES:
        entries |= {_phrase(words): (family, False) for words in family.phrases}
    return entries


@cache
def _modifier_lexicon() -> dict[tuple[str, ...], str]:
    return {_phrase(word): name for name, words in _MODIFIER_WORDS.items() for word in words.split("|")}


def _scan(words: Sequence[str]) -> tuple[list[_Hit], list[tuple[int, str]]]:
    """Families and modifiers named, reading left to right and taking the longest phrase at each place.

    A word may be both: a puppy is a dog, and small.
    """
    stems = [stem(word) for word in words]
    hits: list[_Hit] = []
    modifiers: list[tuple[int, str]] = []
    place = 0
    while place < len(stems):
        step = 1
        for size in range(min(_LONGEST_PHRASE, len(stems) - place), 0, -1):
            phrase = tuple(stems[place : place + size])
            family, modifier = _lexicon().get(phrase), _modifier_lexicon().get(phrase)
            if modifier is not None:
                modifiers.append((place, modifier))
            if family is not None:
                hits.append(_Hit(place, tuple(words[place : place + size]), *family))
            if family is not None or modifier is not None:
                step = size
                break
        place += step
    return hits, modifiers


def _mentions(hits: Sequence[_Hit]) -> list[_Mention]:
    """What was named, one mention a family; hints only where nothing stronger was said."""
    clear = [hit for hit in hits if not hit.hint and not _describes_neighbour(hit, hits)]
    mentions: dict[str, _Mention] = {}
    for hit in clear or hits:
        mention = mentions.setdefault(hit.family.name, _Mention(hit.family, 0.0))
        mention.weight += len(hit.words) ** 1.5
        mention.places.append(hit.place)
        mention.phrases.append(" ".join(hit.words))
    return list(mentions.values())


def _describes_neighbour(hit: _Hit, hits: Sequence[_Hit]) -> bool:
    """Whether this is a participle beside another family's noun: howling beside wind is no wolf."""
    return hit.participle and any(
        other.family is not hit.family and not other.hint and not other.participle
        for other in hits
        if hit.place in (other.end, other.place - 1)
    )


def _belonging(
    mention: _Mention, mentions: Sequence[_Mention], modifiers: Sequence[tuple[int, str]]
) -> frozenset[str]:
    """The modifiers that are this mention's."""
    return frozenset(
        name for place, name in modifiers if name in _SHARED or _owner(place, mentions) is mention
    )


def _owner(place: int, mentions: Sequence[_Mention]) -> _Mention:
    """The family named soonest after a modifier and within reach, else the last before it, else the first."""
    named = sorted(
        ((at, mention) for mention in mentions for at in mention.places), key=lambda named_at: named_at[0]
    )
    after = [mention for at, mention in named if place <= at <= place + _REACH]
    before = [mention for at, mention in named if at < place]
    return after[0] if after else before[-1] if before else named[0][1]


def _nearest(prompt: str) -> tuple[Family, str]:
    """The family with the word most like the prompt by cosine of character trigrams; ties go to the first.

    Text which shares no trigram with any word (emoji, other scripts) falls back to the sum of code points:
    plain arithmetic, so the same on every machine and in every process, unlike `hash`.
    """
    grams = _trigrams(" ".join(token for token in _tokens(prompt) if token != _BREAK))
    best, best_word, score = FAMILIES[0], "", 0.0
    for family in FAMILIES:
        for word in (*family.phrases, *family.hint_phrases):
            likeness = _cosine(grams, _trigrams(word))
            if likeness > score + 1e-12:
                best, best_word, score = family, word, likeness
    if score > 0.0:
        return best, f"nearest: {best_word} ({score:.2f})"
    chosen = FAMILIES[sum(map(ord, prompt.strip())) % len(FAMILIES)]
    return chosen, f"nearest: no letters in common, {chosen.name} by code points"


@cache
def _trigrams(text: str) -> Counter[str]:
    padded = f" {text} " if text else ""
    return Counter(padded[at : at + 3] for at in range(len(padded) - 2))


def _cosine(one: Counter[str], other: Counter[str]) -> float:
    shared = sum(count * other[gram] for gram, count in one.items())
    lengths = sum(c * c for c in one.values()) * sum(c * c for c in other.values())
    return shared / sqrt(lengths) if lengths else 0.0
