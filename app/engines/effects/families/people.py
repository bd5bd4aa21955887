"""People and what they handle: footsteps, crowd, applause, heartbeat, breath, laugh, paper, zipper.

Owns: eight recipes: bodies, many voices as formant buses, claps and paper as grains. Promises: shape
(2, frames), any level. Leaves level, place and edges to `engine`.
"""

from __future__ import annotations

import numpy as np

from app.engines.effects.filters import (
    band,
    blend,
    cascade,
    coloured,
    coloured_mono,
    filtered,
    highpass,
    lowpass,
    resonance,
)
from app.engines.effects.grains import canvas, onsets, panned, place, poisson, pool, scatter
from app.engines.effects.oscillators import (
    decaying,
    drift,
    modal,
    phase,
    ratio_glide,
    swell,
    voiced,
)
from app.engines.effects.spaces import reverberant
from app.engines.effects.take import RATE, Family, Signal, Take, frames_in


def footsteps(take: Take) -> Signal:
    """Heel, roll and toe on a gritty floor, left foot and right, at a walking pace that wavers."""
    rng = take.rng
    sound = canvas(take)
    every_s = 0.56
    for number, at_s in enumerate(onsets(take, every_s, jitter=0.05)):
        pan = -0.18 if number % 2 else 0.18
        place(sound, _heel(take), at_s, float(rng.uniform(0.85, 1.0)), pan)
        place(sound, _sole(take, 0.12), at_s + 0.03, 0.28 * take.weight**0.5, pan)
        place(sound, _sole(take, 0.07), at_s + 0.15 / take.pace, 0.34, pan)
    return reverberant(sound, rng, decay_s=0.5, mix=0.1, dark_hz=3000.0)


def crowd(take: Take) -> Signal:
    """A murmur: twelve voices, each babbling through three vowels in its own syllables, in one room."""
    rng = take.rng
    buses = _babble(take)
    sound = canvas(take)
    for bus, formants in zip(buses, _VOWELS, strict=True):
        sound += filtered(
            bus, blend(*((gain, resonance(hz * take.pitch**0.5, 7.0)) for hz, gain in formants))
        )
    sound /= np.std(sound) + 1e-12
    sound += 0.25 * coloured(rng, take.frames, cascade(band(250.0, 1500.0), lowpass(1200.0, 1)))
    return reverberant(sound, rng, decay_s=1.1, mix=0.3, dark_hz=2500.0)


def applause(take: Take) -> Signal:
    """Many hands: claps of differently cupped palms, each person at a steady rate of their own."""
    rng = take.rng
    sound = 0.02 * coloured(rng, take.frames, band(600.0, 4000.0, 1))
    claps = pool(30, lambda: _clap(take))
    people = max(6, round(38 * take.weight))
    for _ in range(people if not take.once else 1):
        every_s = float(rng.uniform(0.2, 0.32)) / take.pace
        at_s = np.arange(float(rng.uniform(0.0, every_s)), take.duration_s - 0.01, every_s)
        at_s = np.clip(at_s + rng.normal(0.0, 0.018, len(at_s)), 0.0, take.duration_s - 0.005)
        strength = float(rng.uniform(0.12, 1.0)) ** 2
        scatter(sound, rng, claps, at_s, strength * rng.uniform(0.6, 1.0, len(at_s)))
    return reverberant(sound, rng, decay_s=1.2, mix=0.16, dark_hz=4000.0)


def heartbeat(take: Take) -> Signal:
    """Lub and dub, seventy a minute, heard through the chest wall."""
    sound = canvas(take)
    for begin_s in np.arange(0.05, take.duration_s, 0.86 / take.pace):
        jitter_s = float(take.rng.uniform(0.0, 0.02))
        for late_s, hz, gain, length_s in ((0.0, 58.0, 1.0, 0.16), (0.29 / take.pace**0.5, 76.0, 0.7, 0.12)):
            frames = frames_in(length_s)
            glide = hz * take.pitch * ratio_glide(frames, (0.0, 1.35), (1.0, 0.8))
            thump = np.sin(phase(glide)) * swell(frames, 0.3)
            flow = filtered(take.rng.standard_normal(frames), band(80.0, 320.0)) * swell(frames, 0.3)
            place(
                sound,
                np.tanh(1.5 * thump + 0.8 * flow),
                float(begin_s) + late_s + jitter_s,
                gain * take.weight**0.3,
            )
        if take.once:
            break
    return sound


def breath(take: Take) -> Signal:
    """In through the nose, out through the mouth: noise through two shapes of the same tract."""
    rng = take.rng
    sound = canvas(take)
    cycle_s = 3.0 / take.pace
    for begin_s in np.arange(0.03, take.duration_s, cycle_s):
        for late, length, tract, gain in ((0.0, 0.4, _INHALE, 0.6), (0.46, 0.5, _EXHALE, 1.0)):
            frames = frames_in(length * cycle_s * float(rng.uniform(0.9, 1.1)))
            air = coloured(rng, frames, blend(*((g, resonance(hz * take.pitch, q)) for hz, q, g in tract)))
            air *= swell(frames, 0.45, 0.6) * (0.85 + 0.3 * drift(rng, frames, 14.0))
            place(sound, air, float(begin_s) + late * cycle_s, gain)
        if take.once:
            break
    return sound


def laugh(take: Take) -> Signal:
    """Ha-ha-ha: bursts of an open vowel with breath before each, falling in pitch and force."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 2.1):
        base = float(rng.uniform(170.0, 290.0)) * take.pitch
        for number in range(int(rng.integers(4, 8))):
            frames = frames_in(float(rng.uniform(0.1, 0.13)))
            hz = base * 0.95**number * ratio_glide(frames, (0.0, 1.15), (1.0, 0.88))
            voice = voiced(hz, _OPEN_VOWEL, 1.1) * swell(frames, 0.4, 0.6)
            puff = coloured_mono(rng, frames_in(0.06), band(700.0, 3200.0)) * swell(frames_in(0.06))
            late_s = at_s + number * 0.19 / take.pace
            place(sound, puff, late_s - 0.045, 0.12 * 0.9**number)
            place(sound, voice, late_s, 0.9**number, 0.1)
    return reverberant(sound, rng, decay_s=0.5, mix=0.1)


def paper(take: Take) -> Signal:
    """Crumpling: thousands of tiny folds snap, in bursts as the hand closes, over a dry rustle."""
    rng = take.rng
    squeeze = drift(rng, take.frames, 1.9 * take.pace) ** 2
    sound = 0.06 * coloured(rng, take.frames, band(2500.0, 11_000.0, 1)) * (0.05 + squeeze)
    folds = pool(24, lambda: _fold(take))
    at_s = poisson(rng, take.duration_s, 210.0 * take.weight**0.5)
    force = squeeze[(at_s * RATE).astype(np.intp)]
    scatter(sound, rng, folds, at_s, (0.04 + force) * rng.exponential(0.45, len(at_s)), 0.4)
    return sound


def zipper(take: Take) -> Signal:
    """Teeth click past a slider, faster and higher to the middle of the pull; up, then down."""
    rng = take.rng
    sound = canvas(take)
    for number, at_s in enumerate(onsets(take, 1.25, jitter=0.2)):
        frames = frames_in(min(float(rng.uniform(0.45, 0.75)) / take.pace, 0.7 * take.duration_s))
        turn = (0.0, 60.0), (0.6, 210.0), (1.0, 120.0)
        rate = take.pitch * ratio_glide(
            frames, *(turn if number % 2 == 0 else tuple((1 - at, hz) for at, hz in turn[::-1]))
        )
        teeth = np.diff(np.floor(np.cumsum(rate) / RATE), prepend=0.0) * rng.uniform(0.5, 1.0, frames)
        tooth = blend((1.0, resonance(3100.0, 5.0)), (1.2, resonance(5600.0, 6.0)), (0.3, highpass(7000.0)))
        pull = filtered(teeth, tooth)
        pull /= np.max(np.abs(pull)) + 1e-12
        pull += 0.06 * coloured_mono(rng, frames, band(2000.0, 9000.0))
        side = np.linspace(-0.4, 0.4, frames) * (1.0 if number % 2 == 0 else -1.0)
        place(sound, panned(pull * swell(frames, 0.6, 0.25), side), at_s)
    return sound


_VOWELS = (
    ((730.0, 1.0), (1090.0, 0.6), (2440.0, 0.12)),
    ((530.0, 1.0), (1840.0, 0.4), (2480.0, 0.18)),
    ((360.0, 1.0), (870.0, 0.5), (2240.0, 0.06)),
)
"""Formants of a, e and u in hertz with gains (Peterson and Barney 1952)."""
_OPEN_VOWEL = ((800.0, 110.0, 1.0), (1250.0, 140.0, 0.7), (2700.0, 260.0, 0.2))
_INHALE = ((1500.0, 1.5, 1.0), (3200.0, 2.5, 0.7), (5600.0, 2.0, 0.35))
_EXHALE = ((650.0, 1.4, 1.0), (1350.0, 2.0, 0.6), (2900.0, 2.0, 0.2))


def _pulses(hz: Signal) -> Signal:
    """A glottal pulse train: a slow rise, a quick fall and a closed phase (after Rosenberg 1971)."""
    turn = np.cumsum(hz / RATE)
    turn -= np.floor(turn)
    opened = np.minimum(turn / 0.6, 1.0)
    pulses: Signal = 6.75 * opened * opened * (1.0 - opened) - 0.33
    return pulses


def _babble(take: Take) -> Signal:
    """Unfiltered voices by the vowel they are at, shape (vowels, 2, frames): one filter serves all."""
    rng = take.rng
    buses = np.zeros((len(_VOWELS), 2, take.frames))
    for _ in range(12):
        male = float(rng.uniform()) < 0.5
        base = (float(rng.uniform(95.0, 140.0)) if male else float(rng.uniform(170.0, 250.0))) * take.pitch
        hz = base * (0.85 + 0.3 * drift(rng, take.frames, 2.2 * take.pace))
        glottis = _pulses(hz)
        glottis *= np.clip(2.2 * drift(rng, take.frames, 4.6 * take.pace) - 0.7, 0.0, 1.0)
        glottis *= np.clip(3.0 * drift(rng, take.frames, 0.5) - 0.8, 0.0, 1.0) * float(rng.uniform(0.3, 1.0))
        vowel = 2.999 * drift(rng, take.frames, 3.0 * take.pace)
        pan = float(rng.uniform(-0.95, 0.95))
        for number in range(len(_VOWELS)):
            buses[number] += panned(glottis * np.clip(1.0 - np.abs(vowel - number - 0.5), 0.0, 1.0), pan)
    return buses


def _heel(take: Take) -> Signal:
    frames = frames_in(0.14)
    pitch = take.pitch * float(take.rng.uniform(0.92, 1.08))
    body = modal(
        frames,
        [92.0 * pitch, 188.0 * pitch, 530.0 * pitch, 1270.0 * pitch],
        [0.11, 0.07, 0.035, 0.02],
        [1.0, 0.6, 0.4, 0.25],
    )
    return body + 0.2 * coloured_mono(take.rng, frames, band(800.0, 5000.0, 1)) * decaying(frames, 0.02)


def _sole(take: Take, length_s: float) -> Signal:
    """Grit under a sole: noise in random little bursts."""
    frames = frames_in(length_s)
    grit = coloured_mono(take.rng, frames, band(1100.0, 6500.0, 1))
    return grit * drift(take.rng, frames, 420.0) ** 3 * swell(frames, 0.35) * 1.6


def _clap(take: Take) -> Signal:
    frames = frames_in(0.05)
    cup = float(take.rng.uniform(800.0, 2300.0)) * take.pitch
    palm = blend((1.0, resonance(cup, 2.2)), (0.25, band(1500.0, 8000.0, 1)))
    return coloured_mono(take.rng, frames, palm) * decaying(
        frames, float(take.rng.uniform(0.018, 0.04)), 0.0006
    )


def _fold(take: Take) -> Signal:
    frames = 300
    snap = take.rng.standard_normal(frames) * decaying(frames, float(take.rng.uniform(0.001, 0.005)), 0.0002)
    return filtered(
        snap,
        blend(
            (1.0, resonance(float(take.rng.uniform(1800.0, 6500.0)) * take.pitch, 2.0)),
            (0.5, highpass(4000.0)),
        ),
    )


FAMILIES = (
    Family(
        "footsteps",
        "footstep, walking, walk, step, stepping, foot step, high heels, person walking, stairs, walking "
        "on gravel, pasos, schritte, jogging, tiptoe, marching, walking away, footfall",
        footsteps,
        "run, boot, gravel, hallway walk, shoe, feet, person",
        air_hz=900.0,
    ),
    Family(
        "crowd",
        "murmur, chatter, crowd murmur, people talking, talking, restaurant, cafe, cafeteria, babble, "
        "walla, voices, voice, audience, bar, pub, conversation, speech, market, whisper, multitud, "
        "foule, coffee shop",
        crowd,
        "child, kid, playground, people, stadium, party, human, school",
        sustained=True,
        air_hz=1200.0,
    ),
    Family(
        "applause",
        "clap, clapping, hand clap, ovation, aplausos, applaud, clapping hands, cheering, cheer, clapping "
        "crowd, crowd clapping, standing ovation, applaudissement, crowd cheer, cheering crowd, "
        "applauding crowd",
        applause,
        "hands, theater, concert, celebration",
        sustained=True,
        air_hz=4000.0,
    ),
    Family(
        "heartbeat",
        "heart beat, heart, beating heart, corazon, coeur, herzschlag, heart pounding",
        heartbeat,
        "pulse, nervous, tension",
        air_hz=220.0,
    ),
    Family(
        "breath",
        "breathing, breathe, inhale, exhale, sigh, panting, snore, snoring, heavy breathing, gasp, "
        "sleeping, respiracion, scuba breathing",
        breath,
        "tired",
        sustained=True,
        air_hz=2500.0,
    ),
    Family(
        "laugh",
        "laughing, laughter, giggle, chuckle, evil laugh, haha, risa, rire, lachen, baby laugh",
        laugh,
        "funny, joke, happy, comedy",
        air_hz=1500.0,
    ),
    Family(
        "paper",
        "paper crumple, crumpling paper, crumple, rustle, page turn, turning page, rustling paper, tear "
        "paper, tearing paper, paper tear, rustling leaves, leaves, plastic bag, wrapper, papel, papier, "
        "book page",
        paper,
        "page, book, leaf, grass, bag",
        sustained=True,
        air_hz=6000.0,
    ),
    Family(
        "zipper",
        "zip, unzip, zip up, zipping, velcro, reissverschluss, jacket zipper, cremallera",
        zipper,
        "jacket, clothes, tent",
        air_hz=5000.0,
    ),
)
