"""A bank of single notes for instruments that are dear to synthesise.

Owns the choice of which notes to synthesise once and reuse. Promises the same notes at the same times as a
full rendering, with three dynamic layers instead of endless ones. Leaves the synthesis itself to `stems`.

Why: tono's piano models every string and costs about 30 ms a note, so a long or dense piece would cost more
than the rest of the studio together. A piece uses a few dozen different keys; each is struck once per layer
and laid down wherever the score has it, as a sampler would. At half the sample rate a strike costs half;
above 11 kHz a piano has about half a percent of its power, so nothing is missed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.engines.music.score.notation import Note
from app.engines.music.studio import SAMPLE_RATE, hall

Strike = Callable[[list[Note]], NDArray[np.float32]]
"""Renders notes timed in seconds (not beats) and returns (frames,) at `RATE`."""
RATE = SAMPLE_RATE // 2
_LAYERS = (0.35, 0.55, 0.8)
_LONGEST_S = 3.5
_RELEASE_S = 0.3
_GAP_S = 0.05
_HALF_TAPS = 64


def lay_down(notes: tuple[Note, ...], beat_s: float, frames: int, strike: Strike) -> NDArray[np.float32]:
    """The part as (frames,), each distinct key struck once per layer."""
    end_s = frames / SAMPLE_RATE
    longest: dict[tuple[int, int], float] = {}
    for note in notes:
        key = (note.pitch, _layer(note.velocity))
        longest[key] = max(longest.get(key, 0.0), _sounding_s(note, beat_s, end_s))
    sheet: list[Note] = []
    at = 0.0
    for (pitch, layer), length_s in sorted(longest.items()):
        sheet.append(Note(at, length_s, pitch, _LAYERS[layer]))
        at += length_s + _GAP_S
    tape = _doubled(strike(sheet))
    spots = {(n.pitch, _LAYERS.index(n.velocity)): int(n.start * SAMPLE_RATE) for n in sheet}
    out = np.zeros(frames, np.float32)
    for note in notes:
        layer = _layer(note.velocity)
        start, spot = int(note.start * beat_s * SAMPLE_RATE), spots[note.pitch, layer]
        count = min(int(_sounding_s(note, beat_s, end_s) * SAMPLE_RATE), frames - start)
        sound = tape[spot : spot + max(0, count)]
        out[start : start + len(sound)] += sound * _shape(len(sound), note.velocity / _LAYERS[layer])
    return out


def _sounding_s(note: Note, beat_s: float, end_s: float) -> float:
    """How long the note is heard: with its release, but not past the end of the piece."""
    return max(0.05, min(note.length * beat_s + _RELEASE_S, _LONGEST_S, end_s - note.start * beat_s))


def _layer(velocity: float) -> int:
    return min(range(len(_LAYERS)), key=lambda i: abs(_LAYERS[i] - velocity))


def _shape(frames: int, gain: float) -> NDArray[np.float32]:
    """The gain of one note and its damper falling."""
    shape = np.full(frames, gain, np.float32)
    release = min(frames, int(_RELEASE_S * SAMPLE_RATE))
    if release:
        shape[-release:] *= np.linspace(1.0, 0.0, release, dtype=np.float32) ** 2
    return shape


def _doubled(tape: NDArray[np.float32]) -> NDArray[np.float32]:
    """Twice the sample rate: zeros between the samples, and a half-band low-pass."""
    sparse = np.zeros(2 * len(tape), np.float32)
    sparse[::2] = tape
    taps = np.arange(-_HALF_TAPS, _HALF_TAPS + 1)
    kernel = (np.sinc(taps / 2.0) * np.kaiser(len(taps), 8.0)).astype(np.float32)
    return hall.convolve(sparse, kernel, delay=_HALF_TAPS)
