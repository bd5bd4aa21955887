"""Water: stream, ocean, bubbles, drip, splash.

Owns: five recipes built on van den Doel's bubble (2005) and Farnell's running water. Promises: shape
(2, frames), any level. Leaves level, place and edges to `engine`.
"""

from __future__ import annotations

import numpy as np

from app.engines.effects.filters import band, cascade, coloured, filtered, highpass, lowpass, morphing, tilt
from app.engines.effects.grains import canvas, onsets, place, poisson, pool, rise, scatter
from app.engines.effects.oscillators import decaying, drift
from app.engines.effects.spaces import reverberant
from app.engines.effects.take import RATE, Family, Signal, Take, frames_in


def stream(take: Take) -> Signal:
    """Running water: hundreds of small bubbles a second over a narrow wash."""
    rng = take.rng
    sound = 0.035 * take.weight * coloured(rng, take.frames, cascade(band(350.0, 2600.0, 1), tilt(0.3)))
    small = pool(32, lambda: _bubble(take, 550.0, 2600.0, 0.035))
    at_s = poisson(rng, take.duration_s, 170.0 * take.weight**0.5 * take.pace)
    scatter(sound, rng, small, at_s, 0.05 + 0.12 * rng.exponential(1.0, len(at_s)))
    sound *= 0.7 + 0.6 * np.stack([drift(rng, take.frames, 2.5), drift(rng, take.frames, 2.5)])
    return sound


def ocean(take: Take) -> Signal:
    """Surf: each wave swells, breaks into a brighter wash, and draws back as foam."""
    rng = take.rng
    height = _swells(take)
    padded = np.append(height[::1024], [height[-1]] * 3)

    def magnitude(instants: Signal, f: Signal) -> Signal:
        now = padded[: len(instants), None]
        cutoff = take.pitch * (200.0 + 1900.0 * now**2)
        foam = 0.09 * (0.25 + now) * np.exp(-0.5 * (np.log(np.maximum(f, 1.0) / 5200.0) / 0.5) ** 2)
        wash: Signal = (f > 40.0) * (0.12 + now) / (1.0 + (f / cutoff) ** 1.6) + foam
        return wash

    sound = morphing(rng, take.frames, magnitude)
    sound += 0.25 * coloured(rng, take.frames, band(30.0, 130.0, 1)) * (0.3 + height)
    return sound


def bubbles(take: Take) -> Signal:
    """Air through water, heard from within: big slow bubbles that rise in pitch, in bursts."""
    rng = take.rng
    sound = 0.012 * coloured(rng, take.frames, lowpass(260.0, 2))
    big = pool(28, lambda: _bubble(take, 180.0, 780.0, 0.13))
    at_s = poisson(rng, take.duration_s, 15.0 * take.pace * take.weight)
    busy = drift(rng, take.frames, 1.4)[(at_s * RATE).astype(np.intp)]
    scatter(sound, rng, big, at_s, 0.15 + 0.85 * busy**2, 0.8)
    return sound


def drip(take: Take) -> Signal:
    """One drop at a time into still water, in a hard little room."""
    rng = take.rng
    dry = canvas(take)
    for at_s in onsets(take, 0.85, jitter=0.3):
        low = float(rng.uniform(750.0, 1300.0)) * take.pitch
        place(
            dry, rise(frames_in(0.11), low, 1.9 * low, 0.1), at_s + 0.012, 1.0, float(rng.uniform(-0.5, 0.5))
        )
        place(dry, rise(frames_in(0.01), 3000.0, 4200.0, 0.006), at_s, 0.25)
    return reverberant(dry, rng, decay_s=1.1 * take.linger, mix=0.25, dark_hz=3500.0)


def splash(take: Take) -> Signal:
    """A body into water: slap, a sheet of spray that falls back, bubbles that follow."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 3.6):
        length = frames_in(min(take.duration_s, 1.7 * take.linger))
        spray = coloured(rng, length, cascade(band(600.0 * take.pitch, 7500.0, 1), tilt(0.2)))
        at = np.arange(length) / RATE
        spray *= np.minimum(at / 0.025, 1.0) * np.exp(-at / 0.13) + 0.13 * np.exp(-((at - 0.55) ** 2) / 0.09)
        slap = filtered(coloured(rng, length, lowpass(350.0)) * decaying(length, 0.16), highpass(60.0))
        place(sound, spray + 1.3 * take.weight**0.4 * slap, at_s)
        after_s = at_s + 0.12 + np.minimum(rng.exponential(0.35, int(70 * take.weight**0.5)), 1.5)
        followers = pool(16, lambda: _bubble(take, 400.0, 1700.0, 0.06))
        scatter(sound, rng, followers, after_s, 0.5 * rng.uniform(0.1, 1.0, len(after_s)), 0.8)
    return sound


def _bubble(take: Take, low_hz: float, high_hz: float, longest_s: float) -> Signal:
    """A bubble; the small ones are high and short (Minnaert: pitch is inverse to radius)."""
    size = float(take.rng.uniform())
    pitch = high_hz * (low_hz / high_hz) ** size * take.pitch
    decay_s = longest_s * (0.35 + 0.65 * size)
    return rise(frames_in(decay_s), pitch, pitch * float(take.rng.uniform(1.15, 1.8)), decay_s)


def _swells(take: Take) -> Signal:
    """The height of the surf from 0 to 1: a steep rise and a long withdrawal about every seven seconds."""
    height = 0.15 * drift(take.rng, take.frames, 0.5)
    at = take.times
    crest_s = float(take.rng.uniform(1.0, 1.8))
    while crest_s < take.duration_s + 4.0:
        since = at - crest_s
        wave = np.where(since < 0.0, np.exp(-((since / 0.9) ** 2)), np.exp(-np.maximum(since, 0.0) / 1.7))
        height = np.maximum(height, float(take.rng.uniform(0.7, 1.0)) * wave)
        crest_s += float(take.rng.uniform(3.6, 6.4)) / take.pace
    return height


FAMILIES = (
    Family(
        "stream",
        "river, toilet flush, flush, sink, creek, brook, running water, flowing water, waterfall, faucet, "
        "tap water, fountain, water flow, water run, pouring water, pour water, trickle, babbling brook, "
        "arroyo, rio",
        stream,
        "water, agua, eau, flow, pour, nature",
        sustained=True,
        air_hz=2500.0,
    ),
    Family(
        "ocean",
        "sea, surf, ocean waves crashing, ocean wave, sea wave, beach, shore, seashore, tide, waves "
        "crashing, wave crash, seaside, coast, olas, mer, meer",
        ocean,
        "wave, sand",
        sustained=True,
        air_hz=900.0,
    ),
    Family(
        "bubbles",
        "bubbling, bubble, boiling, boiling water, boil, aquarium, scuba, diver, gurgle, cauldron, "
        "fizzing, fish tank, burbujas",
        bubbles,
        "fish, soup, submarine",
        sustained=True,
        air_hz=350.0,
    ),
    Family(
        "drip",
        "dripping, water drip, dripping water, leak, leaking, water drop, droplet, leaky faucet, dripping "
        "faucet, leaky tap, gota",
        drip,
        "drop",
        air_hz=1500.0,
    ),
    Family(
        "splash",
        "splashing, water splash, cannonball, dive, diving, plunge, splat, jump into water, belly flop",
        splash,
        "pool, swim",
        air_hz=2000.0,
    ),
)
