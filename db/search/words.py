"""What a job's words are: the same for the index, for what is looked for, and for every database. Pure.

A word is a run of letters, digits and their marks, folded so that case and width make no difference; each
character of a script without spaces is a word by itself, and so is each picture. All of it is done here and
none by the database, whose own ideas of case differ from one to the next.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

MOST_WORDS = 100
"""Of a job, from its beginning: beyond, nothing is found. Each costs a row where it is written."""
WORD_LENGTH = 40
"""A longer word is known by its beginning."""
MOST_CHARS = 20_000
"""Of a text that is read for its words."""


def words_of(text: str) -> list[str]:
    """The words of a text in their order, each as often as it stands there; at most `MOST_WORDS`."""
    found: list[str] = []
    for word in _runs(folded(text[:MOST_CHARS])):
        found.append(word[:WORD_LENGTH])
        if len(found) == MOST_WORDS:
            break
    return found


def said_in(job_input: Mapping[str, Any]) -> str:
    """A job's prompt or text as `jobs.said` keeps it: its words, with a space before and after each."""
    text = job_input.get("prompt") or job_input.get("text")
    words = words_of(text) if isinstance(text, str) else []
    return f" {' '.join(words)} " if words else ""


def folded(text: str) -> str:
    """The one spelling of all that differ in case or width alone."""
    once = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", once)


def _runs(text: str) -> Iterator[str]:
    begun: list[str] = []
    for char in text:
        stands_alone = _stands_alone(char)
        if char.isalnum() and not stands_alone:
            begun.append(char)
            continue
        if begun and unicodedata.category(char).startswith("M"):
            begun.append(char)
            continue
        if begun:
            yield "".join(begun)
            begun = []
        if stands_alone:
            yield char
    if begun:
        yield "".join(begun)


def _stands_alone(char: str) -> bool:
    """Whether it is a word by itself: kana and ideographs, which stand without spaces, and pictures."""
    if char.isascii():
        return False
    is_picture = unicodedata.category(char) == "So"
    return is_picture or "\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" or char >= "\U00020000"
