"""Machines: engine, car, train, helicopter, plane, saw, clock, typing.

Owns: eight recipes of rotation and mechanism (Farnell, "Designing Sound", part V; Doppler by moving phase).
Promises: shape (2, frames), any level. Leaves level, place and edges to `engine`.
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
    morphing,
    resonance,
)
from app.engines.effects.grains import canvas, onsets, panned, place
from app.engines.effects.oscillators import (
    decaying,
    drift,
    harmonics,
    modal,
    odd,
    phase,
    ratio_glide,
    rolloff,
    swell,
)
from app.engines.effects.spaces import reverberant
from app.engines.effects.take import RATE, Family, Signal, Take, frames_in


def engine(take: Take) -> Signal:
    """A four-cylinder idling and blipped: unequal firing pulses through an exhaust, valves above."""
    rng = take.rng
    size = take.pitch**1.3
    revs = 0.5 + 0.5 * drift(rng, take.frames, 0.55)
    turn_hz = (
        15.0
        * take.pace
        * take.pitch**0.5
        * (0.75 + 0.9 * revs**2)
        * (0.985 + 0.03 * drift(rng, take.frames, 11.0))
    )
    cycle = (np.cumsum(turn_hz) / RATE) % 1.0
    pulses = np.zeros(take.frames)
    for cylinder in range(4):
        since = (cycle - 0.25 * cylinder - 0.012 * float(rng.uniform(-1.0, 1.0))) % 1.0
        pulses += float(rng.uniform(0.75, 1.1)) * np.exp(-since * 26.0)
    exhaust = (
        (1.0, resonance(82.0 * size, 1.6)),
        (0.9, resonance(175.0 * size, 3.0)),
        (0.5, resonance(410.0 * size, 3.5)),
        (0.16, lowpass(1800.0 * size)),
    )
    body = filtered(pulses, cascade(highpass(30.0), blend(*exhaust)))
    body /= np.std(body) + 1e-12
    clatter = coloured(rng, take.frames, band(900.0 * size, 5000.0 * size, 1)) * (0.05 + 0.1 * pulses**2)
    exhaust_side = 0.5 * drift(rng, take.frames, 0.4) - 0.25
    sound: Signal = panned(np.tanh(0.9 * body), exhaust_side) + clatter * take.weight**0.5
    return sound


def car(take: Take) -> Signal:
    """Passes from left to right: tyres and motor, brightest when near, the pitch falling as it goes by."""
    rng = take.rng
    sound = 0.01 * coloured(rng, take.frames, lowpass(500.0, 1))
    gap_s = max(5.5 / take.pace, 1.0)
    count = 1 if take.once else max(1, round(take.duration_s / gap_s))
    for number in range(count):
        near_s = (number + 0.5 + float(rng.uniform(-0.1, 0.1))) * take.duration_s / count
        sound += _pass_by(take, near_s, 1.0 if number % 2 == 0 else -1.0)
    return sound


def train(take: Take) -> Signal:
    """Rails: a rumble, wheel pairs over each joint, a squeal of flanges, and a chord of its horn."""
    rng = take.rng
    sound = (
        0.24 * coloured(rng, take.frames, band(35.0, 420.0, 1)) * (0.8 + 0.4 * drift(rng, take.frames, 1.0))
    )
    sound += 0.03 * coloured(rng, take.frames, band(1200.0, 5000.0, 1)) * (0.4 + drift(rng, take.frames, 4.0))
    period_s = 0.95 / take.pace
    for begin_s in np.arange(0.05, take.duration_s, period_s):
        for late_s, pan in ((0.0, -0.25), (0.11, -0.2), (0.34, 0.2), (0.45, 0.25)):
            place(
                sound,
                _rail_joint(take),
                float(begin_s) + late_s / take.pace,
                float(rng.uniform(0.7, 1.0)),
                pan,
            )
    for at_s in onsets(take, 9.0, first_s=0.35):
        frames = frames_in(min(1.1 * take.linger, 0.6 * take.duration_s))
        bend = take.pitch * ratio_glide(frames, (0.0, 0.94), (0.12, 1.0), (0.9, 1.0), (1.0, 0.97))
        chord = sum(
            (harmonics(hz * bend, rolloff(9, 1.1)) for hz in (311.0, 370.0, 415.0, 494.0)), np.zeros(frames)
        )
        place(sound, 0.16 * chord * swell(frames, 0.3, 0.25), at_s, 1.0, 0.1)
    return reverberant(sound, rng, decay_s=1.0, mix=0.1, dark_hz=2500.0)


def helicopter(take: Take) -> Signal:
    """Rotor blades slap eleven times a second; a turbine whines above; it circles the listener."""
    rng = take.rng
    beat = phase(11.0 * take.pace * (0.985 + 0.03 * drift(rng, take.frames, 0.8))) / (2.0 * np.pi) % 1.0
    chop = np.exp(-beat * 7.0) * (1.0 - np.exp(-beat * 60.0))
    thump = coloured(rng, take.frames, band(45.0, 230.0 * take.pitch, 2)) * (chop + 0.08)
    slap = coloured(rng, take.frames, band(400.0, 3000.0, 1)) * (0.3 * chop**2 + 0.02)
    whine = harmonics(1180.0 * take.pitch * (0.99 + 0.02 * drift(rng, take.frames, 0.6)), [1.0, 0.5, 0.3])
    around = np.sin(2.0 * np.pi * 0.08 * take.times + float(rng.uniform(0.0, 6.0)))
    return (thump * 1.1 + slap) * (1.0 + 0.25 * np.stack([-around, around])) + panned(
        0.025 * whine, 0.7 * around
    )


def plane(take: Take) -> Signal:
    """A jet flies over: a roar whose colour opens overhead, a compressor's whine sliding down."""
    rng = take.rng
    over = np.linspace(-1.0, 1.0, take.frames)
    near = 1.0 / (1.0 + 6.0 * over**2)
    padded = np.append(near[::1024], [near[-1]] * 3)

    def magnitude(instants: Signal, f: Signal) -> Signal:
        now = padded[: len(instants), None]
        notch = 1.0 + 0.7 * np.cos(2.0 * np.pi * f * (0.0012 + 0.004 * (1.0 - now)))
        roar: Signal = (
            now * notch * (f > 35.0) / (1.0 + (f / (take.pitch * (170.0 + 1000.0 * now**2))) ** 1.4)
        )
        return roar

    doppler = take.pitch * (1.0 - 0.16 * np.tanh(3.0 * over))
    whine = (harmonics(2450.0 * doppler, [1.0, 0.3]) + harmonics(1630.0 * doppler, [0.7])) * near**2
    return morphing(rng, take.frames, magnitude) + panned(0.4 * whine, 0.8 * over)


def saw(take: Take) -> Signal:
    """A circular saw: a screaming blade whose pitch drops and voice roughens while it bites into wood."""
    rng = take.rng
    bite = np.clip(3.0 * drift(rng, take.frames, 0.8 * take.pace) - 0.9, 0.0, 1.0)
    hz = 880.0 * take.pitch * (1.0 - 0.2 * bite) * (0.995 + 0.01 * drift(rng, take.frames, 30.0))
    blade = harmonics(hz, [0.7, 0.5, 1.0, 0.5, 0.6, 0.3, 0.4, 0.2, 0.2])
    motor = harmonics(np.full(take.frames, 100.0 * take.pitch), odd(9))
    chips = coloured(
        rng,
        take.frames,
        cascade(highpass(1500.0), blend((1.0, resonance(3400.0, 1.5)), (0.4, lowpass(9000.0)))),
    )
    grit = 0.5 + drift(rng, take.frames, 260.0)
    mono = blade * (0.22 + 0.5 * bite * grit) + 0.12 * motor
    sound: Signal = mono + chips * (0.05 + 0.5 * bite * grit) * take.weight**0.5
    return sound


def clock(take: Take) -> Signal:
    """An escapement: tick and tock, two a second, small and woody in a quiet room."""
    rng = take.rng
    dry = canvas(take)
    for number, at_s in enumerate(np.arange(0.06, take.duration_s, 0.5 / take.pace)):
        pitch = take.pitch * (1.0 if number % 2 == 0 else 0.8) * float(rng.uniform(0.99, 1.01))
        case = modal(
            frames_in(0.09),
            [2150.0 * pitch, 3480.0 * pitch, 5230.0 * pitch, 640.0 * pitch],
            [0.03, 0.022, 0.015, 0.07],
            [1.0, 0.7, 0.5, 0.5],
        )
        place(dry, case, float(at_s), 1.0, -0.1)
        place(
            dry,
            0.3 * case[: frames_in(0.02)] * decaying(frames_in(0.02), 0.01),
            float(at_s) + 0.028,
            1.0,
            0.1,
        )
    return reverberant(dry, rng, decay_s=0.5, mix=0.08, dark_hz=3500.0)


def typing(take: Take) -> Signal:
    """Keys in bursts of words: a press, a release, and now and then the deeper space bar."""
    rng = take.rng
    sound = canvas(take)
    at_s = 0.06
    while at_s < take.duration_s:
        for _ in range(1 if take.once else int(rng.integers(2, 9))):
            place(sound, _key(take, 1.0), at_s, float(rng.uniform(0.5, 1.0)), float(rng.uniform(-0.5, 0.5)))
            place(sound, _key(take, 1.4), at_s + float(rng.uniform(0.05, 0.08)), 0.25, 0.0)
            at_s += float(rng.uniform(0.07, 0.17)) / take.pace
        place(sound, _key(take, 0.55), at_s, 0.9, 0.0)
        at_s += take.duration_s if take.once else float(rng.uniform(0.12, 0.45)) / take.pace
    return reverberant(sound, rng, decay_s=0.3, mix=0.06)


def _pass_by(take: Take, near_s: float, direction: float) -> Signal:
    rng = take.rng
    along = (take.times - near_s) * 1.7 * take.pace
    near = 1.0 / (1.0 + along**2)
    padded = np.append(near[::1024], [near[-1]] * 3)

    def magnitude(instants: Signal, f: Signal) -> Signal:
        now = padded[: len(instants), None]
        tyres: Signal = now * (f > 50.0) / (1.0 + (f / (350.0 + 1300.0 * now)) ** 2)
        return tyres

    doppler = 1.0 - 0.14 * along / np.sqrt(1.0 + along**2)
    motor = harmonics(96.0 * take.pitch * doppler, rolloff(14, 0.9)) * near
    side = np.clip(direction * along / 2.2, -1.0, 1.0)
    tyre_noise = morphing(rng, take.frames, magnitude, 1)[0]
    return panned(tyre_noise + 1.1 * motor, side)


def _rail_joint(take: Take) -> Signal:
    frames = frames_in(0.2)
    pitch = take.pitch * float(take.rng.uniform(0.95, 1.05))
    steel = modal(
        frames,
        [88.0 * pitch, 240.0 * pitch, 615.0 * pitch, 1410.0 * pitch],
        [0.18, 0.12, 0.07, 0.05],
        [1.2, 0.8, 0.5, 0.25],
    )
    return steel + 0.2 * coloured_mono(take.rng, frames, band(500.0, 4000.0, 1)) * decaying(frames, 0.04)


def _key(take: Take, lift: float) -> Signal:
    frames = frames_in(0.06)
    pitch = lift * take.pitch * float(take.rng.uniform(0.9, 1.12))
    cap = modal(
        frames, [1150.0 * pitch, 2700.0 * pitch, 4600.0 * pitch], [0.025, 0.016, 0.01], [0.7, 0.8, 0.6]
    )
    bottom = modal(frames, [310.0 * pitch], [0.05], [0.6])
    return cap + bottom + 0.5 * take.rng.standard_normal(frames) * decaying(frames, 0.007)


FAMILIES = (
    Family(
        "engine",
        "motor, car engine, engine idle, idling engine, motorcycle, motorbike, truck, tractor, rev, "
        "revving engine, diesel, engine rev, generator, lawnmower, lawn mower, moteur, boat engine, "
        "motorboat, engine start",
        engine,
        "vehicle, machine, idle",
        sustained=True,
        air_hz=400.0,
    ),
    Family(
        "car",
        "car pass, car passing by, passing car, pass by, traffic, highway, race car, drive by, "
        "automobile, coche, voiture, driving, bus, cars",
        car,
        "road, street, city, race",
        sustained=True,
        air_hz=700.0,
    ),
    Family(
        "train",
        "railway, locomotive, steam train, subway, railroad, train whistle, train horn, metro, rail, "
        "tren, zug, tram, train track, freight train",
        train,
        "station, track, steam",
        sustained=True,
        air_hz=500.0,
    ),
    Family(
        "helicopter",
        "chopper, rotor, helicoptero, hubschrauber, helicopter blade, drone propeller, propeller",
        helicopter,
        "military, blade spin",
        sustained=True,
        air_hz=400.0,
    ),
    Family(
        "plane",
        "airplane, jet, aircraft, jet engine, jet flyover, flyover, plane take off, fighter jet, avion, "
        "flugzeug, airliner, rocket, rocket launch",
        plane,
        "airport, flight",
        sustained=True,
        air_hz=600.0,
    ),
    Family(
        "saw",
        "chainsaw, circular saw, drill, power drill, power tool, grinder, sawing, chain saw, buzz saw, "
        "sawmill, factory, blender, vacuum cleaner, vacuum, hair dryer",
        saw,
        "tool, cut, industrial, construction",
        sustained=True,
        air_hz=2500.0,
    ),
    Family(
        "clock",
        "tick, tick tock, ticking, ticking clock, clock tick, wristwatch, pocket watch, reloj, horloge, "
        "uhr, metronome, grandfather clock, stopwatch, timer tick",
        clock,
        "watch, timer, time, countdown, waiting",
        air_hz=1500.0,
    ),
    Family(
        "typing",
        "keyboard, typewriter, keystroke, typing on keyboard, keyboard typing, mechanical keyboard, "
        "teclado, clavier, key press, mouse click, computer keyboard",
        typing,
        "computer, click, writing, office work",
        air_hz=2500.0,
    ),
)
