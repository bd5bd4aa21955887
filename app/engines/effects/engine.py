"""The line an effect moves along: understand, play each layer, mix, level, close or fade.

Owns: the order of the steps, how modifiers direct a take, how loud each layer is. Promises: exactly the
asked-for frames, stereo, bit-identical for the same arguments on one machine. Leaves meaning to
`prompts`, sound to `families/`, finish to `mastering`.
"""

from __future__ import annotations

import numpy as np

from app.engines.base import EngineError, Progress, Rendering, ignore_progress
from app.engines.effects.filters import blend, filtered, highpass, lowpass, unchanged
from app.engines.effects.mastering import faded, guarded, levelled, loop_margin, looped, with_room_tone
from app.engines.effects.prompts import Layer, Understanding, understand
from app.engines.effects.spaces import heard_in
from app.engines.effects.take import RATE, Signal, Take, frames_in

ENGINE = "reprise-effects/1"
SHORTEST_S = 0.5
LONGEST_S = 30.0

_LAYER_GAINS = (1.0, 0.55, 0.42)
_PACE = {"fast": 1.6, "slow": 0.6, "many": 1.7}
_WEIGHT = {"heavy": 2.0, "light": 0.45, "many": 1.5, "huge": 1.3}
_PITCH = {"small": 1.4, "high": 1.45, "big": 0.75, "huge": 0.6, "deep": 0.65}
_LINGER = {"long": 1.8, "huge": 1.4, "big": 1.2}
_LAYER_LEVEL = {"distant": 0.5, "light": 0.75, "heavy": 1.25, "close": 1.2}


def render(
    prompt: str, *, duration_s: float, seed: int, loop: bool, progress: Progress = ignore_progress
) -> Rendering:
    """The sound of a prompt: samples of shape (round(duration_s·44100), 2), float32.

    Any text is understood as some family. Raises EngineError for a duration outside 0.5-30 s.
    """
    if not SHORTEST_S <= duration_s <= LONGEST_S:
        raise EngineError(f"a sound effect lasts {SHORTEST_S:g} to {LONGEST_S:g} s, not {duration_s:g}")
    frames = frames_in(duration_s)
    understanding = understand(prompt)
    head = understanding.layers[0].family
    sustained = any(layer.family.sustained for layer in understanding.layers)
    played = frames + (loop_margin(frames, sustained=sustained) if loop else 0)
    streams = [
        np.random.Generator(np.random.PCG64(child))
        for child in _children(seed, len(understanding.layers) + 1)
    ]

    mix = _mixed(understanding, played, streams[1:], progress)
    progress(0.85, "levelling")
    sound = with_room_tone(levelled(mix, sustained=sustained), streams[0], head.air_hz)
    sound = looped(sound, frames, sustained=sustained) if loop else faded(guarded(sound))
    samples = np.ascontiguousarray(guarded(sound).T, dtype=np.float32)
    progress(1.0, "done")
    return Rendering(samples, RATE, ENGINE, understanding.recipe, _details(understanding, seed, loop=loop))


def _children(seed: int, count: int) -> list[np.random.SeedSequence]:
    # SeedSequence refuses negative integers; people do not.
    return np.random.SeedSequence([abs(seed), int(seed < 0)]).spawn(count)


def _mixed(
    understanding: Understanding, frames: int, streams: list[np.random.Generator], progress: Progress
) -> Signal:
    """The layers over each other, the head loudest; played one at a time, which bounds memory."""
    mix = np.zeros((2, frames))
    count = len(understanding.layers)
    for number, (layer, rng) in enumerate(zip(understanding.layers, streams, strict=True)):
        progress(0.8 * number / count, layer.family.name)
        sound = _played(layer, frames, rng)
        sound *= _LAYER_GAINS[number] * _factor(layer.modifiers, _LAYER_LEVEL)
        mix += sound
    return mix


def _played(layer: Layer, frames: int, rng: np.random.Generator) -> Signal:
    """One layer, in its place, levelled."""
    names = layer.modifiers
    take = Take(
        frames,
        rng,
        pace=_factor(names, _PACE),
        weight=_factor(names, _WEIGHT),
        pitch=_factor(names, _PITCH),
        linger=_factor(names, _LINGER),
        once="once" in names,
    )
    sound = layer.family.render(take)
    if "heavy" in names:
        sound = filtered(sound, blend((1.0, unchanged), (0.6, lowpass(220.0))))
    if "light" in names:
        sound = filtered(sound, highpass(110.0, 1))
    return levelled(heard_in(sound, names, rng), sustained=layer.family.sustained)


def _factor(names: frozenset[str], factors: dict[str, float]) -> float:
    """The product of the modifiers' factors, in the table's order: a set has none, rounding has."""
    product = 1.0
    for name, factor in factors.items():
        product *= factor if name in names else 1.0
    return product


def _details(understanding: Understanding, seed: int, *, loop: bool) -> dict[str, str | int | float | bool]:
    details: dict[str, str | int | float | bool] = {
        "matched": understanding.matched,
        "nearest": understanding.nearest,
        "seed": seed,
        "loop": loop,
    }
    if understanding.modifiers:
        details["modifiers"] = ", ".join(understanding.modifiers)
    return details
