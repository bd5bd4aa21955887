"""`speech` by VITS models, of which MMS-TTS has one for each of 1,100 languages: https://arxiv.org/abs/2305.13516.

One model speaks one language (MMS weights: CC-BY-NC-4.0). A text is spoken sentence by sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.engines.base import EngineError, EngineUnavailable, Progress, Rendering
from app.engines.neural.catalog import Named
from app.engines.neural.loading import dtype_of, sentences_of, source_of, sow, to_samples
from app.engines.neural.memory import endure
from app.engines.neural.placement import Placement

if TYPE_CHECKING:
    import torch

LONGEST_SENTENCE = 400
LEAST_SENTENCE = 50
PAUSE_S = 0.25
_THREE_LETTERS = {
    "ara": "ar", "ben": "bn", "deu": "de", "eng": "en", "fra": "fr", "hin": "hi", "por": "pt", "rus": "ru",
    "spa": "es", "tam": "ta", "tel": "te", "tur": "tr", "urd-script_arabic": "ur", "vie": "vi",
}  # fmt: skip
"""MMS names languages by ISO 639-3 where callers say 639-1."""


class Vits:
    """A loaded model and the language that it speaks."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str, placement: Placement) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._name = name
        self._placement = placement
        self.sample_rate = int(model.config.sampling_rate)
        language = str(getattr(tokenizer, "language", None) or "").lower()
        self.language = _THREE_LETTERS.get(language, language)

    def render(
        self, *, text: str, language: str, voice: str | None, speed: float, seed: int, progress: Progress
    ) -> Rendering:
        """The text, spoken. Raises EngineError: another language, a voice, nothing that it can say."""
        self._check(language, voice)

        def work(longest: float) -> torch.Tensor:
            sow(seed)
            return self._speak(text, int(longest), voice, speed, progress)

        sound = endure(
            work,
            on_gpu=self._placement.is_gpu,
            first_chunk=LONGEST_SENTENCE,
            least_chunk=LEAST_SENTENCE,
            to_processor=self._to_processor,
        )
        details: dict[str, str | int | float | bool] = {
            "language": self.language,
            "device": self._placement.device,
            "precision": self._placement.precision,
        }
        return Rendering(to_samples(sound), self.sample_rate, self._name, "vits", details)

    def _check(self, language: str, voice: str | None) -> None:
        spoken = _THREE_LETTERS.get(language.lower(), language.lower().partition("-")[0])
        if self.language and spoken != self.language:
            raise EngineUnavailable(
                f"language: the model that is configured speaks {self.language}, not {language}"
            )
        voices = int(self._model.config.num_speakers)
        if voice is not None and not (voice.isdecimal() and int(voice) < voices):
            raise EngineError(f"voice: the model that is configured has {voices}, numbered from 0")
        if getattr(self._tokenizer, "is_uroman", False):
            raise EngineUnavailable(
                "language: this model wants its text romanised by uroman, which is not built in"
            )

    def _speak(
        self, text: str, longest: int, voice: str | None, speed: float, progress: Progress
    ) -> torch.Tensor:
        import torch

        pieces: list[torch.Tensor] = []
        sentences = sentences_of(text, longest=longest)
        self._model.speaking_rate = speed
        speaker = {} if voice is None else {"speaker_id": int(voice)}
        pause = torch.zeros(1, round(PAUSE_S * self.sample_rate / speed))
        with torch.inference_mode():
            for done, sentence in enumerate(sentences):
                progress(done / len(sentences), "speaking")
                tokens = self._tokenizer(sentence, return_tensors="pt").to(self._model.device)
                if tokens.input_ids.shape[1] < 2:  # letters that it does not know are dropped
                    continue
                pieces += [self._model(**tokens, **speaker).waveform.float().cpu(), pause]
        if not pieces:
            raise EngineUnavailable("text: there is nothing in it that this model can say")
        return torch.cat(pieces[:-1], dim=1)

    def _to_processor(self) -> None:
        self._placement = Placement("cpu", "float32")
        self._model = self._model.to("cpu").float()


def load(named: Named, placement: Placement) -> Vits:
    """Load the weights. Raises what the library raises for files that are not a VITS."""
    from transformers import AutoTokenizer, VitsModel

    source = source_of(named)
    model = VitsModel.from_pretrained(**source, dtype=dtype_of(placement))
    tokenizer = AutoTokenizer.from_pretrained(**source)
    return Vits(model.to(placement.device).eval(), tokenizer, name="vits", placement=placement)
