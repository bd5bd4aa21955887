"""Where a sound is heard: rooms, caves, distance, walls, water.

Owns: reverberation (convolution with decaying coloured noise, Moorer 1979), echoes and the filters of
distance, walls and water. Promises: length and shape unchanged, latency nil. Leaves which of them
a prompt asks for to `prompts`.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np

from app.engines.effects.filters import (
    Response,
    band,
    blend,
    cascade,
    coloured,
    fast_length,
    filtered,
    highpass,
    lowpass,
    resonance,
    unchanged,
)
from app.engines.effects.oscillators import drift
from app.engines.effects.take import RATE, Signal, frames_in


def heard_in(sound: Signal, spaces: AbstractSet[str], rng: np.random.Generator) -> Signal:
    """A stereo sound as the prompt's words of place let it be heard; unknown names change nothing."""
    if "close" in spaces:
        sound = filtered(sound, blend((1.0, unchanged), (0.5, highpass(4000.0))))
    if "distant" in spaces:
        far = filtered(sound, cascade(lowpass(1100.0, 2), highpass(60.0, 1)))
        sound = reverberant(far, rng, decay_s=2.2, mix=0.5, dark_hz=1200.0)
    if "muffled" in spaces:
        sound = filtered(sound, lowpass(650.0, 3))
    if "underwater" in spaces:
        sound = _underwater(sound, rng)
    if "echo" in spaces:
        sound = echoing(sound, delay_s=0.33, decay=0.5)
    if "cave" in spaces:
        sound = reverberant(
            echoing(sound, delay_s=0.19, decay=0.3), rng, decay_s=3.2, mix=0.45, dark_hz=2500.0
        )
    if "room" in spaces:
        sound = reverberant(sound, rng, decay_s=0.9, mix=0.3)
    return sound


def reverberant(
    sound: Signal, rng: np.random.Generator, *, decay_s: float, mix: float, dark_hz: float = 5000.0
) -> Signal:
    """The sound with a diffuse tail that falls 60 dB in `decay_s`; `mix` is the tail's share of power."""
    frames = sound.shape[-1]
    tail = _impulse(rng, min(decay_s, 4.0), lowpass(dark_hz, 1))
    length = fast_length(frames + tail.shape[-1])
    wet = np.fft.rfft(sound, length)
    wet *= np.fft.rfft(tail, length)
    blended = np.fft.irfft(wet, length)[..., :frames]
    blended *= np.sqrt(mix)
    blended += np.sqrt(1.0 - mix) * sound
    return blended


def echoing(sound: Signal, *, delay_s: float, decay: float) -> Signal:
    """The sound with repeats that fall by `decay`, thrown from side to side."""
    total = sound.copy()
    step = frames_in(delay_s)
    repeat, gain = sound, decay
    for count in range(1, 7):
        shift = step * count
        if shift >= sound.shape[-1] or gain < 0.01:
            break
        repeat = repeat[::-1]
        total[:, shift:] += gain * repeat[:, :-shift]
        gain *= decay
    return total


def _impulse(rng: np.random.Generator, decay_s: float, colour: Response) -> Signal:
    """A diffuse room's impulse response of unit energy, shape (2, frames): the first 8 ms are empty."""
    frames = frames_in(decay_s)
    noise = coloured(rng, frames, cascade(colour, highpass(90.0, 1)))
    at = np.arange(frames) / RATE
    noise *= np.exp(-6.9 * at / decay_s) * np.clip((at - 0.008) / 0.004, 0.0, 1.0)
    noise /= np.sqrt(np.sum(noise**2, axis=1, keepdims=True)) + 1e-12
    return noise


def _underwater(sound: Signal, rng: np.random.Generator) -> Signal:
    """High tones lost, a boxy resonance, and a level that wavers with the swell."""
    wet = filtered(
        sound, blend((1.0, lowpass(420.0, 3)), (0.5, resonance(240.0, 3.0)), (0.02, band(400.0, 1500.0)))
    )
    frames = sound.shape[-1]
    return wet * (0.6 + 0.4 * np.stack([drift(rng, frames, 1.3), drift(rng, frames, 1.3)]))
