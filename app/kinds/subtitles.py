"""Subtitles from timed words: who reads them has time to, and no two are on the screen at once.

Pure: words in, cues out, SubRip text (`.srt`) out of those. The figures are those of broadcasters' guides
(BBC subtitle guidelines, Netflix timed text): two lines of 42 characters, five sixths of a second to seven
seconds, at most 17 characters a second where the speech leaves the time for it. A cue never begins before
its first word, and lasts past its last word only into silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

LINE_CHARACTERS = 42
MOST_LINES = 2
SHORTEST_S = 5 / 6
LONGEST_S = 7.0
READ_PER_S = 17.0
"""Characters that a reader takes in a second."""
GAP_S = 0.08
"""Between two cues, two frames: without it the eye misses that the text has changed."""
PAUSE_S = 0.7
"""A silence this long ends a cue."""

_ENDS_SENTENCE = re.compile(r"[.!?…。！？][\"'”’)\]]*$")
_ENDS_CLAUSE = re.compile(r"[,;:–—、，][\"'”’)\]]*$")


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or a whole phrase where nothing finer is known, and when it is said, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Cue:
    """What is on the screen at one time."""

    lines: tuple[str, ...]
    start: float
    end: float

    @property
    def text(self) -> str:
        return " ".join(self.lines)


def make_cues(words: Sequence[Word]) -> list[Cue]:
    """The cues for words in the order of their times."""
    cues = [_cue(group) for group in _grouped([part for word in words for part in _split_long(word)])]
    next_starts = [*(cue.start for cue in cues[1:]), math.inf]
    return [_timed(cue, next_start) for cue, next_start in zip(cues, next_starts, strict=False)]


def write_srt(cues: Sequence[Cue]) -> str:
    """The SubRip text; a single line end where there is nothing to show."""
    blocks = [
        f"{number}\n{_stamp(cue.start)} --> {_stamp(cue.end)}\n" + "\n".join(cue.lines) + "\n"
        for number, cue in enumerate(cues, 1)
    ]
    return "\n".join(blocks) or "\n"


def break_lines(text: str) -> tuple[str, ...]:
    """One line where it fits, else two of nearly one length, broken after a clause if there is one near."""
    if len(text) <= LINE_CHARACTERS:
        return (text,)
    spaces = [at for at, char in enumerate(text) if char == " "]
    if not spaces:
        return (text,)

    def cost(at: int) -> float:
        upper, lower = at, len(text) - at - 1
        too_long = max(0, upper - LINE_CHARACTERS) + max(0, lower - LINE_CHARACTERS)
        after_clause = _ENDS_CLAUSE.search(text[:at]) or _ENDS_SENTENCE.search(text[:at])
        return 100 * too_long + abs(upper - lower) - (12 if after_clause else 0)

    at = min(spaces, key=cost)
    return text[:at], text[at + 1 :]


def _grouped(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Words that stand together: until a sentence ends, the speaker pauses, or two lines are full."""
    group: list[Word] = []
    for word in words:
        if group and _must_part(group, word):
            kept = _part_at_clause(group, word)
            yield group[:kept]
            group = group[kept:]
        group.append(word)
    if group:
        yield group


def _must_part(group: Sequence[Word], word: Word) -> bool:
    return (
        not _fits([*group, word])
        or word.start - group[-1].end >= PAUSE_S
        or word.end - group[0].start > LONGEST_S
        or _ENDS_SENTENCE.search(group[-1].text) is not None
    )


def _part_at_clause(group: Sequence[Word], word: Word) -> int:
    """How many words the cue keeps: up to its last clause in the second half where it is merely full."""
    natural = _ENDS_SENTENCE.search(group[-1].text) or word.start - group[-1].end >= PAUSE_S
    if not natural:
        for kept in range(len(group) - 1, len(group) // 2, -1):
            if _ENDS_CLAUSE.search(group[kept - 1].text):
                return kept
    return len(group)


def _fits(group: Sequence[Word]) -> bool:
    lines = break_lines(_text(group))
    return len(lines) <= MOST_LINES and all(len(line) <= LINE_CHARACTERS for line in lines)


def _text(group: Sequence[Word]) -> str:
    return " ".join(word.text for word in group)


def _cue(group: Sequence[Word]) -> Cue:
    return Cue(break_lines(_text(group)), group[0].start, max(word.end for word in group))


def _timed(cue: Cue, next_start: float) -> Cue:
    """The cue with time to read it, as far as the next one allows."""
    wanted = max(cue.end, cue.start + max(SHORTEST_S, len(cue.text) / READ_PER_S))
    end = min(wanted, cue.start + LONGEST_S, next_start - GAP_S)
    # Where words come faster than that, each cue still has its moment: a negative one is no cue.
    return replace(cue, end=max(end, cue.start + 0.001))


def _split_long(word: Word) -> Iterator[Word]:
    """A phrase in words that share its time by their lengths; a word without end is cut to lines."""
    pieces = [
        piece[at : at + LINE_CHARACTERS]
        for piece in word.text.split()
        for at in range(0, len(piece), LINE_CHARACTERS)
    ]
    per_character = (word.end - word.start) / max(1, sum(map(len, pieces)))
    start = word.start
    for piece in pieces:
        end = start + len(piece) * per_character
        yield Word(piece, start, end)
        start = end


def _stamp(time_s: float) -> str:
    whole_ms = max(0, round(time_s * 1000))
    minutes, ms = divmod(whole_ms, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{ms // 1000:02},{ms % 1000:03}"


_TIMES = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d),(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d),(\d{3})")


def read_srt(text: str) -> list[Cue]:
    """The cues of a SubRip text, in order. Raises ValueError saying which is not one."""
    cues: list[Cue] = []
    blocks = [block for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip("\ufeff\n ")) if block]
    for number, block in enumerate(blocks, 1):
        counter, _, rest = block.partition("\n")
        times, _, shown = rest.partition("\n")
        found = _TIMES.fullmatch(times.strip())
        if not counter.strip().isdecimal() or found is None:
            raise ValueError(f"subtitle {number} has no number or no times")
        start, end = _seconds(found.groups()[:4]), _seconds(found.groups()[4:])
        if end < start or (cues and start < cues[-1].start):
            raise ValueError(f"the times of subtitle {number} run backwards")
        cues.append(Cue(tuple(shown.splitlines()), start, end))
    return cues


def _seconds(parts: Sequence[str]) -> float:
    hours, minutes, seconds, ms = map(int, parts)
    return hours * 3600 + minutes * 60 + seconds + ms / 1000
