"""Lyrics: answers as values. Times in lines are milliseconds from the song's beginning."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.client.models import Fact


class Word(Fact):
    """One word of a line."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float | None
    """The model's own; None where it said none."""


class Line(Fact):
    """One line, from 0 in the order of time."""

    start_ms: int
    end_ms: int
    text: str
    words: Sequence[Word]
    """Empty where only the line is timed."""


class Review(Fact):
    """How sure the lyrics were when they were made of a transcript. Figures are measured, or None."""

    words: int
    dropped: int
    """Words left out because the model hardly believed them."""
    estimated: int
    """Words whose times are a guess."""
    mean_confidence: float | None
    low_confidence_share: float | None
    coverage: float | None
    timing_consistency: float | None
    flags: Sequence[str]
    """Why somebody should look over them."""


class LyricsVersion(Fact):
    """One version, without its lines."""

    number: int
    made_by: str
    """`transcription`, `lrc`, `fix`, `shift +250 ms`, …"""
    made_at: datetime


class LyricsVersions(Fact):
    """The versions that are kept, newest first."""

    items: Sequence[LyricsVersion]


class LyricsFacts(Fact):
    """Lyrics without what they say."""

    id: str
    title: str
    language: str | None
    source: str
    """`transcription` or `lrc`."""
    job_id: str | None
    duration_ms: int | None
    version: int
    """The newest. Whoever corrects them names it."""
    created_at: datetime
    updated_at: datetime


class Lyrics(LyricsFacts):
    """Lyrics as one version says them."""

    shown: LyricsVersion
    """The version that the lines are of."""
    review: Review | None
    """None where nothing was measured."""
    lines: Sequence[Line]
