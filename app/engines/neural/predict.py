"""The Cog predictor of the neural engines: one process, the models that NEURAL_MODELS names for it.

Takes the inputs of the embedded predictor (`app.engines.inputs`) and gives its outputs; `all_stems` is its
own, and gives each of a separation's stems beside the two. A model that may not be used, is not whole or does
not fit fails the setup with a sentence for people, and so the group; nothing half loaded is ever served.
Cancel arrives as an exception between two bytecodes, which every engine reaches at least once a step.
"""

import contextlib
import importlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cog

from app.engines.base import EngineError, EngineUnavailable, Findings, Progress, Rendering
from app.engines.inputs import check_inputs
from app.engines.neural.catalog import Named, read_models
from app.engines.neural.memory import load_where_it_fits
from app.engines.neural.placement import Placement, place_here
from app.engines.predict import ProgressLines, open_scratch, write_flac
from app.engines.sources.fetching import fetch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODULES = {
    "background_music": "music",
    "sound_effect": "effects",
    "transcription": "whisper",
    "translation": "translation",
    "speech": "voice",
    "stem_separation": "stems",
}
_RENDERING_SHARE = 0.95


class Runner(cog.BaseRunner):  # type: ignore[misc]  # cog is not followed by mypy
    """Served by `cog.server.http` as `predict.py:Runner`, one prediction at a time."""

    def setup(self) -> None:
        """Load every model that is named. Raises EngineError."""
        warnings.filterwarnings("ignore")
        self._scratch = open_scratch()
        self._models: dict[str, Any] = {}
        for kind, named in models_of_environment().items():
            self._models[kind] = load_model(named)

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
        all_stems: bool | None = None,
    ) -> Any:
        """Make what `kind` ends with. Raises EngineError for inputs that do not fit, naming the input."""
        self._scratch.clear()
        given = {
            "prompt": prompt, "duration_s": duration_s, "seed": seed, "loop": loop, "text": text,
            "language": language, "voice": voice, "speed": speed, "audio": audio, "segments": segments,
            "source": source, "target": target, "allow_poorer": allow_poorer,
        }  # fmt: skip
        if kind not in self._models:
            raise EngineError(f"kind: {kind!r} is not one of {', '.join(self._models)}")
        inputs = check_inputs(kind, given)
        report = ProgressLines()
        if kind == "stem_separation":
            inputs["all_stems"] = bool(all_stems)
        if "audio" in inputs:
            report(0.0, "fetching")
            inputs["audio"] = fetch(inputs["audio"], self._scratch.new_file("input"))
        made = self._make(kind, inputs, lambda done, step: report(done * _RENDERING_SHARE, step))
        report(_RENDERING_SHARE, "writing")
        output = self._written(made, inputs.get("seed", 0))
        report(1.0, "done")
        return output

    def _make(self, kind: str, inputs: dict[str, Any], progress: Progress) -> Rendering | Findings:
        model = self._models[kind]
        match kind:
            case "transcription":
                heard: Findings = model.transcribe(**inputs, progress=progress)
                return heard
            case "translation":
                del inputs["allow_poorer"]  # for engines that have a poorer one
                told: Findings = model.translate(**inputs, progress=progress)
                return told
            case "stem_separation":
                return self._separated(model, inputs, progress)
            case _:
                rendering: Rendering = model.render(**inputs, progress=progress)
                return rendering

    def _separated(self, model: Any, inputs: dict[str, Any], progress: Progress) -> Findings:
        stems: dict[str, NDArray[np.float32]] = model.separate(**inputs, progress=progress)
        placement: Placement = model.placement
        details: dict[str, str | int | float | bool] = {
            "device": placement.device,
            "precision": placement.precision,
        }
        outputs: dict[str, str | Path] = {}
        frames = 0
        for name, samples in stems.items():
            outputs[name] = self._scratch.new_file(f"{name}.flac")
            sound = Rendering(samples, model.sample_rate, "htdemucs", name)
            write_flac(sound, Path(outputs[name]), seed=0)
            frames = len(samples)
        return Findings(outputs, "htdemucs", "stems", frames / model.sample_rate, details)

    def _written(self, made: Rendering | Findings, seed: int) -> dict[str, Any]:
        """The object that Cog ends with; a `cog.Path` in it becomes a data URI."""
        outputs: dict[str, Any]
        if isinstance(made, Rendering):
            file = self._scratch.new_file("audio.flac")
            write_flac(made, file, seed=seed)
            outputs = {"audio": cog.Path(file), "seed": seed}
        else:
            outputs = {
                name: cog.Path(value) if isinstance(value, Path) else value
                for name, value in made.outputs.items()
            }
        return {
            **outputs,
            "engine": made.engine,
            "recipe": made.recipe,
            "duration_s": round(made.duration_s, 6),
            "details": json.dumps(made.details, ensure_ascii=False, sort_keys=True),
        }


def models_of_environment() -> dict[str, Named]:
    """What NEURAL_MODELS names for this process. Raises EngineError."""
    try:
        models = json.loads(os.environ.get("NEURAL_MODELS", "{}"))
    except ValueError as error:
        raise EngineError("NEURAL_MODELS: not JSON") from error
    if not isinstance(models, dict) or not models:
        raise EngineError('NEURAL_MODELS: an object such as {"speech": "FOLDER"} is needed')
    allowed = os.environ.get("NEURAL_ALLOW_NONCOMMERCIAL", "").lower() in {"1", "true", "yes", "on"}
    return read_models(models, allow_noncommercial=allowed)


def load_model(named: Named) -> Any:
    """The model, on the device that has room for it. Raises EngineError naming what could not be loaded."""
    module = importlib.import_module(f"app.engines.neural.models.{MODULES[named.family.kind]}")
    with _told(named):
        placement = place_here(named.need)
        print(
            f"loading {named.name} ({named.licence}) on {placement.device} as {placement.precision}",
            flush=True,
        )
        return load_where_it_fits(lambda where: module.load(named, where), placement)


@contextlib.contextmanager
def _told(named: Named) -> Iterator[None]:
    """Whatever a library says of files that are missing, cut or of another kind becomes one sentence."""
    try:
        yield
    except EngineError:
        raise
    except ImportError as error:
        raise EngineUnavailable(f"{error.name} is not installed: scripts/setup --neural") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise EngineUnavailable(f"{named.family.kind}: {named.name} cannot be loaded: {reason}") from error
