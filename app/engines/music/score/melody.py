"""The tune and the counter-melody.

Owns the themes: a rhythm and a contour per section letter, fitted to the chords. Promises chord tones on
the strong beats, steps in between, leaps that are followed by a turn back, and themes that come back
recognisably and varied. Leaves accompaniment to others.

Phrase plan a-a'-b-a'' over four bars (the sentence and period of classical form: Caplin, Classical Form,
1998): bars one, two and four share a rhythm, bar three answers with another.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from app.engines.music.score import harmony
from app.engines.music.score.notation import Bar, Note, stream

Rhythm = tuple[tuple[float, float], ...]
_CELLS: dict[str, tuple[Rhythm, ...]] = {
    "sparse": (
        ((0.0, 3.5),),
        ((0.0, 1.8), (2.0, 1.9)),
        ((0.0, 2.8), (3.0, 0.9)),
        ((1.0, 2.8),),
    ),
    "medium": (
        ((0.0, 1.4), (1.5, 0.5), (2.0, 1.8)),
        ((0.0, 0.9), (1.0, 0.9), (2.0, 1.9)),
        ((0.5, 0.5), (1.0, 0.9), (2.0, 0.5), (2.5, 1.4)),
        ((0.0, 0.5), (0.5, 0.5), (1.0, 1.9), (3.0, 0.9)),
    ),
    "busy": (
        ((0.0, 0.5), (0.5, 0.5), (1.0, 0.5), (1.5, 0.5), (2.0, 0.9), (3.0, 0.5), (3.5, 0.5)),
        ((0.0, 0.75), (0.75, 0.75), (1.5, 0.5), (2.0, 0.5), (2.5, 0.5), (3.0, 0.9)),
        ((0.0, 0.9), (1.0, 0.25), (1.25, 0.25), (1.5, 0.5), (2.0, 0.75), (2.75, 0.75), (3.5, 0.5)),
        ((0.5, 0.5), (1.0, 0.5), (1.5, 0.9), (2.5, 0.5), (3.0, 0.5), (3.5, 0.5)),
    ),
}
_PLAN = (0, 0, 1, 0)


def write_melody(
    bars: tuple[Bar, ...], density: str, tonic: int, mode: str, register: tuple[int, int], seed: int
) -> list[Note]:
    """The tune over `bars`; `density` is sparse, medium or busy, `register` (lowest, highest) MIDI pitch."""
    scale = harmony.scale_pitches(tonic, mode, *register)
    notes: list[Note] = []
    previous = scale[len(scale) // 2]
    for bar in bars:
        if bar.section.name == "intro":
            continue
        # One stream per letter and place: the theme is the same whenever its letter comes back, whatever
        # was played between; only the chords and the variation of the return differ.
        rng = stream(seed, 1000 + 64 * ord(bar.section.letter) + bar.place % 8)
        fresh = bar.place == 0
        cell = _cell(density, bar, seed)
        if fresh:
            previous = _nearest(scale, bar, sum(register) / 2)
        phrase = _fit(bar, cell, scale, previous, rng)
        notes += _vary(phrase, bar, scale, stream(seed, 5000 + bar.index))
        previous = phrase[-1].pitch if phrase else previous
    return _breathe(notes)


def write_counter(
    bars: tuple[Bar, ...], tonic: int, mode: str, register: tuple[int, int], rng: np.random.Generator
) -> list[Note]:
    """A slow second voice: one or two guide tones a bar, moving against the tune."""
    scale = harmony.scale_pitches(tonic, mode, *register)
    notes: list[Note] = []
    goal = float(scale[-3])
    for bar in bars:
        pitch = _nearest(scale, bar, goal)
        half = bar.beats / 2
        notes.append(Note(bar.start, bar.beats - 0.1 if rng.random() < 0.6 else half, pitch, 0.55))
        goal = pitch + (-2.5 if pitch > sum(register) / 2 else 2.5)
        if notes[-1].length == half:
            notes.append(Note(bar.start + half, half - 0.1, _nearest(scale, bar, goal), 0.5))
    return notes


def closing_tone(bars: tuple[Note, ...], tonic: int, start: float, hold: float) -> Note:
    """The tonic nearest to where the tune stood."""
    last = bars[-1].pitch if bars else 72
    pitch = min((last + d for d in range(-6, 7) if (last + d) % 12 == tonic), key=lambda p: abs(p - last))
    return Note(start, hold, pitch, 0.7)


def _cell(density: str, bar: Bar, seed: int) -> Rhythm:
    cells = _CELLS[density]
    chooser = stream(seed, 2000 + ord(bar.section.letter))
    order = [int(i) for i in chooser.permutation(len(cells))]
    cell = cells[order[_PLAN[bar.place % 4]]]
    return tuple((at, min(length, bar.beats - at)) for at, length in cell if at < bar.beats)


def _fit(bar: Bar, cell: Rhythm, scale: list[int], previous: int, rng: np.random.Generator) -> list[Note]:
    """Pitches for a rhythm: the contour rises to the middle of the phrase and falls to its end."""
    notes: list[Note] = []
    arch = (1.0, 2.0, 1.0, -2.5)[bar.place % 4]
    for at, length in cell:
        strong = at % 1 == 0 or length >= 1.0
        wish = previous + arch / max(1, len(cell)) + float(rng.normal(0.0, 2.2))
        if strong:
            pitch = _nearest(scale, bar, wish, avoid=previous if rng.random() < 0.7 else None)
        else:
            step = 1 if wish >= previous else -1
            place = min(range(len(scale)), key=lambda i: abs(scale[i] - previous))
            pitch = scale[max(0, min(len(scale) - 1, place + step))]
        notes.append(Note(bar.start + at, length, pitch, 0.78 if at == 0 else 0.68 if strong else 0.58))
        previous = pitch
    return notes


def _nearest(scale: list[int], bar: Bar, wish: float, avoid: int | None = None) -> int:
    tones = [pitch for pitch in scale if pitch % 12 in bar.chord.tones and pitch != avoid]
    return min(tones or scale, key=lambda pitch: (abs(pitch - wish), pitch))


def _vary(phrase: list[Note], bar: Bar, scale: list[int], rng: np.random.Generator) -> list[Note]:
    """A returning theme gains neighbour notes and may lose a repeated one."""
    if "'" not in bar.section.name or not phrase:
        return phrase
    varied: list[Note] = []
    for note in phrase:
        if note.length >= 0.9 and rng.random() < 0.35:
            place = min(range(len(scale)), key=lambda i: abs(scale[i] - note.pitch))
            neighbour = scale[min(len(scale) - 1, place + 1)]
            half = note.length / 2
            varied.append(Note(note.start, half, note.pitch, note.velocity))
            varied.append(Note(note.start + half, half, neighbour, note.velocity * 0.85))
        else:
            varied.append(note)
    return varied


def _breathe(notes: list[Note]) -> list[Note]:
    # A voice cannot overlap itself: a note ends where the next begins, with a little air.
    cut = [
        Note(n.start, min(n.length, max(0.1, after.start - n.start - 0.02)), n.pitch, n.velocity)
        for n, after in pairwise(notes)
    ]
    return cut + notes[-1:]
