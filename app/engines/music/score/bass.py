"""The bass line.

Owns the bass figures by name. Promises roots on the downbeats, notes of the chord or of the key in between,
and a line that stays in its register. Leaves dynamics and swing to `humanise`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from app.engines.music.score import harmony
from app.engines.music.score.notation import Bar, Note

_LOW, _HIGH = 28, 47
Figure = Callable[[Bar, int, frozenset[int], np.random.Generator], list[Note]]


def write_bass(
    bars: tuple[Bar, ...], figure: str, tonic: int, mode: str, rng: np.random.Generator
) -> list[Note]:
    """The bass under `bars`, in the named figure (a key of `FIGURES`)."""
    scale = harmony.scale_classes(tonic, mode)
    play = FIGURES[figure]
    notes: list[Note] = []
    for bar in bars:
        notes += play(bar, root_pitch(bar.chord.root), scale, rng)
    return notes


def root_pitch(pitch_class: int) -> int:
    """The lowest comfortable pitch of the class, E1 upwards."""
    return _LOW + (pitch_class - _LOW) % 12


def _held(bar: Bar, root: int, _scale: frozenset[int], _rng: np.random.Generator) -> list[Note]:
    return [Note(bar.start, bar.beats, root, 0.75)]


def _root_fifth(bar: Bar, root: int, _scale: frozenset[int], rng: np.random.Generator) -> list[Note]:
    fifth = _chord_pitch(bar, 2, root)
    if bar.beats == 3:
        return [Note(bar.start, 1.8, root, 0.8), Note(bar.start + 2, 0.9, fifth, 0.55)]
    notes = [Note(bar.start, 1.8, root, 0.8), Note(bar.start + 2, 1.4, fifth, 0.7)]
    if rng.random() < 0.4:
        notes.append(Note(bar.start + 3.5, 0.5, _approach(bar, root), 0.6))
    return notes


def _eighths(bar: Bar, root: int, _scale: frozenset[int], rng: np.random.Generator) -> list[Note]:
    notes = [
        Note(bar.start + i * 0.5, 0.44, root, 0.85 if i % 2 == 0 else 0.68) for i in range(bar.beats * 2)
    ]
    if bar.closes_section or rng.random() < 0.25:
        last = notes.pop()
        notes.append(Note(last.start, last.length, _approach(bar, root), 0.75))
    return notes


def _octaves(bar: Bar, root: int, _scale: frozenset[int], _rng: np.random.Generator) -> list[Note]:
    return [
        Note(bar.start + i * 0.5, 0.4, root + 12 * (i % 2), 0.85 - 0.1 * (i % 2))
        for i in range(bar.beats * 2)
    ]


def _sixteenths(bar: Bar, root: int, _scale: frozenset[int], _rng: np.random.Generator) -> list[Note]:
    # The downbeat is left to the kick drum: the classic rolling bass of electronic dance music.
    return [
        Note(bar.start + i * 0.25, 0.22, root, 0.8 - 0.12 * (i % 2))
        for i in range(bar.beats * 4)
        if i % 4 != 0
    ]


def _walking(bar: Bar, root: int, scale: frozenset[int], rng: np.random.Generator) -> list[Note]:
    """Chord tones on the beats, then a step or half-step into the next root (jazz walking bass)."""
    steps = [root, _chord_pitch(bar, 1, root), _chord_pitch(bar, 2, root)]
    if rng.random() < 0.4:
        passing = next(p for p in range(root + 1, root + 12) if p % 12 in scale)
        steps = [root, passing, steps[1]]
    pitches = [*steps[: bar.beats - 1], _approach(bar, root)]
    return [Note(bar.start + i, 0.92, pitch, 0.8 - 0.08 * (i % 2)) for i, pitch in enumerate(pitches)]


def _syncopated(bar: Bar, root: int, _scale: frozenset[int], rng: np.random.Generator) -> list[Note]:
    """Long low notes that lean on the kick, as in hip hop and lo-fi."""
    rhythm = ((0.0, 1.4), (1.5, 0.45), (2.5, 1.2)) if rng.random() < 0.5 else ((0.0, 2.2), (2.75, 0.9))
    notes = [Note(bar.start + at, length, root, 0.85) for at, length in rhythm if at < bar.beats]
    if rng.random() < 0.35:
        notes.append(Note(bar.start + bar.beats - 0.5, 0.45, _approach(bar, root), 0.65))
    return notes


def _tumbao(bar: Bar, root: int, _scale: frozenset[int], _rng: np.random.Generator) -> list[Note]:
    """Afro-Cuban tumbao: the fifth on the "and" of two, the next root anticipated on four."""
    following = root_pitch(bar.next_chord.root)
    notes = [Note(bar.start + 1.5, 1.3, _chord_pitch(bar, 2, root), 0.8)]
    notes.append(Note(bar.start + bar.beats - 1, 1.0, following, 0.78))
    return [Note(bar.start, 1.2, root, 0.75), *notes] if bar.place == 0 else notes


def _pedal(bar: Bar, root: int, _scale: frozenset[int], _rng: np.random.Generator) -> list[Note]:
    """A drone: the root and, fainter, its octave."""
    return [Note(bar.start, bar.beats, root, 0.75), Note(bar.start, bar.beats, root + 12, 0.4)]


def _chord_pitch(bar: Bar, member: int, above: int) -> int:
    tone = bar.chord.tones[member]
    pitch = above + (tone - above) % 12
    return pitch if pitch <= _HIGH else pitch - 12


def _approach(bar: Bar, root: int) -> int:
    """The chord's own fifth or third, whichever lies nearer to the next root: a step or leap homewards."""
    target = root_pitch(bar.next_chord.root)
    options = [_chord_pitch(bar, member, root) for member in (1, 2)]
    return min(options, key=lambda pitch: (abs(pitch - target), pitch))


FIGURES: dict[str, Figure] = {
    "held": _held,
    "root-fifth": _root_fifth,
    "eighths": _eighths,
    "octaves": _octaves,
    "sixteenths": _sixteenths,
    "walking": _walking,
    "syncopated": _syncopated,
    "tumbao": _tumbao,
    "pedal": _pedal,
}
