"""The one Cog predictor of the local worker: every kind of sound goes in and out through here.

Owns the inputs' rules, the progress lines, the file that leaves and the worker's scratch space. Promises an
object output `{audio, engine, recipe, seed, duration_s, details}` or an error for people; the same inputs
and seed give the same bytes. Leaves the sound to the engines, which are imported only when they are needed.

Cog has no schema of ours, so it checks nothing: nulls, strings for numbers and unknown names arrive here (an
unknown name as a TypeError that names it). The error text in Cog's reply is
`Prediction failed: Prediction failed: EngineError: <what we said>`. The `completed` webhook carries the file
as a data URI inside the object: `{"id":…,"logs":…,"metrics":{"predict_time":…},"output":{"audio":
"data:audio/flac;base64,…","details":"{…}","duration_s":5.0,"engine":…,"recipe":…,"seed":7},
"status":"succeeded"}`; an `output` hook, where asked for, carries a list of that one object.

Cancel arrives as CancelationException, a BaseException raised between two bytecodes of the running thread:
nothing here catches it, and what it leaves behind is cleared by the next run.
"""

import contextlib
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cog
import coglet

from app.engines.base import EngineError, Progress, Rendering

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = {
    "sound_effect": ("prompt", "duration_s", "seed", "loop"),
    "background_music": ("prompt", "duration_s", "seed"),
    "speech": ("text", "language", "voice", "speed", "seed"),
}
"""The inputs of each kind; any other input given to it is refused, so that a slip is seen at once."""

MAX_SEED = 2**31 - 1
MAX_PROMPT_CHARACTERS = 2_000
MAX_DURATION_S = 600.0

_NICENESS = 5
_PROGRESS_INTERVAL_S = 0.2
_RENDERING_SHARE = 0.95  # of the progress; writing the file is the rest
_BLOCK = 1 << 16
_COGLET_LEFTOVERS = Path("/tmp/coglet/predictions")  # noqa: S108 - coglet's own, not configurable
_SPILL_KEPT_S = 60.0
_FOLDER_KEPT_S = 3600.0


class Output(cog.BaseModel):  # type: ignore[misc]  # cog is not followed by mypy
    """What a prediction ends with. `details` is a JSON object as text: Cog's outputs are flat."""

    audio: cog.Path
    engine: str
    recipe: str
    seed: int
    duration_s: float
    details: str


class Runner(cog.BaseRunner):  # type: ignore[misc]  # cog is not followed by mypy
    """Served by `cog.server.http` as `predict.py:Runner`, one prediction at a time."""

    def setup(self) -> None:
        """Step back behind the service, and clear what a killed worker left."""
        _yield_the_core()
        self._scratch = open_scratch()

    def run(
        self,
        kind: str = "",
        prompt: str | None = None,
        duration_s: float | None = None,
        seed: int | None = None,
        loop: bool | None = None,
        text: str | None = None,
        language: str | None = None,
        voice: str | None = None,
        speed: float | None = None,
    ) -> Output:
        """Render one sound. Raises EngineError for inputs that do not fit, naming the input."""
        # Linux keeps niceness by thread and Cog runs predictions on threads that setup never saw.
        _yield_the_core()
        self._scratch.clear()
        given = {
            "prompt": prompt, "duration_s": duration_s, "seed": seed, "loop": loop, "text": text,
            "language": language, "voice": voice, "speed": speed,
        }  # fmt: skip
        inputs = check_inputs(kind, given)
        report = ProgressLines()
        rendering = _render(kind, inputs, lambda done, step: report(done * _RENDERING_SHARE, step))
        report(_RENDERING_SHARE, "writing")
        file = self._scratch.new_file("audio.flac")
        write_flac(rendering, file, seed=inputs["seed"])
        report(1.0, "done")
        return Output(
            audio=cog.Path(file),
            engine=rendering.engine,
            recipe=rendering.recipe,
            seed=inputs["seed"],
            duration_s=round(rendering.duration_s, 6),
            details=json.dumps(rendering.details, ensure_ascii=False, sort_keys=True),
        )


class ProgressLines:
    """Prints `progress 0.42 rendering rain`: never backwards, at most one line in 0.2 s."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_at = clock()
        self._furthest = 0.0

    def __call__(self, fraction: float, step: str) -> None:
        self._furthest = min(1.0, max(self._furthest, fraction))
        if self._clock() < self._next_at:
            return
        self._next_at = self._clock() + _PROGRESS_INTERVAL_S
        print(f"progress {self._furthest:.2f} {' '.join(step.split())}", flush=True)


def check_inputs(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The inputs of `kind` with defaults filled in and a seed. Raises EngineError naming the input at fault.

    None stands for an input that was not given.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise EngineError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in KINDS[kind]:
            raise EngineError(f"{name}: is not an input of {kind}, which takes {', '.join(KINDS[kind])}")
    seed = _whole(given, "seed", secrets.randbelow(MAX_SEED + 1), MAX_SEED)
    return {**_CHECKS[kind](given), "seed": seed}


def write_flac(rendering: Rendering, file: Path, *, seed: int) -> None:
    """Write 16-bit FLAC at the rendering's own rate, with TPDF dither drawn from the seed."""
    import numpy as np
    import soundfile

    noise = np.random.default_rng([seed, 0xD17E])
    samples = rendering.samples
    shape = {"samplerate": rendering.sample_rate, "channels": samples.shape[1]}
    with soundfile.SoundFile(file, "w", format="FLAC", subtype="PCM_16", **shape) as out:
        for at in range(0, len(samples), _BLOCK):  # in blocks: a cancel gets through, memory stays low
            out.write(_to_16_bit(samples[at : at + _BLOCK], noise))


def _to_16_bit(samples: "NDArray[np.float32]", noise: "np.random.Generator") -> "NDArray[np.int16]":
    import numpy as np

    shape = samples.shape
    dither = noise.random(shape, np.float32) - noise.random(shape, np.float32)
    return np.clip(np.rint(samples * 32767 + dither), -32768, 32767).astype(np.int16)


def _render(kind: str, inputs: dict[str, Any], progress: Progress) -> Rendering:
    rendering: Rendering
    if kind == "speech":
        from app.engines import speech

        rendering = speech.render(**inputs, progress=progress)
    elif kind == "background_music":
        from app.engines import music

        rendering = music.render(**inputs, progress=progress)
    else:
        from app.engines import effects

        rendering = effects.render(**inputs, progress=progress)
    return rendering


def _check_sound_effect(given: dict[str, Any]) -> dict[str, Any]:
    loop = given.get("loop", False)
    if not isinstance(loop, bool):
        raise EngineError(f"loop: {loop!r} is neither true nor false")
    duration_s = _number(given, "duration_s", 5.0, (0.1, MAX_DURATION_S))
    return {"prompt": _words(given, "prompt", MAX_PROMPT_CHARACTERS), "duration_s": duration_s, "loop": loop}


def _check_background_music(given: dict[str, Any]) -> dict[str, Any]:
    duration_s = _number(given, "duration_s", 30.0, (1.0, MAX_DURATION_S))
    return {"prompt": _words(given, "prompt", MAX_PROMPT_CHARACTERS), "duration_s": duration_s}


def _check_speech(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "text": _words(given, "text", None),  # the engine knows its own limit
        "language": _words({"language": "en", **given}, "language", 50),
        "voice": _words(given, "voice", 100) if "voice" in given else None,
        "speed": _number(given, "speed", 1.0, (0.5, 2.0)),
    }


_CHECKS = {
    "sound_effect": _check_sound_effect,
    "background_music": _check_background_music,
    "speech": _check_speech,
}


def _words(given: dict[str, Any], name: str, longest: int | None) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value.strip():
        raise EngineError(f"{name}: a text that is not empty is needed")
    if longest is not None and len(value) > longest:
        raise EngineError(f"{name}: {len(value)} characters are too many, at most {longest} are taken")
    return value


def _number(given: dict[str, Any], name: str, default: float, span: tuple[float, float]) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EngineError(f"{name}: {value!r} is not a number")
    if not span[0] <= value <= span[1]:  # also false for NaN
        raise EngineError(f"{name}: {value} is not between {span[0]:g} and {span[1]:g}")
    return float(value)


def _whole(given: dict[str, Any], name: str, default: int, largest: int) -> int:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise EngineError(f"{name}: {value!r} is not a whole number between 0 and {largest}")
    return value


class Scratch:
    """A folder of this worker's own, holding the files of one prediction at most.

    Cog reads an output file after `run` has returned and never deletes it, so a file is deleted when the next
    prediction starts. coglet also leaves a folder for each prediction, with the whole output in it where that
    was large, for ever: those go too, by age, as other Cog servers of this machine share the place.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.clear()

    def clear(self) -> None:
        for left in self._folder.glob("run-*"):
            shutil.rmtree(left, ignore_errors=True)
        _sweep_coglet(_COGLET_LEFTOVERS, now=time.time())

    def new_file(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix="run-", dir=self._folder)) / name


def open_scratch() -> Scratch:
    """In `REPRISE_WORKER_TMP`, which must belong to one worker alone, else in a folder of this process."""
    named = os.environ.get("REPRISE_WORKER_TMP")
    if named:
        Path(named).mkdir(parents=True, exist_ok=True)
        return Scratch(Path(named))
    prefix = "reprise-worker-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid = left.name.removeprefix(prefix).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
    return Scratch(Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-")))


def _sweep_coglet(folder: Path, *, now: float) -> None:
    """Delete outputs that coglet spilled to disk a minute ago, and folders that stayed empty for an hour."""
    for spill in folder.glob("*/outputs/spill_*.json"):
        with contextlib.suppress(OSError):
            if now - spill.stat().st_mtime > _SPILL_KEPT_S:
                spill.unlink()
    for prediction in folder.glob("*"):
        with contextlib.suppress(OSError):  # not ours, not empty, or gone already
            if now - prediction.stat().st_mtime > _FOLDER_KEPT_S:
                for part in (prediction / "inputs", prediction / "outputs", prediction):
                    part.rmdir()


def _yield_the_core() -> None:
    """Lower this thread's priority, in a Cog worker only: a test's process keeps its own."""
    if coglet.server.active and sys.platform == "linux":
        current = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, max(current, _NICENESS))
