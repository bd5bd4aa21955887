"""PURE: what a pitch is called, in the scale of A4 = 440 Hz."""

from __future__ import annotations

import math

_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def note_of(hertz: float) -> str:
    """The nearest note, such as `A#3`."""
    number = round(69 + 12 * math.log2(hertz / 440))
    return f"{_NAMES[number % 12]}{number // 12 - 1}"
