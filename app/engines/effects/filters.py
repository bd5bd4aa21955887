"""Frequency-domain filters and the noises made with them.

Owns: analogue-prototype responses evaluated on an FFT's bins, and noise shaped by them. The responses are
complex and causal (H(jf) of first-order sections and two-pole resonators), so a transient never rings
before it happens. Promises: no Python loop over samples. Leaves pitch to `oscillators`, placing to `grains`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from app.engines.effects.take import RATE, Signal

Spectrum = NDArray[np.complexfloating]
Response = Callable[[Signal], Spectrum]
"""Complex gain at each frequency in hertz."""

_RING_FRAMES = 4096
"""Zeros after a signal before it is filtered, so that ringing does not wrap around to its start."""
_HOP = 1024


def lowpass(hz: float, order: int = 2) -> Response:
    """`order` equal first-order sections, each −3 dB at `hz`."""
    return lambda f: (1.0 / (1.0 + 1j * f / hz)) ** order


def highpass(hz: float, order: int = 2) -> Response:
    """`order` equal first-order sections, each −3 dB at `hz`; blocks 0 Hz wholly."""
    return lambda f: (1j * f / hz / (1.0 + 1j * f / hz)) ** order


def band(low_hz: float, high_hz: float, order: int = 2) -> Response:
    """What lies between two edges."""
    return cascade(highpass(low_hz, order), lowpass(high_hz, order))


def resonance(hz: float, q: float) -> Response:
    """A two-pole resonator with unit gain at `hz`; its bandwidth is hz / q."""
    return lambda f: (1j * f * hz / q) / (hz * hz - f * f + 1j * f * hz / q)


def tilt(exponent: float) -> Response:
    """Gain falling as f^−exponent, flat below 20 Hz: 0.5 makes white noise pink, 1 makes it brown."""
    return lambda f: (np.maximum(f, 20.0) / 1000.0) ** -exponent + 0j


def unchanged(f: Signal) -> Spectrum:
    """Gain 1 everywhere: the dry side of a blend."""
    return np.ones(len(f), dtype=np.complex128)


def cascade(*responses: Response) -> Response:
    """Responses one after the other."""

    def response(f: Signal) -> Spectrum:
        gain = np.ones(len(f), dtype=np.complex128)
        for each in responses:
            gain *= each(f)
        return gain

    return response


def blend(*weighted: tuple[float, Response]) -> Response:
    """Responses side by side, each with its gain: formants, or a body with several modes."""

    def response(f: Signal) -> Spectrum:
        gain = np.zeros(len(f), dtype=np.complex128)
        for weight, each in weighted:
            gain += weight * each(f)
        return gain

    return response


def filtered(signal: Signal, response: Response) -> Signal:
    """The signal, of any shape (..., frames), through a response."""
    frames = signal.shape[-1]
    length = fast_length(frames + _RING_FRAMES)
    spectrum = np.fft.rfft(signal, length)
    spectrum *= response(_hertz(length))
    result: Signal = np.fft.irfft(spectrum, length)[..., :frames]
    return result


def white(rng: np.random.Generator, *shape: int) -> Signal:
    """Gaussian white noise of unit power."""
    return rng.standard_normal(shape)


def coloured(rng: np.random.Generator, frames: int, response: Response, channels: int = 2) -> Signal:
    """Gaussian noise of unit RMS with a response's spectrum, shape (channels, frames), channels independent.

    Drawn as a spectrum rather than filtered, which saves one FFT of two.
    """
    length = fast_length(frames)
    bins = length // 2 + 1
    draws = rng.standard_normal((channels, bins, 2))
    spectrum = draws.view(np.complex128)[..., 0]
    gain = response(_hertz(length))
    gain[0] = 0.0
    spectrum *= gain
    noise = np.fft.irfft(spectrum, length)[:, :frames]
    noise /= np.sqrt(np.mean(noise**2)) + 1e-12
    return noise


def coloured_mono(rng: np.random.Generator, frames: int, response: Response) -> Signal:
    """Gaussian noise of unit RMS with a response's spectrum, shape (frames,)."""
    noise: Signal = coloured(rng, frames, response, 1)[0]
    return noise


def morphing(
    rng: np.random.Generator, frames: int, magnitude: Callable[[Signal, Signal], Signal], channels: int = 2
) -> Signal:
    """Noise whose spectrum changes with time, shape (channels, frames).

    `magnitude(seconds, hertz)` gets shapes (blocks, 1) and (bins,), returns (blocks, bins). Independent
    random spectra every 23 ms overlap-add under a sine window: the powers of neighbours sum to one.
    """
    blocks = frames // _HOP + 2
    instants = (np.arange(blocks, dtype=np.float64)[:, None] * _HOP) / RATE
    gain = magnitude(instants, _hertz(2 * _HOP))
    window = np.sin(np.pi * (np.arange(2 * _HOP) + 0.5) / (2 * _HOP))
    noise = np.empty((channels, frames))
    for channel in range(channels):
        spectrum = rng.standard_normal((blocks, _HOP + 1, 2)).view(np.complex128)[..., 0] * gain
        pieces = np.fft.irfft(spectrum, 2 * _HOP) * window
        joined = pieces[1:, :_HOP] + pieces[:-1, _HOP:]
        noise[channel] = joined.reshape(-1)[:frames]
    noise /= np.sqrt(np.mean(noise**2)) + 1e-12
    return noise


def _hertz(length: int) -> Signal:
    """The frequency of each bin of a real FFT."""
    return np.arange(length // 2 + 1, dtype=np.float64) * (RATE / length)


@cache
def fast_length(frames: int) -> int:
    """The smallest 2^a·3^b·5^c not below `frames`: lengths an FFT is quick at."""
    best = 1 << (frames - 1).bit_length()
    for five in (1, 5, 25, 125):
        for three in (1, 3, 9, 27):
            odd = five * three
            power = max(0, (-(-frames // odd) - 1).bit_length())
            best = min(best, odd << power)
    return best
