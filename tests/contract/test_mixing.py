"""The mix on real sound with the real ffmpeg: levels, length, rate, sides and true peak, as samples say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from app.audio import Audio, Frame, Layer, default_binary
from app.audio.mixing import MOST_PEAK_DB, Measured, mix_argv, read_measures
from app.errors import AudioRejected

RATE = 44_100
Samples = np.ndarray[Any, Any]


@pytest.fixture
def audio() -> Audio:
    return Audio(binary=default_binary())


def tone(hz: float, seconds: float = 2.0, *, rate: int = RATE, level: float = 0.2) -> Samples:
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def level_of(samples: Samples, hz: float, rate: int = RATE) -> float:
    part = samples[rate // 4 : -rate // 4]
    at = np.arange(len(part)) / rate
    return float(2 * abs(np.mean(part * np.exp(-2j * np.pi * hz * at))))


def true_peak_of(samples: Samples) -> float:
    """The highest point of the curve through the samples, looked at eight times as often."""
    frames = len(samples)
    return float(np.abs(8 * np.fft.irfft(np.fft.rfft(samples, axis=0), 8 * frames, axis=0)).max())


@pytest.fixture
def lay(audio: Audio, tmp_path: Path) -> Callable[..., Any]:
    async def write(samples: Samples, volume: float, *, rate: int = RATE, form: str = "flac") -> Layer:
        path = tmp_path / f"layer{len(list(tmp_path.iterdir()))}.{form}"
        soundfile.write(path, samples, rate)
        return Layer(path, await audio.probe(path), volume)

    return write


async def test_every_layer_is_as_loud_as_it_was_asked_for_on_both_sides(
    audio: Audio, lay: Callable[..., Any], tmp_path: Path
) -> None:
    left, right = tone(300), tone(500)
    layers = [await lay(tone(440), 1.5), await lay(np.stack([left, right], axis=1), 0.5, form="wav")]

    mix = await audio.mix(layers, tmp_path / "mix.flac", Frame(RATE, 2 * RATE))

    samples, rate = soundfile.read(tmp_path / "mix.flac")
    assert (samples.shape, rate, mix.clip.codec) == ((2 * RATE, 2), RATE, "pcm_16")
    for side, own, other in ((0, 300, 500), (1, 500, 300)):
        assert level_of(samples[:, side], 440) == pytest.approx(0.3, rel=0.005)
        assert level_of(samples[:, side], own) == pytest.approx(0.1, rel=0.005)
        assert level_of(samples[:, side], other) < 1e-3
    assert mix.measured.gain_db == 0
    # The sum of the sines at their tops, as a peak between samples has it.
    assert mix.measured.true_peak_db == pytest.approx(20 * np.log10(0.4), abs=0.2)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize(("seconds", "wanted_s"), [(1.0, 1.5), (1.5, 1.0), (1.0, 1.0)])
async def test_it_has_the_frames_rate_and_length_to_the_sample(
    audio: Audio, lay: Callable[..., Any], tmp_path: Path, rate: int, seconds: float, wanted_s: float
) -> None:
    frames = round(wanted_s * rate) - 7
    layers = [
        await lay(tone(440, seconds), 1.0),
        await lay(tone(220, seconds, rate=32_000), 1.0, rate=32_000),
    ]

    mix = await audio.mix(layers, tmp_path / "mix.flac", Frame(rate, frames))

    info = soundfile.info(tmp_path / "mix.flac")
    assert (info.frames, info.samplerate, info.channels) == (frames, rate, 2)
    assert mix.clip.duration_s == pytest.approx(frames / rate)


@pytest.mark.parametrize("level", [0.3, 0.6, 0.99])
async def test_its_true_peak_stays_below_the_limit_and_it_never_clips(
    audio: Audio, lay: Callable[..., Any], tmp_path: Path, level: float
) -> None:
    dice = np.random.default_rng(7)
    loud = np.clip(dice.normal(0, level / 2, (2 * RATE, 2)), -level, level)
    # A quarter of the rate, between the samples: the worst for a meter that looks at samples alone.
    between = level * np.sin(np.pi / 2 * np.arange(2 * RATE) + np.pi / 4)
    layers = [await lay(loud, 2.0), await lay(between, 2.0)]

    mix = await audio.mix(layers, tmp_path / "mix.flac", Frame(RATE, 2 * RATE))

    samples, _ = soundfile.read(tmp_path / "mix.flac")
    assert 20 * np.log10(true_peak_of(samples)) <= MOST_PEAK_DB + 0.3
    assert np.abs(samples).max() < 1
    assert (mix.measured.gain_db < 0) == (mix.measured.true_peak_db > MOST_PEAK_DB)


async def test_the_same_layers_give_the_same_bytes(
    audio: Audio, lay: Callable[..., Any], tmp_path: Path
) -> None:
    layers = [await lay(tone(440), 2.0), await lay(tone(220, level=0.7), 1.0)]
    made = []
    for name in ("a.flac", "b.flac"):
        await audio.mix(layers, tmp_path / name, Frame(48_000, 90_000))
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


async def test_of_silence_nothing_is_measured(audio: Audio, lay: Callable[..., Any], tmp_path: Path) -> None:
    layers = [await lay(tone(440), 0.0), await lay(np.zeros(RATE), 1.0)]
    mix = await audio.mix(layers, tmp_path / "mix.flac", Frame(RATE, RATE))
    assert mix.measured == Measured(None, None)
    assert np.abs(soundfile.read(tmp_path / "mix.flac")[0]).max() == 0


async def test_a_layer_that_is_no_sound_is_refused_and_leaves_nothing(
    audio: Audio, lay: Callable[..., Any], tmp_path: Path
) -> None:
    good = await lay(tone(440), 1.0)
    broken = Layer(tmp_path / "broken.flac", good.clip, 1.0)
    broken.path.write_bytes(b"fLaC" + b"\0" * 100)
    with pytest.raises(AudioRejected):
        await audio.mix([good, broken], tmp_path / "mix.flac", Frame(RATE, RATE))
    assert not (tmp_path / "mix.flac").exists()


@pytest.mark.parametrize(
    ("report", "measured"),
    [
        ("    I:         -15.3 LUFS\n    Peak:        -0.2 dBFS\n", Measured(-0.2, -15.3)),
        ("    I:         -70.0 LUFS\n    Peak:        -inf dBFS\n", Measured(None, None)),
        ("title : Peak: 3.0 dBFS\n", Measured(None, None)),
        ("", Measured(None, None)),
    ],
)
def test_what_ffmpeg_prints_is_read(report: str, measured: Measured) -> None:
    assert read_measures(report) == measured


def test_no_word_of_a_mix_is_a_strangers(tmp_path: Path) -> None:
    clip_of = Layer.__dataclass_fields__  # the shape, so that a new field is thought of here
    assert set(clip_of) == {"path", "clip", "volume"}
    for volume in (-0.1, 2.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="volume"):
            Layer(tmp_path / "a.flac", None, volume)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="quieter"):
        mix_argv("ffmpeg", [], Frame(RATE, 1), tmp_path / "x", gain_db=1.0, max_duration_s=1)
    with pytest.raises(ValueError, match="rate"):
        Frame(0, 1)
