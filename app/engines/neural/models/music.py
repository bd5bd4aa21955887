"""`background_music` by MusicGen, text to music: https://arxiv.org/abs/2306.05284 (weights CC-BY-NC-4.0).

A piece longer than the model hears at once is continued from its own last seconds, window by window.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from app.engines.base import Progress, Rendering
from app.engines.neural.catalog import Named
from app.engines.neural.loading import dtype_of, source_of, sow, to_samples, token_progress
from app.engines.neural.memory import endure
from app.engines.neural.placement import Placement

if TYPE_CHECKING:
    import torch

WINDOW_S = 30.0
"""What MusicGen was trained on."""
LEAST_WINDOW_S = 5.0
HEARD_SHARE = 1 / 3
"""How much of a window is the end of what was there before."""


class MusicGen:
    """A loaded model."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str, placement: Placement) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._name = name
        self._placement = placement
        self.sample_rate = int(model.config.audio_encoder.sampling_rate)
        self._frame_rate = float(model.config.audio_encoder.frame_rate)

    def render(self, *, prompt: str, duration_s: float, seed: int, progress: Progress) -> Rendering:
        """The piece. Raises EngineError."""

        def work(window_s: float) -> torch.Tensor:
            sow(seed)
            return self._compose(prompt, duration_s, window_s, progress)

        sound = endure(
            work,
            on_gpu=self._placement.is_gpu,
            first_chunk=WINDOW_S,
            least_chunk=LEAST_WINDOW_S,
            to_processor=self._to_processor,
        )
        frames = round(duration_s * self.sample_rate)
        details: dict[str, str | int | float | bool] = {
            "device": self._placement.device,
            "precision": self._placement.precision,
        }
        return Rendering(to_samples(sound, frames=frames), self.sample_rate, self._name, "musicgen", details)

    def _compose(self, prompt: str, duration_s: float, window_s: float, progress: Progress) -> torch.Tensor:
        """(channels, frames), at least as long as asked."""
        import torch

        wanted = math.ceil(duration_s * self.sample_rate)
        heard = int(window_s * HEARD_SHARE * self.sample_rate)
        sound: torch.Tensor | None = None
        with torch.inference_mode():
            while sound is None or sound.shape[1] < wanted:
                done = 0 if sound is None else sound.shape[1]
                context = None if sound is None else sound[:, -heard:]
                room_s = window_s - (0 if context is None else context.shape[1] / self.sample_rate)
                piece_s = min(room_s, (wanted - done) / self.sample_rate)
                share = piece_s * self.sample_rate / wanted
                piece = self._continue(prompt, context, piece_s, progress, done / wanted, share)
                sound = piece if sound is None else torch.cat([sound, piece], dim=1)
        return sound

    def _continue(
        self,
        prompt: str,
        context: torch.Tensor | None,
        piece_s: float,
        progress: Progress,
        done: float,
        share: float,
    ) -> torch.Tensor:
        device = self._model.device
        words = self._tokenizer([prompt], return_tensors="pt", padding=True, truncation=True).to(device)
        tokens = math.ceil(piece_s * self._frame_rate) + 1
        more: dict[str, Any] = {}
        if context is not None:
            more["input_values"] = context.unsqueeze(0).to(device, self._model.dtype)
        sound = self._model.generate(
            input_ids=words.input_ids,
            attention_mask=words.attention_mask,
            max_new_tokens=tokens + self._model.decoder.config.num_codebooks,
            do_sample=True,
            guidance_scale=3.0,
            stopping_criteria=token_progress(progress, tokens, done=done, share=share, step="composing"),
            **more,
        )[0]
        new = sound[:, 0 if context is None else context.shape[1] :].float().cpu()
        if not new.shape[1]:
            raise RuntimeError("the model gave nothing beyond what it was given")
        return new

    def _to_processor(self) -> None:
        self._placement = Placement("cpu", "float32")
        self._model = self._model.to("cpu").float()


def load(named: Named, placement: Placement) -> MusicGen:
    """Load the weights. Raises what the library raises for files that are not a MusicGen."""
    from transformers import AutoTokenizer, MusicgenForConditionalGeneration

    source = source_of(named)
    model = MusicgenForConditionalGeneration.from_pretrained(**source, dtype=dtype_of(placement))
    tokenizer = AutoTokenizer.from_pretrained(**source)
    return MusicGen(model.to(placement.device).eval(), tokenizer, name="musicgen", placement=placement)
