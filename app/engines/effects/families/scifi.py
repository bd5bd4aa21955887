"""Science fiction, magic and film: laser, robot, drone, teleport, hum, whoosh, magic, powerup.

Owns: eight recipes of imagined devices: FM (Chowning 1973), ring modulation, Karplus-Strong, swept noise.
Promises: shape (2, frames), any level. Leaves level, place and edges to `engine`.
"""

from __future__ import annotations

import numpy as np

from app.engines.effects.filters import (
    band,
    blend,
    coloured,
    filtered,
    highpass,
    lowpass,
    morphing,
    resonance,
)
from app.engines.effects.grains import canvas, onsets, panned, place
from app.engines.effects.oscillators import (
    decaying,
    drift,
    gated,
    harmonics,
    modal,
    odd,
    phase,
    pluck,
    ratio_glide,
    rolloff,
    sine,
    swell,
)
from app.engines.effects.spaces import echoing, reverberant
from app.engines.effects.take import RATE, Family, Signal, Take, frames_in


def laser(take: Take) -> Signal:
    """A bolt: an FM tone that falls three octaves in a third of a second, thrown to one side."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 0.62):
        frames = frames_in(0.34 * take.linger)
        top = float(rng.uniform(2400.0, 3800.0)) * take.pitch
        hz = ratio_glide(frames, (0.0, top), (0.35, 0.3 * top), (1.0, 0.06 * top))
        bolt = np.sin(phase(hz) + 2.2 * np.sin(1.5 * phase(hz))) * decaying(frames, 0.4 * take.linger)
        place(sound, panned(bolt, np.linspace(0.0, float(rng.choice([-0.9, 0.9])), frames)), at_s)
    return echoing(sound, delay_s=0.11, decay=0.25)


def robot(take: Take) -> Signal:
    """A small robot talks: words of sliding, stepping and warbling FM syllables."""
    rng = take.rng
    sound = canvas(take)
    at_s = 0.06
    while at_s < take.duration_s - 0.1:
        for _ in range(int(rng.integers(3, 8))):
            frames = frames_in(float(rng.uniform(0.05, 0.17)) / take.pace)
            begin, end = np.exp(rng.uniform(np.log(450.0), np.log(2600.0), 2)) * take.pitch
            hz = ratio_glide(frames, (0.0, float(begin)), (1.0, float(end)))
            hz *= 1.0 + float(rng.choice([0.0, 0.12])) * np.sin(2.0 * np.pi * 38.0 * np.arange(frames) / RATE)
            syllable = np.sin(phase(hz) + float(rng.uniform(0.3, 2.0)) * np.sin(0.5 * phase(hz))) * gated(
                frames, 0.006
            )
            place(sound, syllable, at_s, float(rng.uniform(0.6, 1.0)), 0.1)
            at_s += len(syllable) / RATE + float(rng.uniform(0.0, 0.03))
        at_s += take.duration_s if take.once else float(rng.uniform(0.15, 0.5)) / take.pace
    return reverberant(sound, rng, decay_s=0.5, mix=0.08)


def drone(take: Take) -> Signal:
    """A starship's hold: detuned low saws, a filter that breathes, metal resonances far off."""
    rng = take.rng
    low, mid = canvas(take), canvas(take)
    for ratio, pan in ((1.0, -0.7), (1.006, 0.7), (1.498, -0.3), (1.992, 0.4), (0.5, 0.0)):
        hz = 55.0 * take.pitch * ratio * (0.997 + 0.006 * drift(rng, take.frames, 0.4))
        low += panned(harmonics(hz, rolloff(24, 0.9)), pan)
    mid += filtered(
        low, blend((1.0, resonance(430.0, 6.0)), (0.8, resonance(910.0, 9.0)), (0.5, resonance(1730.0, 12.0)))
    )
    breathing = drift(rng, take.frames, 0.35 * take.pace)
    air = coloured(rng, take.frames, resonance(620.0 * take.pitch, 9.0)) * drift(rng, take.frames, 0.5) ** 2
    return 0.3 * filtered(low, lowpass(170.0)) + 3.2 * mid * (0.25 + breathing) + 0.25 * air


def teleport(take: Take) -> Signal:
    """Dissolve and arrive: a ring-modulated shimmer that climbs and thickens, then a soft thump of air."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 2.6):
        frames = frames_in(min(1.7 * take.linger, 0.75 * take.duration_s))
        flutter_hz = ratio_glide(frames, (0.0, 7.0), (1.0, 42.0))
        shimmer = np.zeros((2, frames))
        for pan in (-0.9, -0.3, 0.3, 0.9):
            hz = float(rng.uniform(380.0, 900.0)) * take.pitch * ratio_glide(frames, (0.0, 1.0), (1.0, 3.6))
            shimmer += panned(
                sine(hz) * sine(1.37 * hz) * (0.5 + 0.5 * np.sin(phase(flutter_hz) + 3.0 * pan)), pan
            )
        shimmer *= swell(frames, 0.8, 0.7)
        place(sound, shimmer, at_s, 0.5)
        thump = filtered(coloured(rng, frames_in(0.3), lowpass(240.0)), highpass(40.0)) * decaying(
            frames_in(0.3), 0.25
        )
        place(sound, thump, at_s + 0.82 * frames / RATE, 0.5)
    return echoing(reverberant(sound, rng, decay_s=1.4, mix=0.25), delay_s=0.16, decay=0.3)


def hum(take: Take) -> Signal:
    """Mains: even harmonics of 50 Hz from a transformer that buzzes, with arcing now and then."""
    rng = take.rng
    hz = np.full(take.frames, 50.0 * take.pitch)
    gains = [0.25, 1.0, 0.15, 0.6, 0.1, 0.45, 0.08, 0.3, 0.06, 0.22, 0.05, 0.18, 0.04, 0.12, 0.03, 0.1]
    buzz = harmonics(hz, gains) * (0.85 + 0.3 * drift(rng, take.frames, 2.0))
    arcing = np.clip(5.0 * drift(rng, take.frames, 3.0 * take.pace) - 3.6, 0.0, 1.0)
    teeth = np.clip(np.sin(2.0 * np.pi * 100.0 * take.pitch * take.times), 0.0, 1.0) ** 8
    arcs = coloured(rng, take.frames, highpass(2500.0, 1)) * arcing * teeth
    sound: Signal = panned(buzz, 2.0 * drift(rng, take.frames, 0.3) - 1.0) + 0.35 * take.weight * arcs
    return sound


def whoosh(take: Take) -> Signal:
    """Something passes fast: a resonance in noise sweeps up and down while it crosses from side to side."""
    rng = take.rng
    sound = canvas(take)
    for number, at_s in enumerate(onsets(take, 1.3)):
        length_s = min(float(rng.uniform(0.55, 0.9)) * take.linger / take.pace, 0.8 * take.duration_s)
        frames = frames_in(length_s)
        top = float(rng.uniform(1300.0, 2400.0)) * take.pitch

        def magnitude(instants: Signal, f: Signal, top: float = top, length_s: float = length_s) -> Signal:
            across = np.clip(1.0 - np.abs(instants / length_s - 0.55) / 0.55, 0.0, 1.0)
            centre = 260.0 + top * across**1.5
            swish: Signal = np.exp(-0.5 * (np.log(np.maximum(f, 1.0) / centre) / 0.42) ** 2)
            return swish

        air = morphing(rng, frames, magnitude, 1)[0] * swell(frames, 0.55, 1.2)
        side = np.linspace(-0.85, 0.85, frames) * (1.0 if number % 2 == 0 else -1.0)
        place(sound, panned(air, side), at_s, float(rng.uniform(0.7, 1.0)))
    return sound


def magic(take: Take) -> Signal:
    """Fairy dust: plucked and struck bright notes of a pentatonic run upwards, scattered wide."""
    rng = take.rng
    sound = canvas(take)
    scale = (0, 2, 4, 7, 9, 12, 14, 16, 19, 21, 24, 26, 28)
    glints = [_glint(take, 1046.5 * take.pitch * 2.0 ** (step / 12.0)) for step in scale]
    for at_s in onsets(take, 1.9):
        for number, glint in enumerate(glints):
            late_s = at_s + 0.055 * number / take.pace + float(rng.uniform(0.0, 0.03))
            place(sound, glint, late_s, float(rng.uniform(0.4, 1.0)), float(rng.uniform(-0.9, 0.9)))
    return reverberant(sound, rng, decay_s=2.2 * take.linger, mix=0.3, dark_hz=9000.0)


def powerup(take: Take) -> Signal:
    """Charging: a square-wave arpeggio climbs by thirds while its filter opens, and holds a trembling top."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 1.7, jitter=0.15):
        root = 196.0 * take.pitch * 2.0 ** (float(rng.integers(-3, 4)) / 12.0)
        for number, step in enumerate((0, 4, 7, 12, 16, 19, 24)):
            frames = frames_in((0.07 if number < 6 else 0.45 * take.linger) / take.pace)
            tremble = 1.0 + 0.01 * np.sin(2.0 * np.pi * 14.0 * np.arange(frames) / RATE)
            tone = harmonics(root * 2.0 ** (step / 12.0) * tremble, odd(3 + 4 * number)) * gated(
                frames, 0.004
            )
            tone *= np.exp(-np.arange(frames) / (0.3 * RATE))
            place(sound, tone, at_s + 0.07 * number / take.pace, 0.6 + 0.06 * number, -0.3 + 0.1 * number)
    sound += 0.02 * filtered(sound, band(2000.0, 8000.0))
    return reverberant(sound, rng, decay_s=0.6, mix=0.1)


def _glint(take: Take, hz: float) -> Signal:
    """A struck bar two octaves above a plucked string."""
    frames = frames_in(0.6)
    bar = modal(frames, [hz, 2.76 * hz, 5.4 * hz], [0.6, 0.3, 0.15], [1.0, 0.45, 0.2])
    return bar + 0.4 * pluck(take.rng, 0.25 * hz, frames, 0.995) * gated(frames, 0.002)


FAMILIES = (
    Family(
        "laser",
        "laser gun, blaster, laser beam, ray gun, zap, phaser, pew, pew pew, laser shot, lightsaber, "
        "light saber, plasma gun, space gun",
        laser,
        "space battle",
        air_hz=2500.0,
    ),
    Family(
        "robot",
        "robotic, droid, r2d2, android, robot voice, robot talk, cyborg, bleep, blip, computer beep, "
        "robot beep",
        robot,
        "digital, electronic, alien",
        air_hz=2500.0,
    ),
    Family(
        "drone",
        "spaceship, sci fi, scifi, space ambience, dark ambience, starship, space ship, science fiction, "
        "spacecraft, space drone, synth pad, sci fi drone, eerie drone",
        drone,
        "space, atmosphere, mysterious, background music, suspense, cinematic, future",
        sustained=True,
        air_hz=500.0,
    ),
    Family(
        "teleport",
        "teleportation, portal, warp, transporter, beam up, time travel, materialize, force field, "
        "hyperspace, teleporter",
        teleport,
        "dimension, travel",
        air_hz=2500.0,
    ),
    Family(
        "hum",
        "electric hum, electrical hum, electricity, transformer, mains hum, fluorescent light, humming, "
        "power line, refrigerator, fridge, electric buzz, neon, amplifier hum, air conditioner, tesla "
        "coil",
        hum,
        "power, current, server",
        sustained=True,
        air_hz=500.0,
    ),
    Family(
        "whoosh",
        "swoosh, swish, swipe, transition, fast whoosh, swoop, whip, arrow, fly by, air whoosh, whirl",
        whoosh,
        "throw, pass, movement, motion, jump, spin",
        air_hz=1500.0,
    ),
    Family(
        "magic",
        "magical, sparkle, magic spell, fairy, spell, magic sparkle, magic wand, fairy dust, twinkle, "
        "wizard, shimmer, enchantment, wind chime, harp, glitter, magia",
        magic,
        "star, dream, fantasy, wonder",
        air_hz=7000.0,
    ),
    Family(
        "powerup",
        "power up, charge up, charging, upgrade, boost, powering up, retro game, arcade, video game, 8 "
        "bit, chiptune",
        powerup,
        "energy, retro",
        air_hz=3000.0,
    ),
)
