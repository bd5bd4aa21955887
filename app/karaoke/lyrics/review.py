"""How sure lyrics are: figures measured on the words that they were made of, and what they mean. Pure.

Nothing is a constant and nothing is guessed: a figure that cannot be measured (no confidences, one line only)
is None and raises no flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from app.karaoke.lyrics.lines import GAP_MS, LEAST_CONFIDENCE, Heard, Line, Word

LEAST_MEAN_CONFIDENCE = 0.6
MOST_LOW_SHARE = 0.3
LEAST_COVERAGE = 0.8
LEAST_CONSISTENCY = 0.8
LONG_GAP_MS = 5000


@dataclass(frozen=True, slots=True)
class Review:
    """The figures of lyrics that were made of a transcript."""

    words: int
    """Words that were heard."""
    dropped: int
    """Of these, left out because the model hardly believed them."""
    estimated: int
    """Of these, words whose times are a guess: their segment came without word times."""
    mean_confidence: float | None
    low_confidence_share: float | None
    """Of the words that have a confidence, those below LEAST_CONFIDENCE."""
    coverage: float | None
    """Of the time in which the model heard something, how much the words that were kept cover; a pause that
    is too short to end a line counts as covered."""
    timing_consistency: float | None
    """Of the pauses between lines, those that are no longer than LONG_GAP_MS."""
    flags: tuple[str, ...]
    """Why somebody should look over them; empty: no reason was found."""


def review(heard: Heard, kept: Sequence[Word], lines: Sequence[Line]) -> Review:
    """Measure. `kept` are the words of `heard` that the lines were made of."""
    known = [word.confidence for word in heard.words if word.confidence is not None]
    mean = round(fmean(known), 4) if known else None
    low = round(sum(each < LEAST_CONFIDENCE for each in known) / len(known), 4) if known else None
    coverage = _coverage(heard, kept)
    consistency = _consistency(lines)
    flags = {
        "low_mean_confidence": mean is not None and mean < LEAST_MEAN_CONFIDENCE,
        "many_low_confidence_words": low is not None and low > MOST_LOW_SHARE,
        "low_coverage": coverage is not None and coverage < LEAST_COVERAGE,
        "inconsistent_timing": consistency is not None and consistency < LEAST_CONSISTENCY,
        "estimated_times": heard.estimated > 0,
        "no_words": not kept,
    }
    return Review(
        words=len(heard.words),
        dropped=len(heard.words) - len(kept),
        estimated=heard.estimated,
        mean_confidence=mean,
        low_confidence_share=low,
        coverage=coverage,
        timing_consistency=consistency,
        flags=tuple(name for name, is_so in flags.items() if is_so),
    )


def _coverage(heard: Heard, kept: Sequence[Word]) -> float | None:
    spans = _joined(heard.segments_ms, gap_ms=0)
    whole = sum(end - start for start, end in spans)
    if not whole:
        return None
    covered = _joined([(word.start_ms, word.end_ms) for word in kept], gap_ms=GAP_MS)
    return round(min(1.0, _overlap(spans, covered) / whole), 4)


def _consistency(lines: Sequence[Line]) -> float | None:
    gaps = [after.start_ms - before.end_ms for before, after in pairwise(lines)]
    if not gaps:
        return None
    return round(sum(gap <= LONG_GAP_MS for gap in gaps) / len(gaps), 4)


def _joined(spans: Sequence[tuple[int, int]], *, gap_ms: int) -> list[tuple[int, int]]:
    """The spans in order, those in one that touch or leave no more than the gap."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] <= gap_ms:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _overlap(spans: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> int:
    """How long both are so; each list is in order and without overlaps of its own."""
    shared, at = 0, 0
    for start, end in spans:
        while at < len(others) and others[at][1] <= start:
            at += 1
        look = at
        while look < len(others) and others[look][0] < end:
            shared += max(0, min(end, others[look][1]) - max(start, others[look][0]))
            look += 1
    return shared
