"""A text as the sentences that an engine is given one by one, and their translations as a text again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 400
"""Characters; what is longer is cut at a clause, since neural models drop what does not fit."""

_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[¿¡]*[A-ZÀ-ÞÁ-Ž0-9])")
_ABBREVIATED = re.compile(r"(?:^|\s)(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Sra|Jr|No|vs|etc|e\.g|i\.e|[A-Z])\.$")
_CLAUSE = re.compile(r"[,;:–—]\s+|\s+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A sentence, and the white space that follows it."""

    text: str
    after: str


def split(text: str) -> list[Piece]:
    """The sentences of a text; their texts and what is after them, joined, are the text without its ends'
    white space."""
    pieces: list[Piece] = []
    for line, ends in re.findall(r"([^\n]+|(?=\n))(\n*)", text.strip()):
        sentences = [part for sentence in _sentences(line.strip()) for part in _cut(sentence)]
        pieces += [Piece(sentence, " ") for sentence in sentences[:-1]]
        pieces += [Piece(sentence, ends) for sentence in sentences[-1:]]
    return pieces


def join(pieces: list[Piece], translated: list[str]) -> str:
    return "".join(f"{text}{piece.after}" for piece, text in zip(pieces, translated, strict=True)).strip()


def _sentences(line: str) -> Iterator[str]:
    start = 0
    for found in _END.finditer(line):
        closed = len(found[0]) - len(found[0].lstrip("\"'”’)]"))
        sentence = line[start : found.start() + closed]
        if not _ABBREVIATED.search(sentence):
            yield sentence
            start = found.end()
    if line[start:]:
        yield line[start:]


def _cut(sentence: str) -> Iterator[str]:
    while len(sentence) > LONGEST:
        places = [found.end() for found in _CLAUSE.finditer(sentence, LONGEST // 2, LONGEST)]
        clauses = [at for at in places if sentence[at - 2] in ",;:–—"]
        at = (clauses or places or [LONGEST])[-1]
        yield sentence[:at].strip()
        sentence = sentence[at:]
    if sentence.strip():
        yield sentence.strip()
