"""The form: how many bars fill a duration, how they group into sections and which chord each one has.

Owns the fit of tempo to duration, the plan intro / A / B / A' / outro and the closing tonic. Promises that
bars and the final hold together last exactly the asked duration and that the bar before the hold is a
cadence. Leaves the notes to the other rooms.
"""

from __future__ import annotations

import math

import numpy as np

from app.engines.music.score import harmony
from app.engines.music.score.notation import Bar, Chord, Section

_HOLD_S = (2.2, 4.0)
_ENERGY = {"intro": 0.4, "A": 0.65, "B": 0.85, "C": 0.5, "outro": 0.6}


def fit_tempo(asked_bpm: float, fixed: bool, beats_per_bar: int, duration_s: float) -> tuple[float, int]:
    """The tempo and the number of bars before the closing tonic.

    A tempo the caller asked for is kept. Otherwise it may bend by up to 5 %, in whole BPM, so that the
    bars come out in fours and the closing tonic has a natural length.
    """
    spread = 0 if fixed else math.floor(asked_bpm * 0.05)
    offsets = sorted(range(-spread, spread + 1), key=lambda offset: (abs(offset), offset))
    return min(
        ((asked_bpm + offset, _bars(asked_bpm + offset, beats_per_bar, duration_s)) for offset in offsets),
        key=lambda fit: _misfit(fit[0], fit[1], beats_per_bar, duration_s, asked_bpm),
    )


def plan_sections(bars: int) -> tuple[Section, ...]:
    """Sections that cover `bars` bars: phrases of four or eight, with what is odd left to the ends."""
    if bars == 0:
        return ()
    if bars < 6:
        return (Section("A", "A", 0, bars, 0.75),)
    intro = 2 if bars < 20 else 4
    outro = 0 if bars < 12 else min(4, bars - intro - 8)
    middle = bars - intro - outro
    plan = [("intro", "A", intro), *_middle(middle)]
    if outro:
        plan.append(("outro", "A", outro))
    sections: list[Section] = []
    first = 0
    for name, letter, length in plan:
        sections.append(Section(name, letter, first, length, _energy(name, letter, first / bars)))
        first += length
    return tuple(sections)


def harmonise(
    sections: tuple[Section, ...],
    key: tuple[int, str],
    bank: tuple[str, ...],
    style: tuple[bool, int, int],
    rng: np.random.Generator,
) -> tuple[Bar, ...]:
    """The bars of the whole piece with their chords.

    `key` is (tonic, mode), `bank` the progressions to choose from, `style` is (sevenths, bars per chord,
    beats per bar).
    """
    tonic, mode = key
    sevenths, bars_per_chord, beats = style
    theme = dict(zip("ABC", harmony.pick(bank, 3, rng), strict=True))
    chords: list[Chord] = []
    for section in sections:
        numerals = theme[section.letter].split()
        chords += [
            harmony.chord(numerals[place // bars_per_chord % len(numerals)], tonic, mode, sevenths)
            for place in range(section.bars)
        ]
    if len(chords) > 1:
        chords[-1] = harmony.cadence(tonic, mode, sevenths)
    home = harmony.chord("1", tonic, mode, sevenths=False)
    following = [*chords[1:], home]
    owner = [section for section in sections for _ in range(section.bars)]
    return tuple(
        Bar(index, float(index * beats), beats, chords[index], following[index], owner[index])
        for index in range(len(chords))
    )


def _bars(tempo_bpm: float, beats_per_bar: int, duration_s: float) -> int:
    bar_s = beats_per_bar * 60.0 / tempo_bpm
    shortest_hold_s = min(_HOLD_S[0], 0.6 * duration_s)
    return max(0, math.floor((duration_s - shortest_hold_s) / bar_s + 1e-9))


def _misfit(tempo_bpm: float, bars: int, beats_per_bar: int, duration_s: float, asked_bpm: float) -> float:
    bar_s = beats_per_bar * 60.0 / tempo_bpm
    wanted_s = min(max(bar_s, _HOLD_S[0]), _HOLD_S[1])
    odd = bars % 4 if bars > 4 else 0
    return (
        abs(duration_s - bars * bar_s - wanted_s) / bar_s
        + 0.5 * min(odd, 4 - odd)
        + abs(tempo_bpm - asked_bpm) / asked_bpm
    )


def _middle(bars: int) -> list[tuple[str, str, int]]:
    """A, B, A', then B', C, A''... in units of eight bars (four in a short piece)."""
    unit = 4 if bars < 32 else 8
    letters = ("A", "B", "A", "B", "C", "A", "B", "A", "C", "B", "A")
    count = max(1, bars // unit)
    seen = {"A": 0, "B": 0, "C": 0}
    plan: list[tuple[str, str, int]] = []
    for index in range(count):
        letter = letters[index % len(letters)]
        plan.append((letter + "'" * seen[letter], letter, unit))
        seen[letter] += 1
    name, letter, length = plan[-1]
    plan[-1] = (name, letter, length + bars - unit * count)
    return plan


def _energy(name: str, letter: str, position: float) -> float:
    base = _ENERGY[name] if name in _ENERGY else _ENERGY[letter]
    # A returning theme comes back fuller than it left: that is what makes A' more than a copy.
    lift = 0.2 * position if name not in ("intro", "outro") else 0.0
    return min(1.0, base + lift)
