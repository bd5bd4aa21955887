"""Drum grooves, fills and the last hit.

Owns the groove tables, written as step sequences. Promises General MIDI percussion keys, a groove that
thins out when a section is quiet and a fill before the next section begins. Leaves timing feel and velocity
jitter to `humanise`.

A line of a groove has one character a sixteenth: `X` accent, `x` normal, `o` soft, `.` rest. Grooves in
three have twelve characters. The patterns are the textbook ones of their styles (four on the floor,
boom bap, son clave, swing ride, half-time trap).
"""

from __future__ import annotations

import numpy as np

from app.engines.music.score.notation import Bar, Note

KEYS = {
    "kick": 36,
    "rim": 37,
    "snare": 38,
    "clap": 39,
    "low tom": 41,
    "hat": 42,
    "mid tom": 45,
    "open hat": 46,
    "crash": 49,
    "high tom": 50,
    "ride": 51,
    "cowbell": 56,
}
_STEP = 0.25
_VELOCITY = {"X": 0.95, "x": 0.72, "o": 0.4}
_RING = {"crash": 3.0, "ride": 1.0, "open hat": 0.5, "low tom": 0.8, "mid tom": 0.8, "high tom": 0.8}

Groove = dict[str, str]
GROOVES: dict[str, tuple[Groove, ...]] = {
    "four on the floor": (
        {"kick": "X...X...X...X...", "clap": "....x.......x...", "hat": "..x...x...x...x."},
        {"kick": "X...X...X...X...", "snare": "....X.......X...", "hat": "x.xox.xox.xox.xo"},
    ),
    "synthwave": (
        {"kick": "X.......X.......", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
        {
            "kick": "X.....x.X.......",
            "snare": "....X.......X...",
            "hat": "xoxoxoxoxoxoxoxo",
            "low tom": "..............x.",
        },
    ),
    "rock": (
        {"kick": "X.......X.x.....", "snare": "....X.......X...", "hat": "X.x.X.x.X.x.X.x."},
        {"kick": "X..x..x.X.x.....", "snare": "....X.......X..o", "hat": "X.x.X.x.X.x.X.x."},
    ),
    "pop": (
        {"kick": "X.....x.X.......", "clap": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."},
        {"kick": "X..x..x.X..x....", "clap": "....X.......X...", "hat": "x.xox.x.x.xox.x."},
    ),
    "boom bap": (
        {"kick": "X......x..x.....", "snare": "....X.......X...", "hat": "x.o.x.o.x.o.x.o."},
        {"kick": "X.x....x..x.....", "snare": "....X..o....X...", "hat": "x.o.x.o.x.o.x.oo"},
        {"kick": "X.....x...x..x..", "snare": "....X.......X..o", "hat": "x.o.x.o.x.o.x.o."},
    ),
    "half-time trap": (
        {"kick": "X.....x....x....", "snare": "........X.......", "hat": "x.x.x.x.x.x.xoxo"},
        {
            "kick": "X..x......x...x.",
            "snare": "........X.......",
            "hat": "x.xox.x.x.xoxoxo",
            "open hat": "..........x.....",
        },
    ),
    "swing": (
        {"ride": "x...x.x.x...x.x.", "hat": "....x.......x...", "kick": "o.......o......."},
        {
            "ride": "x...x.x.x...x.x.",
            "hat": "....x.......x...",
            "kick": "o.....o.o.......",
            "snare": "......o........o",
        },
    ),
    "brushes": (
        {"kick": "x.......x.......", "rim": "....x.......x...", "hat": "o.o.o.o.o.o.o.o."},
        {"kick": "x.....o.x.......", "rim": "....x.......x.o.", "hat": "o.o.o.o.o.o.o.o."},
    ),
    "epic toms": (
        {"low tom": "X..x..x.X..x..x.", "kick": "X.......X......."},
        {
            "low tom": "X..x..x.X.x.x.x.",
            "kick": "X.....x.X.......",
            "mid tom": "....x.......x.xx",
            "snare": "............x...",
        },
    ),
    "latin": (
        {
            "rim": "x..x..x...x.x...",
            "hat": "o.xoo.xoo.xoo.xo",
            "kick": "X..x....X..x....",
            "cowbell": "x...x...x...x...",
        },
        {
            "rim": "x..x..x...x.x...",
            "hat": "o.xoo.xoo.xoo.xo",
            "kick": "X..x....X..x....",
            "high tom": "......o.......xx",
        },
    ),
    "chip": (
        {"kick": "X...x...X...x...", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
        {"kick": "X..xx...X..xx...", "snare": "....X..x....X.x.", "hat": "xoxxxoxxxoxxxoxx"},
    ),
    "pulse": (
        {"kick": "X...............", "low tom": "........o......."},
        {"kick": "X.......x.......", "low tom": "......o.......o."},
    ),
    "waltz": (
        {"kick": "X...........", "snare": "....o...o...", "hat": "....x...x..."},
        {"kick": "X...........", "snare": "....o...o.o.", "ride": "x...x...x.o."},
    ),
}


def write_drums(bars: tuple[Bar, ...], groove: str, drive: float, rng: np.random.Generator) -> list[Note]:
    """The drum part. `drive` (0-1) is the mood's energy; it chooses the busier variants sooner."""
    variants = GROOVES["waltz" if bars and bars[0].beats == 3 else groove]
    notes: list[Note] = []
    choice = 0
    for bar in bars:
        # A new variant every four bars, not every bar: a groove is a groove because it repeats.
        if bar.place % 4 == 0:
            busy = bar.section.energy * (0.5 + drive) + 0.2 * float(rng.random())
            choice = min(len(variants) - 1, int(busy * len(variants)))
        notes += _play(bar, variants[choice], bar.section.energy)
        if bar.closes_section and bar.section.bars >= 2:
            notes = _with_fill(notes, bar, groove, rng)
        if bar.place == 0 and bar.index > 0 and bar.section.energy > 0.6:
            notes.append(Note(bar.start, _RING["crash"], KEYS["crash"], 0.6))
    return notes


def last_hit(start: float, hold: float, loud: bool, alone: bool) -> list[Note]:
    """Kick and crash under the closing tonic; quiet styles get the kick alone.

    With nobody else to hold the ending, a roll on the low tom dies away through it.
    """
    hit = [Note(start, 0.5, KEYS["kick"], 0.8)]
    if loud:
        hit.append(Note(start, _RING["crash"], KEYS["crash"], 0.7))
    strokes = int(hold / _STEP) if alone else 0
    hit += [
        Note(start + i * _STEP, 0.4, KEYS["low tom"], 0.6 - 0.35 * i / strokes) for i in range(2, strokes)
    ]
    return hit


def _play(bar: Bar, groove: Groove, energy: float) -> list[Note]:
    notes: list[Note] = []
    for voice, line in groove.items():
        if energy < 0.5 and voice in ("snare", "clap", "crash"):
            continue
        length = _RING.get(voice, 0.25)
        for step, mark in enumerate(line):
            if mark in _VELOCITY:
                notes.append(Note(bar.start + step * _STEP, length, KEYS[voice], _VELOCITY[mark]))
    return notes


def _with_fill(notes: list[Note], bar: Bar, groove: str, rng: np.random.Generator) -> list[Note]:
    """Replaces the snare and toms of the last beat (or two) by a roll down the kit."""
    beats = 1 if groove in ("swing", "brushes", "boom bap", "pulse") or rng.random() < 0.4 else 2
    start = bar.start + bar.beats - beats
    kept = [note for note in notes if note.start < start or note.pitch in (KEYS["kick"], KEYS["hat"])]
    order = ("snare", "high tom", "mid tom", "low tom")
    steps = beats * 4
    roll = [
        Note(start + i * _STEP, 0.4, KEYS[order[min(3, i * 4 // steps)]], 0.5 + 0.4 * i / steps)
        for i in range(steps)
        if i % 2 == 0 or rng.random() < 0.6
    ]
    return kept + roll
