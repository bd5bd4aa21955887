"""Signals: siren, alarm, telephone, bell, chime, horn, whistle, static.

Owns: eight recipes of devices made to be heard. Promises: shape (2, frames), any level. Leaves level, place
and edges to `engine`.
"""

from __future__ import annotations

import numpy as np

from app.engines.effects.filters import band, coloured, coloured_mono, filtered, highpass, lowpass, resonance
from app.engines.effects.grains import canvas, onsets, panned, place, poisson, pool, scatter
from app.engines.effects.oscillators import (
    decaying,
    drift,
    gated,
    harmonics,
    modal,
    odd,
    ratio_glide,
    rolloff,
)
from app.engines.effects.spaces import echoing, reverberant
from app.engines.effects.take import RATE, Family, Signal, Take, frames_in


def siren(take: Take) -> Signal:
    """A wail between 600 and 1400 Hz through a horn, echoed by the street."""
    rate_hz = 0.42 * take.pace
    turn = (take.times * rate_hz + float(take.rng.uniform(0.0, 0.3))) % 1.0
    bend = np.where(turn < 0.4, turn / 0.4, (1.0 - turn) / 0.6)
    hz = 620.0 * take.pitch * 2.25 ** (0.5 - 0.5 * np.cos(np.pi * bend))
    horn_tone = filtered(harmonics(hz, [1.0, 0.55, 0.45, 0.25, 0.2, 0.1]), band(500.0, 3500.0, 1))
    side = 0.5 * np.sin(2.0 * np.pi * 0.11 * take.times + float(take.rng.uniform(0.0, 6.0)))
    return echoing(panned(horn_tone, side), delay_s=0.17, decay=0.28)


def alarm(take: Take) -> Signal:
    """Four short square beeps and a pause, again and again."""
    sound = canvas(take)
    hz = float(take.rng.choice([1960.0, 2093.0, 2217.0])) * take.pitch
    frames = frames_in(0.085 / take.pace)
    beep = harmonics(np.full(frames, hz), odd(9)) * gated(frames)
    for begin_s in np.arange(0.05, take.duration_s, 1.0 / take.pace):
        for number in range(1 if take.once else 4):
            place(sound, beep, float(begin_s) + number * 0.15 / take.pace)
        if take.once:
            break
    return reverberant(sound, take.rng, decay_s=0.4, mix=0.07)


def telephone(take: Take) -> Signal:
    """An old telephone: a clapper runs between two gongs 22 times a second, for a second at a time."""
    rng = take.rng
    sound = canvas(take)
    gongs = [_gong(take, hz * take.pitch) for hz in (1380.0, 1720.0)]
    for at_s in onsets(take, 2.0, jitter=0.05):
        for number, late_s in enumerate(np.arange(0.0, 1.05, 1.0 / 22.0)):
            place(
                sound,
                gongs[number % 2],
                at_s + float(late_s),
                float(rng.uniform(0.85, 1.0)),
                -0.15 + 0.3 * (number % 2),
            )
    return reverberant(sound, rng, decay_s=0.5, mix=0.08)


def bell(take: Take) -> Signal:
    """A church bell's partials: hum, prime, tierce, quint, nominal and above, each pair beating slowly."""
    rng = take.rng
    sound = canvas(take)
    prime = float(rng.uniform(290.0, 340.0)) * take.pitch
    frames = frames_in(min(7.0 * take.linger, take.duration_s))
    tone = np.zeros((2, frames))
    for ratio, decay_s, gain in _BELL_PARTIALS:
        for channel in range(2):
            hz = prime * ratio * (1.0 + 0.0012 * float(rng.uniform(-1.0, 1.0)))
            tone[channel] += modal(frames, [hz], [decay_s * take.linger], [gain])
    clapper = coloured(rng, frames_in(0.05), band(1000.0, 6000.0)) * decaying(frames_in(0.05), 0.03)
    for at_s in onsets(take, 2.4, jitter=0.08):
        strength = float(rng.uniform(0.8, 1.0))
        place(sound, tone, at_s, strength)
        place(sound, clapper, at_s, 0.4 * strength)
    return reverberant(sound, rng, decay_s=2.4, mix=0.12, dark_hz=3000.0)


def chime(take: Take) -> Signal:
    """A reward: two square notes a fourth apart, the second left to ring, as coins do in games."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 1.15):
        root = 988.0 * take.pitch * 2.0 ** (float(rng.integers(-2, 3)) / 12.0)
        first, second = frames_in(0.085), frames_in(0.75 * take.linger)
        place(sound, harmonics(np.full(first, root), odd(7)) * gated(first), at_s, 0.7, -0.1)
        ring = harmonics(np.full(second, root * 4.0 / 3.0), odd(7)) * decaying(second, 0.7 * take.linger)
        place(sound, ring, at_s + 0.085, 0.8, 0.1)
        sparkle = modal(second, [5.02 * root, 6.71 * root], [0.4, 0.3], [0.2, 0.15])
        place(sound, sparkle, at_s + 0.085, 1.0, 0.4)
    return reverberant(sound, rng, decay_s=0.8, mix=0.1)


def horn(take: Take) -> Signal:
    """A car's two-tone horn: buzzing diaphragms a third apart, one short blast and one long."""
    rng = take.rng
    sound = canvas(take)
    for number, at_s in enumerate(onsets(take, 1.3)):
        length_s = (0.28 if number % 2 == 0 else 0.8) * take.linger
        frames = frames_in(min(length_s, 0.8 * take.duration_s))
        settle = take.pitch * ratio_glide(frames, (0.0, 0.97), (0.06, 1.0), (1.0, 0.995))
        tone = harmonics(415.0 * settle, rolloff(22, 0.6)) + harmonics(502.0 * settle, rolloff(22, 0.6))
        place(sound, filtered(tone, band(350.0, 3800.0, 1)) * gated(frames, 0.012), at_s)
    return reverberant(sound, rng, decay_s=1.0, mix=0.14, dark_hz=2500.0)


def whistle(take: Take) -> Signal:
    """A referee's whistle: a tone near 2.9 kHz broken by the pea 32 times a second, with breath."""
    rng = take.rng
    sound = canvas(take)
    for number, at_s in enumerate(onsets(take, 1.5)):
        frames = frames_in(min((0.9 if number % 2 == 0 else 0.3) * take.linger, 0.7 * take.duration_s))
        pea = 0.5 + 0.5 * np.sin(
            2.0 * np.pi * 32.0 * np.arange(frames) / RATE + 2.0 * drift(rng, frames, 20.0)
        )
        hz = (
            2900.0
            * take.pitch
            * (0.97 + 0.035 * pea)
            * ratio_glide(frames, (0.0, 0.9), (0.05, 1.0), (1.0, 0.99))
        )
        tone = (harmonics(hz, [1.0, 0.12, 0.05]) + 0.6 * harmonics(1.035 * hz, [1.0])) * (0.35 + 0.65 * pea)
        breath = coloured_mono(rng, frames, resonance(3000.0 * take.pitch, 3.0)) * (0.4 + 0.6 * pea)
        place(sound, (tone + 0.25 * breath) * gated(frames, 0.02), at_s)
    return reverberant(sound, rng, decay_s=0.9, mix=0.15)


def static(take: Take) -> Signal:
    """A radio between stations: band-limited hiss that fades, crackles, a heterodyne that slides through."""
    rng = take.rng
    fade = 0.35 + 0.65 * drift(rng, take.frames, 1.6 * take.pace)
    hiss = coloured_mono(rng, take.frames, band(300.0, 3600.0, 2)) * fade
    hz = 300.0 * take.pitch * 9.0 ** drift(rng, take.frames, 0.9 * take.pace)
    tuning = harmonics(hz, [1.0, 0.2]) * np.clip(2.0 * drift(rng, take.frames, 0.8) - 0.8, 0.0, 1.0)
    sound = panned(hiss + 0.35 * tuning, 0.0) + 0.06 * coloured(rng, take.frames, highpass(500.0))
    crackles = pool(10, lambda: rng.standard_normal(160) * decaying(160, 0.003, 0.0002))
    at_s = poisson(rng, take.duration_s, 14.0 * take.weight)
    scatter(sound, rng, crackles, at_s, rng.exponential(1.2, len(at_s)), 0.3)
    return filtered(sound, lowpass(4200.0))


_BELL_PARTIALS = (
    (0.5, 6.5, 0.55), (1.0, 5.0, 0.6), (1.183, 4.2, 0.8), (1.506, 2.6, 0.35), (2.0, 3.2, 1.0),
    (2.514, 1.7, 0.4), (2.662, 1.6, 0.35), (3.011, 1.4, 0.45), (4.166, 0.9, 0.4), (5.433, 0.6, 0.3),
    (6.796, 0.4, 0.2),
)  # fmt: skip
"""Ratio to the prime, seconds to −60 dB, gain: a minor-third bell (after Risset 1969 and Hibbert 2008)."""


def _gong(take: Take, hz: float) -> Signal:
    return modal(
        frames_in(0.45), [hz, 2.02 * hz, 2.74 * hz, 4.1 * hz], [0.4, 0.3, 0.2, 0.12], [1.0, 0.6, 0.5, 0.3]
    ) + (0.2 * take.rng.standard_normal(frames_in(0.45)) * decaying(frames_in(0.45), 0.006))


FAMILIES = (
    Family(
        "siren",
        "police siren, ambulance, police car, police, fire truck, air raid, emergency vehicle, sirena, "
        "sirene, air raid siren, emergency siren, ambulance siren, firetruck, cop car",
        siren,
        "emergency, warning",
        sustained=True,
        air_hz=900.0,
    ),
    Family(
        "alarm",
        "beep, alarm clock, smoke alarm, car alarm, fire alarm, alarm beep, digital alarm, buzzer, smoke "
        "detector, beeping, microwave beep, alarm ring, timer beep, truck backup, alert, burglar alarm, "
        "security alarm, hospital monitor",
        alarm,
        "wake",
        air_hz=2500.0,
    ),
    Family(
        "telephone",
        "phone, telephone ring, phone ring, ringing phone, old phone, ringing telephone, rotary phone, "
        "telefono, ringtone, phone call, cell phone",
        telephone,
        "ring, call",
        air_hz=2500.0,
    ),
    Family(
        "bell",
        "church bell, bell ring, ringing bell, bell toll, toll, gong, bell tower, bicycle bell, campana, "
        "cloche, glocke, school bell, cow bell, cowbell, tower bell, temple bell, sino",
        bell,
        "church, tower, wedding",
        air_hz=1500.0,
    ),
    Family(
        "chime",
        "coin, ding, notification, ui sound, game coin, success sound, message sound, doorbell, door "
        "bell, coin pickup, level up, pickup, reward, triangle, ping, ui click, correct answer, cash "
        "register, pick up",
        chime,
        "success, game, money, button, win, bonus, menu",
        air_hz=4000.0,
    ),
    Family(
        "horn",
        "car horn, honk, honking, honking car, ship horn, foghorn, air horn, truck horn, beep beep, "
        "klaxon, horn honk, trumpet, train signal",
        horn,
        "toot",
        air_hz=900.0,
    ),
    Family(
        "whistle",
        "referee whistle, sports whistle, whistling, kettle, tea kettle, referee, coach whistle, silbato, "
        "kettle whistle, sifflet",
        whistle,
        "sport, football, match",
        air_hz=3000.0,
    ),
    Family(
        "static",
        "radio static, white noise, radio noise, tv static, radio, hiss, interference, shortwave, ruido, "
        "bruit, tuning radio, untuned radio, television static, pink noise",
        static,
        "noise, tv, television, signal",
        sustained=True,
        air_hz=3000.0,
    ),
)
