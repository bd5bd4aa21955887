"""`sound_effect` by Stable Audio, text to sound: https://arxiv.org/abs/2407.14358 (community licence).

The model works on its whole length at once, however short the sound, so there are no smaller pieces to try
when memory runs out: the next step is the processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.engines.base import EngineUnavailable, Progress, Rendering
from app.engines.neural.catalog import Named
from app.engines.neural.loading import dtype_of, source_of, to_samples
from app.engines.neural.memory import endure
from app.engines.neural.placement import Placement

if TYPE_CHECKING:
    import torch

STEPS = 100
"""As the authors do; half of it is hard to tell apart."""
SEAM_S = 0.25
"""A loop's end is faded into its start over this long."""


class StableAudio:
    """A loaded pipeline."""

    def __init__(self, pipeline: Any, *, name: str, placement: Placement, steps: int = STEPS) -> None:
        self._pipeline = pipeline
        self._name = name
        self._placement = placement
        self._steps = steps
        self.sample_rate = int(pipeline.vae.sampling_rate)
        frames = pipeline.transformer.config.sample_size * pipeline.vae.hop_length
        self.longest_s = frames / self.sample_rate

    def render(
        self, *, prompt: str, duration_s: float, loop: bool, seed: int, progress: Progress
    ) -> Rendering:
        """The sound. Raises EngineError, also for one that is longer than the model's length."""
        seam_s = min(SEAM_S, duration_s / 4) if loop else 0.0
        if duration_s + seam_s > self.longest_s:
            raise EngineUnavailable(f"duration_s: this model makes at most {self.longest_s:g} s")

        def work(_chunk: float) -> torch.Tensor:
            return self._diffuse(prompt, duration_s + seam_s, seed, progress)

        sound = endure(
            work,
            on_gpu=self._placement.is_gpu,
            first_chunk=1.0,
            least_chunk=1.0,
            to_processor=self._to_processor,
        )
        frames = round(duration_s * self.sample_rate)
        if loop:
            sound = _join_ends(sound, frames)
        details: dict[str, str | int | float | bool] = {
            "device": self._placement.device,
            "precision": self._placement.precision,
            "steps": self._steps,
        }
        samples = to_samples(sound, frames=frames)
        return Rendering(samples, self.sample_rate, self._name, "stable-audio", details)

    def _diffuse(self, prompt: str, duration_s: float, seed: int, progress: Progress) -> torch.Tensor:
        import torch

        def tell(step: int, _timestep: Any, _latents: Any) -> None:
            progress(min(1.0, (step + 1) / self._steps), "diffusing")

        # On the processor on purpose: the same seed is the same noise on every device.
        noise = torch.Generator("cpu").manual_seed(seed)
        sound: torch.Tensor = self._pipeline(
            prompt,
            num_inference_steps=self._steps,
            audio_end_in_s=duration_s,
            generator=noise,
            callback=tell,
            callback_steps=1,
            output_type="pt",
        ).audios[0]
        return sound

    def _to_processor(self) -> None:
        import torch

        self._placement = Placement("cpu", "float32")
        self._pipeline = self._pipeline.to("cpu", torch.float32)


def load(named: Named, placement: Placement) -> StableAudio:
    """Load the weights. Raises what the library raises for files that are not a Stable Audio."""
    from diffusers import StableAudioPipeline

    pipeline = StableAudioPipeline.from_pretrained(**source_of(named), torch_dtype=dtype_of(placement))
    pipeline.set_progress_bar_config(disable=True)
    return StableAudio(pipeline.to(placement.device), name="stable-audio", placement=placement)


def _join_ends(sound: torch.Tensor, frames: int) -> torch.Tensor:
    """What goes beyond `frames` fades out under the beginning, so that the end leads into the start."""
    import torch

    seam = min(sound.shape[1] - frames, frames)
    if seam <= 0:
        return sound
    ramp = torch.linspace(0, 1, seam, dtype=sound.dtype, device=sound.device)
    joined = sound[:, :frames].clone()
    joined[:, :seam] = joined[:, :seam] * ramp + sound[:, frames : frames + seam] * (1 - ramp)
    return joined
