"""`translation` by M2M100 (weights MIT) or MADLAD-400 (Apache-2.0), one hundred and four hundred languages.

M2M100: https://arxiv.org/abs/2010.11125. MADLAD-400: https://arxiv.org/abs/2309.04662. NLLB-200 folders load
as well; their weights are CC-BY-NC-4.0. Texts are translated sentence by sentence, many at once.
"""

from __future__ import annotations

import json
from typing import Any

from app.engines.base import EngineUnavailable, Findings, Progress
from app.engines.neural.catalog import Named
from app.engines.neural.loading import dtype_of, sentences_of, source_of
from app.engines.neural.memory import endure
from app.engines.neural.placement import Placement

BATCH = 16
LONGEST_SENTENCE = 500
LONGEST_ANSWER = 400
"""In tokens: models without an end in sight repeat themselves."""
_FLORES = {
    "ar": "arb_Arab", "bn": "ben_Beng", "de": "deu_Latn", "en": "eng_Latn", "es": "spa_Latn",
    "fr": "fra_Latn", "gu": "guj_Gujr", "hi": "hin_Deva", "it": "ita_Latn", "ja": "jpn_Jpan",
    "ko": "kor_Hang", "nl": "nld_Latn", "pl": "pol_Latn", "pt": "por_Latn", "ru": "rus_Cyrl",
    "ta": "tam_Taml", "te": "tel_Telu", "tr": "tur_Latn", "uk": "ukr_Cyrl", "ur": "urd_Arab",
    "vi": "vie_Latn", "zh": "zho_Hans",
}  # fmt: skip
"""NLLB names languages by the codes of FLORES-200; a caller may also give such a code itself."""


class Translator:
    """A loaded model."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str, placement: Placement) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._name = name
        self._placement = placement

    def translate(
        self,
        *,
        text: str | None,
        segments: list[dict[str, Any]] | None,
        source: str,
        target: str,
        progress: Progress,
    ) -> Findings:
        """`{source, target, text, segments?, engine}` as JSON; lines stay lines, segments keep their times.

        Raises EngineUnavailable for a language that the model does not know.
        """
        pieces = text.splitlines() if text is not None else [each["text"] for each in segments or ()]
        done = self._pieces(pieces, source, target, progress)
        told: dict[str, Any] = {"source": source, "target": target, "text": "\n".join(done)}
        if segments is not None:
            # Whatever came with a segment, its times above all, stays with it.
            pairs = zip(segments, done, strict=True)
            told["segments"] = [{**segment, "text": translated} for segment, translated in pairs]
        return Findings(
            outputs={"text": json.dumps({**told, "engine": self._name}, ensure_ascii=False)},
            engine=self._name,
            recipe=f"{source}-{target}",
            duration_s=0.0,
            details={"device": self._placement.device, "precision": self._placement.precision},
        )

    def _pieces(self, pieces: list[str], source: str, target: str, progress: Progress) -> list[str]:
        """Each translated, in order: by sentences, as many at once as memory allows."""
        opening = self._opening(source, target)
        sentences = [sentences_of(piece, longest=LONGEST_SENTENCE) for piece in pieces]
        flat = [sentence for group in sentences for sentence in group]

        def work(batch: float) -> list[str]:
            return self._translate(flat, opening, int(batch), progress)

        done = iter(
            endure(
                work,
                on_gpu=self._placement.is_gpu,
                first_chunk=BATCH,
                least_chunk=1,
                to_processor=self._to_processor,
            )
        )
        return [" ".join(next(done) for _ in group) for group in sentences]

    def _translate(
        self, sentences: list[str], opening: tuple[str, dict[str, Any]], batch: int, progress: Progress
    ) -> list[str]:
        import torch

        prefix, forced = opening
        done: list[str] = []
        with torch.inference_mode():
            for start in range(0, len(sentences), batch):
                progress(start / len(sentences), "translating")
                lines = [prefix + sentence for sentence in sentences[start : start + batch]]
                tokens = self._tokenizer(lines, return_tensors="pt", padding=True, truncation=True)
                tokens.pop("token_type_ids", None)
                longest = min(LONGEST_ANSWER, 2 * int(tokens["input_ids"].shape[1]) + 20)
                answers = self._model.generate(
                    **tokens.to(self._model.device), **forced, max_new_tokens=longest, num_beams=4
                )
                done += self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [line.strip() for line in done]

    def _opening(self, source: str, target: str) -> tuple[str, dict[str, Any]]:
        """How this model is told the languages: a word before the text, or the first token of the answer."""
        if hasattr(self._tokenizer, "lang_code_to_id") or hasattr(self._tokenizer, "get_lang_id"):
            return "", {"forced_bos_token_id": self._by_language_token(source, target)}
        mark = f"<2{target.partition('-')[0]}>"
        if not self._knows(mark):
            raise EngineUnavailable(f"target: the model that is configured does not know {target}")
        return f"{mark} ", {}

    def _by_language_token(self, source: str, target: str) -> int:
        codes = {}
        for name, wanted in (("source", source), ("target", target)):
            short = wanted.partition("-")[0]
            tries = (wanted, short, _FLORES.get(short, ""), f"__{short}__")
            found = next((code for code in tries if code and self._language_id(code) is not None), None)
            if found is None:
                raise EngineUnavailable(f"{name}: the model that is configured does not know {wanted}")
            codes[name] = found
        self._tokenizer.src_lang = codes["source"]
        token = self._language_id(codes["target"])
        assert token is not None  # noqa: S101 - looked up above
        return token

    def _language_id(self, code: str) -> int | None:
        get = getattr(self._tokenizer, "get_lang_id", None)
        if get is None:
            return int(self._tokenizer.convert_tokens_to_ids(code)) if self._knows(code) else None
        try:
            return int(get(code))
        except KeyError:
            return None

    def _knows(self, token: str) -> bool:
        found = self._tokenizer.convert_tokens_to_ids(token)
        return found is not None and found != self._tokenizer.unk_token_id

    def _to_processor(self) -> None:
        self._placement = Placement("cpu", "float32")
        self._model = self._model.to("cpu").float()


def load(named: Named, placement: Placement) -> Translator:
    """Load the weights. Raises what the library raises for files that are no such model."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    source = source_of(named)
    model = AutoModelForSeq2SeqLM.from_pretrained(**source, dtype=dtype_of(placement))
    tokenizer = AutoTokenizer.from_pretrained(**source)
    kind = str(model.config.model_type)
    return Translator(model.to(placement.device).eval(), tokenizer, name=kind, placement=placement)
