"""The media room against the real ffmpeg and the real libsndfile: what trimming promises, and what hostile
files, hangs and cancellations must not do (faults 35, 37-42)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from app.audio import Audio, Recipe, default_binary, family, keep_argv, trim_argv, walk_argv
from app.audio.clips import CONTAINERS, sniff
from app.audio.processes import Limits, run
from app.errors import AudioRejected, EngineUnavailable

pytestmark = pytest.mark.real

TONE_WITH_SILENT_ENDS = "sine=440:d=1.5:r=44100,adelay=700:all=1,apad=pad_dur=0.8"
TONE_S, PADDING_S = 1.5, 0.02
THERE = "wav", "flac", "mp3", "ogg", "m4a", "webm", "aiff", "aac"


@pytest.fixture
def audio() -> Audio:
    return Audio(binary=default_binary(), timeout_s=20)


def make(path: Path, *args: str, lavfi: str = TONE_WITH_SILENT_ENDS) -> Path:
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


def make_piped(path: Path, suffix: str) -> Path:
    """A file written without seeking back, so that its header does not know its length."""
    command = [default_binary(), "-v", "error", "-f", "lavfi", "-i", TONE_WITH_SILENT_ENDS, "-f", suffix, "-"]
    path.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return path


def fake_ffmpeg(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def is_dead(pid: int) -> bool:
    """Gone, or a zombie that only a missing init has not collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def written(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    return ""


async def becomes(condition: Callable[[], object]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came about")


async def gone(pid_file: Path) -> None:
    pid = int(written(pid_file))
    await becomes(lambda: is_dead(pid))


# ── trimming ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", THERE)
async def test_silent_ends_are_cut_and_the_family_is_kept(audio: Audio, tmp_path: Path, suffix: str) -> None:
    source = make(tmp_path / f"source.{suffix}")
    target = tmp_path / "target"
    clip = await audio.trim(source, target)
    assert clip.duration_s == pytest.approx(TONE_S + 2 * PADDING_S, abs=0.06)
    assert clip.container == (suffix if suffix in ("wav", "flac", "ogg", "mp3") else "mp3")
    assert clip.container == family((await audio.probe(source)).container)
    samples, rate = soundfile.read(target)
    assert rate == clip.sample_rate
    assert np.abs(samples).max() > 0.1


@pytest.mark.parametrize("suffix", THERE)
async def test_kept_clips_are_proven_and_left_whole(audio: Audio, tmp_path: Path, suffix: str) -> None:
    source = make(tmp_path / f"source.{suffix}")
    clip = await audio.trim(source, tmp_path / "target", trim_silence=False)
    assert clip.duration_s == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
async def test_the_same_input_gives_the_same_bytes(audio: Audio, tmp_path: Path, suffix: str) -> None:
    source = make(tmp_path / f"source.{suffix}", "-metadata", "title=once")
    first, second = tmp_path / "first", tmp_path / "second"
    await audio.trim(source, first)
    await audio.trim(source, second)
    assert first.read_bytes() == second.read_bytes()
    assert b"once" not in first.read_bytes()


async def test_opus_stays_opus(audio: Audio, tmp_path: Path) -> None:
    source = make(tmp_path / "source.ogg", "-c:a", "libopus", "-ar", "48000")
    clip = await audio.trim(source, tmp_path / "target")
    assert (clip.container, clip.codec) == ("ogg", "opus")


@pytest.mark.parametrize(("depth", "codec"), [("s16", "pcm_16"), ("s32", "pcm_24")])
async def test_flac_keeps_its_depth(audio: Audio, tmp_path: Path, depth: str, codec: str) -> None:
    source = make(tmp_path / "source.flac", "-sample_fmt", depth)
    assert (await audio.trim(source, tmp_path / "target")).codec == codec


async def test_quiet_inside_a_clip_stays(audio: Audio, tmp_path: Path) -> None:
    two_tones = "sine=440:d=4:r=16000,volume=0:enable='between(t,1,3)'"
    source = make(tmp_path / "source.wav", lavfi=two_tones)
    assert (await audio.trim(source, tmp_path / "target")).duration_s == pytest.approx(4.0, abs=0.05)


async def test_a_cover_picture_and_a_huge_tag_are_dropped(audio: Audio, tmp_path: Path) -> None:
    """Faults 41, 42."""
    cover = tmp_path / "cover.png"
    noise = "nullsrc=s=400x400:d=1:r=1,geq=random(1)*255:128:128"
    make(cover, "-frames:v", "1", lavfi=noise)
    source = tmp_path / "source.mp3"
    make(
        source,
        "-i",
        str(cover),
        "-map",
        "0:a",
        "-map",
        "1:v",
        "-c:v",
        "copy",
        "-disposition:v",
        "attached_pic",
    )
    assert source.read_bytes()[:3] == b"ID3"
    clip = await audio.trim(source, tmp_path / "target")
    assert clip.duration_s == pytest.approx(TONE_S + 2 * PADDING_S, abs=0.06)
    assert b"PNG" not in (tmp_path / "target").read_bytes()


async def test_of_two_audio_streams_the_first_is_taken(audio: Audio, tmp_path: Path) -> None:
    """Fault 41."""
    source = tmp_path / "source.m4a"
    make(source, "-f", "lavfi", "-i", "sine=880:d=9", "-map", "0:a", "-map", "1:a")
    assert (await audio.trim(source, tmp_path / "target")).duration_s == pytest.approx(1.54, abs=0.06)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
async def test_a_length_that_the_header_does_not_know_is_found(
    audio: Audio, tmp_path: Path, suffix: str
) -> None:
    source = make_piped(tmp_path / "piped", suffix)
    assert (await audio.probe(source)).duration_s == pytest.approx(3.0, abs=0.05)
    assert (await audio.trim(source, tmp_path / "target")).duration_s == pytest.approx(1.54, abs=0.06)


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("trim_silence", [True, False])
@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "m4a"])
async def test_all_silence_is_refused(audio: Audio, tmp_path: Path, suffix: str, trim_silence: bool) -> None:
    """Fault 41."""
    source = make(tmp_path / f"source.{suffix}", "-t", "2", lavfi="anullsrc=r=44100:cl=mono")
    with pytest.raises(AudioRejected, match="is silent"):
        await audio.trim(source, tmp_path / "target", trim_silence=trim_silence)
    assert not (tmp_path / "target").exists()


async def test_a_video_without_sound_is_refused(audio: Audio, tmp_path: Path) -> None:
    source = make(tmp_path / "source.mp4", "-an", lavfi="testsrc=d=0.2:s=64x64")
    with pytest.raises(AudioRejected, match="no audio stream"):
        await audio.trim(source, tmp_path / "target")


@pytest.mark.parametrize(
    ("content", "looks"),
    [
        (b"<!doctype html><title>Log in</title>", "web page"),
        (b"\n <HTML>", "web page"),
        (b'{"detail": "expired"}', "JSON"),
        (b"\xef\xbb\xbf#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "HLS playlist"),
        (b"#EXTM3U\n#EXTINF:1,\nsubfile,,start,0,end,0,,:/etc/passwd\n", "HLS playlist"),
        (b"ffconcat version 1.0\nfile canary.wav\n", "ffmpeg script"),
        (b'<?xml version="1.0"?><MPD/>', "XML"),
        (b"<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'/>", "DASH"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", "session description"),
        (b"Not found", "text"),
        (b"", "an empty file"),
        (b"\x00" * 5000, "nothing known"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
    ],
)
async def test_what_is_not_audio_is_refused_by_its_content(
    audio: Audio, tmp_path: Path, content: bytes, looks: str
) -> None:
    """Fault 37."""
    for name in ("source.mp3", "source.wav"):
        source = tmp_path / name
        source.write_bytes(content)
        with pytest.raises(AudioRejected, match=looks):
            await audio.trim(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()


async def test_no_demuxer_but_the_sniffed_one_is_used(tmp_path: Path) -> None:
    """Fault 37: The second lock: were the sniff fooled, ffmpeg itself would refuse playlists and scripts."""
    make(tmp_path / "canary.wav")
    playlist = tmp_path / "playlist.mp3"
    playlist.write_text(f"#EXTM3U\n#EXTINF:3,\nfile://{tmp_path}/canary.wav\n#EXT-X-ENDLIST\n")
    script = tmp_path / "script.wav"
    script.write_text("ffconcat version 1.0\nfile canary.wav\n")
    for source, container in [(playlist, "mp3"), (script, "wav"), (script, "mp4"), (playlist, "webm")]:
        target = tmp_path / "target"
        argv = trim_argv(default_binary(), source, target, Recipe(container, "", "-60dB", 10, 1 << 20))
        ended = await run(argv, timeout_s=10)
        assert ended.exit_code != 0 or not target.exists() or target.stat().st_size < 1000


async def test_a_truncated_clip_gives_what_is_there_or_an_error(audio: Audio, tmp_path: Path) -> None:
    """Fault 41."""
    for suffix in ("wav", "flac", "mp3", "ogg", "m4a"):
        whole = make(tmp_path / f"whole.{suffix}", lavfi="sine=440:d=3").read_bytes()
        source = tmp_path / f"source.{suffix}"
        source.write_bytes(whole[: len(whole) // 2])
        try:
            clip = await audio.trim(source, tmp_path / "target")
        except AudioRejected:
            assert not (tmp_path / "target").exists()
        else:
            assert clip.container == family(sniff(source))
            assert 0.5 < clip.duration_s < 2.5
        source.write_bytes(whole[:60])
        with pytest.raises(AudioRejected) as caught:
            await audio.trim(source, tmp_path / "target")
        assert str(tmp_path) not in caught.value.message


async def test_zero_samples_are_refused(audio: Audio, tmp_path: Path) -> None:
    """Fault 41."""
    source = tmp_path / "source.wav"
    soundfile.write(source, np.zeros((0, 1)), 44100)
    with pytest.raises(AudioRejected, match="no samples"):
        await audio.trim(source, tmp_path / "target")


async def test_samples_that_are_not_numbers_are_refused(audio: Audio, tmp_path: Path) -> None:
    """Fault 41."""
    source = tmp_path / "source.wav"
    samples = np.sin(np.arange(44100) / 10)
    samples[20_000] = np.nan
    soundfile.write(source, samples, 44100, subtype="FLOAT")
    with pytest.raises(AudioRejected, match="not numbers"):
        await audio.trim(source, tmp_path / "target")


@pytest.mark.parametrize(
    ("shape", "rate", "words"),
    [((100, 255), 44100, "255 channels"), ((100, 1), 384_000, "384000 Hz"), ((100, 1), 1, "the limit|1 Hz")],
)
async def test_absurd_shapes_are_refused_before_decoding(
    tmp_path: Path, shape: tuple[int, int], rate: int, words: str
) -> None:
    """Fault 39."""
    source = tmp_path / "source.wav"
    soundfile.write(source, np.ones(shape) / 2, rate)
    never = fake_ffmpeg(tmp_path / "ffmpeg", f"touch {tmp_path}/ran")
    with pytest.raises(AudioRejected, match=words):
        await Audio(binary=never, timeout_s=5, max_duration_s=10).trim(source, tmp_path / "target")
    assert not (tmp_path / "ran").exists()


async def test_a_day_of_silence_in_a_small_file_is_refused_before_decoding(tmp_path: Path) -> None:
    """Fault 39."""
    source = make(tmp_path / "source.flac", "-t", "7200", lavfi="anullsrc=r=8000:cl=mono")
    with pytest.raises(AudioRejected, match="7200 s"):
        await Audio(binary="/nonexistent", timeout_s=5).trim(source, tmp_path / "target")


async def test_a_header_that_lies_about_the_length_is_found_out(tmp_path: Path) -> None:
    """Fault 39."""
    source = make(tmp_path / "source.mp3", "-write_xing", "0", "-b:a", "320k", lavfi="sine=440:d=1")
    rest = make(tmp_path / "rest.mp3", "-write_xing", "0", "-b:a", "32k", lavfi="sine=440:d=9").read_bytes()
    source.write_bytes(source.read_bytes() + rest)
    audio = Audio(binary=default_binary(), max_duration_s=3)
    with pytest.raises(AudioRejected, match="the limit is 3 s"):
        await audio.trim(source, tmp_path / "target")


async def test_a_clip_of_exactly_the_longest_length_is_let_in(tmp_path: Path) -> None:
    source = make(tmp_path / "source.wav", lavfi="sine=440:d=3")
    audio = Audio(binary=default_binary(), max_duration_s=3)
    assert (await audio.trim(source, tmp_path / "target")).duration_s == pytest.approx(3, abs=0.01)


async def test_a_file_or_result_over_the_size_limit_is_refused(tmp_path: Path) -> None:
    """Fault 39."""
    source = make(tmp_path / "source.mp3", "-b:a", "32k", lavfi="sine=440:d=5")
    small = source.stat().st_size
    with pytest.raises(AudioRejected, match="file is larger"):
        await Audio(binary=default_binary(), max_bytes=small - 1).probe(source)
    with pytest.raises(AudioRejected, match="result is larger"):
        await Audio(binary=default_binary(), max_bytes=small + 1).trim(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()


async def test_a_threshold_is_a_number_of_decibels_and_nothing_else(audio: Audio, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="threshold"):
        await audio.trim(tmp_path / "source", tmp_path / "target", threshold="-60dB,amovie=/etc/passwd")


# ── the process ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_hang_ends_at_the_limit_with_its_whole_group(tmp_path: Path) -> None:
    """Fault 40."""
    source = make(tmp_path / "source.wav")
    binary = fake_ffmpeg(
        tmp_path / "ffmpeg", f"sleep 60 & echo $! > {tmp_path}/child; echo x > {tmp_path}/target; wait"
    )
    audio = Audio(binary=binary, timeout_s=0.4, jobs=1)
    started = time.monotonic()
    with pytest.raises(AudioRejected, match=r"limit of 0\.4 s"):
        await audio.trim(source, tmp_path / "target")
    assert time.monotonic() - started < 30
    await gone(tmp_path / "child")
    assert not (tmp_path / "target").exists()
    with pytest.raises(AudioRejected, match="limit"):  # and the slot is free again
        await audio.trim(source, tmp_path / "target")


async def test_cancelling_kills_and_leaves_nothing(tmp_path: Path) -> None:
    """Fault 40."""
    source = make(tmp_path / "source.wav")
    binary = fake_ffmpeg(
        tmp_path / "ffmpeg", f"echo x > {tmp_path}/target; sleep 60 & echo $! > {tmp_path}/child; wait"
    )
    task = asyncio.create_task(Audio(binary=binary, timeout_s=30).trim(source, tmp_path / "target"))
    await becomes(lambda: written(tmp_path / "child"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(tmp_path / "child")
    assert not (tmp_path / "target").exists()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs util-linux's setpriv")
async def test_a_program_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """Fault 40."""
    tool = fake_ffmpeg(tmp_path / "tool", f"echo $$ > {tmp_path}/child; exec sleep 60")
    code = f"import asyncio, app.audio.processes as s; asyncio.run(s.run([{tool!r}], timeout_s=60))"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    await becomes(lambda: written(tmp_path / "child"))
    parent.kill()
    await parent.wait()
    await gone(tmp_path / "child")


async def test_a_child_that_outlives_its_parent_is_killed(tmp_path: Path) -> None:
    """Fault 40."""
    script = f"sleep 60 >/dev/null 2>&1 & echo $! > {tmp_path}/child"
    ended = await run([fake_ffmpeg(tmp_path / "tool", script)], timeout_s=5)
    assert ended.exit_code == 0
    await gone(tmp_path / "child")


async def test_an_escaped_child_that_holds_the_pipes_does_not_hold_us(tmp_path: Path) -> None:
    """Fault 40."""
    tool = fake_ffmpeg(tmp_path / "tool", f"setsid sleep 60 & echo $! > {tmp_path}/child; sleep 0.2")
    started = time.monotonic()
    assert (await run([tool], timeout_s=5, limits=Limits(reap_s=0.1))).exit_code == 0
    os.kill(int(written(tmp_path / "child")), signal.SIGKILL)
    assert time.monotonic() - started < 30


async def test_a_flood_of_words_is_drained_and_cut(tmp_path: Path) -> None:
    """Fault 40."""
    script = (
        "head -c 3000000 /dev/zero | tr '\\0' a; head -c 3000000 /dev/zero | tr '\\0' b >&2; echo end >&2"
    )
    ended = await run([fake_ffmpeg(tmp_path / "tool", script)], timeout_s=20, stdout_bytes=10)
    assert ended.stdout == b"a" * 10
    assert len(ended.stderr_tail) == 8192
    assert ended.stderr_tail.endswith("b\nend\n") or ended.stderr_tail.endswith("bend\n")


async def test_limits_and_niceness_reach_the_program(tmp_path: Path) -> None:
    """Fault 40."""
    script = "sleep 0.2; ulimit -v; ulimit -t; ulimit -f; ulimit -c; nice"
    limits = Limits(address_space_bytes=1 << 30, file_bytes=1 << 20, cpu_s=6.5, niceness=7)
    tool = fake_ffmpeg(tmp_path / "tool", script)
    ended = await run([tool], timeout_s=5, limits=limits, stdout_bytes=200)
    memory, cpu, _file, core, nice = ended.stdout.split()
    assert (int(memory), int(cpu), int(core)) == (1 << 20, 7, 0)
    assert int(nice) == 7 + os.nice(0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and SCHED_BATCH is Linux's")
async def test_a_program_stays_in_our_session_and_works_in_batches(tmp_path: Path) -> None:
    """Where sessions share a processor as equals, niceness would say nothing to us from another one."""
    tool = fake_ffmpeg(tmp_path / "tool", "sleep 0.2; echo $$; cut -d' ' -f5,6,41 /proc/self/stat")
    ended = await run([tool], timeout_s=5, stdout_bytes=200)
    pid, group, session, policy = map(int, ended.stdout.split())
    assert group == pid != os.getpgid(0)
    assert session == os.getsid(0)
    assert policy == os.SCHED_BATCH


async def test_nothing_of_our_environment_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_SECRET", "canary")
    monkeypatch.setenv("FFREPORT", f"file={tmp_path}/report")
    ended = await run([fake_ffmpeg(tmp_path / "tool", "env; cat")], timeout_s=5, stdout_bytes=4000)
    assert b"canary" not in ended.stdout
    assert b"FFREPORT" not in ended.stdout


async def test_a_missing_ffmpeg_is_named(tmp_path: Path) -> None:
    source = make(tmp_path / "source.wav")
    with pytest.raises(EngineUnavailable, match="/nonexistent/ffmpeg"):
        await Audio(binary="/nonexistent/ffmpeg").trim(source, tmp_path / "target")


async def test_a_crash_is_an_error_and_not_a_result(tmp_path: Path) -> None:
    """Fault 40."""
    source = make(tmp_path / "source.wav")
    binary = fake_ffmpeg(tmp_path / "ffmpeg", f"cp {source} {tmp_path}/target; kill -SEGV $$")
    with pytest.raises(AudioRejected, match="ended with -11"):
        await Audio(binary=binary).trim(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()


async def test_a_program_that_was_killed_from_outside_is_run_again(audio: Audio, tmp_path: Path) -> None:
    """Fault 40: the kernel takes memory back by a kill; the clip is not to blame for that."""
    source = make(tmp_path / "source.wav")
    once = f"test -e {tmp_path}/killed || {{ touch {tmp_path}/killed; kill -KILL $$; }}"
    binary = fake_ffmpeg(tmp_path / "ffmpeg", f'{once}; exec {default_binary()} "$@"')
    clip = await Audio(binary=binary, timeout_s=20).trim(source, tmp_path / "target")
    assert (tmp_path / "killed").exists()
    assert clip == await audio.trim(source, tmp_path / "undisturbed")


async def test_a_clip_whose_program_is_killed_every_time_is_refused(tmp_path: Path) -> None:
    """Fault 40: bounded, for it may be the clip after all."""
    source = make(tmp_path / "source.wav")
    binary = fake_ffmpeg(tmp_path / "ffmpeg", f"echo x >> {tmp_path}/runs; kill -KILL $$")
    with pytest.raises(AudioRejected, match="ended with -9"):
        await Audio(binary=binary).trim(source, tmp_path / "target")
    assert len((tmp_path / "runs").read_text().split()) == 3


async def test_never_more_programs_at_once_than_slots(tmp_path: Path) -> None:
    source = make(tmp_path / "source.wav")
    running = tmp_path / "running"
    running.mkdir()
    script = (
        f"touch {running}/$$; ls {running} | wc -l >> {tmp_path}/seen; sleep 0.1; rm {running}/$$; exit 1"
    )
    audio = Audio(binary=fake_ffmpeg(tmp_path / "ffmpeg", script), timeout_s=10, jobs=2)

    async def one(nth: int) -> None:
        with contextlib.suppress(AudioRejected):
            await audio.trim(source, tmp_path / f"target{nth}")

    await asyncio.gather(*(one(nth) for nth in range(8)))
    seen = [int(line) for line in (tmp_path / "seen").read_text().split()]
    assert len(seen) == 8
    assert max(seen) == 2


# ── arguments ───────────────────────────────────────────────────────────────────────────────────────────

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True).map(Path)


@given(source=names, target=names, container=st.sampled_from(sorted(CONTAINERS)), codec=st.text(max_size=5))
def test_a_path_is_always_a_file_and_never_an_option(
    source: Path, target: Path, container: str, codec: str
) -> None:
    """Fault 38."""
    recipe = Recipe(container, codec, "-60dB", 600, 1000)
    fixed = Recipe(container, codec, "-60dB", 600, 1000)
    for build in (trim_argv, keep_argv):
        argv = build("ffmpeg", source, target, recipe)
        assert argv[argv.index("-i") + 1] == f"file:{source}"
        assert argv.count(f"file:{target}") >= 1
        # Apart from the two paths the arguments do not depend on the paths.
        plain = build("ffmpeg", Path("s"), Path("t"), fixed)
        swap = {"file:s": f"file:{source}", "file:t": f"file:{target}"}
        assert argv == [swap.get(argument, argument) for argument in plain]
        assert argv[argv.index("-format_whitelist") + 1] == CONTAINERS[container].demuxer
        assert argv[argv.index("-protocol_whitelist") + 1] == "file"
    assert f"file:{source}" in walk_argv("ffmpeg", source, container, 600)


# ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_peaks_are_an_audiowaveform_of_version_2(audio: Audio, tmp_path: Path) -> None:
    source = tmp_path / "source.wav"
    left = np.linspace(-1, 1, 100_001)
    soundfile.write(source, np.stack((left, left), axis=1), 48000)
    drawn = json.loads(await audio.peaks(source))
    assert {key: drawn[key] for key in ("version", "channels", "bits", "sample_rate")} == {
        "version": 2,
        "channels": 1,
        "bits": 8,
        "sample_rate": 48000,
    }
    assert drawn["samples_per_pixel"] == 126
    assert drawn["length"] == 794
    assert len(drawn["data"]) == 2 * drawn["length"]
    assert drawn["data"][0] == -127
    assert drawn["data"][-1] == 127
    assert drawn["data"] == sorted(drawn["data"])


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
async def test_peaks_show_silence_and_tone(audio: Audio, tmp_path: Path, suffix: str) -> None:
    drawn = json.loads(await audio.peaks(make(tmp_path / f"source.{suffix}"), buckets=30))
    assert drawn["length"] <= 30
    highest = drawn["data"][1::2]
    assert max(highest[:5]) <= 1
    assert min(highest[9:20]) >= 14


async def test_a_short_clip_has_a_pixel_a_frame(audio: Audio, tmp_path: Path) -> None:
    source = tmp_path / "source.wav"
    soundfile.write(source, np.array([0.0, 0.5, -0.5]), 8000)
    assert json.loads(await audio.peaks(source))["data"] == [0, 0, 64, 64, -64, -64]


def test_the_sniff_finds_what_an_id3_tag_stands_before(tmp_path: Path) -> None:
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 0x40, 0]) + b"\0" * 0x2000
    source = tmp_path / "source"
    for magic, container in [(b"fLaC", "flac"), (b"\xff\xf1\x50\x80", "aac"), (b"\xff\xfb\x90\x64", "mp3")]:
        source.write_bytes(tag + magic)
        assert sniff(source) == container


CHURN = """
import asyncio, os, threading, uvloop
from app.audio.processes import run

over = threading.Event()

def open_and_close() -> None:
    while not over.is_set():
        mine = [os.open(os.devnull, os.O_RDONLY), *os.pipe()]
        for each in mine:
            os.fstat(each)
        for each in mine:
            os.close(each)

async def start_many() -> None:
    for _ in range(40):
        await asyncio.gather(*(run(["/bin/true"], timeout_s=60) for _ in range(8)))

others = [threading.Thread(target=open_and_close) for _ in range(3)]
failed = []
threading.excepthook = lambda told: failed.append(told.exc_value)
for each in others:
    each.start()
try:
    uvloop.run(start_many())
finally:
    over.set()
    for each in others:
        each.join()
print(failed)
"""


def test_no_descriptor_of_another_thread_is_ever_closed() -> None:
    """A descriptor that is closed twice is, the second time, somebody else's: a database's file, say."""
    ended = subprocess.run([sys.executable, "-c", CHURN], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "[]"), ended.stderr
