"""Sound files: what one is, trimming it, and drawing it.

Owns ffmpeg, and every decision about media bytes that strangers sent (their reading is `app.audio.clips`).
Promises: the container is known by its first bytes before any decoder sees it, and ffmpeg is then held to
that one demuxer, local files and fixed arguments, so a playlist, script or address inside a file reaches
nothing; length, rate, channels and size are judged before decoding and bounded while decoding; at most one
ffmpeg a core; what comes back decodes and is not silent, or AudioRejected says why in words without paths.
The same input gives the same bytes. Leaves spawning and killing to `app.audio.processes`, fetching to
`app.outbound`, and keeping to `app.storage`; the directory of `target` belongs to the caller, one a job.

There is no ffprobe: libsndfile reads the headers it knows, for the rest ffmpeg walks the packets.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from app.audio.argv import THRESHOLD, Recipe, keep_argv, prove_argv, trim_argv, walk_argv
from app.audio.clips import (
    CONTAINERS,
    Clip,
    draw_peaks,
    missing_of,
    read_header,
    refuse_not_numbers,
    sniff,
)
from app.audio.mixing import Frame, Layer, Mix, measure_argv, mix_argv, read_measures
from app.audio.processes import Finished, Limits, run
from app.errors import AudioRejected, StorageUnavailable

__all__ = ["Audio", "default_binary"]

MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 8_000, 192_000

_WAV_HEADER_BYTES = 64
_SLACK_S, _SLACK_SHARE = 0.5, 0.01
"""What encoders pad, and tags are wrong by."""
_MOST_RUNS = 3
"""A program that was killed from outside (the kernel needed memory) is run again: the clip is not to blame
until it happens every time, as it does where the processor limit of its own ends it."""
_PROGRESS = re.compile(r"\w+=", re.ASCII)
_LOUDEST = re.compile(r"^\[Parsed_volumedetect_\d+ @ 0x[0-9a-f]+\] max_volume: (-?[\d.]+) dB", re.MULTILINE)
"""By the filter itself: a tag that says the same is printed too, within its line."""
_DISK_FULL_CODES = {256 - errno.ENOSPC, 256 - errno.EDQUOT}
"""ffmpeg exits with the low byte of the error that ended it, which is a negative errno."""
_DISK_FULL = re.compile(r"^\[a?out#.*(No space left on device|Disk quota exceeded)", re.MULTILINE)
"""Older ones exit with 1 and only say so, about an output; what a file's tags say is not in brackets."""


class Audio:
    """`jobs` is how many ffmpeg processes may run at once; `timeout_s` is each one's wall clock."""

    def __init__(
        self,
        *,
        binary: str,
        timeout_s: float = 120.0,
        max_duration_s: float = 600.0,
        max_bytes: int = 200 << 20,
        jobs: int | None = None,
    ) -> None:
        cores = os.cpu_count() or 1
        self._binary = binary
        self._timeout_s = timeout_s
        self._max_duration_s = max_duration_s
        self._max_bytes = max_bytes
        self._slots = asyncio.Semaphore(jobs or cores)
        self._limits = Limits(file_bytes=max_bytes * 2, cpu_s=timeout_s * cores)

    async def probe(self, path: Path) -> Clip:
        """What `path` is. Raises AudioRejected: not audio, past a limit, unreadable; EngineUnavailable."""
        container, clip = await asyncio.to_thread(self._told, path)
        clip = clip or await self._walk(path, container)
        self._judge(clip)
        return clip

    async def trim(
        self,
        source: Path,
        target: Path,
        *,
        threshold: str = "-60dB",
        trim_silence: bool = True,
        may_be_silent: bool = False,
    ) -> Clip:
        """Write `source` to `target` without its silent ends (20 ms of them stay), tags, pictures and video.

        wav, flac, mp3 and ogg keep their family (`family` names a file's suffix), the rest becomes mp3.
        Silent is an RMS below `threshold` over 20 ms. With `trim_silence=False` a family member is copied
        without re-encoding, and only proven to decode and, unless it `may_be_silent`, to be above the
        threshold somewhere.
        Raises AudioRejected, EngineUnavailable, and StorageUnavailable for a full disk; `target` is then
        not there.
        """
        if not THRESHOLD.fullmatch(threshold):
            raise ValueError(f"threshold {threshold!r} is not like -60dB")
        try:
            return await self._trim(
                source, target, threshold, trim_silence=trim_silence, may_be_silent=may_be_silent
            )
        except BaseException:
            await asyncio.to_thread(target.unlink, missing_ok=True)
            raise

    async def prove(self, path: Path) -> Clip:
        """Decode all of a stranger's file, and measure what came out of it; nothing is written.

        Raises AudioRejected as `probe` does, and for a file that holds less than it says: one cut short.
        """
        clip = await self.probe(path)
        if clip.codec in ("float", "double"):
            await asyncio.to_thread(refuse_not_numbers, path)
        missing_bytes = await asyncio.to_thread(missing_of, path)
        if missing_bytes:
            raise AudioRejected(f"the file is cut short: {missing_bytes} bytes are missing")
        argv = prove_argv(self._binary, path, clip.container, self._max_duration_s)
        ended = await self._ffmpeg(argv, path)
        times = re.findall(r"^out_time_us=(\d+)", ended.stderr_tail, re.MULTILINE)
        decoded_s = int(times[-1]) / 1e6 if times else 0.0
        if not decoded_s:
            raise AudioRejected("the clip has no samples that can be decoded")
        if clip.duration_s - decoded_s > max(_SLACK_S, _SLACK_SHARE * clip.duration_s):
            cut = f"{decoded_s:.1f} s of {clip.duration_s:.1f} s can be decoded"
            raise AudioRejected(f"the file is cut short: {cut}")
        self._judge(replace(clip, duration_s=decoded_s), slack_s=_SLACK_S)
        return clip

    async def mix(self, layers: Sequence[Layer], target: Path, frame: Frame) -> Mix:
        """Write the layers under each other to `target`: stereo FLAC of the frame's rate and exact length.

        Measured first, and made quieter only where its true peak would pass -1.5 dBTP. Raises as `trim`.
        """
        paths = [layer.path for layer in layers]
        try:
            told = await self._ffmpeg(measure_argv(self._binary, layers, frame, self._max_duration_s), *paths)
            measured = read_measures(told.stderr_tail)
            argv = mix_argv(
                self._binary,
                layers,
                frame,
                target,
                gain_db=measured.gain_db,
                max_duration_s=self._max_duration_s,
            )
            ended = await self._ffmpeg(argv, *paths, target)
            return Mix(await self._proven(target, ended, silent=False), measured)
        except BaseException:
            await asyncio.to_thread(target.unlink, missing_ok=True)
            raise

    async def peaks(self, path: Path, *, buckets: int = 800) -> bytes:
        """The outline as JSON (see `clips.draw_peaks`), of what `trim` writes. Raises AudioRejected."""
        return await asyncio.to_thread(draw_peaks, path, buckets)

    async def _trim(
        self, source: Path, target: Path, threshold: str, *, trim_silence: bool, may_be_silent: bool
    ) -> Clip:
        clip = await self.probe(source)
        if clip.codec in ("float", "double"):
            await asyncio.to_thread(refuse_not_numbers, source)
        recipe = Recipe(clip.container, clip.codec, threshold, self._max_duration_s, self._max_bytes)
        build = trim_argv if trim_silence else keep_argv
        ended = await self._ffmpeg(build(self._binary, source, target, recipe), source, target)
        silent = not (trim_silence or may_be_silent) and _is_silent(ended.stderr_tail, threshold)
        return await self._proven(target, ended, silent=silent)

    def _told(self, path: Path) -> tuple[str, Clip | None]:
        """The container, and what libsndfile says of it: in one trip to a thread."""
        size_bytes = path.stat().st_size
        if size_bytes > self._max_bytes:
            raise AudioRejected(f"the file is larger than {self._max_bytes} bytes")
        container = sniff(path)
        return container, read_header(path, container)

    def _judge(self, clip: Clip, *, slack_s: float = 0.0) -> None:
        if clip.duration_s > self._max_duration_s + slack_s:
            raise AudioRejected(
                f"the clip lasts {clip.duration_s:.0f} s, the limit is {self._max_duration_s:g} s"
            )
        if not 1 <= clip.channels <= MAX_CHANNELS:
            raise AudioRejected(f"the clip has {clip.channels} channels, the limit is {MAX_CHANNELS}")
        if not MIN_RATE <= clip.sample_rate <= MAX_RATE:
            raise AudioRejected(f"the clip's rate is {clip.sample_rate} Hz, outside {MIN_RATE}-{MAX_RATE} Hz")

    async def _walk(self, path: Path, container: str) -> Clip:
        """Let ffmpeg walk the packets (their sum is the length) and decode 0.1 s (its WAV header tells the
        rest): nothing is parsed that a tag in the file could have written."""
        argv = walk_argv(self._binary, path, container, self._max_duration_s)
        ended = await self._ffmpeg(argv, path)
        header, times = ended.stdout, re.findall(r"^out_time_us=(\d+)", ended.stderr_tail, re.MULTILINE)
        if len(header) < 28 or not times:
            raise AudioRejected("the clip has no samples that can be decoded")
        channels, rate = int.from_bytes(header[22:24], "little"), int.from_bytes(header[24:28], "little")
        return Clip(
            int(times[-1]) / 1e6, rate, channels, container, "unknown", CONTAINERS[container].media_type
        )

    async def _proven(self, target: Path, ended: Finished, *, silent: bool) -> Clip:
        """The result as measured, or why there is none."""
        if silent:
            raise AudioRejected("the clip is silent")
        clip = await asyncio.to_thread(_measure, target)
        if clip is None:
            # No frame came out of the filter: either all was silent, or no frame could be decoded.
            complaint = _complaint(ended.stderr_tail)
            raise AudioRejected(
                f"the clip cannot be decoded: {complaint}" if complaint else "the clip is silent"
            )
        if (await asyncio.to_thread(target.stat)).st_size >= self._max_bytes:
            raise AudioRejected(f"the result is larger than {self._max_bytes} bytes")
        # A header may have lied about the length, the samples do not. Encoders pad by some frames.
        self._judge(clip, slack_s=0.5)
        return clip

    async def _ffmpeg(self, argv: list[str], *paths: Path) -> Finished:
        ended, runs = await self._run(argv), 1
        while ended.exit_code == -signal.SIGKILL and runs < _MOST_RUNS:
            ended, runs = await self._run(argv), runs + 1
        if ended.exit_code == 0:
            return ended
        if ended.exit_code in _DISK_FULL_CODES or _DISK_FULL.search(ended.stderr_tail):
            # Nothing is wrong with the clip: it can be tried again once there is room.
            raise StorageUnavailable("no space is left on the disk of temporary files")
        if "matches no streams" in ended.stderr_tail:
            raise AudioRejected("the file has no audio stream")
        complaint = _complaint(ended.stderr_tail, *paths) or f"ffmpeg ended with {ended.exit_code}"
        raise AudioRejected(f"the clip cannot be decoded: {complaint}")

    async def _run(self, argv: list[str]) -> Finished:
        async with self._slots:
            try:
                return await run(
                    argv, timeout_s=self._timeout_s, limits=self._limits, stdout_bytes=_WAV_HEADER_BYTES
                )
            except TimeoutError as exc:
                raise AudioRejected(f"decoding took longer than the limit of {self._timeout_s:g} s") from exc


def default_binary() -> str:
    """The ffmpeg that comes with the `imageio-ffmpeg` package (GPL build, no ffprobe)."""
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _measure(target: Path) -> Clip | None:
    """The result's header; None when no sample is in it (an mp3 of none is no mp3 at all)."""
    try:
        return read_header(target, sniff(target))
    except (AudioRejected, FileNotFoundError):
        return None


def _is_silent(report: str, threshold: str) -> bool:
    loudest = _LOUDEST.findall(report)
    return not loudest or float(loudest[-1]) < float(threshold.removesuffix("dB"))


def _complaint(report: str, *paths: Path) -> str:
    """ffmpeg's last words, without our paths, its memory addresses and its length."""
    for path in paths:
        report = report.replace(str(path), "the file")
    lines = [line for line in report.splitlines() if line.strip() and not _PROGRESS.match(line)]
    return re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\] ?|file:", "", lines[-1])[:200].strip() if lines else ""
