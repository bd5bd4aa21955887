"""What a rendered effect promises: length, level, determinism, difference, edges, loops, modifiers."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from app.engines.base import EngineError, Rendering
from app.engines.effects import render
from app.engines.effects.families import FAMILIES
from app.engines.effects.take import RATE

NAMES = [family.name for family in FAMILIES]
SUSTAINED = [family.name for family in FAMILIES if family.sustained]
FADE = round(0.012 * RATE)


@cache
def heard(prompt: str, duration_s: float = 3.0, seed: int = 7, *, loop: bool = False) -> Rendering:
    return render(prompt, duration_s=duration_s, seed=seed, loop=loop)


def decibels(value: float) -> float:
    return 20.0 * float(np.log10(value + 1e-12))


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def centroid_hz(samples: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(samples.mean(axis=1))) ** 2
    return float(np.sum(power * np.fft.rfftfreq(len(samples), 1 / RATE)) / np.sum(power))


def character(samples: np.ndarray) -> np.ndarray:
    """Band levels (dB/10), modulation spectrum (dB/7), unevenness: what tells sounds apart."""
    mono = samples.mean(axis=1).astype(np.float64)
    power = np.abs(np.fft.rfft(mono)) ** 2
    hz = np.fft.rfftfreq(len(mono), 1 / RATE)
    edges = np.geomspace(40, 16_000, 25)
    bands = np.array([power[(hz >= low) & (hz < high)].sum() for low, high in pairwise(edges)])
    envelope = np.sqrt((mono[: len(mono) // 441 * 441].reshape(-1, 441) ** 2).mean(axis=1))
    beat = np.abs(np.fft.rfft((envelope - envelope.mean()) * np.hanning(len(envelope)))) ** 2
    beat_hz = np.fft.rfftfreq(len(envelope), 0.01)
    rates = np.array(
        [
            beat[(beat_hz >= low) & (beat_hz < high)].sum()
            for low, high in ((0.3, 1), (1, 3), (3, 6), (6, 12), (12, 25), (25, 50))
        ]
    )
    uneven = 2.0 * envelope.std() / envelope.mean()
    return np.concatenate(
        [np.log10(bands / bands.sum() + 1e-5), 1.5 * np.log10(rates / rates.sum() + 1e-3), [uneven]]
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_family_fills_its_take_at_a_sane_level(name: str) -> None:
    rendering = heard(name)
    samples = rendering.samples
    assert samples.shape == (3 * RATE, 2)
    assert samples.dtype == np.float32
    assert (rendering.sample_rate, rendering.engine, rendering.recipe) == (RATE, "reprise-effects/1", name)
    assert np.isfinite(samples).all()
    assert -6.0 < decibels(float(np.abs(samples).max())) <= -0.99
    assert np.abs(samples.mean(axis=0)).max() < 0.01
    quietest, loudest = (-30.0, -12.0) if name in SUSTAINED else (-36.0, -8.5)
    assert quietest < decibels(rms(samples)) < loudest


@pytest.mark.parametrize("name", NAMES)
def test_a_family_is_never_silent_for_long_enough_to_be_trimmed(name: str) -> None:
    samples = heard(name).samples
    blocks = np.abs(samples[FADE:-FADE]).max(axis=1)
    blocks = blocks[: len(blocks) // 2205 * 2205].reshape(-1, 2205).max(axis=1)
    assert decibels(float(blocks.min())) > -60.0


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_every_sample(name: str) -> None:
    samples = heard(name, 0.8).samples
    again = render(name, duration_s=0.8, seed=7, loop=False).samples
    assert np.array_equal(samples, again)
    # Something besides the room tone must differ.
    assert rms(samples - heard(name, 0.8, 8).samples) > 0.1 * rms(samples)


def test_every_two_families_sound_different() -> None:
    characters = {name: character(heard(name).samples) for name in NAMES}
    for number, one in enumerate(NAMES):
        for other in NAMES[number + 1 :]:
            assert np.linalg.norm(characters[one] - characters[other]) > 1.1, (one, other)


@pytest.mark.parametrize("duration_s", [0.5, 0.77777, 30.0])
@pytest.mark.parametrize("loop", [False, True])
def test_the_length_is_exact(duration_s: float, loop: bool) -> None:
    for name in ("rain", "bell"):
        rendering = render(name, duration_s=duration_s, seed=1, loop=loop)
        assert rendering.samples.shape == (round(duration_s * RATE), 2)


@pytest.mark.parametrize("name", NAMES)
def test_the_shortest_take_of_a_family_holds_its_sound(name: str) -> None:
    samples = heard(name, 0.5).samples
    assert np.isfinite(samples).all()
    assert decibels(rms(samples)) > -36.0


@pytest.mark.parametrize("duration_s", [0.4, 31.0, -1.0, float("nan")])
def test_a_duration_it_cannot_render_is_refused_in_words(duration_s: float) -> None:
    with pytest.raises(EngineError, match=r"lasts 0.5 to 30 s"):
        render("rain", duration_s=duration_s, seed=1, loop=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_loop_has_no_seam(name: str) -> None:
    samples = heard(name, 2.0, loop=True).samples.astype(np.float64)
    twice = np.concatenate([samples, samples])
    steps = np.abs(np.diff(twice, axis=0)).max(axis=1)
    join = len(samples) - 1
    assert steps[join] <= max(
        np.quantile(steps, 0.999), 4.0 * np.median(steps[join - 441 : join + 441]) + 1e-3
    )
    if name in SUSTAINED:
        around = [rms(twice[join + shift : join + shift + 2205]) for shift in (-4410, -2205, 0, 2205)]
        usual = [rms(samples[at : at + 2205]) for at in range(0, len(samples) - 2205, 2205)]
        assert min(around) > 0.5 * min(usual)
        assert max(around) < 1.5 * max(usual)


@pytest.mark.parametrize("name", ["siren", "hum", "drone", "engine"])
def test_a_looped_tone_keeps_its_level_across_the_seam(name: str) -> None:
    samples = heard(name, 3.0, loop=True).samples.astype(np.float64)
    rolled = np.roll(samples, len(samples) // 2, axis=0)
    levels = [decibels(rms(rolled[at : at + 4410])) for at in range(0, len(rolled) - 4410, 4410)]
    middle = levels[len(levels) // 2 - 3 : len(levels) // 2 + 4]
    assert min(middle) > min(levels[:8] + levels[-8:]) - 3.0
    assert max(middle) < max(levels[:8] + levels[-8:]) + 3.0


def test_a_take_without_loop_begins_and_ends_softly() -> None:
    for name in ("static", "hum", "siren"):
        samples = np.abs(heard(name).samples)
        assert samples[0].max() < 1e-3
        assert samples[-1].max() < 1e-3


@pytest.mark.parametrize("place", ["distant", "muffled", "underwater"])
@pytest.mark.parametrize("name", ["dog", "rain", "bell"])
def test_a_far_or_muffled_sound_loses_its_highs(place: str, name: str) -> None:
    assert centroid_hz(heard(f"{place} {name}").samples) < 0.8 * centroid_hz(heard(name).samples)


def test_a_cave_and_an_echo_lengthen_what_they_hold() -> None:
    after = slice(round(0.9 * RATE), round(1.5 * RATE))
    dry = rms(heard("a single gunshot").samples[after])
    for place in ("in a cave", "with echo"):
        assert rms(heard(f"a single gunshot {place}").samples[after]) > 1.5 * dry


@pytest.mark.parametrize("name", ["bell", "engine", "dog", "drum"])
def test_big_things_sound_lower_than_small_ones(name: str) -> None:
    assert centroid_hz(heard(f"huge {name}").samples) < 0.8 * centroid_hz(heard(f"small {name}").samples)


def test_fast_steps_are_more_than_slow_ones() -> None:
    def steps(prompt: str) -> int:
        mono = np.abs(heard(prompt, 6.0).samples).max(axis=1)
        envelope = mono[: len(mono) // 2205 * 2205].reshape(-1, 2205).max(axis=1)
        loud = envelope > 0.35
        return int(np.sum(loud[1:] & ~loud[:-1]))

    assert steps("fast footsteps") > 1.5 * steps("slow footsteps")
    assert steps("a single footstep") <= 2


def test_heavy_rain_is_denser_than_light_rain() -> None:
    def crest(prompt: str) -> float:
        samples = heard(prompt).samples
        return float(np.abs(samples).max()) / rms(samples)

    assert crest("heavy rain") < crest("light rain")


def test_layers_sound_together_and_the_first_is_loudest() -> None:
    both = heard("footsteps in the rain")
    assert both.recipe == "footsteps+rain"
    assert both.details["matched"] == "footsteps, rain"
    floor = np.quantile(np.abs(both.samples).max(axis=1), 0.2)
    assert floor > 3.0 * np.quantile(np.abs(heard("footsteps").samples).max(axis=1), 0.2)
    assert centroid_hz(heard("bell and birds").samples) < centroid_hz(heard("birds and bell").samples)


def test_details_say_what_was_understood() -> None:
    details = heard("Distant thunder in a cave").details
    assert details == {
        "matched": "thunder",
        "nearest": False,
        "seed": 7,
        "loop": False,
        "modifiers": "cave, distant",
    }
    assert heard("blorptastic").details["nearest"] is True


@pytest.mark.parametrize("prompt", ["", "🐶", "雨", "rain " * 1000, "\x00"])
@pytest.mark.parametrize("seed", [0, -5, 2**63])
def test_odd_prompts_and_seeds_still_sound(prompt: str, seed: int) -> None:
    samples = render(prompt, duration_s=0.5, seed=seed, loop=False).samples
    assert np.isfinite(samples).all()
    assert decibels(rms(samples)) > -40.0


def test_progress_climbs_to_the_end() -> None:
    told: list[tuple[float, str]] = []
    render(
        "rain and wind",
        duration_s=0.5,
        seed=1,
        loop=False,
        progress=lambda done, step: told.append((done, step)),
    )
    assert [step for _, step in told] == ["rain", "wind", "levelling", "done"]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == 1.0
