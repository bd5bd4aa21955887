"""Sound files as samples, in blocks: memory does not grow with the file.

Owns PyAV. Promises float32 of the asked rate and channels, exact where the file has them already. Leaves
judging strangers' files to `app.audio`, which has seen them before a worker does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engines.base import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def decode_blocks(
    path: Path, *, sample_rate: int, channels: int, frames: int
) -> Iterator[NDArray[np.float32]]:
    """Blocks of shape (channels, frames), the last one shorter. Raises EngineError."""
    import av
    import numpy as np

    held: list[NDArray[np.float32]] = []
    size = 0
    try:
        for piece in _decode(path, sample_rate, "stereo" if channels == 2 else "mono"):
            held.append(piece)
            size += piece.shape[1]
            while size >= frames:
                joined = np.concatenate(held, axis=1)
                yield np.ascontiguousarray(joined[:, :frames])
                held, size = [joined[:, frames:]], size - frames
    except av.FFmpegError as error:
        raise EngineError("audio: it cannot be decoded") from error
    if size:
        yield np.concatenate(held, axis=1)


def length_s(path: Path) -> float:
    """What the file says of its length, for progress alone; 0 where it does not."""
    import av

    try:
        with av.open(f"file:{path}", options=_LOCAL) as file:
            return float(file.duration or 0) / 1_000_000
    except av.FFmpegError:
        return 0.0


def channels_of(path: Path) -> int:
    """How many channels its sound has. Raises EngineError."""
    return _first_stream(path)[0]


def rate_of(path: Path) -> int:
    """The sample rate of its sound. Raises EngineError."""
    return _first_stream(path)[1]


def _first_stream(path: Path) -> tuple[int, int]:
    import av

    try:
        with av.open(f"file:{path}", options=_LOCAL) as file:
            if not file.streams.audio:
                raise EngineError("audio: the file has no sound in it")
            stream = file.streams.audio[0]
            return int(stream.channels), int(stream.rate)
    except av.FFmpegError as error:
        raise EngineError("audio: it cannot be decoded") from error


_LOCAL = {
    "protocol_whitelist": "file",
    # Without it a playlist that is named like a sound is followed to other files of this machine.
    "format_whitelist": "wav,flac,ogg,mp3,mov,matroska,aiff,aac",
}


def _decode(path: Path, sample_rate: int, layout: str) -> Iterator[Any]:
    import av

    with av.open(f"file:{path}", options=_LOCAL) as file:
        if not file.streams.audio:
            raise EngineError("audio: the file has no sound in it")
        stream = file.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=sample_rate)
        for frame in file.decode(stream):
            for out in resampler.resample(frame):
                yield out.to_ndarray()
        for out in resampler.resample(None):
            yield out.to_ndarray()
