"""Pitched sources, resonating bodies and control curves.

Owns: sines and harmonic series under a moving pitch, modal synthesis (sums of damped sinusoids, Adrien 1991),
plucked strings (Karplus and Strong 1983), source-filter voices (Fant 1960), envelopes and slow random
drift. Promises: everything starts at phase 0, so nothing clicks. Leaves stereo to `grains`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.engines.effects.filters import blend, filtered, resonance
from app.engines.effects.take import RATE, Signal

Formant = tuple[float, float, float]
"""Centre in hertz, bandwidth in hertz, linear gain."""

_CONTROL = 32


def phase(hz: Signal) -> Signal:
    """Radians of an oscillator at a moving pitch, shape as `hz`, starting at 0."""
    turns = np.cumsum(hz) / RATE
    radians: Signal = 2.0 * np.pi * (turns - turns[0])
    return radians


def sine(hz: Signal) -> Signal:
    """A sine at a moving pitch."""
    wave: Signal = np.sin(phase(hz))
    return wave


def harmonics(hz: Signal, gains: Sequence[float]) -> Signal:
    """A harmonic series at a moving pitch; a harmonic that would pass 18 kHz is left out."""
    turn = np.exp(1j * phase(hz))
    ceiling = 18_000.0 / float(np.max(hz))
    total = np.zeros(len(hz))
    partial = np.ones(len(hz), dtype=np.complex128)
    for number, gain in enumerate(gains, start=1):
        if number > max(1.0, ceiling):
            break
        partial *= turn
        total += gain * partial.imag
    return total


def rolloff(count: int, exponent: float = 1.0) -> list[float]:
    """Gains 1/k^exponent of a harmonic series: 1 is a sawtooth, 2 is mellow."""
    return [k**-exponent for k in range(1, count + 1)]


def odd(count: int) -> list[float]:
    """Gains of a square wave's series."""
    return [(k % 2) / k for k in range(1, count + 1)]


def ratio_glide(frames: int, *points: tuple[float, float]) -> Signal:
    """A curve through (position 0-1, value) points, straight in the logarithm: how pitches move."""
    where, values = zip(*points, strict=True)
    at = np.linspace(0.0, 1.0, frames)
    return np.exp(np.interp(at, where, np.log(values)))


def modal(frames: int, hz: Sequence[float], decays_s: Sequence[float], gains: Sequence[float]) -> Signal:
    """A struck body: damped sinusoids of the given pitches, decay times (to −60 dB) and gains."""
    total = np.zeros(frames)
    for pitch, decay_s, gain in zip(hz, decays_s, gains, strict=True):
        if pitch >= 18_000.0:
            continue
        span = min(frames, round(1.1 * decay_s * RATE) + 1)
        at = np.arange(span) / RATE
        total[:span] += gain * np.exp(-6.9 / decay_s * at) * np.sin(2.0 * np.pi * pitch * at)
    return total


def pluck(rng: np.random.Generator, hz: float, frames: int, damping: float = 0.996) -> Signal:
    """A plucked string: a noise burst in a delay loop with a two-point average (Karplus-Strong).

    One loop turn is computed at a time, all its samples at once.
    """
    period = max(2, round(RATE / hz))
    turns = -(-frames // period)
    string = np.empty((turns, period))
    string[0] = rng.uniform(-1.0, 1.0, period)
    string[0] -= string[0].mean()
    for turn in range(1, turns):
        string[turn] = damping * 0.5 * (string[turn - 1] + np.roll(string[turn - 1], 1))
    return string.reshape(-1)[:frames]


def voiced(hz: Signal, formants: Sequence[Formant], brightness: float = 1.0) -> Signal:
    """A voice: a glottal harmonic series through formant resonators side by side."""
    count = int(min(60.0, 8000.0 / float(np.min(hz))))
    source = harmonics(hz, rolloff(max(count, 3), brightness))
    return filtered(source, blend(*((gain, resonance(at, at / width)) for at, width, gain in formants)))


def decaying(frames: int, decay_s: float, attack_s: float = 0.001) -> Signal:
    """An envelope: a linear attack, then exponential decay to −60 dB in `decay_s`."""
    at = np.arange(frames) / RATE
    return np.minimum(at / max(attack_s, 1e-5), 1.0) * np.exp(-6.9 * np.maximum(at - attack_s, 0.0) / decay_s)


def swell(frames: int, peak: float = 0.5, sharpness: float = 1.0) -> Signal:
    """An envelope: from 0 up to 1 at the position `peak` (0-1) and back to 0, rounded."""
    at = np.linspace(0.0, 1.0, frames)
    up = np.where(at < peak, at / peak, (1.0 - at) / (1.0 - peak))
    smooth: Signal = np.sin(0.5 * np.pi * np.clip(up, 0.0, 1.0)) ** (2.0 * sharpness)
    return smooth


def gated(frames: int, edge_s: float = 0.003) -> Signal:
    """An envelope: 1 throughout, with edges that do not click."""
    at = np.arange(frames)
    edge = max(1.0, edge_s * RATE)
    envelope: Signal = np.clip(np.minimum(at, frames - 1 - at) / edge, 0.0, 1.0)
    return envelope


def drift(rng: np.random.Generator, frames: int, rate_hz: float) -> Signal:
    """Slow chance between 0 and 1: random points `rate_hz` times a second, joined smoothly.

    Worked out every 32nd frame and joined by straight lines, a tenth of the cost of every frame.
    """
    position = np.arange(frames // _CONTROL + 2) * (rate_hz * _CONTROL / RATE) + rng.uniform()
    points = rng.uniform(0.0, 1.0, int(position[-1]) + 2)
    whole = position.astype(np.intp)
    part = position - whole
    part = part * part * (3.0 - 2.0 * part)
    curve = points[whole] + (points[whole + 1] - points[whole]) * part
    ramp = np.arange(_CONTROL) / _CONTROL
    joined: Signal = (curve[:-1, None] + np.diff(curve)[:, None] * ramp).reshape(-1)[:frames]
    return joined
