"""Moods: what a feeling does to a style, as a table.

Owns the colour of the harmony, the pace within the genre's tempo range and the energy of each mood. Promises
genres that exist in `genres`. Leaves reading prompts to `brief`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mood:
    """What a mood does to a style."""

    name: str
    colour: str
    """Which progressions: bright, tender, dark or driving."""
    bright: bool
    """Which of the genre's two modes."""
    pace: float
    """Where in the genre's tempo range, 0 slowest, 1 fastest."""
    energy: float
    octave: int = 0
    """Of the tune."""
    genre: str = "acoustic"
    """Assumed when the prompt names none."""


MOODS: dict[str, Mood] = {
    mood.name: mood
    for mood in (
        Mood("calm", "tender", True, 0.25, 0.25, genre="ambient"),
        Mood("happy", "bright", True, 0.75, 0.7, genre="corporate"),
        Mood("sad", "tender", False, 0.1, 0.25, genre="piano"),
        Mood("tense", "dark", False, 0.65, 0.75, genre="cinematic"),
        Mood("dark", "dark", False, 0.3, 0.5, octave=-1, genre="cinematic"),
        Mood("hopeful", "bright", True, 0.5, 0.55, genre="corporate"),
        Mood("epic", "driving", False, 0.6, 1.0, genre="epic"),
        Mood("romantic", "tender", True, 0.25, 0.3, genre="piano"),
        Mood("mysterious", "dark", False, 0.3, 0.35, genre="ambient"),
        Mood("playful", "bright", True, 0.7, 0.6, octave=1, genre="acoustic"),
        Mood("energetic", "driving", True, 0.9, 0.95, genre="electronic"),
        Mood("nostalgic", "tender", True, 0.35, 0.4, genre="lofi"),
        Mood("angry", "driving", False, 0.85, 1.0, genre="rock"),
        Mood("dreamy", "tender", True, 0.2, 0.3, genre="ambient"),
        Mood("confident", "driving", True, 0.5, 0.7, genre="hiphop"),
    )
}
NEUTRAL_MOOD = "calm"
"""For prompts that name nothing we know."""
