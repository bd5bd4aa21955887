"""The mixing desk: every stem at its level, in its place, with its share of the hall.

Owns balance, panning, ducking under the kick and vinyl noise. Promises that a part is heard at its role's
level whatever its instrument's own loudness. Leaves loudness of the whole to `mastering`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.engines.music.genres import Genre
from app.engines.music.instruments import INSTRUMENTS
from app.engines.music.score.drums import KEYS
from app.engines.music.score.notation import Part, Role, Score
from app.engines.music.studio import SAMPLE_RATE, hall

_LEVEL_DBFS: dict[Role, float] = {
    "melody": -20.0,
    "counter": -27.0,
    "comp": -23.0,
    "pad": -26.5,
    "bass": -21.5,
    "drums": -20.0,
}
"""RMS while the part plays."""
_PAN: dict[Role, float] = {"counter": 0.45, "comp": -0.25, "melody": 0.08}
_DUCKED: tuple[Role, ...] = ("pad", "comp", "bass", "counter")
_WINDOW_S = 0.4


class Desk:
    """Takes the stems one by one; only the running sums are kept."""

    def __init__(self, genre: Genre, score: Score, frames: int) -> None:
        self._genre = genre
        self._dry = np.zeros((frames, 2), np.float32)
        self._send = np.zeros((frames, 2), np.float32)
        self._duck = _ducking(genre.ducking, score, frames)

    def add(self, part: Part, stem: NDArray[np.float32]) -> None:
        """Sets `stem` (frames, 2) to its level and sums it; the array is overwritten."""
        played = _active_rms(stem)
        if played <= 0.0:
            return
        trim = dict(self._genre.trims_db).get(part.role, 0.0)
        gain = 10.0 ** ((_LEVEL_DBFS[part.role] + trim) / 20.0) / played
        stem *= np.float32(gain) * _pan(_PAN.get(part.role, 0.0))
        if self._duck is not None and part.role in _DUCKED:
            stem *= self._duck[:, None]
        self._dry += stem
        stem *= np.float32(INSTRUMENTS[part.instrument].hall)
        self._send += stem

    def add_crackle(self, rng: np.random.Generator) -> None:
        """Vinyl: a breath of hiss and a scatter of clicks, in genres that want it."""
        if self._genre.crackle <= 0.0:
            return
        frames = len(self._dry)
        hiss = rng.standard_normal((frames, 2), dtype=np.float32)
        hiss *= np.float32(0.0011 * self._genre.crackle)
        self._dry += hiss
        clicks = int(frames / SAMPLE_RATE * 9)
        at = rng.integers(0, frames, clicks)
        self._dry[at] += (rng.standard_normal((clicks, 1)) * 0.035 * self._genre.crackle).astype(np.float32)

    def mixdown(self) -> NDArray[np.float32]:
        """Dry sound and hall together, (frames, 2). The desk is empty afterwards."""
        room = hall.response(self._genre.hall_s)
        for side in (0, 1):
            wet = hall.convolve(np.ascontiguousarray(self._send[:, side]), room[:, side])
            wet *= np.float32(self._genre.hall)
            self._dry[:, side] += wet
        return self._dry


def _active_rms(stem: NDArray[np.float32]) -> float:
    """RMS over the windows in which the part is within 20 dB of its loudest window; 0 for silence."""
    window = min(len(stem), int(_WINDOW_S * SAMPLE_RATE))
    count = len(stem) // window
    blocks = stem[: count * window].reshape(count, window * 2)
    power = np.einsum("ij,ij->i", blocks, blocks, dtype=np.float64) / (window * 2)
    loudest = float(power.max())
    return float(np.sqrt(power[power >= 0.01 * loudest].mean())) if loudest > 1e-12 else 0.0


def _pan(position: float) -> NDArray[np.float32]:
    """Equal-power gains (left, right), unity in the middle; −1 is left, 1 is right."""
    angle = (position + 1.0) * np.pi / 4.0
    return np.array([np.cos(angle), np.sin(angle)], np.float32) * np.float32(np.sqrt(2.0))


def _ducking(depth: float, score: Score, frames: int) -> NDArray[np.float32] | None:
    """The pumping of sustained parts under every kick: down at once, back within a fifth of a second."""
    kicks = [n for p in score.parts if p.role == "drums" for n in p.notes if n.pitch == KEYS["kick"]]
    if depth <= 0.0 or not kicks:
        return None
    envelope = np.ones(frames, np.float32)
    span = int(0.4 * SAMPLE_RATE)
    recovery = 1.0 - depth * np.exp(-np.arange(span) / (0.11 * SAMPLE_RATE))
    # Smoothed over 64 frames: a gain that drops from one sample to the next is a click.
    dip = np.convolve(np.pad(recovery, (63, 0), constant_values=1.0), np.ones(64) / 64, "valid")
    for kick in kicks:
        start = int(kick.start * score.beat_s * SAMPLE_RATE)
        stop = min(frames, start + span)
        if stop > start:
            envelope[start:stop] = np.minimum(envelope[start:stop], dip[: stop - start])
    return envelope
