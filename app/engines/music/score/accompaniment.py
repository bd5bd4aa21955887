"""What fills the middle: the comping instrument and the pad.

Owns the comping figures by name. Promises voicings led from chord to chord in one register and rhythms that
are the same from bar to bar within a section. Leaves the tune to `melody` and the ground to `bass`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from app.engines.music.score import harmony
from app.engines.music.score.notation import Bar, Chord, Note

Voicing = tuple[int, ...]
Figure = Callable[[Bar, Voicing, np.random.Generator], list[Note]]
COMP_REGISTER = (52, 76)
PAD_REGISTER = (48, 72)


def write_comp(bars: tuple[Bar, ...], figure: str, shift: int, rng: np.random.Generator) -> list[Note]:
    """The comping part in the named figure (a key of `FIGURES`), `shift` semitones up (whole octaves)."""
    voicings = _voicings(bars, COMP_REGISTER, shift, 4 if _has_sevenths(bars) else 3)
    play = FIGURES[figure]
    notes: list[Note] = []
    for bar, voicing in zip(bars, voicings, strict=True):
        notes += play(bar, voicing, rng)
    return notes


def write_pad(bars: tuple[Bar, ...], shift: int) -> list[Note]:
    """Held chords; a tone that stays in the next chord is tied over, which is what makes a pad a pad."""
    voicings = _voicings(bars, PAD_REGISTER, shift, 4)
    notes: list[Note] = []
    sounding: dict[int, Note] = {}
    for bar, voicing in zip(bars, voicings, strict=True):
        tied: dict[int, Note] = {}
        for pitch in sorted(set(voicing)):
            held = sounding.pop(pitch, None)
            start = held.start if held and bar.start - held.start < 16 else bar.start
            if held and start == bar.start:
                notes.append(held)
            tied[pitch] = Note(start, bar.start + bar.beats - start, pitch, 0.6)
        notes += [sounding[pitch] for pitch in sorted(sounding)]
        sounding = tied
    return notes + [sounding[pitch] for pitch in sorted(sounding)]


def closing_chord(tones: tuple[int, ...], start: float, hold: float, shift: int, roll: float) -> list[Note]:
    """The closing tonic, rolled upwards by `roll` beats a note, with soft echoes while it rings."""
    low, high = COMP_REGISTER
    shape = harmony.voice_leading([Chord("1", tones)], low + shift, high + shift, 4)[0]
    notes = [
        Note(start + i * roll, max(0.5, hold - i * roll), pitch, 0.72 - 0.03 * i)
        for i, pitch in enumerate(shape)
    ]
    at, turn = 2.0, 1
    while at < hold - 0.5:
        notes.append(Note(start + at, hold - at, shape[turn % 4] + 12, max(0.25, 0.5 - 0.06 * turn)))
        at, turn = at + 1.0, turn + 1
    return notes


def _voicings(bars: tuple[Bar, ...], register: tuple[int, int], shift: int, voices: int) -> list[Voicing]:
    low, high = register
    return harmony.voice_leading([bar.chord for bar in bars], low + shift, high + shift, voices)


def _has_sevenths(bars: tuple[Bar, ...]) -> bool:
    return any(len(bar.chord.tones) > 3 for bar in bars)


def _chords_at(bar: Bar, voicing: Voicing, rhythm: tuple[tuple[float, float, float], ...]) -> list[Note]:
    return [
        Note(bar.start + at, length, pitch, velocity)
        for at, length, velocity in rhythm
        if at < bar.beats
        for pitch in voicing
    ]


def _block(bar: Bar, voicing: Voicing, _rng: np.random.Generator) -> list[Note]:
    return _chords_at(bar, voicing, ((0.0, bar.beats * 0.97, 0.62),))


def _arpeggio(order: tuple[int, ...], step: float, length: float) -> Figure:
    def play(bar: Bar, voicing: Voicing, _rng: np.random.Generator) -> list[Note]:
        ladder = (*voicing, voicing[0] + 12, voicing[1] + 12)
        count = round(bar.beats / step)
        return [
            Note(
                bar.start + i * step,
                min(length, bar.beats - i * step + 0.5),
                ladder[order[i % len(order)] % len(ladder)],
                0.72 if i % 4 == 0 else 0.55,
            )
            for i in range(count)
        ]

    return play


def _alberti(bar: Bar, voicing: Voicing, _rng: np.random.Generator) -> list[Note]:
    low, middle, high = voicing[0], voicing[1], voicing[2]
    order = (low, high, middle, high) if bar.beats == 4 else (low, high, middle)
    return [
        Note(bar.start + i * 0.5, 0.55, order[i % len(order)], 0.62 if i % len(order) == 0 else 0.48)
        for i in range(bar.beats * 2)
    ]


def _broken(bar: Bar, voicing: Voicing, rng: np.random.Generator) -> list[Note]:
    """Left hand of a piano ballad: root, fifth, tenth in the low octave, then the chord above."""
    root = voicing[0] - 12 if voicing[0] - 12 >= 40 else voicing[0]
    rising = (root, min(voicing[1], root + 12), *voicing[1:])
    notes = [Note(bar.start, bar.beats * 0.95, root - 12 if root >= 48 else root, 0.62)]
    for i in range(1, bar.beats * 2):
        pitch = rising[(i - 1) % len(rising)] if i < 5 else rising[-1 - (i % 2)]
        if i < 6 or rng.random() < 0.6:
            notes.append(Note(bar.start + i * 0.5, 1.1, pitch, 0.48))
    return notes


def _offbeat(bar: Bar, voicing: Voicing, _rng: np.random.Generator) -> list[Note]:
    return _chords_at(bar, voicing, tuple((i + 0.5, 0.3, 0.62) for i in range(bar.beats)))


def _stabs(bar: Bar, voicing: Voicing, rng: np.random.Generator) -> list[Note]:
    late = 2.5 if rng.random() < 0.7 else 3.5
    return _chords_at(bar, voicing, ((0.0, 0.4, 0.7), (1.5, 0.35, 0.6), (late, 0.4, 0.62)))


def _charleston(bar: Bar, voicing: Voicing, rng: np.random.Generator) -> list[Note]:
    """Jazz comping: the Charleston rhythm and its displacements."""
    options = (
        ((0.0, 1.3, 0.62), (1.5, 0.5, 0.55)),
        ((0.5, 0.9, 0.55), (2.0, 1.2, 0.6)),
        ((1.0, 0.4, 0.55), (2.5, 1.2, 0.6)),
        ((0.0, 0.4, 0.6), (2.5, 0.4, 0.52), (3.5, 0.5, 0.55)),
    )
    return _chords_at(bar, voicing, options[int(rng.integers(len(options)))])


def _lazy(bar: Bar, voicing: Voicing, rng: np.random.Generator) -> list[Note]:
    """Lo-fi keys: one rolled chord a bar, and sometimes an answer."""
    notes = [Note(bar.start + i * 0.04, bar.beats * 0.6, p, 0.62) for i, p in enumerate(voicing)]
    if rng.random() < 0.55:
        notes += [Note(bar.start + 2.5 + i * 0.03, 1.2, p, 0.45) for i, p in enumerate(voicing[1:])]
    return notes


def _strum(bar: Bar, voicing: Voicing, _rng: np.random.Generator) -> list[Note]:
    """Folk strumming: down, down-up, up-down-up, each string a few milliseconds after the other."""
    strokes = (0.0, 1.0, 1.5, 2.5, 3.0, 3.5) if bar.beats == 4 else (0.0, 1.0, 1.5, 2.0, 2.5)
    shape = (voicing[0] - 12 if voicing[0] >= 55 else voicing[0], *voicing, voicing[0] + 12)
    notes: list[Note] = []
    for stroke in strokes:
        up = stroke % 1 != 0
        strings = tuple(reversed(shape[1:])) if up else shape
        gain = 0.5 if up else 0.68 if stroke else 0.78
        notes += [Note(bar.start + stroke + i * 0.022, 0.9, p, gain) for i, p in enumerate(strings)]
    return notes


def _picking(bar: Bar, voicing: Voicing, _rng: np.random.Generator) -> list[Note]:
    """Travis picking: alternating thumb on the beats, fingers between."""
    thumb = (voicing[0] - 12, voicing[1] - 12)
    fingers = (voicing[2], voicing[1] + 12 if voicing[1] + 12 < 80 else voicing[1], voicing[-1], voicing[1])
    notes: list[Note] = []
    for beat in range(bar.beats):
        notes.append(Note(bar.start + beat, 1.2, thumb[beat % 2], 0.68))
        notes.append(Note(bar.start + beat + 0.5, 1.0, fingers[beat % 4], 0.55))
    return notes


def _power(bar: Bar, voicing: Voicing, _rng: np.random.Generator) -> list[Note]:
    """Rock: root and fifth in driven eighths, palm-muted except on the accents."""
    root = 40 + (bar.chord.root - 40) % 12
    fifth = root + (bar.chord.tones[2] - bar.chord.root) % 12
    return [
        Note(bar.start + i * 0.5, 0.48 if i % 4 == 0 else 0.3, pitch, 0.82 if i % 4 == 0 else 0.6)
        for i in range(bar.beats * 2)
        for pitch in (root, fifth, root + 12)
    ]


def _ostinato(bar: Bar, voicing: Voicing, _rng: np.random.Generator) -> list[Note]:
    """Cinematic string ostinato: sixteenths on two chord tones with accents in 3+3+2."""
    accents = {0, 3, 6} if bar.beats == 4 else {0, 2, 4}
    pattern = (0, 1, 2, 1, 0, 1, 2, 1)
    return [
        Note(bar.start + i * 0.5, 0.42, voicing[pattern[i % 8]] - 12, 0.8 if i % 8 in accents else 0.52)
        for i in range(bar.beats * 2)
    ]


def _montuno(bar: Bar, voicing: Voicing, _rng: np.random.Generator) -> list[Note]:
    """Piano montuno: octaves and chords alternating across the beat."""
    rhythm = (0.0, 1.0, 1.5, 2.5, 3.5) if bar.place % 2 == 0 else (0.5, 1.5, 2.5, 3.5)
    notes: list[Note] = []
    for i, at in enumerate(rhythm):
        shape = (voicing[0], voicing[0] + 12) if i % 2 else voicing[1:]
        notes += [Note(bar.start + at, 0.42, pitch, 0.68) for pitch in shape if at < bar.beats]
    return notes


def _oom_pah(bar: Bar, voicing: Voicing, _rng: np.random.Generator) -> list[Note]:
    """The waltz hand: nothing on one, the chord on two and three."""
    beats = range(1, bar.beats) if bar.beats == 3 else range(1, bar.beats, 2)
    return _chords_at(bar, voicing, tuple((float(i), 0.6, 0.52) for i in beats))


FIGURES: dict[str, Figure] = {
    "block": _block,
    "arpeggio": _arpeggio((0, 1, 2, 3, 2, 1), 0.5, 1.0),
    "slow arpeggio": _arpeggio((0, 2, 1, 3), 1.0, 2.4),
    "fast arpeggio": _arpeggio((0, 1, 2, 3), 0.25, 0.24),
    "chip arpeggio": _arpeggio((0, 1, 2, 1), 0.25, 0.2),
    "lullaby": _arpeggio((0, 2, 1, 2), 0.5, 1.2),
    "alberti": _alberti,
    "broken": _broken,
    "offbeat": _offbeat,
    "stabs": _stabs,
    "charleston": _charleston,
    "lazy": _lazy,
    "strum": _strum,
    "picking": _picking,
    "power": _power,
    "ostinato": _ostinato,
    "montuno": _montuno,
    "oom-pah": _oom_pah,
}
