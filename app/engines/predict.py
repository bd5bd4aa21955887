"""The one Cog predictor of the local worker: every kind goes in and out through here.

Owns the progress lines, the files that leave and the worker's scratch space. Promises an object output
`{audio, engine, recipe, seed, duration_s, details}`, for kinds that end with more than one sound their
outputs by name in the place of `audio` and `seed`, or an error for people; the same inputs and seed give
the same bytes. Leaves the inputs' rules to `inputs`, the work to the engines, which are imported only when
they are needed.

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
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cog
import coglet

from app.engines.base import Findings, Progress, Rendering
from app.engines.inputs import FILES, check_inputs
from app.engines.sources.fetching import fetch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
        audio: str | None = None,
        segments: list[dict[str, Any]] | None = None,
        source: str | None = None,
        target: str | None = None,
        allow_poorer: bool | None = None,
        voice_audio: str | None = None,
        pitch_shift: int | None = None,
        strength: float | None = None,
        transpose: str | None = None,
    ) -> Any:
        """Make what `kind` ends with. Raises EngineError for inputs that do not fit, naming the input."""
        # Linux keeps niceness by thread and Cog runs predictions on threads that setup never saw.
        _yield_the_core()
        self._scratch.clear()
        given = {
            "prompt": prompt, "duration_s": duration_s, "seed": seed, "loop": loop, "text": text,
            "language": language, "voice": voice, "speed": speed, "audio": audio,
            "segments": segments, "source": source, "target": target, "allow_poorer": allow_poorer,
            "voice_audio": voice_audio, "pitch_shift": pitch_shift, "strength": strength,
            "transpose": transpose,
        }  # fmt: skip
        inputs = check_inputs(kind, given)
        report = ProgressLines()
        files = {}
        for name in FILES:
            if (url := inputs.pop(name, None)) is not None:
                report(0.0, "fetching")
                files[name] = fetch(url, self._scratch.new_file(name))
        made = _make(kind, inputs, files, lambda done, step: report(done * _RENDERING_SHARE, step))
        report(_RENDERING_SHARE, "writing")
        output = self._write(made, inputs) if isinstance(made, Rendering) else _written(made)
        report(1.0, "done")
        return output

    def _write(self, rendering: Rendering, inputs: dict[str, Any]) -> Output:
        file = self._scratch.new_file("audio.flac")
        write_flac(rendering, file, seed=inputs["seed"])
        return Output(
            audio=cog.Path(file),
            engine=rendering.engine,
            recipe=rendering.recipe,
            seed=inputs["seed"],
            duration_s=round(rendering.duration_s, 6),
            details=json.dumps(rendering.details, ensure_ascii=False, sort_keys=True),
        )


def _written(findings: Findings) -> dict[str, Any]:
    """The same shape for texts and files by name, which Cog turns into data URIs."""
    return {
        **{
            name: cog.Path(made) if isinstance(made, Path) else made
            for name, made in findings.outputs.items()
        },
        "engine": findings.engine,
        "recipe": findings.recipe,
        "duration_s": round(findings.duration_s, 6),
        "details": json.dumps(findings.details, ensure_ascii=False, sort_keys=True),
    }


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


def _make(
    kind: str, inputs: dict[str, Any], files: dict[str, Path], progress: Progress
) -> Rendering | Findings:
    made: Rendering | Findings
    match kind:
        case "speech":
            from app.engines import speech

            made = speech.render(**inputs, progress=progress)
        case "background_music":
            from app.engines import music

            made = music.render(**inputs, progress=progress)
        case "transcription":
            from app.engines import hearing

            made = hearing.transcribe(files["audio"], language=inputs["language"], progress=progress)
        case "stem_separation":
            from app.engines import stems

            file = files["audio"]
            made = stems.separate(file, file.parent, progress=progress)
        case "voice_transfer":
            from app.engines import voice

            file = files["audio"]
            made = voice.transfer(file, files["voice_audio"], file.parent, **inputs, progress=progress)
        case "translation":
            from app.engines import translation

            made = translation.translate(**inputs, progress=progress)
        case _:
            from app.engines import effects

            made = effects.render(**inputs, progress=progress)
    return made


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
    for spill in _found(folder, "*/outputs/spill_*.json"):
        with contextlib.suppress(OSError):
            if now - spill.stat().st_mtime > _SPILL_KEPT_S:
                spill.unlink()
    for prediction in _found(folder, "*"):
        with contextlib.suppress(OSError):  # not ours, not empty, or gone already
            if now - prediction.stat().st_mtime > _FOLDER_KEPT_S:
                for part in (prediction / "inputs", prediction / "outputs", prediction):
                    part.rmdir()


def _found(folder: Path, pattern: str) -> Iterator[Path]:
    """What there is, up to where another worker of this machine deletes what is being looked into."""
    with contextlib.suppress(OSError):
        yield from folder.glob(pattern)


def _yield_the_core() -> None:
    """Lower this thread's priority, in a Cog worker only: a test's process keeps its own."""
    if coglet.server.active and sys.platform == "linux":
        current = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, max(current, _NICENESS))
