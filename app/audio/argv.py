"""The argv of every ffmpeg run: fixed words, figures of ours, and paths that we made.

Pure. Promises, by construction and not by escaping: nothing that a stranger wrote becomes an argument, nor a
part of one that ffmpeg reads as a filter, an option or an address. Containers, demuxers and encoders come
from our own tables, a threshold is a number of decibels, and a file is a plain name that we gave it, in a
folder of ours, behind `file:`. What breaks that is a ValueError before anything runs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from app.audio.clips import CONTAINERS

THRESHOLD = re.compile(r"-[0-9]{1,3}(\.[0-9]{1,2})?dB")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_IN_A_PATH = re.compile(r"[\x00-\x1f\x7f|]")
"""In a folder's name too: control characters and what joins addresses for ffmpeg."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one clip is read and written: everything an argv holds besides two paths.

    Raises ValueError for what is not of our own tables and figures.
    """

    container: str
    codec: str
    threshold: str
    """Such as `-60dB`."""
    max_duration_s: float
    max_bytes: int

    def __post_init__(self) -> None:
        if self.container not in CONTAINERS:
            raise ValueError(f"container {self.container!r} is not one of ours")
        if not THRESHOLD.fullmatch(self.threshold):
            raise ValueError(f"threshold {self.threshold!r} is not like -60dB")


def family(container: str) -> str:
    """What `trim` writes for a clip of this container: `wav`, `flac`, `ogg` or `mp3`, also as a suffix."""
    return CONTAINERS[container].family


def trim_argv(binary: str, source: Path, target: Path, recipe: Recipe) -> list[str]:
    """One run that cuts both ends: the head, then the tail as the head of the reversed clip.

    `areverse` holds the clip in memory twice: the length limit and RLIMIT_AS bound it.
    """
    head = (
        f"silenceremove=start_periods=1:start_threshold={recipe.threshold}:start_silence=0.02:detection=rms"
    )
    return [
        *_read_args(binary, "error", source, recipe.container, recipe.max_duration_s),
        *("-map", "0:a:0", "-af", f"{head},areverse,{head},areverse"),
        *_encode_args(recipe),
        *_write_args(target, recipe),
    ]


def keep_argv(binary: str, source: Path, target: Path, recipe: Recipe) -> list[str]:
    """One run that copies the audio stream as it is (or encodes a stranger) and decodes it all to find its
    loudest sample, which `volumedetect` prints at level info."""
    kept = family(recipe.container) == recipe.container
    return [
        *_read_args(binary, "info", source, recipe.container, recipe.max_duration_s),
        *("-map", "0:a:0", *(("-c:a", "copy") if kept else _encode_args(recipe))),
        *_write_args(target, recipe),
        *("-map", "0:a:0", "-af", "volumedetect", "-f", "null", "-"),
    ]


def walk_argv(binary: str, source: Path, container: str, max_duration_s: float) -> list[str]:
    """One run that copies all packets to nowhere, telling the time reached on stderr, and decodes 0.1 s to a
    WAV on stdout for its header."""
    return [
        *_read_args(binary, "error", source, container, max_duration_s),
        *("-progress", "pipe:2"),
        *("-map", "0:a:0", "-c", "copy", "-f", "null", "-"),
        *("-map", "0:a:0", "-t", "0.1", "-c:a", "pcm_s16le", "-fflags", "+bitexact", "-f", "wav", "pipe:1"),
    ]


def prove_argv(binary: str, source: Path, container: str, max_duration_s: float) -> list[str]:
    """One run that decodes everything to nowhere, telling the time reached on stderr."""
    return [
        *_read_args(binary, "error", source, container, max_duration_s),
        *("-progress", "pipe:2", "-map", "0:a:0", "-f", "null", "-"),
    ]


def place(path: Path) -> str:
    """A file as ffmpeg is told of it. Raises ValueError for a name that we cannot have given."""
    if not _NAME.fullmatch(path.name) or _IN_A_PATH.search(str(path)):
        raise ValueError(f"the file name {path.name[:40]!r} was not made here")
    return f"file:{path}"


def input_args(source: Path, container: str, max_duration_s: float) -> list[str]:
    """One input, held to its container and to local files. Raises ValueError."""
    demuxer = CONTAINERS[container].demuxer
    if not 0 < max_duration_s < math.inf:
        raise ValueError("the longest duration is not a length")
    return [
        # All three hold: a playlist named .mp3 is opened by its content unless the demuxer is
        # forced, and what a demuxer opens by itself is held to both lists.
        *("-protocol_whitelist", "file", "-format_whitelist", demuxer, "-f", demuxer),
        # A second more than the limit, so that a clip which lied about its length can be told from one at it.
        *("-t", f"{max_duration_s + 1:.3f}", "-i", place(source)),
    ]


def _read_args(binary: str, verbosity: str, source: Path, container: str, max_duration_s: float) -> list[str]:
    return [
        *(binary, "-nostdin", "-hide_banner", "-nostats", "-v", verbosity, "-y"),
        *input_args(source, container, max_duration_s),
    ]


def _encode_args(recipe: Recipe) -> list[str]:
    match family(recipe.container):
        case "wav":
            return ["-c:a", "pcm_s16le"]
        case "flac":
            depth = "s32" if recipe.codec == "pcm_24" else "s16"  # the filters' floats would make all 24 bits
            return ["-c:a", "flac", "-sample_fmt", depth]
        case "ogg" if recipe.codec == "opus":
            return ["-c:a", "libopus", "-b:a", "128k"]
        case "ogg":
            return ["-c:a", "libvorbis", "-q:a", "5"]
        case _:
            return ["-c:a", "libmp3lame", "-b:a", "192k"]


def _write_args(target: Path, recipe: Recipe) -> list[str]:
    return [
        *("-vn", "-sn", "-dn", "-map_metadata", "-1", "-map_chapters", "-1"),
        # No encoder version, date or random serial: the same input gives the same bytes, so the same asset.
        *("-fflags", "+bitexact", "-flags:a", "+bitexact"),
        *("-fs", str(recipe.max_bytes), "-f", family(recipe.container), place(target)),
    ]
