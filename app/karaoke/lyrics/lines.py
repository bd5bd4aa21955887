"""Timed lines, and how the words of a transcript become them. Pure; times are whole milliseconds.

The rules: a pause of more than `GAP_MS` ends a line; a line has 2 to 8 words, best 5, and best ends where a
sentence does; words that the model itself hardly believes are left out. Within a phrase (what lies between
two pauses) the lines are those of the least cost, so the outcome does not hang on where one begins to count.
A phrase of one word is a line of one word: the pause is the stronger rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.kinds.transcription import Segment, Transcript

GAP_MS = 2000
"""A longer pause ends the line."""
FEWEST_WORDS, TARGET_WORDS, MOST_WORDS = 2, 5, 8
LEAST_CONFIDENCE = 0.3
"""A word that is less sure is left out."""
LAST_LINE_MS = 5000
"""How long a line stands of which no end is known and which none follows."""
MOST_LINES = 2000
MOST_LINE_CHARS = 500
LATEST_MS = 12 * 3600 * 1000
"""Three digits of minutes, as LRC has them, reach further."""

_MID_SENTENCE_COST = 6.0
_AFTER_COMMA_COST = 3.0
_SENTENCE_END_INSIDE_COST = 8.0
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]]*$")
_COMMA = re.compile(r"[,;:、，][\"'”’)\]]*$")
_TIME_TAG = re.compile(r"[\[<](?=\s*\d+\s*[:.]\s*\d)")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f\u2028\u2029\ufeff]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a line. `confidence` is None where the model does not say."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """What stands on the screen from `start_ms` to `end_ms`; no `words` where only the line is timed."""

    start_ms: int
    end_ms: int
    text: str
    words: tuple[Word, ...] = ()

    def moved(self, by_ms: int) -> Line:
        """The same, later by so much (earlier where negative), within the song."""
        words = tuple(
            replace(word, start_ms=_within(word.start_ms + by_ms), end_ms=_within(word.end_ms + by_ms))
            for word in self.words
        )
        return Line(_within(self.start_ms + by_ms), _within(self.end_ms + by_ms), self.text, words)


@dataclass(frozen=True, slots=True)
class Heard:
    """The words of a transcript in order, and which of them the model gave no time of their own."""

    words: tuple[Word, ...]
    estimated: int
    """Words of segments that came without word times: spread over the segment by their letters."""
    segments_ms: tuple[tuple[int, int], ...]
    """When the model heard something at all."""


def hear(transcript: Transcript) -> Heard:
    """The words of a transcript, each clean, in order of time, none before the one that precedes it."""
    found: list[Word] = []
    estimated = 0
    spans = []
    for segment in sorted(transcript.segments, key=lambda each: (each.start, each.end)):
        words = _words_of(segment)
        if not segment.words:
            estimated += len(words)
        found += words
        spans.append((_ms(segment.start), _ms(segment.end)))
    return Heard(tuple(_in_order(found)), estimated, tuple(spans))


def keep_sure(words: Iterable[Word]) -> list[Word]:
    """Without the words that the model hardly believes; what has no figure stays."""
    return [word for word in words if word.confidence is None or word.confidence >= LEAST_CONFIDENCE]


def make_lines(words: Sequence[Word]) -> list[Line]:
    """Lines of these words, which are in order. At most MOST_LINES: what is beyond is cut."""
    lines: list[Line] = []
    for phrase in _phrases(words):
        lines += [line_of(piece) for piece in _split(phrase)]
    return lines[:MOST_LINES]


def line_of(words: Sequence[Word]) -> Line:
    """One line of these words, at least one; a word too long for a line is cut."""
    text = " ".join(word.text for word in words)[:MOST_LINE_CHARS].rstrip()
    return Line(words[0].start_ms, max(words[-1].end_ms, words[0].start_ms), text, tuple(words))


def clean(text: str) -> str:
    """A text as a line or a word may have it: one row, single spaces, nothing that reads as a time tag."""
    plain = _SURROGATE.sub("�", _BLANK.sub(" ", text)).strip()
    return _TIME_TAG.sub("(", plain)


def as_rows(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """As they are stored and told: plain JSON."""
    return [
        {
            "start_ms": line.start_ms,
            "end_ms": line.end_ms,
            "text": line.text,
            "words": [
                {
                    "text": word.text,
                    "start_ms": word.start_ms,
                    "end_ms": word.end_ms,
                    "confidence": word.confidence,
                }
                for word in line.words
            ],
        }
        for line in lines
    ]


def of_rows(rows: Iterable[dict[str, Any]]) -> list[Line]:
    """Lines as `as_rows` has written them."""
    return [
        Line(row["start_ms"], row["end_ms"], row["text"], tuple(Word(**word) for word in row["words"]))
        for row in rows
    ]


def _words_of(segment: Segment) -> list[Word]:
    if not segment.words:
        return _spread(segment)
    return [
        Word(text, _ms(word.start), _ms(max(word.start, word.end)), word.probability)
        for word in segment.words
        if (text := clean(word.word))
    ]


def _spread(segment: Segment) -> list[Word]:
    """A segment's text over its time, each word as long as it has letters: a guess, and counted as one."""
    texts = clean(segment.text).split()
    letters = sum(len(text) for text in texts)
    words, before = [], 0
    for text in texts:
        start = segment.start + (segment.end - segment.start) * before / letters
        before += len(text)
        end = segment.start + (segment.end - segment.start) * before / letters
        words.append(Word(text, _ms(start), _ms(end)))
    return words


def _in_order(words: Iterable[Word]) -> list[Word]:
    ordered: list[Word] = []
    earliest = 0
    for word in sorted(words, key=lambda each: each.start_ms):
        start = max(word.start_ms, earliest)
        ordered.append(replace(word, start_ms=start, end_ms=max(word.end_ms, start)))
        earliest = start
    return ordered


def _phrases(words: Sequence[Word]) -> list[list[Word]]:
    phrases: list[list[Word]] = []
    last: Word | None = None
    for word in words:
        if last is None or word.start_ms - last.end_ms > GAP_MS:
            phrases.append([])
        phrases[-1].append(word)
        last = word
    return phrases


def _split(phrase: Sequence[Word]) -> list[Sequence[Word]]:
    """The lines of a phrase with the least cost together: of every beginning, each last line is tried."""
    count = len(phrase)
    if count < FEWEST_WORDS:
        return [phrase]
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, count + 1):
        ways = [
            (best[begin][0] + _cost(phrase[begin:end], is_last=end == count), begin)
            for begin in range(max(0, end - MOST_WORDS), end - FEWEST_WORDS + 1)
        ]
        best.append(min(ways, default=(float("inf"), 0)))
    pieces: list[Sequence[Word]] = []
    end = count
    while end:
        begin = best[end][1]
        pieces.append(phrase[begin:end])
        end = begin
    return pieces[::-1]


def _cost(words: Sequence[Word], *, is_last: bool) -> float:
    cost = float((len(words) - TARGET_WORDS) ** 2)
    cost += _SENTENCE_END_INSIDE_COST * sum(bool(_SENTENCE_END.search(word.text)) for word in words[:-1])
    last = words[-1].text
    if is_last or _SENTENCE_END.search(last):
        return cost
    return cost + (_AFTER_COMMA_COST if _COMMA.search(last) else _MID_SENTENCE_COST)


def _ms(seconds: float) -> int:
    return _within(round(seconds * 1000) if seconds < LATEST_MS else LATEST_MS)


def _within(ms: int) -> int:
    return min(max(ms, 0), LATEST_MS)
