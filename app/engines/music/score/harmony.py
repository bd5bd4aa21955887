"""Keys, chord progressions and voice-leading.

Owns the modes, the progression tables and the choice of voicings. Promises chords spelled inside the mode
(the one exception is the raised leading tone of a dominant in minor) and voicings that move as little as
they can. Leaves rhythm to the rooms that play the chords.

Sources: modes and diatonic stacking as in Open Music Theory (https://viva.pressbooks.pub/openmusictheory/);
the progressions are the common schemas it lists (singer/songwriter, doo-wop, Andalusian, Pachelbel,
ii-V-I, shuttles of two chords); smallest-movement voice-leading after Tymoczko, A Geometry of Music (2011).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from app.engines.music.score.notation import Chord

MODES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
}
NOTE_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")

_MAJOR = {
    "bright": ("1 5 6 4", "1 4 1 5", "1 6 4 5", "4 1 5 6", "1 4 5 4"),
    "tender": ("1 3 6 4", "4 5 3 6", "1 6 2 5", "6 4 1 5", "1 5 6 3 4 1 4 5"),
    "dark": ("1 3 4 2", "6 3 4 1", "4 6 3 1", "6 2 4 3"),
    "driving": ("6 4 1 5", "1 5 2 4", "4 5 6 1", "1 4 6 5"),
}
_MINOR = {
    "bright": ("1 6 3 7", "1 7 6 7", "1 3 7 4", "3 7 1 6"),
    "tender": ("1 6 3 7", "1 4 6 5M", "1 5 6 3", "4 1 6 7", "1 7 6 5M"),
    "dark": ("1 6 4 5M", "1 4 1 6", "1 6 1 7", "1 3 4 6"),
    "driving": ("1 6 3 7", "1 7 6 7", "6 7 1 1", "1 1 6 7", "1 3 6 7"),
}
_MODAL = {
    "dorian": ("1 4 1 4", "1 7 4 1", "1 3 7 4", "1 2 3 4"),
    "mixolydian": ("1 7 4 1", "1 4 7 4", "1 5 7 4", "1 1 7 4"),
    "lydian": ("1 2 1 2", "1 2 6 5", "1 5 2 6", "1 3 2 1"),
    "phrygian": ("1 2 1 7", "1 2 3 2", "1 6 2 1", "1 1 2 1"),
    "harmonic minor": ("1 4 5 1", "1 6 4 5", "1 4 1 5", "1 5 1 5"),
}
_JAZZ = {
    "major": ("2 5 1 6", "1 6 2 5", "3 6 2 5", "1 4 3 6 2 5 1 1"),
    "minor": ("1 4 7 3", "4 7 3 6", "1 6 2 5M", "6 2 5M 1"),
    "dorian": ("1 4 1 4", "1 2 1 4", "1 7 3 4", "1 4 3 2"),
}
_CADENCE = {"minor": "5M", "dorian": "4", "mixolydian": "7", "lydian": "2", "phrygian": "2"}


def scale_classes(tonic: int, mode: str) -> frozenset[int]:
    """Pitch classes of the key."""
    return frozenset((tonic + step) % 12 for step in MODES[mode])


def scale_pitches(tonic: int, mode: str, low: int, high: int) -> list[int]:
    """MIDI numbers of the key within low..high inclusive, ascending."""
    classes = scale_classes(tonic, mode)
    return [pitch for pitch in range(low, high + 1) if pitch % 12 in classes]


def progressions(mode: str, colour: str, jazz: bool) -> tuple[str, ...]:
    """The progressions that fit a mode and a mood's colour (bright, tender, dark or driving)."""
    if jazz and mode in _JAZZ:
        return _JAZZ[mode]
    if mode in _MODAL:
        return _MODAL[mode]
    return (_MAJOR if mode == "major" else _MINOR)[colour]


def chord(numeral: str, tonic: int, mode: str, sevenths: bool) -> Chord:
    """The chord on a scale degree: `4` is diatonic, `5M` has its third raised to major."""
    degree = int(numeral[0]) - 1
    scale = MODES[mode]
    steps = (0, 2, 4, 6) if sevenths else (0, 2, 4)
    tones = [(tonic + scale[(degree + step) % 7]) % 12 for step in steps]
    if numeral.endswith("M"):
        tones[1] = (tones[0] + 4) % 12
    return Chord(numeral, tuple(tones))


def cadence(tonic: int, mode: str, sevenths: bool) -> Chord:
    """The chord that asks for the tonic: V, or the mode's own approach (such as bVII in mixolydian)."""
    return chord(_CADENCE.get(mode, "5"), tonic, mode, sevenths)


def voice_leading(chords: list[Chord], low: int, high: int, voices: int) -> list[tuple[int, ...]]:
    """One close voicing per chord, each as near to the one before as the register allows.

    Returns as many ascending tuples of MIDI numbers as there are chords. `high - low` must span at
    least an octave and a half, or no voicing of a seventh chord is sure to fit.
    """
    voicings: list[tuple[int, ...]] = []
    centre = (low + high) / 2
    for item in chords:
        candidates = _voicings(item, low, high, voices)
        previous = voicings[-1] if voicings else None
        voicings.append(min(candidates, key=lambda shape: (_movement(previous, shape, centre), shape)))
    return voicings


def pick(options: tuple[str, ...], count: int, rng: np.random.Generator) -> list[str]:
    """`count` different options in random order, starting over when there are too few."""
    order = [options[int(i)] for i in rng.permutation(len(options))]
    return [order[i % len(order)] for i in range(count)]


def _voicings(item: Chord, low: int, high: int, voices: int) -> list[tuple[int, ...]]:
    # Four voices on a triad double the root at the top; three voices on a seventh chord drop the fifth,
    # which carries the least colour.
    tones = list(item.tones)
    if len(tones) > voices:
        tones.pop(2)
    shapes: list[tuple[int, ...]] = []
    for turn in range(len(tones)):
        order = tones[turn:] + tones[:turn]
        for bottom in range(low + (order[0] - low) % 12, high + 1, 12):
            shape = _stack(bottom, order, voices)
            if shape[-1] <= high:
                shapes.append(shape)
    return shapes or [_stack(low + (item.root - low) % 12, tones, voices)]


def _stack(bottom: int, order: list[int], voices: int) -> tuple[int, ...]:
    shape = [bottom]
    for index in range(1, voices):
        tone = order[index % len(order)]
        shape.append(shape[-1] + ((tone - shape[-1]) % 12 or 12))
    return tuple(shape)


def _movement(previous: tuple[int, ...] | None, shape: tuple[int, ...], centre: float) -> float:
    drift = abs(sum(shape) / len(shape) - centre)
    if previous is None:
        return drift
    muddy = sum(4.0 for below, above in pairwise(shape) if above - below < 2)
    return sum(abs(a - b) for a, b in zip(previous, shape, strict=True)) + muddy + 0.35 * drift
