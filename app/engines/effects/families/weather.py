"""Weather and fire: rain, hail, wind, thunder, fire.

Owns: five recipes after Farnell, "Designing Sound" (2010), part IV. Promises: shape (2, frames), any level.
Leaves level, place and edges to `engine`.
"""

from __future__ import annotations

import numpy as np

from app.engines.effects.filters import (
    band,
    blend,
    cascade,
    coloured,
    filtered,
    highpass,
    lowpass,
    morphing,
    resonance,
    tilt,
)
from app.engines.effects.grains import canvas, onsets, place, poisson, pool, rise, scatter
from app.engines.effects.oscillators import decaying, drift, modal
from app.engines.effects.take import Family, Signal, Take, frames_in


def rain(take: Take) -> Signal:
    """A wash of far drops, near drops one by one, and a few that ring in puddles."""
    rng = take.rng
    wash = coloured(rng, take.frames, cascade(band(450.0 * take.pitch, 5500.0, 1), tilt(0.35)))
    wash *= (0.11 * take.weight**0.5) * (0.75 + 0.25 * drift(rng, take.frames, 0.7))
    taps = pool(24, lambda: _tap(take))
    at_s = poisson(rng, take.duration_s, 130.0 * take.weight * take.pace)
    scatter(wash, rng, taps, at_s, 0.05 + 0.16 * rng.exponential(1.0, len(at_s)))
    puddles = pool(8, lambda: rise(1600, f := rng.uniform(700, 1700) * take.pitch, 1.6 * f, 0.03))
    at_s = poisson(rng, take.duration_s, 7.0 * take.weight)
    scatter(wash, rng, puddles, at_s, rng.uniform(0.1, 0.4, len(at_s)))
    return wash


def hail(take: Take) -> Signal:
    """Ice on sheet metal: hard little strikes that ring, over a dense rattle."""
    rng = take.rng
    sound = 0.03 * coloured(rng, take.frames, band(2500.0, 12_000.0, 1))
    strikes = pool(20, lambda: _ping(take))
    for rate_hz, force in ((55.0, 0.25), (9.0, 1.0)):
        at_s = poisson(rng, take.duration_s, rate_hz * take.weight * take.pace)
        scatter(sound, rng, strikes, at_s, force * rng.uniform(0.3, 1.0, len(at_s)))
    return sound


def wind(take: Take) -> Signal:
    """Noise through two wandering resonances; gusts open them, as speed raises a whistle's pitch."""
    rng = take.rng
    gust = 0.15 + 0.85 * drift(rng, take.frames, 0.45 * take.pace) ** 1.5
    force = take.weight**0.3
    blocks = slice(None, None, 1024)

    def magnitude(_instants: Signal, f: Signal) -> Signal:
        strength = np.append(gust[blocks], [gust[-1]] * 3)[: len(_instants), None]
        howl = 260.0 * take.pitch * (1.0 + 1.9 * force * strength)
        whistle = 2.4 * howl
        low = np.exp(-0.5 * ((f - howl) / (0.22 * howl)) ** 2)
        high = 0.3 * strength * np.exp(-0.5 * ((f - whistle) / (0.07 * whistle)) ** 2)
        breath: Signal = low + high + 0.03 * force * strength * (f > 60.0) / np.sqrt(1.0 + f / 400.0)
        return breath

    sound = morphing(rng, take.frames, magnitude)
    sound *= gust
    sound += 0.35 * gust * coloured(rng, take.frames, band(35.0, 160.0, 1))
    return sound


def thunder(take: Take) -> Signal:
    """A crack of several claps, then a long rumble of rolling humps that darkens as it goes."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 7.5):
        place(sound, _stroke(take), at_s, float(rng.uniform(0.75, 1.0)))
    return sound


def fire(take: Take) -> Signal:
    """Farnell's three layers: lapping flames below, hiss above, crackles of very unequal force."""
    rng = take.rng
    lapping = coloured(rng, take.frames, band(40.0, 190.0, 2))
    lapping *= 0.09 * (0.3 + drift(rng, take.frames, 7.0 * take.pace) ** 2)
    hiss = coloured(rng, take.frames, highpass(3500.0, 2))
    hiss *= 0.012 * (0.2 + drift(rng, take.frames, 5.0) ** 3)
    lapping += hiss
    for rate_hz, length_s, force in ((34.0, 0.004, 0.3), (6.0, 0.012, 0.6)):
        crackles = [_crackle(take, length_s) for _ in range(16)]
        at_s = poisson(rng, take.duration_s, rate_hz * take.weight * take.pace)
        scatter(lapping, rng, crackles, at_s, force * rng.exponential(1.0, len(at_s)), 0.7)
    return lapping


def _tap(take: Take) -> Signal:
    frames = 420
    pitch = take.rng.uniform(1400.0, 5800.0) * take.pitch
    tone = modal(frames, [pitch], [take.rng.uniform(0.003, 0.009)], [1.0])
    return tone + 0.4 * take.rng.standard_normal(frames) * decaying(frames, 0.004)


def _ping(take: Take) -> Signal:
    frames = frames_in(0.09)
    pitch = take.rng.uniform(1900.0, 4200.0) * take.pitch
    decays = take.rng.uniform(0.02, 0.09, 4).tolist()
    ringing = modal(frames, [pitch, 1.58 * pitch, 2.31 * pitch, 3.07 * pitch], decays, [1.0, 0.7, 0.5, 0.3])
    return ringing + 0.8 * take.rng.standard_normal(frames) * decaying(frames, 0.003)


def _crackle(take: Take, length_s: float) -> Signal:
    frames = frames_in(3.0 * length_s)
    snap = take.rng.standard_normal(frames) * decaying(frames, length_s, 0.0003)
    pitch = take.rng.uniform(900.0, 5200.0) * take.pitch
    return filtered(snap, blend((1.0, resonance(pitch, 2.5)), (0.25, highpass(5000.0))))


def _stroke(take: Take) -> Signal:
    rng = take.rng
    length_s = min(take.duration_s, 6.5 * take.linger)
    frames = frames_in(length_s)

    def magnitude(instants: Signal, f: Signal) -> Signal:
        cutoff = take.pitch * (
            110.0 + 2400.0 * take.weight * np.exp(-instants / 0.22) + 300.0 * np.exp(-instants / 1.6)
        )
        dark: Signal = (f > 22.0) / (1.0 + (f / cutoff) ** 2)
        return dark

    rumble = morphing(rng, frames, magnitude)
    at = np.arange(frames) / 44_100.0
    rolling = 0.25 + 1.1 * drift(rng, frames, 3.3) ** 2
    rumble *= rolling * np.exp(-at * 3.4 / length_s) * np.minimum(at / 0.012, 1.0)
    for _ in range(int(rng.integers(3, 7))):
        clap = coloured(rng, frames_in(0.25), band(110.0, 2600.0, 1)) * decaying(frames_in(0.25), 0.18)
        place(rumble, clap, float(rng.uniform(0.0, 0.34)), float(rng.uniform(0.3, 0.8)) * take.weight**0.3)
    return filtered(rumble, blend((1.0, highpass(25.0, 1)), (0.6, lowpass(90.0))))


FAMILIES = (
    Family(
        "rain",
        "raining, rainfall, rainy, raindrop, downpour, drizzle, shower, rainstorm, rain drop, rain "
        "shower, cloudburst, monsoon, lluvia, pluie, regen, chuva, pioggia",
        rain,
        "wet, umbrella",
        sustained=True,
        air_hz=6000.0,
    ),
    Family("hail", "hailstorm, hailstone, sleet, granizo, hagel", hail, "ice", sustained=True, air_hz=5000.0),
    Family(
        "wind",
        "windy, breeze, gust, gale, blizzard, howling wind, wind howl, windstorm, hurricane, tornado, "
        "draft, viento, vent, snowstorm, sandstorm, wind blow",
        wind,
        "air, blow, desert, mountain, winter",
        sustained=True,
        air_hz=700.0,
    ),
    Family(
        "thunder",
        "thunderclap, thunderbolt, lightning, thunderstorm, thunder clap, lightning strike, trueno, "
        "tonnerre, donner, thunder rumble, rumbling thunder, thunder crash, thunder crack",
        thunder,
        "storm, stormy, rumble",
        air_hz=300.0,
    ),
    Family(
        "fire",
        "campfire, fireplace, bonfire, flame, burning, crackling fire, fire crackle, wood fire, blaze, "
        "inferno, fuego, feu, feuer, torch, camp fire",
        fire,
        "crackle, ember",
        sustained=True,
        air_hz=500.0,
    ),
)
