"""The hall: reverberation, and convolution of long signals.

Owns the room's impulse response. Promises the same room for the same length, decorrelated left and right.
Leaves how much of it is heard to `mix`.

The response is exponentially decaying noise whose high frequencies die sooner (Moorer, About This
Reverberation Business, 1979); convolution is overlap-add by FFT.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.engines.music.studio import SAMPLE_RATE

_PREDELAY_S = 0.018
_ROOM_SEED = 1979


def response(decay_s: float) -> NDArray[np.float32]:
    """Impulse response (frames, 2) of a room whose sound falls by 60 dB in `decay_s`; energy 1 a side."""
    rng = np.random.Generator(np.random.PCG64(_ROOM_SEED))
    frames = int(decay_s * SAMPLE_RATE)
    time_s = np.arange(frames)[:, None] / SAMPLE_RATE
    noise = rng.standard_normal((frames, 2))
    dark = _shaped(noise, 180.0, 2200.0) * 10.0 ** (-3.0 * time_s / decay_s)
    bright = _shaped(noise, 180.0, 9000.0) * 10.0 ** (-3.0 * time_s / (0.45 * decay_s))
    tail = dark + 0.5 * bright
    tail *= np.minimum(1.0, time_s / 0.008)
    tail /= np.sqrt((tail**2).sum(axis=0, keepdims=True))
    silence = np.zeros((int(_PREDELAY_S * SAMPLE_RATE), 2))
    return np.concatenate((silence, tail)).astype(np.float32)


def convolve(signal: NDArray[np.float32], kernel: NDArray[np.float32], delay: int = 0) -> NDArray[np.float32]:
    """`signal` (frames,) through `kernel` (taps,), as long as the signal, the first `delay` frames skipped.

    Works in blocks, so that memory is bounded by the kernel and not by the piece.
    """
    taps, frames = len(kernel), len(signal)
    size = 1 << max(15, (2 * taps - 1).bit_length())
    hop = size - taps + 1
    spectrum = np.fft.rfft(kernel, size)
    out = np.zeros(frames, np.float32)
    for start in range(0, frames, hop):
        block = np.fft.irfft(np.fft.rfft(signal[start : start + hop], size) * spectrum, size)
        first = start - delay
        low, high = max(0, first), min(frames, first + size)
        if high > low:
            out[low:high] += block[low - first : high - first].astype(np.float32)
    return out


def _shaped(noise: NDArray[np.float64], low_hz: float, high_hz: float) -> NDArray[np.float64]:
    hertz = np.fft.rfftfreq(len(noise), 1.0 / SAMPLE_RATE)[:, None]
    curve = (hertz / low_hz) / np.sqrt(1.0 + (hertz / low_hz) ** 2) / (1.0 + (hertz / high_hz) ** 2)
    return np.fft.irfft(np.fft.rfft(noise, axis=0) * curve, len(noise), axis=0)
