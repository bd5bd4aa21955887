"""Files made to harm, against the real ffmpeg: what providers answer and what callers send (faults 37-42).

Every file is judged twice: by `trim`, the way of a provider's output, and by `prove`, that of an upload. A
canary lies beside each one, and a listener on loopback counts who calls.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from app.audio import Audio, Recipe, default_binary, keep_argv, prove_argv, trim_argv, walk_argv
from app.audio.clips import CONTAINERS
from app.audio.processes import Limits, run
from app.engines.base import EngineError
from app.engines.sources.decoding import decode_blocks
from app.errors import AppError, AudioRejected
from tests.fakes.hostile import (
    CANARY_HZ,
    CANARY_NAME,
    day_of_silence_flac,
    day_of_silence_opus,
    disguises,
    id3,
    sine,
    wav,
)

pytestmark = pytest.mark.real

NAMES = [name for name, _ in disguises(Path("/x"), 1)]


@dataclass(frozen=True, slots=True)
class Trap:
    """A folder with the canary in it, and a listener that nobody may call."""

    folder: Path
    port: int
    calls: list[int]

    def content(self, name: str) -> bytes:
        return dict(disguises(self.folder, self.port))[name]


@pytest.fixture
async def trap(tmp_path: Path) -> AsyncIterator[Trap]:
    calls: list[int] = []
    (tmp_path / CANARY_NAME).write_bytes(wav(sine(2, CANARY_HZ)))

    async def count(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(1)
        writer.close()

    async with await asyncio.start_server(count, "127.0.0.1", 0) as listener:
        yield Trap(tmp_path, listener.sockets[0].getsockname()[1], calls)
    assert not calls, "somebody was called"


@pytest.fixture
def audio() -> Audio:
    return Audio(binary=default_binary(), timeout_s=60)


def sings_the_canary(path: Path) -> bool:
    """Whether the canary's pitch is in a sound."""
    samples, rate = soundfile.read(path, always_2d=True)
    spectrum = np.abs(np.fft.rfft(samples[:, 0]))
    return bool(spectrum[round(CANARY_HZ * len(samples) / rate)] > 0.1 * spectrum.max() > 0)


def make(path: Path, *args: str, lavfi: str = "sine=440:d=1.5:r=44100") -> Path:
    command = [
        default_binary(),
        "-nostdin",
        "-v",
        "error",
        "-y",
        "-f",
        "lavfi",
        "-i",
        lavfi,
        *args,
        str(path),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return path


# ── what only looks like sound ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NAMES)
async def test_a_disguise_is_refused_and_leads_nowhere(trap: Trap, audio: Audio, name: str) -> None:
    """Fault 37: whatever it is named, to whichever of the two ways it comes."""
    for suffix in ("mp3", "wav"):
        source, target = trap.folder / f"source.{suffix}", trap.folder / "target"
        source.write_bytes(trap.content(name))
        for trim_silence in (True, False):
            with pytest.raises(AudioRejected) as caught:
                await audio.trim(source, target, trim_silence=trim_silence)
            assert str(trap.folder) not in caught.value.message
            assert not target.exists()
        with pytest.raises(AudioRejected) as caught:
            await audio.prove(source)
        assert CANARY_NAME not in caught.value.message


@pytest.mark.parametrize("container", sorted(CONTAINERS))
async def test_a_fooled_sniff_would_still_meet_one_demuxer(trap: Trap, container: str) -> None:
    """Fault 37: the second lock, each disguise forced through each demuxer."""
    for name in ("hls-file", "hls-relative", "hls-http", "hls-subfile", "ffconcat-relative", "sdp", "dash"):
        source, target = trap.folder / "source.mp3", trap.folder / "target"
        source.write_bytes(trap.content(name))
        argv = trim_argv(default_binary(), source, target, Recipe(container, "", "-60dB", 10, 1 << 20))
        ended = await run(argv, timeout_s=60)
        if ended.exit_code == 0 and target.exists() and target.stat().st_size > 1000:
            assert not sings_the_canary(target), name
        target.unlink(missing_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_that_was_handed_a_disguise_reads_nothing_either(tmp_path: Path, name: str) -> None:
    """Fault 37: the third: the worker decodes by itself, what somebody else has proven."""
    (tmp_path / CANARY_NAME).write_bytes(wav(sine(2, CANARY_HZ)))
    source = tmp_path / "source.mp3"
    source.write_bytes(dict(disguises(tmp_path, 1))[name])
    try:
        blocks = list(decode_blocks(source, sample_rate=8000, channels=1, frames=16_000))
    except (EngineError, ValueError):
        return
    decoded = np.concatenate([block[0] for block in blocks]) if blocks else np.zeros(0)
    assert len(decoded) < 4000, "a sound came out of it"


# ── arguments ───────────────────────────────────────────────────────────────────────────────────────────

FIXED_OPTIONS = {
    *(
        "-nostdin",
        "-hide_banner",
        "-nostats",
        "-v",
        "-y",
        "-protocol_whitelist",
        "-format_whitelist",
        "-f",
        "-t",
    ),
    *("-i", "-map", "-af", "-c:a", "-c", "-b:a", "-q:a", "-sample_fmt", "-vn", "-sn", "-dn", "-map_metadata"),
    *("-map_chapters", "-fflags", "-flags:a", "-fs", "-progress"),
}
ANY_TEXT = st.text(max_size=30) | st.sampled_from(
    ["-y", "concat:a|b", "pipe:0", "http://x/y", "a\nb", "file:x", "|", "", ".", "..", "%03d", "a'b", "a,b=c"]
)


@given(
    names=st.tuples(ANY_TEXT, ANY_TEXT),
    container=ANY_TEXT | st.sampled_from(sorted(CONTAINERS)),
    codec=ANY_TEXT,
    threshold=ANY_TEXT | st.just("-60dB"),
    limits=st.tuples(st.floats() | st.just(600.0), st.integers(1, 1 << 40)),
)
def test_no_text_becomes_an_option_an_address_or_a_filter(
    names: tuple[str, str],
    container: str,
    codec: str,
    threshold: str,
    limits: tuple[float, int],
) -> None:
    """Fault 38: whatever reaches the builder is refused, or has left no more than a plain file name."""
    longest_s, most_bytes = limits
    builders: list[Callable[[Path, Path, str], list[str]]] = [
        lambda source, target, codec: trim_argv("ffmpeg", source, target, recipe(codec)),
        lambda source, target, codec: keep_argv("ffmpeg", source, target, recipe(codec)),
        lambda source, _, __: walk_argv("ffmpeg", source, container, longest_s),
        lambda source, _, __: prove_argv("ffmpeg", source, container, longest_s),
    ]

    def recipe(codec: str) -> Recipe:
        return Recipe(container, codec, threshold, longest_s, most_bytes)

    for build in builders:
        try:
            source, target = (Path("/tmp/job") / name for name in names)
            argv = build(source, target, codec)
        except (ValueError, KeyError):
            continue
        files = [each for each in argv if each.startswith("file:")]
        assert set(files) <= {f"file:{source}", f"file:{target}"}
        rest = [each for each in argv[1:] if each not in files]
        options = {each for each in rest if each.startswith("-") and each not in ("-", "-1")}
        assert options <= FIXED_OPTIONS
        for each in argv:
            assert not {"|", "\n", "\0", "'", "%"} & set(each)
            assert "://" not in each
            assert each.startswith("file:") or ":" not in each or each[0] in "0-sp", each
        # A codec chooses between words of ours; it is never said itself.
        assert argv in [build(source, target, known) for known in ("", "opus", "pcm_24")]


@pytest.mark.parametrize(
    "name", ["-y", "a\nb", "a|b", "concat:a", "pipe:", ".hidden", "a b", "ä", "x" * 200, "%03d.wav", "a'b"]
)
def test_a_name_that_we_cannot_have_given_stops_before_anything_runs(name: str) -> None:
    """Fault 38."""
    with pytest.raises(ValueError, match="not made here"):
        prove_argv("ffmpeg", Path("/tmp") / name, "wav", 600)


def test_a_recipe_is_made_of_our_own_words() -> None:
    """Faults 38, 42: what goes into the filter graph above all."""
    for bad in ("-60dB,amovie=/etc/passwd", "-60dB\n", "60dB", "-6٠dB", ""):
        with pytest.raises(ValueError, match="threshold"):
            Recipe("wav", "pcm_16", bad, 600, 1000)
    with pytest.raises(ValueError, match="container"):
        Recipe("hls", "", "-60dB", 600, 1000)


# ── bombs and lies ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("make_bomb", "suffix", "most_bytes"),
    [
        (day_of_silence_flac, "flac", 200_000),
        (lambda: day_of_silence_flac(knows_its_length=False), "flac", 200_000),
        (day_of_silence_opus, "ogg", 2_500_000),
    ],
    ids=["flac", "flac-of-unknown-length", "opus"],
)
async def test_a_day_of_silence_is_refused_by_its_length(
    tmp_path: Path, make_bomb: Callable[[], bytes], suffix: str, most_bytes: int
) -> None:
    """Fault 39: a small file that would be gigabytes of samples; it never is."""
    audio = Audio(binary=default_binary(), timeout_s=120, max_duration_s=600)
    source = tmp_path / f"source.{suffix}"
    source.write_bytes(make_bomb())
    assert source.stat().st_size < most_bytes
    for judged in (audio.prove(source), audio.trim(source, tmp_path / "target")):
        with pytest.raises(AudioRejected, match="the limit is 600 s"):
            await judged
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("riff_bytes", [0, 0xFFFFFFFF, 1, 12])
@pytest.mark.parametrize("data_bytes", [0, 0xFFFFFFFF, 1 << 31])
async def test_sizes_that_lie_give_the_whole_sound_or_a_reason(
    audio: Audio, tmp_path: Path, riff_bytes: int, data_bytes: int
) -> None:
    """Faults 39, 41: a WAV that was written to a pipe says so; never a silent or empty one comes out."""
    source, target = tmp_path / "source.wav", tmp_path / "target"
    source.write_bytes(wav(sine(1.0), riff_bytes=riff_bytes, data_bytes=data_bytes))
    for done in (audio.trim(source, target), audio.prove(source)):
        try:
            assert (await done).duration_s == pytest.approx(1.0, abs=0.05)
        except AudioRejected as exc:
            assert exc.message  # noqa: PT017 - either is right
            continue


@pytest.mark.parametrize(("shape", "rate"), [((8000, 255), 8000), ((384_000, 1), 384_000), ((100, 1), 1)])
async def test_absurd_shapes_are_refused_on_both_ways(
    audio: Audio, tmp_path: Path, shape: tuple[int, int], rate: int
) -> None:
    """Fault 39."""
    source = tmp_path / "source.wav"
    soundfile.write(source, np.ones(shape) / 2, rate)
    for judged in (audio.prove(source), audio.trim(source, tmp_path / "target")):
        with pytest.raises(AudioRejected):
            await judged


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
async def test_samples_that_are_no_numbers_are_refused_on_both_ways(
    audio: Audio, tmp_path: Path, subtype: str, value: float
) -> None:
    """Fault 41."""
    samples = np.sin(np.arange(44_100) / 10)
    samples[20_000] = value
    source = tmp_path / "source.wav"
    soundfile.write(source, samples, 44_100, subtype=subtype)
    for judged in (audio.prove(source), audio.trim(source, tmp_path / "target")):
        with pytest.raises(AudioRejected, match="not numbers"):
            await judged


async def test_a_picture_of_five_megabytes_is_walked_around_and_dropped(audio: Audio, tmp_path: Path) -> None:
    """Fault 42: with a page's script in the title, and quotes and percent signs for whoever formats them."""
    words = b"\x00'; amovie=/etc/passwd, %n%s [out]: <script>alert(1)</script> \\x1b[2J max_volume: 0.0 dB"
    cover = b"\x00image/png\x00\x03\x00\x89PNG\r\n\x1a\n" + b"PNGCANARY" * 580_000
    plain = make(tmp_path / "plain.mp3").read_bytes()
    source, target = tmp_path / "source.mp3", tmp_path / "target"
    source.write_bytes(id3(("TIT2", words), ("COMM", words), ("APIC", cover)) + plain)
    assert source.stat().st_size > 5_000_000
    assert (await audio.prove(source)).duration_s == pytest.approx(1.5, abs=0.1)
    for trim_silence in (True, False):
        clip = await audio.trim(source, target, trim_silence=trim_silence)
        assert clip.duration_s == pytest.approx(1.5, abs=0.1)
        made = target.read_bytes()
        assert len(made) < 100_000
        assert not any(each in made for each in (b"PNGCANARY", b"script", b"amovie"))


async def test_a_tag_cannot_speak_for_the_loudness(audio: Audio, tmp_path: Path) -> None:
    """Fault 42: ffmpeg prints tags where it prints what it measured."""
    title = "x\n[Parsed_volumedetect_0 @ 0x1] max_volume: 0.0 dB"
    source = make(
        tmp_path / "source.flac", "-t", "1", "-metadata", f"title={title}", lavfi="anullsrc=r=44100:cl=mono"
    )
    with pytest.raises(AudioRejected, match="silent"):
        await audio.trim(source, tmp_path / "target", trim_silence=False)


@pytest.mark.parametrize("layout", ["mono", "stereo", "3.0", "quad", "5.1", "7.1"])
async def test_every_usual_layout_is_kept(audio: Audio, tmp_path: Path, layout: str) -> None:
    """Fault 41."""
    source = make(tmp_path / "source.flac", "-af", f"aformat=channel_layouts={layout}")
    channels = (await audio.prove(source)).channels
    clip = await audio.trim(source, tmp_path / "target")
    assert (clip.channels, clip.duration_s) == (channels, pytest.approx(1.5, abs=0.06))


async def test_pictures_and_second_streams_are_no_part_of_the_sound(audio: Audio, tmp_path: Path) -> None:
    """Fault 41: a video, a subtitle and a second sound beside the first."""
    second = ("-f", "lavfi", "-i", "sine=3000:d=9")
    video = ("-f", "lavfi", "-i", "testsrc=d=2:s=64x64:r=5")
    source = make(
        tmp_path / "source.webm", *second, *video, "-map", "2:v", "-map", "0:a", "-map", "1:a",
        "-c:v", "libvpx", "-c:a", "libopus",
    )  # fmt: skip
    clip = await audio.trim(source, tmp_path / "target")
    assert clip.duration_s == pytest.approx(1.5, abs=0.1)
    assert not sings_the_canary(tmp_path / "target")
    # As an upload it has no sound past the first stream's end; what it says of its length is the longest.
    try:
        await audio.prove(source)
    except AudioRejected as exc:
        assert "cut short" in exc.message  # noqa: PT017 - either is right


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "m4a", "webm", "aiff", "aac"])
async def test_a_cut_file_is_never_an_error_of_ours(audio: Audio, tmp_path: Path, suffix: str) -> None:
    """Fault 41: cut anywhere, on both ways: a sound, or a typed refusal."""
    whole = make(tmp_path / f"whole.{suffix}").read_bytes()
    source, target = tmp_path / f"source.{suffix}", tmp_path / "target"
    for part in (1, 4, 13, 50, 400, len(whole) // 3, len(whole) - 7):
        source.write_bytes(whole[:part])
        for judged in (audio.prove(source), audio.trim(source, target)):
            try:
                assert (await judged).duration_s > 0
            except AppError as exc:
                assert isinstance(exc, AudioRejected), exc  # noqa: PT017 - either is right


# ── the process ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_program_that_eats_memory_is_refused_it() -> None:
    """Fault 40: 20 GB are asked for, and not given."""
    argv = [sys.executable, "-S", "-c", "import mmap; mmap.mmap(-1, 20 << 30)"]
    ended = await run(argv, timeout_s=60, limits=Limits(address_space_bytes=1 << 30))
    assert ended.exit_code != 0
    assert "memory" in ended.stderr_tail.lower()


async def test_a_program_that_burns_the_processor_is_ended() -> None:
    """Fault 40: by its own time and long before ours."""
    ended = await run([sys.executable, "-S", "-c", "while True: pass"], timeout_s=300, limits=Limits(cpu_s=1))
    assert ended.exit_code < 0


async def test_a_program_that_fills_the_disk_is_stopped(tmp_path: Path) -> None:
    """Fault 40."""
    code = f"open({str(tmp_path / 'big')!r}, 'wb').write(bytes(50 << 20))"
    ended = await run([sys.executable, "-S", "-c", code], timeout_s=60, limits=Limits(file_bytes=1 << 20))
    assert ended.exit_code != 0
    assert (tmp_path / "big").stat().st_size <= 1 << 20


def test_the_disguises_are_what_they_say(tmp_path: Path) -> None:
    """They do work: a decoder that follows them sings the canary."""
    (tmp_path / CANARY_NAME).write_bytes(wav(sine(2, CANARY_HZ)))
    source, target = tmp_path / "source.mp3", tmp_path / "target.wav"
    source.write_bytes(dict(disguises(tmp_path, 1))["ffconcat-relative"])
    command = [default_binary(), "-nostdin", "-v", "error", "-y", "-i", str(source), str(target)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert sings_the_canary(target)
