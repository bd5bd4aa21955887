"""What a sound file is, told without ffmpeg: its container by its first bytes, its header, its outline.

Owns the table of containers that are let in, and everything done by libsndfile in this process. Promises that
nothing is decoded here but wav, flac, ogg, mp3 and aiff, in blocks, so memory does not grow with the file.
All of it blocks: callers go through a thread. Leaves limits, ffmpeg and all writing to `app.audio`.

Signatures: RFC 9639 (FLAC), RFC 3533 (Ogg), ISO/IEC 11172-3 and 13818-7 (frame syncs), ISO/IEC 14496-12
(ftyp), RFC 9559 (EBML), ID3v2.4 §3.1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import soundfile

from app.errors import AudioRejected

_HEAD_BYTES = 4096
_BLOCK_FRAMES = 65_536
_READABLE = frozenset({"wav", "flac", "ogg", "mp3", "aiff"})


@dataclass(frozen=True, slots=True)
class Clip:
    """One sound file, as measured. `duration_s` comes from samples or packets, not from tags."""

    duration_s: float
    sample_rate: int
    """Hz."""
    channels: int
    container: str
    """A key of CONTAINERS."""
    codec: str
    """libsndfile's word in lower case, such as `pcm_16` or `vorbis`; `unknown` where it cannot read."""
    media_type: str


@dataclass(frozen=True, slots=True)
class Container:
    """A kind of file that is let in."""

    demuxer: str
    """ffmpeg's name for what reads it, and the only one it may use."""
    media_type: str
    family: str
    """What it becomes when it is trimmed: also the suffix of the result."""


CONTAINERS: Final[dict[str, Container]] = {
    "wav": Container("wav", "audio/wav", "wav"),
    "flac": Container("flac", "audio/flac", "flac"),
    "ogg": Container("ogg", "audio/ogg", "ogg"),
    "mp3": Container("mp3", "audio/mpeg", "mp3"),
    "mp4": Container("mov", "audio/mp4", "mp3"),
    "webm": Container("matroska", "audio/webm", "mp3"),
    "aiff": Container("aiff", "audio/aiff", "mp3"),
    "aac": Container("aac", "audio/aac", "mp3"),
}


def sniff(path: Path) -> str:
    """The container of `path`, a key of CONTAINERS, by content alone; its name is not looked at.

    Raises AudioRejected, saying what the bytes look like instead.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        known = _signature(head)
        if known is None and head[:3] == b"ID3" and len(head) >= 10:
            # The tag may hold a picture of megabytes; what it tags comes after it. Sizes have 7 bits a byte.
            size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            file.seek(10 + size)
            known = _signature(file.read(_HEAD_BYTES)) or "mp3"
    if known is None:
        raise AudioRejected(f"this is not audio: it looks like {_looks_like(head)}")
    return known


def read_header(path: Path, container: str) -> Clip | None:
    """What libsndfile says of `path`; None where it cannot tell, or sees no sample: walk the packets then."""
    if container not in _READABLE:
        return None
    try:
        with soundfile.SoundFile(path) as file:
            # A FLAC or WAV that was written to a pipe does not know its own length, nor a cut Ogg.
            if not 0 < file.frames < 1 << 40 or not file.samplerate:
                return None
            return Clip(
                duration_s=file.frames / file.samplerate,
                sample_rate=file.samplerate,
                channels=file.channels,
                container=container,
                codec=str(file.subtype).lower(),
                media_type=CONTAINERS[container].media_type,
            )
    except (soundfile.SoundFileError, OSError):
        return None


def refuse_not_numbers(path: Path) -> None:
    """Read a file of floating-point samples through. Raises AudioRejected for NaN and infinity in it."""
    for block in _blocks(path, _BLOCK_FRAMES):
        if not np.isfinite(block).all():
            raise AudioRejected("the clip has samples that are not numbers")


def missing_of(path: Path) -> int:
    """How many bytes a RIFF or AIFF file says that it has and has not; 0 for every other kind.

    libsndfile and ffmpeg take what is there of such a file for all of it. One that was written to a pipe
    says nothing, or that it has no end.
    """
    with path.open("rb") as file:
        head = file.read(12)
    order: Literal["little", "big"] = "big" if head[:4] == b"FORM" else "little"
    if head[:4] not in (b"RIFF", b"FORM"):
        return 0
    said_bytes = int.from_bytes(head[4:8], order)
    if said_bytes in (0, 0xFFFFFFFF) or said_bytes >= 0x7FFFFF00:
        return 0
    return max(0, said_bytes + 8 - path.stat().st_size)


def draw_peaks(path: Path, buckets: int) -> bytes:
    """The outline of a wav, flac, ogg, mp3 or aiff as JSON, in audiowaveform's data format version 2.

    Mono (the mean of the channels), 8 bits: `data` is `length` pairs of lowest and highest sample, -128..127,
    each over `samples_per_pixel` frames; `length` is at most `buckets`. Raises AudioRejected.
    """
    clip = read_header(path, sniff(path))
    if clip is None:
        raise AudioRejected("the clip cannot be drawn: its header cannot be read")
    frames = round(clip.duration_s * clip.sample_rate)
    per_pixel = max(1, -(-frames // buckets))
    pairs: list[int] = []
    # Whole pixels a block, so that no pixel is split between two.
    for block in _blocks(path, per_pixel * max(1, _BLOCK_FRAMES // per_pixel)):
        mono = np.nan_to_num(block.mean(axis=1))
        starts = np.arange(0, len(mono), per_pixel)
        edges = np.stack((np.minimum.reduceat(mono, starts), np.maximum.reduceat(mono, starts)), axis=1)
        pairs += np.clip(np.rint(edges * 127), -128, 127).astype(int).ravel().tolist()
    drawn = {
        "version": 2,
        "channels": 1,
        "sample_rate": clip.sample_rate,
        "samples_per_pixel": per_pixel,
        "bits": 8,
        "length": len(pairs) // 2,
        "data": pairs,
    }
    return json.dumps(drawn, separators=(",", ":")).encode()


def _blocks(path: Path, frames: int) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Blocks of shape (frames, channels), float32, -1..1."""
    try:
        with soundfile.SoundFile(path) as file:
            yield from file.blocks(blocksize=frames, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as exc:
        raise AudioRejected("the clip cannot be decoded") from exc


def _signature(head: bytes) -> str | None:
    match head[:4], head[8:12]:
        case ((b"RIFF" | b"RF64"), b"WAVE"):
            return "wav"
        case b"FORM", (b"AIFF" | b"AIFC"):
            return "aiff"
        case b"fLaC", _:
            return "flac"
        case b"OggS", _:
            return "ogg"
        case b"\x1a\x45\xdf\xa3", _:
            return "webm"
        case _:
            return "mp4" if head[4:8] == b"ftyp" else _frame_sync(head)


def _frame_sync(head: bytes) -> str | None:
    """MPEG audio and ADTS both start with eleven or twelve set bits; the two layer bits tell them apart."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return "aac"
    valid = head[1] & 0x18 != 0x08 and head[1] & 0x06 and head[2] >> 4 != 0xF and head[2] & 0x0C != 0x0C
    return "mp3" if valid else None


_LOOKS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"#extm3u", "an HLS playlist"),
    (b"ffconcat", "an ffmpeg script"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<mpd", "a DASH manifest"),
    (b"<", "XML"),
    (b"{", "JSON"),
    (b"[", "JSON or a playlist"),
    (b"v=0", "a session description"),
    (b"\x89png", "a picture"),
    (b"gif8", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"%pdf", "a document"),
    (b"pk\x03\x04", "an archive"),
    (b"\x1f\x8b", "compressed data"),
)


def _looks_like(head: bytes) -> str:
    if not head:
        return "an empty file"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    named = next((name for magic, name in _LOOKS if start.startswith(magic)), None)
    if named is None and start.isascii() and b"\0" not in start:
        return "text"
    return named or "nothing known"
