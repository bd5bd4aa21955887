"""What the music engine promises about its sound and its scores, by measuring both."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from app.engines.base import EngineError, Rendering
from app.engines.music import render
from app.engines.music.brief import read_brief
from app.engines.music.genres import GENRES
from app.engines.music.score import form, harmony
from app.engines.music.score.composition import compose
from app.engines.music.score.notation import Score

RATE = 44_100
PROMPTS = {"acoustic": "acoustic folk", "piano": "piano solo", "hiphop": "hip hop"}


@cache
def rendered(prompt: str, duration_s: float = 7.0, seed: int = 1) -> Rendering:
    return render(prompt, duration_s=duration_s, seed=seed)


@cache
def scored(prompt: str, duration_s: float = 30.0, seed: int = 1) -> Score:
    return compose(read_brief(prompt, seed), duration_s, seed)


def dbfs(samples: NDArray[np.float32]) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(samples.astype(np.float64) ** 2)) + 1e-12))


def spectral_flux(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rise of the log spectrum a hundred times a second: peaks at onsets."""
    mono = samples.mean(axis=1)
    frames = np.lib.stride_tricks.sliding_window_view(mono, 1024)[::441] * np.hanning(1024)
    spectrum = np.log1p(100 * np.abs(np.fft.rfft(frames, axis=1)))
    flux: NDArray[np.float64] = np.maximum(0.0, np.diff(spectrum, axis=0)).mean(axis=1)
    return flux


def estimated_tempo(samples: NDArray[np.float32]) -> float:
    flux = spectral_flux(samples)
    flux = flux - np.convolve(flux, np.ones(40) / 40, "same")
    correlation = np.correlate(flux, flux, "full")[len(flux) - 1 :]
    lags = np.arange(len(correlation))

    def strength(bpm: float) -> float:
        beats = sum(float(np.interp(k * 6000 / bpm, lags, correlation)) for k in (1, 2, 4))
        return beats * float(np.exp(-0.5 * (np.log2(bpm / 110) / 0.7) ** 2))

    return max((float(bpm) for bpm in np.arange(60, 190, 0.5)), key=strength)


def centroid_hz(samples: NDArray[np.float32]) -> float:
    power = np.abs(np.fft.rfft(samples.mean(axis=1))) ** 2
    return float((power * np.fft.rfftfreq(len(samples), 1 / RATE)).sum() / power.sum())


@pytest.mark.parametrize("duration_s", [1.0, 2.5, 7.0, 7.7777, 30.0, 60.0])
def test_it_lasts_exactly_as_long_as_asked(duration_s: float) -> None:
    result = rendered("acoustic folk guitar", duration_s)
    assert result.samples.shape == (round(duration_s * RATE), 2)
    assert result.samples.dtype == np.float32
    assert result.sample_rate == RATE


@pytest.mark.parametrize("duration_s", [0.0, 0.99, 180.1, float("nan"), float("inf"), -3.0])
def test_a_duration_out_of_range_is_refused_in_words(duration_s: float) -> None:
    with pytest.raises(EngineError, match="1 to 180"):
        render("lofi", duration_s=duration_s, seed=1)


@pytest.mark.parametrize("prompt", ["lofi", "piano solo", "synthwave"])
def test_the_same_arguments_give_the_same_bits(prompt: str) -> None:
    again = render(prompt, duration_s=7.0, seed=1)
    assert np.array_equal(again.samples, rendered(prompt).samples)
    assert again.details == rendered(prompt).details


def test_another_seed_is_another_piece_in_the_same_style() -> None:
    one, two = rendered("synthwave"), rendered("synthwave", seed=2)
    assert one.recipe == two.recipe
    assert not np.allclose(one.samples, two.samples, atol=0.02)


@pytest.mark.parametrize("seed", [0, -7, 2**63])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    assert rendered("lofi", 1.0, seed).details["seed"] == seed


@pytest.mark.parametrize("name", list(GENRES))
def test_every_genre_is_level_clean_and_ends_on_purpose(name: str) -> None:
    result = rendered(PROMPTS.get(name, name))
    samples = result.samples
    assert result.recipe.split("/")[0] == name
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() <= 10 ** (-1 / 20)
    assert -22.0 < dbfs(samples) < -13.0
    assert np.abs(samples.mean(axis=0)).max() < 1e-3
    loud = np.abs(samples).max(axis=1) > 1e-3
    assert loud[: int(0.3 * RATE)].any(), "starts late"
    assert loud[-RATE // 2 :].any(), "ends early"
    assert dbfs(samples[-RATE // 20 :]) < dbfs(samples) - 15.0, "does not fade"
    assert np.abs(samples[-1]).max() < 1e-3, "hard cut"


@pytest.mark.parametrize("prompt", ["only drums", "only ukulele", "solo mandolin", "only marimba"])
@pytest.mark.parametrize("duration_s", [2.2, 6.0])
def test_instruments_that_cannot_hold_a_note_still_sound_to_the_end(prompt: str, duration_s: float) -> None:
    samples = rendered(prompt, duration_s).samples
    assert np.abs(samples[-RATE // 2 :]).max() > 1e-3


@pytest.mark.parametrize("prompt", ["", "🎉🔥💃", "very " * 1000, "xyzzy plugh"])
def test_an_odd_prompt_still_makes_music(prompt: str) -> None:
    result = rendered(prompt, 2.5)
    assert dbfs(result.samples) > -24.0
    assert "neutral" in str(result.details["note"])


@pytest.mark.parametrize("bpm", [100, 124])
def test_the_asked_tempo_is_heard(bpm: int) -> None:
    heard = estimated_tempo(rendered(f"techno at {bpm} bpm", 12.0).samples)
    assert min(abs(heard * octave - bpm) / bpm for octave in (0.5, 1, 2)) < 0.02


def test_synthwave_is_brighter_than_ambient() -> None:
    assert centroid_hz(rendered("synthwave").samples) > 1.7 * centroid_hz(rendered("ambient").samples)


def test_without_drums_there_is_less_attack() -> None:
    drummed = spectral_flux(rendered("rock 120 bpm").samples)
    plain = spectral_flux(rendered("rock 120 bpm, no drums").samples)
    assert np.percentile(plain, 95) < 0.8 * np.percentile(drummed, 95)
    assert "drums" not in str(rendered("rock 120 bpm, no drums").details["instruments"])


def test_the_details_tell_a_listener_what_was_made() -> None:
    result = rendered("calm lofi in D minor, 72 bpm", 2.5)
    assert result.engine.startswith("reprise-music/1 (tono 1.")
    wanted = {"tempo_bpm": 72.0, "key": "D", "mode": "minor", "genre": "lofi", "mood": "calm", "seed": 1}
    assert wanted.items() <= result.details.items()
    assert "72 bpm" in str(result.details["matched"])


def test_progress_rises_from_nothing_to_done_through_every_part() -> None:
    told: list[tuple[float, str]] = []
    result = render("jazz", duration_s=1.0, seed=1, progress=lambda done, step: told.append((done, step)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert (told[0][1], told[-1]) == ("compose", (1.0, "done"))
    assert set(str(result.details["instruments"]).split(", ")) <= {step for _, step in told}


@pytest.mark.parametrize("name", list(GENRES))
def test_the_notes_belong_to_the_key(name: str) -> None:
    for seed, duration_s in ((1, 7.0), (2, 30.0), (3, 90.0)):
        score = scored(PROMPTS.get(name, name), duration_s, seed)
        scale = harmony.scale_classes(score.tonic, score.mode)
        pitches = [note.pitch for part in score.parts if part.role != "drums" for note in part.notes]
        assert sum(pitch % 12 in scale for pitch in pitches) >= 0.85 * len(pitches)


@pytest.mark.parametrize("name", list(GENRES))
def test_the_piece_comes_home_to_the_tonic(name: str) -> None:
    score = scored(PROMPTS.get(name, name))
    start = score.total_beats - score.hold_beats
    last = [
        note
        for part in score.parts
        if part.role != "drums"
        for note in part.notes
        if note.start > start - 0.2
    ]
    home = set(harmony.chord("1", score.tonic, score.mode, sevenths=False).tones)
    assert last
    assert {note.pitch % 12 for note in last if note.start >= start - 0.05} <= home
    assert max(note.start + note.length for note in last) == pytest.approx(score.total_beats, abs=0.2)


def test_a_long_piece_has_a_form_and_its_theme_returns() -> None:
    score = scored("corporate", 90.0)
    names = [section.name for section in score.sections]
    assert names[0] == "intro"
    assert names[-1] == "outro"
    assert {"A", "B", "A'"} <= set(names)
    melody = next(part for part in score.parts if part.role == "melody").notes
    first, again = (next(s for s in score.sections if s.name == name) for name in ("A", "A'"))
    onsets = [
        {
            round(note.start - section.first_bar * score.beats_per_bar, 1)
            for note in melody
            if 0 <= note.start - section.first_bar * score.beats_per_bar < 16
        }
        for section in (first, again)
    ]
    assert len(onsets[0] & onsets[1]) > 0.5 * len(onsets[0])


@pytest.mark.parametrize("duration_s", [1.0, 3.3, 10.0, 47.0, 180.0])
@pytest.mark.parametrize("tempo_bpm", [40.0, 97.0, 220.0])
def test_bars_and_hold_fill_the_duration(duration_s: float, tempo_bpm: float) -> None:
    chosen, bars = form.fit_tempo(tempo_bpm, True, 4, duration_s)
    hold_s = duration_s - bars * 240.0 / chosen
    assert chosen == tempo_bpm
    assert 0.55 < hold_s <= 240.0 / chosen + 2.3
    sections = form.plan_sections(bars)
    assert sum(section.bars for section in sections) == bars
    assert [s.first_bar + s.bars for s, _ in pairwise(sections)] == [
        s.first_bar for _, s in pairwise(sections)
    ]


def test_voices_move_as_little_as_they_can() -> None:
    chords = [harmony.chord(numeral, 0, "major", sevenths=False) for numeral in "1645"]
    voicings = harmony.voice_leading(chords, 52, 76, 3)
    moves = [abs(a - b) for before, after in pairwise(voicings) for a, b in zip(before, after, strict=True)]
    assert max(moves) <= 4
    assert sum(moves) / len(moves) <= 2.0


def test_a_waltz_has_three_beats_and_drums_of_three() -> None:
    score = scored("rock waltz")
    assert score.beats_per_bar == 3
    kicks = {
        round(note.start) % 3
        for part in score.parts
        if part.role == "drums"
        for note in part.notes
        if note.pitch == 36
    }
    assert kicks == {0}
