"""The human touch: swing, accents, dynamics and small imprecisions.

Owns how far a performance departs from the page. Promises notes in order of time, none before the beginning,
velocities within 0.05-1; the same seed gives the same hands. Leaves what is on the page to `score`.
"""

from __future__ import annotations

import numpy as np

from app.engines.music.genres import Genre
from app.engines.music.score.notation import Note, Role, Score

_TIMING_S = 0.011
"""Standard deviation of a loose player's onsets; ensembles measure 10-20 ms (Rasch 1979)."""
_STEADINESS: dict[Role, float] = {"drums": 0.4, "bass": 0.6, "pad": 0.3}


def humanise(
    notes: list[Note], role: Role, genre: Genre, score: Score, rng: np.random.Generator
) -> tuple[Note, ...]:
    """The page as played."""
    ordered = sorted(notes, key=lambda note: (note.start, note.pitch, note.length))
    spread = _TIMING_S / score.beat_s * genre.looseness * _STEADINESS.get(role, 1.0)
    late = rng.normal(0.0, 1.0, len(ordered)) * spread
    touch = 1.0 + rng.normal(0.0, 0.09, len(ordered)) * genre.looseness
    played = [
        Note(
            max(0.0, note.start + _swing(note.start, genre.swing) + float(late[i])),
            note.length,
            note.pitch,
            min(1.0, max(0.05, note.velocity * _dynamics(note.start, score) * float(touch[i]))),
        )
        for i, note in enumerate(ordered)
    ]
    return tuple(sorted(played, key=lambda note: (note.start, note.pitch, note.length)))


def _swing(start: float, amount: float) -> float:
    within = start % 1.0
    return amount * 0.5 if abs(within - 0.5) < 0.02 else 0.0


def _dynamics(start: float, score: Score) -> float:
    """Louder in fuller sections, leaning into the end of each, and on the first beat of a bar."""
    index = int(start // score.beats_per_bar)
    if index >= len(score.bars):
        return 1.0
    bar = score.bars[index]
    swell = bar.place / max(1, bar.section.bars - 1) * 0.08
    accent = 0.05 if start % score.beats_per_bar < 0.01 else 0.0
    return 0.72 + 0.3 * bar.section.energy + swell + accent
