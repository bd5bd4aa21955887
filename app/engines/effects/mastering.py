"""The last steps: level, room tone, edges, seamless loops.

Owns: what a finished effect promises whatever its recipe did: finite, no offset, peak at most −1 dBFS, no
digital silence under pauses, edges without clicks, loops without seams. Leaves loudness across a
whole production to `app.finish`.
"""

from __future__ import annotations

import numpy as np

from app.engines.effects.filters import band, coloured
from app.engines.effects.take import Signal, frames_in

PEAK = 10.0 ** (-1.0 / 20.0)
_LOUDEST_RMS = 10.0 ** (-13.0 / 20.0)
_LOUDEST_EVENT_RMS = 10.0 ** (-9.0 / 20.0)
_QUIETEST_RMS = 10.0 ** (-27.0 / 20.0)
_ROOM_TONE_RMS = 10.0 ** (-50.0 / 20.0)
_EDGE_S = 0.010
_SEAM_STRETCH_S = 0.030
_TONAL = 0.4
"""Correlation above which a seam is tuned; noise stays below it."""


def levelled(sound: Signal, *, sustained: bool) -> Signal:
    """The sound with its peak at −1 dBFS, softened where still too quiet, lowered where too loud.

    Dense tones reach −13 dBFS RMS long before their peaks reach −1 (events may be louder: they are short);
    sparse sustained sounds are soft-clipped until they reach −27, because a user hears loudness, not peaks.
    """
    sound = sound - sound.mean(axis=1, keepdims=True)
    sound *= PEAK / (np.max(np.abs(sound)) + 1e-12)
    for _ in range(6):
        loudness = _rms(sound)
        if not sustained or loudness >= _QUIETEST_RMS:
            break
        sound = np.tanh(sound * min(2.5, 1.15 * _QUIETEST_RMS / loudness))
        sound *= PEAK / (np.max(np.abs(sound)) + 1e-12)
    loudest = _LOUDEST_RMS if sustained else _LOUDEST_EVENT_RMS
    sound *= min(1.0, loudest / (_rms(sound) + 1e-12))
    return sound


def with_room_tone(sound: Signal, rng: np.random.Generator, air_hz: float) -> Signal:
    """The sound over a −50 dBFS bed, so that trimming at −60 dBFS keeps the length that was asked for."""
    bed = coloured(rng, sound.shape[1], band(70.0, air_hz, 1))
    bed *= _ROOM_TONE_RMS
    bed += sound
    return bed


def faded(sound: Signal) -> Signal:
    """The sound with 10 ms edges."""
    frames = sound.shape[1]
    edge = min(frames // 4, frames_in(_EDGE_S))
    ramp = np.sin(0.5 * np.pi * np.arange(edge) / edge) ** 2
    sound[:, :edge] *= ramp
    sound[:, frames - edge :] *= ramp[::-1]
    return sound


def loop_margin(frames: int, *, sustained: bool) -> int:
    """How many more frames than `frames` must be rendered for `looped` to close the loop."""
    return _seam_frames(frames, sustained=sustained) + _stretch_frames(frames)


def looped(sound: Signal, frames: int, *, sustained: bool) -> Signal:
    """A loop of exactly `frames` from a sound that is `loop_margin` longer.

    What follows the end fades into the start, where both agree best in phase (a search of up to 30 ms); the
    gain of the fade follows their correlation, so tones keep their level as well as noise does. The few
    frames the search added are taken back by resampling the closed loop, which has no ends to spoil.
    """
    seam = _seam_frames(frames, sustained=sustained)
    extra = _best_extra(sound, frames, seam, _stretch_frames(frames))
    cycle = sound[:, : frames + extra].copy()
    head, tail = sound[:, :seam], sound[:, frames + extra : frames + extra + seam]
    angle = 0.5 * np.pi * (np.arange(seam) + 0.5) / seam
    power = np.sum(head**2) * np.sum(tail**2)
    agreement = max(-0.3, float(np.sum(head * tail) / (np.sqrt(power) + 1e-12)))
    scale = 1.0 / np.sqrt(1.0 + agreement * np.sin(2.0 * angle))
    cycle[:, :seam] = (head * np.sin(angle) + tail * np.cos(angle)) * scale
    return _resampled(cycle, frames) if extra else cycle


def guarded(sound: Signal) -> Signal:
    """The sound made finite, without offset, and never above −1 dBFS."""
    sound = np.nan_to_num(sound, nan=0.0, posinf=0.0, neginf=0.0)
    sound -= sound.mean(axis=1, keepdims=True)
    sound *= min(1.0, PEAK / (float(np.max(np.abs(sound))) + 1e-12))
    return sound


def _rms(sound: Signal) -> float:
    return float(np.sqrt(np.mean(sound**2)))


def _seam_frames(frames: int, *, sustained: bool) -> int:
    # An event early in the take must not drown in the fade, so events get a short one.
    return min(frames // 4, frames_in(0.35 if sustained else 0.04))


def _stretch_frames(frames: int) -> int:
    return min(frames // 40, frames_in(_SEAM_STRETCH_S))


def _best_extra(sound: Signal, frames: int, seam: int, most: int) -> int:
    """How many frames later than `frames` the sound agrees best with its start; 0 for noise."""
    head = sound[:, :seam].sum(axis=0)
    tail = sound[:, frames : frames + seam + most].sum(axis=0)
    length = seam + most
    agreement = np.fft.irfft(
        np.fft.rfft(tail, 2 * length) * np.conj(np.fft.rfft(head, 2 * length)), 2 * length
    )[: most + 1]
    best = int(np.argmax(agreement))
    power = np.sqrt(np.sum(head**2) * np.sum(tail[best : best + seam] ** 2))
    return best if agreement[best] > _TONAL * power else 0


def _resampled(cycle: Signal, frames: int) -> Signal:
    """A closed loop at another length, by six-point Lagrange interpolation around the circle.

    Not by FFT: a loop's length is often a large prime times little, which costs the FFT 200 MB.
    """
    length = cycle.shape[1]
    at = np.arange(frames, dtype=np.float64) * (length / frames)
    whole = at.astype(np.intp)
    part = at - whole
    result = np.zeros((cycle.shape[0], frames))
    nodes = range(-2, 4)
    for node in nodes:
        weight = np.ones(frames)
        for other in nodes:
            if other != node:
                weight *= (part - other) / (node - other)
        result += weight * np.take(cycle, whole + node, axis=1, mode="wrap")
    return result
