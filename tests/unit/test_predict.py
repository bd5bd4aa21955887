"""The promises of the Cog predictor, run in this process; tests/contract has the real server."""

from __future__ import annotations

import json
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from app.engines import predict
from app.engines.base import EngineError, Rendering
from app.engines.inputs import check_inputs
from app.engines.predict import Output, ProgressLines, Runner, write_flac


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    monkeypatch.setenv("REPRISE_WORKER_TMP", str(tmp_path / "worker"))
    monkeypatch.setattr(predict, "_COGLET_LEFTOVERS", tmp_path / "coglet")
    made = Runner()
    made.setup()
    return made


def install(monkeypatch: pytest.MonkeyPatch, name: str, render: Callable[..., Rendering]) -> None:
    """Put an engine in the place of `app.engines.<name>`, whether that is written already or not."""
    engine = types.ModuleType(f"app.engines.{name}")
    engine.render = render  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"app.engines.{name}", engine)
    monkeypatch.setattr(sys.modules["app.engines"], name, engine, raising=False)


def tone(frames: int = 44_100, channels: int = 2) -> Rendering:
    wave = 0.5 * np.sin(np.arange(frames) * 0.05)
    samples = np.repeat(wave[:, None], channels, axis=1).astype(np.float32)
    return Rendering(samples, 44_100, "test/1", "tone", {"tempo": 90, "word": "été"})


def test_speech_leaves_as_a_flac_file_with_everything_said_about_it(runner: Runner) -> None:
    output: Output = runner.run(kind="speech", text="Hello there.", seed=7)
    sound, rate = soundfile.read(output.audio, dtype="int16", always_2d=True)
    assert soundfile.info(output.audio).subtype == "PCM_16"
    assert rate == 24_000
    assert sound.shape == (round(output.duration_s * rate), 1)
    assert (output.recipe, output.seed) == ("heart", 7)
    assert json.loads(output.details) == {"language": "en", "seed": 7, "sentences": 1, "speed": 1.0}


def test_the_same_seed_gives_the_same_bytes(runner: Runner) -> None:
    asked = {"kind": "speech", "text": "Bonsoir.", "language": "fr", "seed": 11}
    first = Path(runner.run(**asked).audio).read_bytes()
    assert Path(runner.run(**asked).audio).read_bytes() == first


@pytest.mark.parametrize(
    ("kind", "engine", "asked", "passed"),
    [
        ("sound_effect", "effects", {}, {"duration_s": 5.0, "loop": False}),
        ("sound_effect", "effects", {"duration_s": 2, "loop": True}, {"duration_s": 2.0, "loop": True}),
        ("background_music", "music", {}, {"duration_s": 30.0}),
    ],
)
def test_each_kind_reaches_its_engine(
    runner: Runner,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    engine: str,
    asked: dict[str, Any],
    passed: Any,
) -> None:
    calls: list[dict[str, Any]] = []

    def render(prompt: str, **inputs: Any) -> Rendering:
        assert callable(inputs.pop("progress"))
        calls.append({"prompt": prompt, **inputs})
        return tone()

    install(monkeypatch, engine, render)
    output: Output = runner.run(kind=kind, prompt="rain", seed=3, **asked)
    assert calls == [{"prompt": "rain", "seed": 3, **passed}]
    assert (output.engine, output.recipe, output.duration_s) == ("test/1", "tone", 1.0)
    assert json.loads(output.details) == {"tempo": 90, "word": "été"}


def test_a_missing_seed_is_drawn_and_reported(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def render(*, seed: int, **_inputs: Any) -> Rendering:
        seeds.append(seed)
        return tone()

    install(monkeypatch, "music", render)
    reported = [runner.run(kind="background_music", prompt="calm").seed for _ in range(4)]
    assert reported == seeds
    assert len(set(seeds)) > 1
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("", {}, "kind: '' is not one of sound_effect, background_music, speech"),
        (None, {}, "kind: None"),
        (["speech"], {}, "kind: ['speech']"),
        ("speech", {}, "text: a text that is not empty"),
        ("speech", {"text": " \n"}, "text: a text"),
        ("speech", {"text": 5}, "text: a text"),
        ("speech", {"text": "a", "prompt": "b"}, "prompt: is not an input of speech"),
        ("speech", {"text": "a", "speed": "1"}, "speed: '1' is not a number"),
        ("speech", {"text": "a", "speed": float("nan")}, "speed: nan is not between 0.5 and 2"),
        ("speech", {"text": "a", "language": 3}, "language: a text"),
        ("speech", {"text": "a", "voice": ""}, "voice: a text"),
        ("sound_effect", {"duration_s": 5}, "prompt: a text"),
        ("sound_effect", {"prompt": "x" * 2001}, "prompt: 2001 characters"),
        ("sound_effect", {"prompt": "x", "duration_s": True}, "duration_s: True is not a number"),
        ("sound_effect", {"prompt": "x", "duration_s": -1}, "duration_s: -1 is not between"),
        ("sound_effect", {"prompt": "x", "loop": 1}, "loop: 1 is neither"),
        ("sound_effect", {"prompt": "x", "seed": 2**31}, "seed: 2147483648 is not a whole number"),
        ("sound_effect", {"prompt": "x", "seed": 1.0}, "seed: 1.0 is not"),
        ("sound_effect", {"prompt": "x", "seed": True}, "seed: True is not"),
        ("background_music", {"prompt": "x", "loop": False}, "loop: is not an input of background_music"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(kind: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError) as refusal:
        check_inputs(kind, given)
    assert str(refusal.value).startswith(said)


def test_nulls_count_as_not_given() -> None:
    given = {"prompt": "rain", "duration_s": None, "seed": 1, "loop": None, "text": None, "voice": None}
    wanted = {"prompt": "rain", "duration_s": 5.0, "seed": 1, "loop": False}
    assert check_inputs("sound_effect", given) == wanted


def test_files_do_not_pile_up_whatever_ends_a_run(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Canceled(BaseException):
        """As Cog's own: not an Exception."""

    def cancel(*_given: object, **_inputs: Any) -> None:
        raise Canceled

    worker = tmp_path / "worker"
    first = runner.run(kind="speech", text="One.", seed=1)
    assert Path(first.audio).exists()
    monkeypatch.setattr(predict, "_to_16_bit", cancel)
    with pytest.raises(Canceled):
        runner.run(kind="speech", text="Two.", seed=1)
    assert not Path(first.audio).exists()
    assert len(list(worker.iterdir())) == 1
    Runner().setup()  # a new worker after a killed one
    assert list(worker.iterdir()) == []


def test_a_worker_without_a_folder_of_its_own_clears_those_of_the_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("REPRISE_WORKER_TMP", raising=False)
    monkeypatch.setattr(predict.tempfile, "tempdir", str(tmp_path))
    dead, alive = tmp_path / "reprise-worker-99999999-x", tmp_path / f"reprise-worker-{os.getppid()}-x"
    dead.mkdir()
    alive.mkdir()
    Runner().setup()
    assert not dead.exists()
    assert alive.exists()
    assert len(list(tmp_path.glob(f"reprise-worker-{os.getpid()}-*"))) == 1


def test_what_coglet_leaves_is_swept_by_age_and_never_while_it_may_be_in_use(tmp_path: Path) -> None:
    now = 1_000_000.0

    def leave(name: str, age_s: float, *, spill: bool = False) -> Path:
        folder = tmp_path / name
        for part in (folder / "inputs", folder / "outputs"):
            part.mkdir(parents=True)
        file = folder / "outputs" / "spill_1.json"
        if spill:
            file.write_text("{}")
        for path in (file, folder) if spill else (folder,):
            os.utime(path, (now - age_s, now - age_s))
        return file if spill else folder

    kept = [leave("new", 10), leave("recent", 120), leave("reading", 10, spill=True)]
    swept = [leave("read", 120, spill=True), leave("old", 7200)]
    (leave("foreign", 7200) / "inputs" / "photo.jpg").write_text("someone's input")
    predict._sweep_coglet(tmp_path, now=now)
    assert [path.exists() for path in kept] == [True] * len(kept)
    assert [path.exists() for path in swept] == [False] * len(swept)
    assert (tmp_path / "foreign" / "inputs" / "photo.jpg").exists()


def test_a_folder_that_another_worker_deletes_meanwhile_does_not_stop_the_start(tmp_path: Path) -> None:
    """Fault 62: two workers of one machine start in the same moment and clear the same place."""

    class Shared(type(tmp_path)):  # type: ignore[misc]
        def glob(self, pattern: str) -> Iterator[Path]:
            yield tmp_path / "gone"
            raise FileNotFoundError(2, "No such file or directory", "gone/outputs")

    predict._sweep_coglet(Shared(tmp_path), now=0.0)


def test_progress_never_goes_back_and_is_printed_at_most_five_times_a_second(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    report = ProgressLines(clock=lambda: now)
    for hundredth in range(100):
        now = hundredth / 100
        report(0.5 if hundredth == 60 else hundredth / 100, "rendering\nrain")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(re.fullmatch(r"progress 0\.\d\d rendering rain", line) for line in lines)
    assert lines == sorted(lines)


def test_flac_keeps_the_sound_to_the_last_bit_and_the_dither_hides_the_steps(tmp_path: Path) -> None:
    quiet = Rendering(np.full((200_000, 1), 0.3 / 32767, np.float32), 24_000, "test/1", "quiet")
    write_flac(quiet, tmp_path / "quiet.flac", seed=5)
    steps, _rate = soundfile.read(tmp_path / "quiet.flac", dtype="int16")
    assert set(steps) == {-1, 0, 1}
    assert steps.mean() == pytest.approx(0.3, abs=0.01)

    loud = Rendering(np.array([[1.0, -1.0]] * 1000, np.float32), 44_100, "test/1", "loud")
    write_flac(loud, tmp_path / "loud.flac", seed=5)
    ends, rate = soundfile.read(tmp_path / "loud.flac", dtype="int16")
    assert (rate, ends[:, 0].min() > 32_700, ends[:, 1].max() < -32_700) == (44_100, True, True)


def test_this_process_keeps_its_priority(runner: Runner) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    runner.setup()
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
