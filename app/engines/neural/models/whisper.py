"""`transcription` by Whisper: https://arxiv.org/abs/2212.04356 (weights MIT).

A folder that CTranslate2 converted is run by faster-whisper, one that Transformers saved by Transformers;
a hub name is taken for the former unless it begins with `openai/`. Word times come from both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engines.base import EngineUnavailable, Findings, Progress
from app.engines.neural.catalog import Named
from app.engines.neural.loading import dtype_of, read_sound, source_of
from app.engines.neural.memory import endure
from app.engines.neural.placement import Placement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
WINDOW_S = 30.0
"""What Whisper hears at once."""
LEAST_WINDOW_S = 10.0
QUIET_SEARCH_S = 5.0
"""A window ends at the quietest moment of its last seconds."""

Segments = list[dict[str, Any]]


class FastWhisper:
    """CTranslate2's Whisper."""

    def __init__(self, model: Any, *, reload: Any, name: str, placement: Placement) -> None:
        self._model = model
        self._reload = reload
        self._name = name
        self._placement = placement

    def transcribe(self, audio: Path, *, language: str | None, progress: Progress) -> Findings:
        """The transcript as JSON. Raises EngineError."""
        if language is not None and language not in self._model.supported_languages:
            raise EngineUnavailable(f"language: this model does not know {language}")
        samples = read_sound(audio, sample_rate=SAMPLE_RATE, channels=1)[0]

        def work(window_s: float) -> tuple[str, Segments]:
            return self._hear(samples, language, window_s, progress)

        spoken, segments = endure(
            work,
            on_gpu=self._placement.is_gpu,
            first_chunk=WINDOW_S,
            least_chunk=LEAST_WINDOW_S,
            to_processor=self._to_processor,
        )
        return _findings(spoken, segments, len(samples), self._name, self._placement)

    def _hear(
        self, samples: NDArray[np.float32], language: str | None, window_s: float, progress: Progress
    ) -> tuple[str, Segments]:
        found, info = self._model.transcribe(
            samples,
            language=language,
            beam_size=5,
            vad_filter=True,
            word_timestamps=True,
            chunk_length=round(window_s),
        )
        segments: Segments = []
        for each in found:  # heard as it is iterated
            progress(min(1.0, each.end / max(info.duration, 0.01)), "listening")
            # A last phrase may be placed in the silence that the window was filled up with.
            ends_s = len(samples) / SAMPLE_RATE
            words = [
                _word(word.word, min(word.start, ends_s), min(word.end, ends_s), word.probability)
                for word in each.words or ()
            ]
            segments.append(_segment(each.text, min(each.start, ends_s), min(each.end, ends_s), words))
        return info.language, segments

    def _to_processor(self) -> None:
        self._placement = Placement("cpu", "int8")
        self._model = None  # gone before the other one comes
        self._model = self._reload(self._placement)


class PlainWhisper:
    """Transformers' Whisper."""

    def __init__(self, pipeline: Any, *, name: str, placement: Placement) -> None:
        self._pipeline = pipeline
        self._name = name
        self._placement = placement

    def transcribe(self, audio: Path, *, language: str | None, progress: Progress) -> Findings:
        """The transcript as JSON. Raises EngineError."""
        known = getattr(self._pipeline.model.generation_config, "lang_to_id", None) or {}
        if language is not None and f"<|{language}|>" not in known:
            raise EngineUnavailable(f"language: this model does not know {language}")
        samples = read_sound(audio, sample_rate=SAMPLE_RATE, channels=1)[0]

        def work(window_s: float) -> Segments:
            return list(self._hear(samples, language, window_s, progress))

        segments = endure(
            work,
            on_gpu=self._placement.is_gpu,
            first_chunk=WINDOW_S,
            least_chunk=LEAST_WINDOW_S,
            to_processor=self._to_processor,
        )
        return _findings(language, segments, len(samples), self._name, self._placement)

    def _hear(
        self, samples: NDArray[np.float32], language: str | None, window_s: float, progress: Progress
    ) -> Iterator[dict[str, Any]]:
        config = self._pipeline.model.generation_config
        stamps = "word" if getattr(config, "alignment_heads", None) else True
        generate: dict[str, Any] = {"task": "transcribe"} if known_tasks(config) else {}
        if language is not None:
            generate["language"] = language
        for start, end in windows(samples, window_s):
            progress(start / len(samples), "listening")
            window = {"raw": samples[start:end], "sampling_rate": SAMPLE_RATE}
            heard = self._pipeline(window, return_timestamps=stamps, generate_kwargs=generate)
            begins_s, ends_s = start / SAMPLE_RATE, end / SAMPLE_RATE
            words = [
                _word(chunk["text"], *_within(chunk["timestamp"], begins_s, ends_s), None)
                for chunk in heard.get("chunks", ())
                if chunk["text"].strip()
            ]
            if heard["text"].strip():
                yield _segment(heard["text"], begins_s, ends_s, words if stamps == "word" else [])

    def _to_processor(self) -> None:
        import torch

        self._placement = Placement("cpu", "float32")
        self._pipeline.model = self._pipeline.model.to("cpu").float()
        self._pipeline.device, self._pipeline.dtype = torch.device("cpu"), torch.float32


def load(named: Named, placement: Placement) -> FastWhisper | PlainWhisper:
    """Load the weights. Raises what the libraries raise for files that are not a Whisper."""
    if _is_converted(named):
        return _load_fast(named, placement)
    import transformers

    source = source_of(named)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(**source, dtype=dtype_of(placement))
    processor = transformers.AutoProcessor.from_pretrained(**source)
    pipeline = transformers.pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
        device=placement.device,
    )
    return PlainWhisper(pipeline, name="whisper", placement=placement)


def windows(samples: NDArray[np.float32], window_s: float) -> Iterator[tuple[int, int]]:
    """Where to cut: at the quietest tenth of a second near the end of each window."""
    import numpy as np

    start, size, step = 0, int(window_s * SAMPLE_RATE), SAMPLE_RATE // 10
    while start < len(samples):
        end = min(start + size, len(samples))
        if end < len(samples):
            first = end - int(min(QUIET_SEARCH_S, window_s / 4) * SAMPLE_RATE)
            frames = samples[first : first + (end - first) // step * step].reshape(-1, step)
            end = first + int(np.square(frames).mean(axis=1).argmin()) * step + step // 2
        yield start, end
        start = end


def known_tasks(config: Any) -> bool:
    """Whether the model was told of tasks: those for English alone were not."""
    return bool(getattr(config, "task_to_id", None)) and bool(getattr(config, "is_multilingual", False))


def _load_fast(named: Named, placement: Placement) -> FastWhisper:
    from faster_whisper import WhisperModel

    name, _, revision = named.name.partition("@")

    def make(where: Placement) -> Any:
        device, _, index = where.device.partition(":")
        # Halves on a processor are made up from floats: eight bits are faster there, and no worse to hear.
        compute = "int8_float16" if where.is_gpu and where.precision == "int8" else where.precision
        return WhisperModel(
            str(named.folder) if named.folder is not None else name,
            device=device,
            device_index=int(index or 0),
            compute_type=compute if where.is_gpu else "int8",
            **({"revision": revision} if revision else {}),
        )

    return FastWhisper(make(placement), reload=make, name="faster-whisper", placement=placement)


def _is_converted(named: Named) -> bool:
    if named.folder is not None:
        return (named.folder / "model.bin").is_file()
    return not named.name.startswith("openai/")


def _within(stamps: Any, begins_s: float, ends_s: float) -> tuple[float, float]:
    """Times of a window as times of the recording; the model leaves some out, and some run past the end."""
    first, last = stamps
    start = min(ends_s, begins_s + (first or 0.0))
    end = ends_s if last is None else min(ends_s, begins_s + last)
    return start, max(start, end)


def _word(text: str, start: float, end: float, probability: float | None) -> dict[str, Any]:
    known = None if probability is None else round(probability, 3)
    return {"word": text.strip(), "start": round(start, 3), "end": round(end, 3), "probability": known}


def _segment(text: str, start: float, end: float, words: Segments) -> dict[str, Any]:
    return {"start": round(start, 3), "end": round(end, 3), "text": text.strip(), "words": words}


def _findings(
    language: str | None, segments: Segments, frames: int, name: str, placement: Placement
) -> Findings:
    duration_s = round(frames / SAMPLE_RATE, 3)
    transcript = {"language": language, "duration": duration_s, "segments": segments}
    return Findings(
        outputs={"transcript": json.dumps(transcript, ensure_ascii=False)},
        engine=name,
        recipe="whisper",
        duration_s=duration_s,
        details={
            "words": sum(len(segment["words"]) for segment in segments),
            "device": placement.device,
            "precision": placement.precision,
        },
    )
