"""Layers of sound under each other: what ffmpeg is told, and what it measured.

Pure. The layers are added as floating-point samples, each as loud as it was asked for, at one rate, in
stereo, and cut or padded to one length. A mix is measured before it is written, and made quieter, as a whole,
only where its true peak (ITU-R BS.1770-4, annex 2, as ffmpeg's `ebur128` has it) would pass the limit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.audio.argv import input_args, place
from app.audio.clips import Clip

MOST_PEAK_DB = -1.5
"""dBTP. What encoders for listeners add on top of a peak fits in between."""
_STEP_DB = 0.1
"""What the meter rounds to."""
_GATE_LUFS = -70.0
"""The meter's absolute gate: below it nothing was loud enough to be measured."""
MOST_VOLUME = 2.0
MOST_LAYERS = 8

_PEAK = re.compile(r"^\s+Peak:\s+(-?inf|nan|-?[\d.]+) dBFS\s*$", re.MULTILINE)
_LOUDNESS = re.compile(r"^\s+I:\s+(-?inf|nan|-?[\d.]+) LUFS\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Layer:
    """One sound of a mix. Raises ValueError for a volume that is none."""

    path: Path
    clip: Clip
    volume: float

    def __post_init__(self) -> None:
        if not 0 <= self.volume <= MOST_VOLUME:
            raise ValueError("the volume of a layer is not one of 0 to 2")


@dataclass(frozen=True, slots=True)
class Frame:
    """What every layer is brought to."""

    sample_rate: int
    frames: int
    """Samples a channel."""

    def __post_init__(self) -> None:
        if self.sample_rate <= 0 or self.frames <= 0:
            raise ValueError("a mix has a rate and a length")


@dataclass(frozen=True, slots=True)
class Measured:
    """What the mix was, before any gain. None: there is nothing to be heard."""

    true_peak_db: float | None
    loudness_lufs: float | None
    """Integrated."""

    @property
    def gain_db(self) -> float:
        """By how much it must be made quieter; 0 where it need not."""
        if self.true_peak_db is None or self.true_peak_db <= MOST_PEAK_DB:
            return 0.0
        return round(MOST_PEAK_DB - self.true_peak_db - _STEP_DB, 2)


@dataclass(frozen=True, slots=True)
class Mix:
    """A mix that was written."""

    clip: Clip
    measured: Measured


def measure_argv(binary: str, layers: Sequence[Layer], frame: Frame, max_duration_s: float) -> list[str]:
    """One run that adds the layers up and prints true peak and loudness at its end; nothing is written."""
    graph = f"{_graph(layers, frame)},ebur128=peak=true:framelog=quiet[out]"
    return [
        *_begin(binary, "info", layers, max_duration_s),
        *("-filter_complex", graph, "-map", "[out]", "-f", "null", "-"),
    ]


def mix_argv(
    binary: str, layers: Sequence[Layer], frame: Frame, target: Path, *, gain_db: float, max_duration_s: float
) -> list[str]:
    """One run that writes the mix as FLAC of 16 bits, by `gain_db` quieter. Raises ValueError for a gain
    that would make it louder."""
    if not -60 <= gain_db <= 0:
        raise ValueError("a mix is only ever made quieter")
    graph = f"{_graph(layers, frame)},volume={gain_db:.2f}dB[out]"
    return [
        *_begin(binary, "error", layers, max_duration_s),
        *("-filter_complex", graph, "-map", "[out]", "-c:a", "flac", "-sample_fmt", "s16"),
        *(
            "-map_metadata",
            "-1",
            "-fflags",
            "+bitexact",
            "-flags:a",
            "+bitexact",
            "-f",
            "flac",
            place(target),
        ),
    ]


def read_measures(report: str) -> Measured:
    """What `measure_argv`'s run printed last."""
    loudness = _last(_LOUDNESS, report)
    return Measured(_last(_PEAK, report), None if loudness is None or loudness <= _GATE_LUFS else loudness)


def _last(pattern: re.Pattern[str], report: str) -> float | None:
    found = pattern.findall(report)
    value = float(found[-1]) if found else math.nan
    return value if math.isfinite(value) else None


def _begin(binary: str, verbosity: str, layers: Sequence[Layer], max_duration_s: float) -> list[str]:
    if not 1 <= len(layers) <= MOST_LAYERS:
        raise ValueError("a mix has some layers, and not many")
    inputs = [input_args(layer.path, layer.clip.container, max_duration_s) for layer in layers]
    return [
        *(binary, "-nostdin", "-hide_banner", "-nostats", "-v", verbosity, "-y"),
        *(word for each in inputs for word in each),
    ]


def _graph(layers: Sequence[Layer], frame: Frame) -> str:
    lines = [f"[{number}:a:0]{_lane(layer, frame)}[l{number}]" for number, layer in enumerate(layers)]
    names = "".join(f"[l{number}]" for number in range(len(layers)))
    added = f"{names}amix=inputs={len(layers)}:normalize=0:duration=longest"
    return ";".join([*lines, f"{added},apad=whole_len={frame.frames},atrim=end_sample={frame.frames}"])


def _lane(layer: Layer, frame: Frame) -> str:
    # One channel goes to both sides as loud as it is: a conversion of layouts would take 3 dB off.
    sides = "pan=stereo|c0=c0|c1=c0" if layer.clip.channels == 1 else "aformat=channel_layouts=stereo"
    return f"aresample={frame.sample_rate}:osf=fltp,{sides},volume={layer.volume:.4f}:precision=float"
