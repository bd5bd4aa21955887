"""When things happen and where in the room.

Owns: irregular event times, placing a short sound on a stereo canvas, scattering thousands of grains.
Promises: every placed sound stays within the canvas; equal-power panning. Leaves what a grain sounds
like to the recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from app.engines.effects.take import RATE, Signal, Take


def canvas(take: Take) -> Signal:
    """Silence to place sounds on, shape (2, frames)."""
    return np.zeros((2, take.frames))


def panned(sound: Signal, pan: float | Signal) -> Signal:
    """A mono sound at a place from −1 (left) to 1 (right), by the equal-power law; the place may move."""
    angle = 0.25 * np.pi * (np.clip(pan, -1.0, 1.0) + 1.0)
    return np.stack([np.cos(angle) * sound, np.sin(angle) * sound])


def place(onto: Signal, sound: Signal, at_s: float, gain: float = 1.0, pan: float = 0.0) -> None:
    """Adds a mono (frames,) or stereo (2, frames) sound to the canvas in place; what runs over is cut off."""
    start = max(0, round(at_s * RATE))
    room = onto.shape[1] - start
    if room <= 0:
        return
    piece = sound[..., :room]
    stereo = panned(piece, pan) if piece.ndim == 1 else piece
    onto[:, start : start + piece.shape[-1]] += gain * stereo


def onsets(take: Take, every_s: float, *, first_s: float = 0.06, jitter: float = 0.35) -> list[float]:
    """Event times in seconds: one early, then more at irregular gaps of about `every_s` (less the faster).

    The last keeps half a second (or what the take can spare) for its tail.
    """
    times = [min(first_s, 0.25 * take.duration_s)]
    if take.once:
        return times
    gap_s = every_s / take.pace
    while True:
        later = times[-1] + gap_s * float(take.rng.uniform(1.0 - jitter, 1.0 + jitter))
        if later > take.duration_s - min(0.5, 0.6 * gap_s):
            return times
        times.append(later)


def poisson(rng: np.random.Generator, duration_s: float, rate_hz: float) -> Signal:
    """Times in seconds of a Poisson process, sorted."""
    count = int(rng.poisson(duration_s * rate_hz))
    return np.sort(rng.uniform(0.0, duration_s, count))


def scatter(
    onto: Signal,
    rng: np.random.Generator,
    pool: Sequence[Signal],
    at_s: Signal,
    gains: Signal,
    width: float = 1.0,
) -> None:
    """Adds one grain of the pool, by chance, at each time: rain, claps, crackle.

    `at_s` and `gains` have shape (grains,); each grain lies anywhere within ±`width` of the centre.
    """
    picks = rng.integers(0, len(pool), len(at_s))
    angles = 0.25 * np.pi * (rng.uniform(-width, width, len(at_s)) + 1.0)
    lefts, rights = gains * np.cos(angles), gains * np.sin(angles)
    starts: NDArray[np.intp] = (at_s * RATE).astype(np.intp)
    end = onto.shape[1]
    for start, pick, left, right in zip(starts.tolist(), picks.tolist(), lefts, rights, strict=True):
        grain = pool[pick][: max(0, end - start)]
        onto[0, start : start + len(grain)] += left * grain
        onto[1, start : start + len(grain)] += right * grain


def pool(count: int, make: Callable[[], Signal]) -> list[Signal]:
    """Variants of a grain to scatter: enough that repetition is not heard."""
    return [make() for _ in range(count)]


def rise(frames: int, low_hz: float, high_hz: float, decay_s: float) -> Signal:
    """One bubble: a decaying sine whose pitch rises as it nears the surface (van den Doel 2005)."""
    at = np.arange(frames) / RATE
    span = frames / RATE
    turns = low_hz * at + 0.5 * (high_hz - low_hz) / span * at**2
    return np.minimum(at / 0.001, 1.0) * np.exp(-6.9 * at / decay_s) * np.sin(2.0 * np.pi * turns)
