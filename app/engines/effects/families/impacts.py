"""Impacts: glass, explosion, gunshot, drum, sword, crash, knock, door.

Owns: eight recipes of struck and broken bodies (modal synthesis, van den Doel and Pai 1998) and blasts.
Promises: shape (2, frames), any level. Leaves level, place and edges to `engine`.
"""

from __future__ import annotations

import numpy as np

from app.engines.effects.filters import (
    band,
    blend,
    coloured,
    coloured_mono,
    filtered,
    highpass,
    lowpass,
    morphing,
    resonance,
)
from app.engines.effects.grains import canvas, onsets, place, pool, scatter
from app.engines.effects.oscillators import decaying, drift, modal, ratio_glide, sine, swell
from app.engines.effects.spaces import echoing, reverberant
from app.engines.effects.take import RATE, Family, Signal, Take, frames_in


def glass(take: Take) -> Signal:
    """A pane breaks: a hard burst, then shards that ring and thin out as they settle."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 4.2):
        burst = coloured(rng, frames_in(0.12), highpass(2800.0)) * decaying(frames_in(0.12), 0.07)
        place(
            sound,
            burst + coloured(rng, frames_in(0.12), lowpass(500.0)) * decaying(frames_in(0.12), 0.04),
            at_s,
            0.5,
        )
        shards = pool(28, lambda: _shard(take))
        late_s = (
            at_s + 0.01 + np.minimum(rng.exponential(0.28 * take.linger, int(75 * take.weight**0.5)), 2.2)
        )
        scatter(sound, rng, shards, late_s, rng.exponential(0.32, len(late_s)) * np.exp(at_s - late_s), 0.9)
    return reverberant(sound, rng, decay_s=0.5, mix=0.08)


def explosion(take: Take) -> Signal:
    """A blast: saturated noise that darkens, a sub-bass drop under it, debris after."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 6.0):
        length_s = min(take.duration_s, 4.6 * take.linger)
        frames = frames_in(length_s)
        body = morphing(rng, frames, lambda t, f: _blast_spectrum(take, t, f))
        at = np.arange(frames) / RATE
        body *= np.minimum(at / 0.006, 1.0) * (np.exp(-at / 0.28) + 0.3 * np.exp(-at / (1.1 * take.linger)))
        sub = sine(take.pitch * (26.0 + 80.0 * np.exp(-at / 0.25))) * decaying(frames, 1.9, 0.004)
        place(sound, np.tanh(1.8 * body + 1.5 * sub), at_s, 1.0)
        late_s = at_s + 0.35 + rng.exponential(0.7, int(45 * take.weight))
        debris = pool(14, lambda: _rubble(take))
        scatter(
            sound,
            rng,
            debris,
            late_s,
            0.12 * rng.exponential(1.0, len(late_s)) * np.exp(0.5 * (at_s - late_s)),
        )
    return sound


def gunshot(take: Take) -> Signal:
    """A shot in the open: an N-wave crack, a short thump, and slaps back from far walls."""
    rng = take.rng
    dry = canvas(take)
    for at_s in onsets(take, 1.7):
        frames = frames_in(0.4)
        crack = coloured(rng, frames, highpass(700.0, 1)) * decaying(frames, 0.07, 0.0002)
        thump = sine(take.pitch * ratio_glide(frames, (0.0, 210.0), (0.3, 70.0), (1.0, 50.0))) * decaying(
            frames, 0.16
        )
        place(dry, np.tanh(3.0 * crack + 2.0 * thump), at_s, float(rng.uniform(0.9, 1.0)))
    slapped = dry + 0.12 * echoing(
        filtered(dry, lowpass(1600.0)), delay_s=float(rng.uniform(0.13, 0.19)), decay=0.5
    )
    return reverberant(slapped, rng, decay_s=1.5 * take.linger, mix=0.1, dark_hz=2200.0)


def drum(take: Take) -> Signal:
    """A kit's hits: membranes whose pitch falls as they slacken (modes of a circle), a rattling snare."""
    rng = take.rng
    sound = canvas(take)
    for number, at_s in enumerate(onsets(take, 0.62, jitter=0.06)):
        if number % 2:
            place(sound, _snare(take), at_s, 0.7, 0.15)
        else:
            place(sound, _tom(take, float(rng.choice([62.0, 62.0, 98.0, 130.0]))), at_s, 1.0, -0.1)
    return reverberant(sound, rng, decay_s=0.5, mix=0.06)


def sword(take: Take) -> Signal:
    """Steel on steel: a scrape that runs up the blade, then a clash of long inharmonic modes."""
    rng = take.rng
    sound = canvas(take)
    for number, at_s in enumerate(onsets(take, 1.5)):
        late_s = at_s
        if number == 0:
            scrape = coloured(rng, frames_in(0.3), resonance(4300.0 * take.pitch, 3.0)) * swell(
                frames_in(0.3), 0.85
            )
            place(sound, scrape, at_s, 0.25)
            late_s += 0.26
        place(sound, _clash(take), late_s, float(rng.uniform(0.6, 1.0)), float(rng.uniform(-0.5, 0.5)))
    return reverberant(sound, rng, decay_s=1.2 * take.linger, mix=0.1)


def crash(take: Take) -> Signal:
    """A wreck: crumpling low metal, then parts that tumble and come to rest."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 5.0):
        frames = frames_in(0.7)
        crumple = coloured(rng, frames, band(120.0, 2600.0, 1)) * decaying(frames, 0.6)
        crumple *= 0.4 + drift(rng, frames, 45.0) ** 2
        place(sound, np.tanh(2.5 * crumple), at_s, 0.9)
        parts = pool(14, lambda: _part(take))
        late_s = at_s + np.cumsum(rng.uniform(0.0, 0.11, int(24 * take.weight**0.5)))
        scatter(
            sound,
            rng,
            parts,
            late_s,
            rng.uniform(0.25, 1.0, len(late_s)) * np.exp(0.8 * (at_s - late_s)),
            0.9,
        )
    return reverberant(sound, rng, decay_s=0.9 * take.linger, mix=0.12)


def knock(take: Take) -> Signal:
    """Knuckles on a wooden door: groups of three, the panel's low modes and the bone's tick."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 1.9):
        for number in range(1 if take.once else 3):
            frames = frames_in(0.16)
            pitch = take.pitch * float(rng.uniform(0.97, 1.03))
            panel = modal(
                frames,
                [148 * pitch, 262 * pitch, 431 * pitch, 690 * pitch],
                [0.13, 0.09, 0.06, 0.04],
                [1.0, 0.9, 0.6, 0.35],
            )
            tick = coloured_mono(rng, frames, band(900.0, 3500.0)) * decaying(frames, 0.008)
            place(sound, panel + 0.25 * tick, at_s + number * 0.2 / take.pace, float(rng.uniform(0.8, 1.0)))
    return reverberant(sound, rng, decay_s=0.45, mix=0.14, dark_hz=2500.0)


def door(take: Take) -> Signal:
    """A hinge creaks by stick and slip, faster as it swings; then the door slams and latches."""
    rng = take.rng
    sound = canvas(take)
    for at_s in onsets(take, 5.0):
        creak_s = min(float(rng.uniform(1.0, 1.5)) / take.pace, 0.5 * take.duration_s)
        place(sound, _creak(take, creak_s), at_s, 0.75, -0.2)
        slam_s = at_s + creak_s + 0.12
        frames = frames_in(0.6)
        panel = modal(
            frames,
            [58.0 * take.pitch, 97.0 * take.pitch, 171.0 * take.pitch, 310.0 * take.pitch],
            [0.45, 0.3, 0.18, 0.1],
            [1.0, 0.8, 0.5, 0.4],
        )
        thud = coloured(rng, frames, lowpass(900.0)) * decaying(frames, 0.12)
        place(sound, 0.8 * panel + 0.5 * thud, slam_s, 1.1 * take.weight**0.3)
        latch = modal(frames_in(0.05), [2350.0, 3900.0, 5200.0], [0.03, 0.02, 0.02], [0.4, 0.3, 0.2])
        place(sound, latch, slam_s + 0.045, 0.8, 0.2)
    return reverberant(sound, rng, decay_s=0.8 * take.linger, mix=0.16, dark_hz=3000.0)


def _shard(take: Take) -> Signal:
    pitch = float(take.rng.uniform(2300.0, 8200.0)) * take.pitch
    decays = take.rng.uniform(0.06, 0.4, 3).tolist()
    return modal(frames_in(0.4), [pitch, 1.47 * pitch, 2.09 * pitch], decays, [1.0, 0.6, 0.4])


def _blast_spectrum(take: Take, instants: Signal, f: Signal) -> Signal:
    cutoff = take.pitch * (80.0 + 2600.0 * np.exp(-instants / 0.13) + 320.0 * np.exp(-instants / 0.8))
    spectrum: Signal = (f > 25.0) / (1.0 + (f / cutoff) ** 1.7)
    return spectrum


def _rubble(take: Take) -> Signal:
    frames = frames_in(0.08)
    centre = float(take.rng.uniform(300.0, 2400.0)) * take.pitch
    return coloured_mono(take.rng, frames, resonance(centre, 2.0)) * decaying(frames, 0.05)


def _tom(take: Take, hz: float) -> Signal:
    frames = frames_in(min(0.9 * take.linger, take.duration_s))
    slack = 1.0 + 0.9 * np.exp(-np.arange(frames) / (0.03 * RATE))
    total = np.zeros(frames)
    for ratio, decay_s, gain in ((1.0, 0.7, 1.0), (1.59, 0.3, 0.45), (2.14, 0.2, 0.3), (2.65, 0.15, 0.2)):
        total += gain * sine(hz * take.pitch * ratio * slack) * decaying(frames, decay_s)
    stick = coloured_mono(take.rng, frames, band(1500.0 * take.pitch, 6000.0 * take.pitch)) * decaying(
        frames, 0.01
    )
    return total + 0.25 * stick


def _snare(take: Take) -> Signal:
    frames = frames_in(0.3)
    shell = modal(frames, [185.0 * take.pitch, 331.0 * take.pitch], [0.16, 0.1], [1.0, 0.6])
    wires = coloured_mono(take.rng, frames, band(1800.0 * take.pitch, 9000.0 * take.pitch, 1)) * decaying(
        frames, 0.22
    )
    return shell + 0.7 * wires


def _clash(take: Take) -> Signal:
    rng = take.rng
    frames = frames_in(min(1.8 * take.linger, take.duration_s))
    base = float(rng.uniform(820.0, 1250.0)) * take.pitch
    ratios = (1.0, 1.73, 2.29, 3.11, 4.24, 5.67, 6.83, 8.15)
    pitches = [base * ratio * float(rng.uniform(0.985, 1.015)) for ratio in ratios]
    decays = [1.7 * take.linger / (1.0 + 0.25 * number) for number in range(8)]
    blade = modal(frames, pitches, decays, [0.5, 0.8, 1.0, 0.9, 0.7, 0.6, 0.4, 0.3])
    edge = coloured_mono(rng, frames, highpass(3500.0)) * decaying(frames, 0.03)
    return blade + 0.8 * edge


def _part(take: Take) -> Signal:
    rng = take.rng
    base = float(rng.uniform(190.0, 900.0)) * take.pitch
    ratios = np.sort(rng.uniform(1.0, 6.5, 7))
    frames = frames_in(0.7)
    body = modal(
        frames,
        (base * ratios).tolist(),
        rng.uniform(0.1, 0.65, 7).tolist(),
        rng.uniform(0.2, 0.7, 7).tolist(),
    )
    return body + coloured_mono(rng, frames, band(600.0, 5000.0, 1)) * decaying(frames, 0.04)


def _creak(take: Take, length_s: float) -> Signal:
    """Slips at a rate that wavers between 25 and 110 a second, each exciting the wood."""
    frames = frames_in(length_s)
    rate = ratio_glide(frames, (0.0, 34.0), (0.45, 75.0), (0.75, 52.0), (1.0, 95.0))
    rate *= take.pitch * (0.75 + 0.5 * drift(take.rng, frames, 9.0))
    slips = np.diff(np.floor(np.cumsum(rate) / RATE), prepend=0.0)
    slips *= 0.35 + 0.65 * drift(take.rng, frames, 30.0)
    wood = blend(
        *(
            (g, resonance(hz * take.pitch, 14.0))
            for hz, g in ((430, 1.0), (870, 1.0), (1320, 0.8), (2150, 0.6))
        )
    )
    creak = filtered(slips, wood) * swell(frames, 0.7, 0.4)
    creak /= np.max(np.abs(creak)) + 1e-12
    return creak


FAMILIES = (
    Family(
        "glass",
        "glass crash, glass break, breaking glass, shatter, glass shatter, shattering glass, window "
        "break, broken glass, smash glass, glass smash, broken window, smashing glass, vidrio, verre",
        glass,
        "window, bottle, break, broken, smash",
        air_hz=3000.0,
    ),
    Family(
        "explosion",
        "explode, cannon fire, exploding, bomb, blast, detonation, boom, grenade, dynamite, kaboom, "
        "explosive, explosao, bomba, firework, cannon, missile",
        explosion,
        "war, battle, impact",
        air_hz=400.0,
    ),
    Family(
        "gunshot",
        "gun, machine gun fire, rifle fire, gun shot, gunfire, pistol, rifle, shotgun, bullet, revolver, "
        "gun fire, sniper, disparo, machine gun, firearm, shooting gun",
        gunshot,
        "shot, shoot",
        air_hz=900.0,
    ),
    Family(
        "drum",
        "drum hit, drumming, snare, kick drum, tom tom, percussion, drumroll, drum roll, tambor, tambour, "
        "trommel, bongo, conga, drum kit",
        drum,
        "beat, rhythm",
        air_hz=900.0,
    ),
    Family(
        "sword",
        "sword fight, metal clang, clang, blade, sword clash, clash of swords, clanging metal, dagger, "
        "katana, espada, anvil, metal hit, metallic clang, sword draw",
        sword,
        "steel, metal, metallic, knife, knight, medieval",
        air_hz=3500.0,
    ),
    Family(
        "crash",
        "car crash, crashing, collision, wreck, car accident, metal crash, pots and pans, falling debris, "
        "demolition, crumple metal, cymbal",
        crash,
        "accident, fall, hit, bang, destroy",
        air_hz=1500.0,
    ),
    Family(
        "knock",
        "knocking, door knock, knock door, knock wooden door, knock on wood, wood knock, woodpecker, "
        "knuckle, someone at door",
        knock,
        "wood, wooden, thud, punch, box",
        air_hz=900.0,
    ),
    Family(
        "door",
        "creak, creaky door, door creak, door slam, slam, slamming door, closing door, opening door, door "
        "close, door open, squeaky hinge, hinge, gate, puerta, porte, tuer, wooden door, creaking floor, "
        "floorboard, car door, squeak",
        door,
        "open, haunted, creepy, horror, house",
        air_hz=700.0,
    ),
)
