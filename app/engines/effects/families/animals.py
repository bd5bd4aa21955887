"""Animals: birds, owl, crickets, bees, frog, dog, wolf, cat, roar, cow, horse.

Owns: eleven recipes: chirps and pulse trains for small animals, source-filter voices for mammals. Promises:
shape (2, frames), any level. Leaves level, place and edges to `engine`.
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
from app.engines.effects.grains import canvas, onsets, panned, place
from app.engines.effects.oscillators import (
    decaying,
    drift,
    gated,
    harmonics,
    modal,
    phase,
    ratio_glide,
    rolloff,
    sine,
    swell,
    voiced,
)
from app.engines.effects.spaces import echoing, reverberant
from app.engines.effects.take import RATE, Family, Signal, Take, frames_in


def birds(take: Take) -> Signal:
    """Three birds, each with its own motif of swept whistles or trills, in leaves."""
    rng = take.rng
    sound = 0.008 * coloured(rng, take.frames, band(1500.0, 7000.0, 1))
    for pan, every_s in ((-0.6, 1.1), (0.55, 1.5), (0.1, 2.3)):
        home = float(rng.uniform(2400.0, 5200.0)) * take.pitch
        motif = [
            (float(rng.uniform(0.75, 1.3)), float(rng.uniform(0.7, 1.4)))
            for _ in range(int(rng.integers(2, 6)))
        ]
        trill_hz = float(rng.uniform(18.0, 40.0)) * float(rng.integers(0, 2))
        song = _song(take, home, motif, trill_hz)
        for at_s in onsets(take, every_s, first_s=float(rng.uniform(0.05, 0.5))):
            place(sound, song, at_s, float(rng.uniform(0.3, 1.0)), pan)
    return reverberant(sound, rng, decay_s=0.7, mix=0.12)


def owl(take: Take) -> Signal:
    """Hollow hoots near 340 Hz: one long, two short, one long, in night air."""
    sound = canvas(take)
    for at_s in onsets(take, 3.2, jitter=0.2):
        for late_s, length_s in ((0.0, 0.42), (0.62, 0.16), (0.84, 0.16), (1.08, 0.6)):
            frames = frames_in(length_s)
            hz = 345.0 * take.pitch * ratio_glide(frames, (0.0, 0.93), (0.25, 1.03), (1.0, 0.95))
            hoot = harmonics(hz, [1.0, 0.12, 0.06]) * swell(frames, 0.35, 0.7)
            hoot += 0.02 * coloured_mono(take.rng, frames, resonance(700.0, 4.0)) * swell(frames)
            place(sound, hoot, at_s + late_s, 1.0, 0.2)
    return reverberant(sound, take.rng, decay_s=1.8 * take.linger, mix=0.3, dark_hz=1800.0)


def crickets(take: Take) -> Signal:
    """Five insects around the listener: a tone near 4.5 kHz in triple pulses, each at its own steady rate."""
    rng = take.rng
    at = take.times
    sound = 0.004 * coloured(rng, take.frames, band(3000.0, 9000.0, 1))
    for pan in (-0.9, -0.4, 0.1, 0.5, 0.95):
        rate_hz = float(rng.uniform(1.7, 2.9)) * take.pace
        cycle = (at * rate_hz + float(rng.uniform())) % 1.0
        pulses = np.clip(np.sin(2.0 * np.pi * cycle * 24.0 / rate_hz), 0.0, 1.0) ** 1.5
        chirping = pulses * (cycle < 3.0 / 24.0 * rate_hz)
        tone = np.sin(2.0 * np.pi * float(rng.uniform(4100.0, 5000.0)) * take.pitch * at)
        sound += panned(tone * chirping * float(rng.uniform(0.3, 1.0)), pan)
    return sound


def bees(take: Take) -> Signal:
    """Wing beats near 220 Hz from several bees that wander from side to side and near and far."""
    rng = take.rng
    sound = canvas(take)
    for _ in range(4):
        hz = (
            float(rng.uniform(180.0, 250.0))
            * take.pitch
            * (0.94 + 0.12 * drift(rng, take.frames, 3.0 * take.pace))
        )
        nearness = 0.12 + drift(rng, take.frames, 0.6) ** 2
        sound += panned(harmonics(hz, rolloff(16, 0.8)) * nearness, 2.0 * drift(rng, take.frames, 0.5) - 1.0)
    return filtered(
        sound, cascade(highpass(150.0), blend((1.0, lowpass(2500.0)), (0.8, resonance(900.0, 2.0))))
    )


def frog(take: Take) -> Signal:
    """Rib-bit: two bursts of fast pulses through a throat sac, the second higher."""
    rng = take.rng
    sound = 0.01 * coloured(rng, take.frames, band(2000.0, 5000.0))
    for at_s in onsets(take, 1.15):
        pan = float(rng.uniform(-0.8, 0.8))
        size = float(rng.uniform(0.85, 1.2)) * take.pitch
        for late_s, length_s, lift in ((0.0, 0.16, 1.0), (0.2, 0.22, 1.35)):
            frames = frames_in(length_s)
            pulse_hz = 62.0 * lift * np.ones(frames)
            throat = (
                (620.0 * size * lift, 90.0, 1.0),
                (1450.0 * size * lift, 160.0, 0.8),
                (2500.0 * size, 300.0, 0.2),
            )
            place(sound, voiced(pulse_hz, throat, 0.2) * swell(frames, 0.6, 0.5), at_s + late_s, 1.0, pan)
    return sound


def dog(take: Take) -> Signal:
    """Barks: a hoarse falling voice, hard at the start, through a muzzle; in ones, twos and threes."""
    rng = take.rng
    sound = canvas(take)
    size = float(rng.uniform(0.85, 1.2)) * take.pitch
    for at_s in onsets(take, 2.0):
        count = 1 if take.once else int(rng.integers(1, 4))
        for number in range(count):
            late_s = at_s + number * float(rng.uniform(0.3, 0.42)) / take.pace
            place(sound, _bark(take, size), late_s, float(rng.uniform(0.75, 1.0)))
    return reverberant(sound, rng, decay_s=0.6 * take.linger, mix=0.12, dark_hz=3000.0)


def wolf(take: Take) -> Signal:
    """A howl: up a fifth, held with a slow vibrato, and down; a second one answers."""
    rng = take.rng
    sound = canvas(take)
    for number, at_s in enumerate(onsets(take, 3.4)):
        length_s = min(take.duration_s, float(rng.uniform(2.8, 3.8)) * take.linger)
        frames = frames_in(length_s)
        contour = ratio_glide(frames, (0.0, 0.55), (0.2, 1.0), (0.65, 1.04), (1.0, 0.6))
        vibrato = 1.0 + 0.012 * sine(np.full(frames, 5.2)) * swell(frames, 0.6)
        voice = voiced(520.0 * take.pitch * float(rng.uniform(0.85, 1.15)) * contour * vibrato, _HOWL, 1.6)
        voice *= swell(frames, 0.4, 0.6)
        place(sound, voice, at_s, 1.0, -0.4 if number % 2 else 0.35)
    return echoing(reverberant(sound, rng, decay_s=2.6, mix=0.35, dark_hz=1800.0), delay_s=0.42, decay=0.25)


def cat(take: Take) -> Signal:
    """A meow: the mouth opens from i through a to u while the pitch rises and falls."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 1.9):
        frames = frames_in(min(float(rng.uniform(0.65, 1.0)) * take.linger, 0.8 * take.duration_s))
        hz = (
            560.0
            * take.pitch
            * float(rng.uniform(0.88, 1.15))
            * ratio_glide(frames, (0.0, 0.82), (0.3, 1.25), (0.6, 1.15), (1.0, 0.75))
        )
        hz *= 1.0 + 0.012 * (2.0 * drift(rng, frames, 25.0) - 1.0)
        closed, opened = voiced(hz, _MEOW_CLOSED), voiced(hz, _MEOW_OPEN)
        mouth = swell(frames, 0.45)
        voice = (closed * (1.0 - mouth) + 1.3 * opened * mouth) * swell(frames, 0.35, 0.45)
        place(sound, voice, at_s, float(rng.uniform(0.7, 1.0)), float(rng.uniform(-0.3, 0.3)))
    return reverberant(sound, rng, decay_s=0.5, mix=0.1)


def roar(take: Take) -> Signal:
    """A beast: a deep voice torn by its own subharmonics, swelling open and closing on a growl."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 3.6):
        frames = frames_in(min(float(rng.uniform(1.6, 2.3)) * take.linger, 0.9 * take.duration_s))
        hz = 92.0 * take.pitch * ratio_glide(frames, (0.0, 0.7), (0.3, 1.25), (0.7, 1.05), (1.0, 0.6))
        hz *= 0.9 + 0.2 * drift(rng, frames, 60.0)
        tear = 0.45 + 0.55 * np.sin(0.5 * phase(hz)) ** 2 * (0.4 + drift(rng, frames, 90.0))
        voice = voiced(hz, _THROAT, 0.6)
        voice /= np.std(voice) + 1e-12
        breath = coloured_mono(rng, frames, blend(*((g, resonance(f, f / w)) for f, w, g in _THROAT)))
        place(sound, np.tanh(0.9 * (voice + 0.5 * breath) * tear) * swell(frames, 0.35, 0.6), at_s)
    return reverberant(sound, rng, decay_s=1.2 * take.linger, mix=0.15, dark_hz=2500.0)


def cow(take: Take) -> Signal:
    """A moo: lips closed on a low hum, opening to a long bray that sags at the end."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 2.9):
        frames = frames_in(min(float(rng.uniform(1.2, 1.7)) * take.linger, 0.85 * take.duration_s))
        hz = 150.0 * take.pitch * ratio_glide(frames, (0.0, 0.8), (0.35, 1.1), (0.75, 1.05), (1.0, 0.72))
        hz *= 0.985 + 0.03 * drift(rng, frames, 18.0)
        opened = np.clip(np.linspace(-0.6, 2.2, frames), 0.0, 1.0)
        voice = voiced(hz, _LOW, 1.2) * (1.0 - opened) + voiced(hz, _BRAY, 1.0) * opened
        place(sound, voice * swell(frames, 0.5, 0.4), at_s, 1.0, float(rng.uniform(-0.4, 0.4)))
    return reverberant(sound, rng, decay_s=0.8, mix=0.12, dark_hz=2500.0)


def horse(take: Take) -> Signal:
    """A gallop: three quick hooves and a silence, on dry ground, moving past."""
    rng = take.rng
    sound = 0.01 * coloured(rng, take.frames, band(200.0, 1500.0, 1))
    stride_s = 0.46 / take.pace
    for stride, begin_s in enumerate(np.arange(0.06, take.duration_s - 0.05, stride_s)):
        for late, force in ((0.0, 0.7), (0.24, 0.8), (0.46, 1.0)):
            at_s = float(begin_s) + late * stride_s * float(rng.uniform(0.96, 1.04))
            place(sound, _hoof(take), at_s, force * float(rng.uniform(0.8, 1.1)), 0.5 * np.sin(0.25 * stride))
    return sound


_HOWL = ((560.0, 220.0, 1.0), (1150.0, 260.0, 0.35), (2700.0, 500.0, 0.06))
_THROAT = ((380.0, 160.0, 1.0), (820.0, 260.0, 0.9), (1900.0, 500.0, 0.3))
_LOW = ((240.0, 80.0, 1.0), (900.0, 300.0, 0.08))
_BRAY = ((480.0, 110.0, 1.0), (980.0, 200.0, 0.6), (2300.0, 400.0, 0.2))
_MEOW_CLOSED = ((620.0, 160.0, 1.0), (2400.0, 300.0, 0.5), (3600.0, 500.0, 0.25))
_MEOW_OPEN = ((1050.0, 220.0, 1.0), (1750.0, 260.0, 0.8), (3900.0, 600.0, 0.25))


def _song(take: Take, home_hz: float, motif: list[tuple[float, float]], trill_hz: float) -> Signal:
    """A phrase of whistles; each note sweeps from one ratio of the home pitch to another."""
    notes: list[Signal] = []
    for begin, end in motif:
        frames = frames_in(float(take.rng.uniform(0.05, 0.16)) / take.pace)
        hz = home_hz * ratio_glide(frames, (0.0, begin), (1.0, end))
        if trill_hz:
            hz *= 1.0 + 0.12 * np.sin(2.0 * np.pi * trill_hz * np.arange(frames) / RATE)
        notes += [harmonics(hz, [1.0, 0.08]) * swell(frames, 0.4, 0.6), np.zeros(frames_in(0.04))]
    return np.concatenate(notes)


def _bark(take: Take, size: float) -> Signal:
    rng = take.rng
    frames = frames_in(float(rng.uniform(0.15, 0.22)))
    hz = 340.0 * size * ratio_glide(frames, (0.0, 0.8), (0.2, 1.25), (1.0, 0.55))
    hz *= 1.0 + 0.1 * (2.0 * drift(rng, frames, 120.0) - 1.0)
    muzzle = ((620.0 * size, 180.0, 1.0), (1250.0 * size, 260.0, 0.8), (2700.0 * size, 500.0, 0.35))
    voice = voiced(hz, muzzle, 0.7)
    voice /= np.max(np.abs(voice)) + 1e-12
    breath = coloured(rng, frames, blend(*((g, resonance(f, f / w)) for f, w, g in muzzle)), 1)[0]
    bark: Signal = np.tanh(2.0 * (voice + 0.16 * breath)) * swell(frames, 0.25, 0.6) * gated(frames, 0.006)
    return bark


def _hoof(take: Take) -> Signal:
    frames = frames_in(0.13)
    pitch = float(take.rng.uniform(0.9, 1.15)) * take.pitch
    knock = modal(
        frames, [105.0 * pitch, 410.0 * pitch, 760.0 * pitch], [0.12, 0.05, 0.035], [1.3, 0.7, 0.35]
    )
    grit = coloured_mono(take.rng, frames, band(400.0, 2800.0, 1)) * decaying(frames, 0.05)
    return knock + 0.16 * take.weight * grit


FAMILIES = (
    Family(
        "birds",
        "bird, birdsong, bird song, chirping bird, bird chirp, tweet, sparrow, songbird, canary, robin, "
        "dawn chorus, pajaro, oiseau, vogel, passaro, nightingale, seagull, parrot",
        birds,
        "chirp, forest, jungle, tree, park, morning",
        sustained=True,
        air_hz=6000.0,
    ),
    Family("owl", "owl hoot, hooting owl, hoot, buho, hibou", owl, air_hz=600.0),
    Family(
        "crickets",
        "cricket, cicada, grasshopper, insect, cricket chirp, chirping cricket, summer night, grillo",
        crickets,
        "night, summer, meadow, field",
        sustained=True,
        air_hz=6000.0,
    ),
    Family(
        "bees",
        "bee, wasp, mosquito, hornet, beehive, bee buzz, buzzing bee, abeja, hive",
        bees,
        "buzz, fly",
        sustained=True,
        air_hz=1500.0,
    ),
    Family(
        "frog", "toad, ribbit, croak, frog croak, croaking frog, rana, pond", frog, "swamp", air_hz=4000.0
    ),
    Family(
        "dog",
        "bark, barking dog, dog bark, puppy, hound, woof, perro, chien, hund, cachorro",
        dog,
        "pet",
        air_hz=1500.0,
    ),
    Family("wolf", "howl, wolf howl, howling wolf, coyote, werewolf, wolves, lobo, loup", wolf, air_hz=700.0),
    Family("cat", "meow, kitten, kitty, miaow, cat meow, feline, gato, katze", cat, air_hz=1500.0),
    Family(
        "roar",
        "lion, tiger, bear, monster, dragon, beast, growl, dinosaur, lion roar, dragon roar, monster "
        "growl, zombie, leon",
        roar,
        "wild, zoo",
        air_hz=700.0,
    ),
    Family("cow", "moo, mooing, cattle, cow moo, bull, vaca, vache, kuh", cow, "farm", air_hz=1000.0),
    Family(
        "horse",
        "gallop, horse gallop, galloping horse, hoof, hooves, hoofbeat, trot, pony, stallion, caballo, "
        "cheval, pferd",
        horse,
        "ride, cowboy",
        air_hz=900.0,
    ),
)
