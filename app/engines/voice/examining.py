"""What a recording is like, before a voice profile is made of it: figures, and no judgement.

How each is measured:

- noise: in each band of a spectrogram what is there in nine tenths of all moments, taken for steady noise
  (the tenth percentile of noise is 0.105 of its mean). The SNR is the mean power of what is not silent, less
  the noise, over the noise: within 2 dB from 10 to 20 dB, too low above. It needs no pauses; a single held
  note is taken for noise, as a hum is. At most 60 dB.
- silence: 20 ms that are 40 dB below the loudest twentieth, or not 3 dB above the noise.
- clipping: samples at the peak in runs of three or more that lie within a thousandth of each other.
- pitch: DIO's, refined; the range is from the 5th to the 95th percentile.
- consistency: the mean cosine between the voice's vectors in parts of four seconds.

Runs as a process of its own: `main` prints one line of JSON.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.engines.base import EngineError, EngineUnavailable
from app.engines.sources.decoding import decode_blocks, rate_of
from app.engines.voice import speaker, world
from app.engines.voice.world import FRAME_S, HEARD_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_S = 90
MOST_SNR_DB = 60.0
_FRAME = 512
_HOP = 320
_QUIETEST = 0.105
"""The tenth percentile of a power that is distributed exponentially, as noise is, over its mean."""
_NOTHING = 1e-9
"""The power below which a moment is no sound at all: the gate of a recorder."""
_SILENCE = 1e-4
_PART = 10
"""Vectors in a part: four seconds."""


@dataclass(frozen=True, slots=True)
class Examined:
    """The figures. None where there was nothing to measure."""

    duration_s: float
    snr_db: float | None
    silence_share: float
    clipped_share: float
    voiced_s: float
    consistency: float | None
    lowest_hz: float | None
    median_hz: float | None
    highest_hz: float | None
    embedding_model: str
    embedding: str | None
    """256 float32, the lowest byte first, in base64."""


def examine(recording: Path) -> Examined:
    """Raises EngineError for what cannot be decoded, EngineUnavailable."""
    import numpy as np

    rate = rate_of(recording)
    clipped = clipped_share(_decode(recording, rate))
    samples = _decode(recording, HEARD_RATE)
    noise, loud = noise_and_loudness(samples)
    active = loud > max(_SILENCE * float(np.percentile(loud, 95)), 2 * noise, _NOTHING)
    pitch = world.guess_pitch(samples)
    voiced = pitch[pitch > 0]
    lowest, median, highest = (
        (round(float(each), 1) for each in np.percentile(voiced, (5, 50, 95)))
        if len(voiced)
        else (None, None, None)
    )
    vectors = _vectors(samples, active)
    return Examined(
        duration_s=round(len(samples) / HEARD_RATE, 3),
        snr_db=snr_db(loud, active, noise),
        silence_share=round(1 - float(active.mean()), 4),
        clipped_share=round(clipped, 6),
        voiced_s=round(len(voiced) * FRAME_S, 2),
        consistency=consistency(vectors),
        lowest_hz=lowest,
        median_hz=median,
        highest_hz=highest,
        embedding_model=speaker.MODEL,
        embedding=_packed(speaker.join(vectors)) if len(vectors) else None,
    )


def noise_and_loudness(samples: NDArray[np.float32]) -> tuple[float, NDArray[np.float64]]:
    """The power of what is always there, and that of each 20 ms."""
    import numpy as np

    padded = np.pad(samples.astype(np.float64), (0, _FRAME))
    framed = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    window = np.hanning(_FRAME)
    power = np.abs(np.fft.rfft(framed * window, axis=1)) ** 2 * 2 / (_FRAME * (window**2).sum())
    loud = power.sum(axis=1)
    there = power[loud > _NOTHING]
    if not len(there):
        return 0.0, loud
    return float((np.percentile(there, 10, axis=0) / _QUIETEST).sum()), loud


def snr_db(loud: NDArray[np.float64], active: NDArray[np.bool_], noise: float) -> float | None:
    """By how much what is not silent is louder than the noise; None where all is silent."""
    import numpy as np

    if not active.any():
        return None
    signal = float(loud[active].mean()) - noise
    if noise <= 0 or signal / noise >= 10 ** (MOST_SNR_DB / 10):
        return MOST_SNR_DB
    return round(float(10 * np.log10(max(signal, noise * 1e-3) / noise)), 1)


def clipped_share(samples: NDArray[np.float32]) -> float:
    """The share of samples that lie on a plateau at the peak."""
    import numpy as np

    peak = float(np.abs(samples).max(initial=0.0))
    if not peak:
        return 0.0
    high = np.abs(samples) >= 0.99 * peak
    flat = np.abs(np.diff(samples)) <= 1e-3 * peak
    pairs = high[1:] & high[:-1] & flat
    triples = pairs[1:] & pairs[:-1]
    on_plateau = np.zeros(len(samples), bool)
    for shift in range(3):
        on_plateau[shift : shift + len(triples)] |= triples
    return float(on_plateau.mean())


def consistency(vectors: NDArray[np.float32]) -> float | None:
    """The mean cosine between parts; None where there is only one."""
    import numpy as np

    parts = [vectors[at : at + _PART] for at in range(0, len(vectors) - _PART // 2, _PART)]
    if len(parts) < 2:
        return None
    joined = np.stack([speaker.join(part) for part in parts])
    alike = joined @ joined.T
    return round(float(alike[np.triu_indices(len(parts), 1)].mean()), 4)


def _vectors(samples: NDArray[np.float32], active: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The voice's vectors at the moments in which half of what they hear is sound."""
    import numpy as np

    vectors = speaker.embed(samples)
    per_vector, heard = round(speaker.STRIDE_S * HEARD_RATE / _HOP), 2
    filled = [
        active[at * per_vector : (at + heard) * per_vector].mean() >= 0.5
        for at in range(len(vectors))
        if at * per_vector < len(active)
    ]
    kept: NDArray[np.float32] = vectors[: len(filled)][np.array(filled, bool)]
    return kept


def _decode(recording: Path, rate: int) -> NDArray[np.float32]:
    import numpy as np

    blocks: list[NDArray[np.float32]] = []
    for block in decode_blocks(recording, sample_rate=rate, channels=1, frames=rate):
        blocks.append(block[0])
        if len(blocks) > MOST_S:
            break
    if not blocks:
        raise EngineError("audio: it has no samples")
    return np.concatenate(blocks)


def _packed(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def main(recording: str) -> None:
    """Print what was found, or `{"error": …, "unavailable": …}`."""
    try:
        said = asdict(examine(Path(recording)))
    except EngineError as error:
        said = {"error": str(error), "unavailable": isinstance(error, EngineUnavailable)}
    json.dump(said, sys.stdout)
