"""Corrections of lyrics: shift all, fix some lines, replace all. Pure; each gives new lines or says what is
wrong with which field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.errors import InvalidInput
from app.karaoke.lyrics.lines import LATEST_MS, MOST_LINE_CHARS, MOST_LINES, Line, Word, clean

MOST_SHIFT_MS = 600_000


@dataclass(frozen=True, slots=True)
class Fix:
    """What is to be changed in one line, by its index from 0. None: stays as it is."""

    index: int
    text: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    remove: bool = False


def shift(lines: Sequence[Line], by_ms: int) -> list[Line]:
    """All lines later by so much, earlier where negative; none begins before the song."""
    return [line.moved(by_ms) for line in lines]


def fix(lines: Sequence[Line], fixes: Sequence[Fix]) -> list[Line]:
    """The lines with these fixes, in order of time. Raises InvalidInput naming the fix.

    A text with as many words as before keeps the words' times; else the line alone is timed. A line that is
    moved takes its words along.
    """
    changed: list[Line | None] = list(lines)
    for number, each in enumerate(fixes):
        field = f"lines.{number}"
        if not 0 <= each.index < len(lines):
            raise InvalidInput(f"{field}.index: there are {len(lines)} lines", field=f"{field}.index")
        line = changed[each.index]
        if line is None:
            raise InvalidInput(f"{field}.index: this line is removed already", field=f"{field}.index")
        changed[each.index] = None if each.remove else _fixed(line, each, field)
    return _ordered([line for line in changed if line is not None], "lines")


def replaced(rows: Sequence[Line]) -> list[Line]:
    """Lines that are to stand in the place of all, clean and in order of time. Raises InvalidInput."""
    return _ordered([_checked(line, f"lines.{at}") for at, line in enumerate(rows)], "lines")


def _fixed(line: Line, wanted: Fix, field: str) -> Line:
    if wanted.start_ms is not None:
        # Its length stays, unless its end is given too.
        line = line.moved(wanted.start_ms - line.start_ms)
    if wanted.end_ms is not None:
        line = replace(line, end_ms=wanted.end_ms, words=_until(line.words, wanted.end_ms))
    if wanted.text is not None:
        line = _reworded(line, wanted.text)
    return _checked(line, field)


def _reworded(line: Line, text: str) -> Line:
    new = clean(text).split()
    words: tuple[Word, ...] = ()
    if len(new) == len(line.words):
        # Whoever typed it knows it: the model's doubt was of another word.
        words = tuple(
            word if word.text == better else replace(word, text=better, confidence=None)
            for word, better in zip(line.words, new, strict=True)
        )
    return replace(line, text=" ".join(new), words=words)


def _until(words: tuple[Word, ...], end_ms: int) -> tuple[Word, ...]:
    return tuple(
        replace(word, start_ms=min(word.start_ms, end_ms), end_ms=min(word.end_ms, end_ms)) for word in words
    )


def _checked(line: Line, field: str) -> Line:
    text = clean(line.text)
    if not text:
        raise InvalidInput(f"{field}.text: a line has a text; use `remove` to drop it", field=f"{field}.text")
    if len(text) > MOST_LINE_CHARS:
        raise InvalidInput(f"{field}.text: at most {MOST_LINE_CHARS} characters", field=f"{field}.text")
    if not 0 <= line.start_ms <= LATEST_MS:
        raise InvalidInput(f"{field}.start_ms: from 0 to {LATEST_MS}", field=f"{field}.start_ms")
    if not line.start_ms <= line.end_ms <= LATEST_MS:
        raise InvalidInput(f"{field}.end_ms: not before the line begins", field=f"{field}.end_ms")
    return replace(line, text=text)


def _ordered(lines: list[Line], field: str) -> list[Line]:
    if not lines:
        raise InvalidInput(f"{field}: lyrics have at least one line", field=field)
    if len(lines) > MOST_LINES:
        raise InvalidInput(f"{field}: at most {MOST_LINES} lines", field=field)
    return sorted(lines, key=lambda line: line.start_ms)
