"""`stem_separation` by HT-Demucs, four stems: https://arxiv.org/abs/2211.08553.

The authors publish the weights for scientific purposes only. They are read from `safetensors` files, one for
each model of a bag and a `yaml` that says how the bag weighs them, as at the hub; older `.th` files are read
without running what is pickled in them. `instrumental` is everything but the voice.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engines.base import EngineUnavailable, Progress
from app.engines.neural.catalog import Named
from app.engines.neural.loading import read_sound, to_samples
from app.engines.neural.memory import endure
from app.engines.neural.placement import Placement

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

OVERLAP = 0.25
LEAST_SEGMENT_S = 2.0
VOICE = "vocals"


class Demucs:
    """A loaded model, or a bag of them."""

    def __init__(self, model: Any, *, placement: Placement) -> None:
        self._model = model
        self.placement = placement
        self.sample_rate = int(model.samplerate)
        self._segment_s = _segment_of(model)

    def separate(self, audio: Path, *, all_stems: bool, progress: Progress) -> dict[str, NDArray[np.float32]]:
        """Samples of shape (frames, channels): `vocals` and `instrumental`, or every stem and the latter.

        Raises EngineError.
        """
        import torch

        mix = torch.from_numpy(
            read_sound(audio, sample_rate=self.sample_rate, channels=int(self._model.audio_channels))
        )

        def work(segment_s: float) -> torch.Tensor:
            return self._apply(mix, segment_s, progress)

        found = endure(
            work,
            on_gpu=self.placement.is_gpu,
            first_chunk=self._segment_s,
            least_chunk=min(LEAST_SEGMENT_S, self._segment_s / 2),
            to_processor=self._to_processor,
        )
        stems = dict(zip(self._model.sources, found, strict=True))
        if VOICE in stems:
            stems["instrumental"] = sum(stem for name, stem in stems.items() if name != VOICE)
        if not all_stems and VOICE in stems:
            stems = {name: stems[name] for name in (VOICE, "instrumental")}
        # All by the same factor, or they would not add up to the song any more.
        loudest = max(1.0, *(float(stem.abs().max()) for stem in stems.values()))
        return {name: to_samples(stem / loudest) for name, stem in stems.items()}

    def _apply(self, mix: torch.Tensor, segment_s: float, progress: Progress) -> torch.Tensor:
        """(stems, channels, frames) in the loudness of the mix."""
        import torch
        from demucs.apply import apply_model

        frames = mix.shape[1]

        def tell(told: dict[str, Any]) -> None:
            begun = (told["model_idx_in_bag"] + told["segment_offset"] / max(1, frames)) / told["models"]
            progress(min(1.0, begun), "separating")

        # As it was trained: the mix has a mean of nought and a deviation of one.
        mean, deviation = mix.mean(), mix.std() + 1e-8
        with torch.inference_mode():
            found = apply_model(
                self._model,
                ((mix - mean) / deviation)[None],
                shifts=0,
                split=True,
                overlap=OVERLAP,
                device=self.placement.device,
                segment=segment_s,
                callback=tell,
            )[0]
        separated: torch.Tensor = found * deviation + mean / len(found)
        return separated

    def _to_processor(self) -> None:
        self.placement = Placement("cpu", "float32")
        self._model = self._model.to("cpu")


def load(named: Named, placement: Placement) -> Demucs:
    """Load the weights. Raises EngineError, and what the library raises for files that are no Demucs."""
    from demucs.apply import BagOfModels

    place = named.folder or _fetch(named.name)
    files = [place] if place.is_file() else sorted([*place.glob("*.safetensors"), *place.glob("*.th")])
    if not files:
        raise EngineUnavailable(f"stem_separation: no .safetensors and no .th file in {place}")
    bag = _read_bag(place)
    models = {file.stem: _read(file) for file in files if not bag or file.stem in bag["models"]}
    if not bag:
        return Demucs(next(iter(models.values())).eval(), placement=placement)
    chosen = [models[name] for name in bag["models"]]
    return Demucs(BagOfModels(chosen, bag.get("weights"), bag.get("segment")).eval(), placement=placement)


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    return Path(snapshot_download(repository, revision=revision or None))


def _read_bag(place: Path) -> dict[str, Any]:
    import yaml

    found = sorted(place.glob("*.yaml")) if place.is_dir() else []
    bag: dict[str, Any] = yaml.safe_load(found[0].read_text()) if found else {}
    return bag


def _read(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from demucs.hf import load_safetensors_model

        return load_safetensors_model(file)
    import torch
    from demucs.htdemucs import HTDemucs
    from demucs.states import load_model

    # Only what a model is made of: any other name in the pickle is refused before it is looked up.
    with torch.serialization.safe_globals([HTDemucs, Fraction]):
        return load_model(torch.load(file, map_location="cpu", weights_only=True))


def _segment_of(model: Any) -> float:
    longest = getattr(model, "max_allowed_segment", None)
    return float(longest if longest is not None else model.segment)
