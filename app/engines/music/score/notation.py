"""The written music: notes, parts, bars and the whole score, as values.

Owns the vocabulary in which composers and players of this engine talk. Promises immutable values with
time in quarter-note beats and pitch in MIDI numbers. Leaves what to write to the composing rooms beside it
and how it sounds to `stems`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Role = Literal["melody", "counter", "comp", "pad", "bass", "drums"]
ROLES: tuple[Role, ...] = ("drums", "bass", "pad", "comp", "counter", "melody")
"""In the order in which a section is built up; iteration over parts always follows it."""


@dataclass(frozen=True, slots=True)
class Note:
    """One sounded note. For drums `pitch` is the General MIDI percussion key."""

    start: float
    """Beats from the beginning of the piece."""
    length: float
    """Beats."""
    pitch: int
    velocity: float
    """0-1."""


@dataclass(frozen=True, slots=True)
class Chord:
    """A harmony: pitch classes (0-11, C = 0) stacked from the root upwards."""

    numeral: str
    """Scale degree as written in the progression tables, such as `5M`."""
    tones: tuple[int, ...]

    @property
    def root(self) -> int:
        return self.tones[0]


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of the form. Sections with the same letter share their themes."""

    name: str
    letter: str
    first_bar: int
    bars: int
    energy: float
    """0-1: how many parts play and how busily."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What every composing room needs to know about one bar."""

    index: int
    start: float
    """Beats from the beginning."""
    beats: int
    chord: Chord
    next_chord: Chord
    section: Section

    @property
    def place(self) -> int:
        """Position of the bar within its section, from 0."""
        return self.index - self.section.first_bar

    @property
    def closes_section(self) -> bool:
        return self.place == self.section.bars - 1


@dataclass(frozen=True, slots=True)
class Part:
    """Everything that one instrument plays."""

    role: Role
    instrument: str
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """A finished composition, ready to be played."""

    tempo_bpm: float
    beats_per_bar: int
    tonic: int
    mode: str
    sections: tuple[Section, ...]
    bars: tuple[Bar, ...]
    parts: tuple[Part, ...]
    total_beats: float
    hold_beats: float
    """Length of the closing tonic, the last thing that sounds."""

    @property
    def beat_s(self) -> float:
        return 60.0 / self.tempo_bpm


def stream(seed: int, purpose: int) -> np.random.Generator:
    """An independent random stream: dropping one part must not change what another one plays."""
    return np.random.Generator(np.random.PCG64([abs(seed), int(seed < 0), purpose]))
