"""Mastering: tone, fade, loudness and the ceiling.

Owns the last steps before the file. Promises no direct current, a peak at or under −1 dBFS, loudness near the
asked one and an ending that fades to nothing. Leaves the music alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.engines.music.studio import SAMPLE_RATE, hall

CEILING = 10.0 ** (-1.1 / 20.0)
_RUMBLE_HZ = 24.0
_FILTER_TAPS = 8191
_HOP = 64
_LOOKAHEAD_HOPS = 6
_FADE_S = 4.0


def master(
    mix: NDArray[np.float32], tone_hz: float, loudness_dbfs: float, hold_s: float
) -> NDArray[np.float32]:
    """The finished sound, same shape as `mix` (frames, 2), which is overwritten.

    `tone_hz` is a gentle low-pass (0 for none), `loudness_dbfs` the RMS to aim for, `hold_s` the length of
    the closing tonic, in which the fade must lie.
    """
    kernel = _filter(tone_hz)
    for side in (0, 1):
        mix[:, side] = hall.convolve(np.ascontiguousarray(mix[:, side]), kernel, delay=_FILTER_TAPS // 2)
    # Before the fade, or what is subtracted would remain as a step after the last sample.
    mix -= mix.mean(axis=0, dtype=np.float64).astype(np.float32)
    _fade(mix, min(_FADE_S, 0.8 * hold_s))
    for _ in range(2):
        # Twice, because the limiter takes back some of what the gain gave.
        level = _rms(mix, hold_s)
        if level <= 0.0:
            break
        mix *= np.float32(10.0 ** (loudness_dbfs / 20.0) / level)
        _limit(mix)
    return np.ascontiguousarray(mix)


def _filter(tone_hz: float) -> NDArray[np.float32]:
    """Linear-phase kernel: rumble and direct current out, and the genre's low-pass."""
    hertz = np.fft.rfftfreq(_FILTER_TAPS + 1, 1.0 / SAMPLE_RATE)
    curve = (hertz / _RUMBLE_HZ) ** 2 / np.sqrt(1.0 + (hertz / _RUMBLE_HZ) ** 4)
    if tone_hz > 0.0:
        curve /= np.sqrt(1.0 + (hertz / tone_hz) ** 4)
    kernel = np.roll(np.fft.irfft(curve), _FILTER_TAPS // 2)[:_FILTER_TAPS]
    kernel *= np.hanning(_FILTER_TAPS)
    return kernel.astype(np.float32)


def _fade(mix: NDArray[np.float32], fade_s: float) -> None:
    """A quarter sine: it keeps the closing chord present for long and still ends at zero."""
    frames = min(len(mix), round(fade_s * SAMPLE_RATE))
    ramp = np.sin(np.linspace(np.pi / 2, 0.0, frames)).astype(np.float32)
    mix[len(mix) - frames :] *= ramp[:, None]
    opening = min(len(mix), 128)
    mix[:opening] *= np.linspace(0.0, 1.0, opening, dtype=np.float32)[:, None]


def _rms(mix: NDArray[np.float32], hold_s: float) -> float:
    body = len(mix) - int(0.8 * hold_s * SAMPLE_RATE)
    heard = mix[: max(body, len(mix) // 2)].reshape(-1)
    return float(np.sqrt(np.dot(heard, heard) / max(1, len(heard))))


def _limit(mix: NDArray[np.float32]) -> None:
    """Look-ahead limiter in place: the gain is down before the peak arrives and smooth in between.

    The minimum over the neighbourhood followed by an average over the same width never lets a peak pass
    (Giannoulis, Massberg and Reiss, Digital Dynamic Range Compressor Design, 2012, for the structure).
    """
    hops = -(-len(mix) // _HOP)
    peaks = np.zeros(hops * _HOP, np.float32)
    peaks[: len(mix)] = np.abs(mix).max(axis=1)
    peaks = peaks.reshape(hops, _HOP).max(axis=1)
    gain = np.minimum(1.0, CEILING / np.maximum(peaks, 1e-9))
    if gain.min() >= 1.0:
        return
    width = 2 * _LOOKAHEAD_HOPS + 1
    padded = np.pad(gain, 2 * _LOOKAHEAD_HOPS, mode="edge")
    lowest = np.lib.stride_tricks.sliding_window_view(padded, width).min(axis=1)
    smooth = np.lib.stride_tricks.sliding_window_view(lowest, width).mean(axis=1)
    centres = np.arange(hops) * _HOP + _HOP / 2
    mix *= np.interp(np.arange(len(mix)), centres, smooth).astype(np.float32)[:, None]
    np.clip(mix, -CEILING, CEILING, out=mix)
