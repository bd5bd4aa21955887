"""`transcription`: what is said in a recording, word by word, and as subtitles.

Models give their transcripts in several shapes: our worker's, WhisperX's and Whisper's (`segments`), and the
`chunks` of Transformers pipelines. All are read into one `Transcript`; the subtitles are made of it here, by
the same rules for every model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.errors import ProviderBadResponse
from app.kinds.base import AudioFile, HostedModel, Kind, KindInput, Text, as_data_uri
from app.kinds.subtitles import Word as TimedText
from app.kinds.subtitles import make_cues, read_srt, write_srt

LONGEST_S = 3600.0
JSON = "application/json"
SRT = "application/x-subrip"


class TranscriptionInput(KindInput):
    """What a caller may ask of a transcription."""

    audio: AudioFile
    language: str | None = Field(
        None, pattern=r"^[a-z]{2,3}$", description="ISO 639 code, such as `en`; found out where not given"
    )


class Word(BaseModel):
    """One word; times in seconds from the start of the recording."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    word: str = Field(max_length=1000)
    start: float = Field(ge=0, allow_inf_nan=False)
    end: float = Field(ge=0, allow_inf_nan=False)
    probability: float | None = Field(None, ge=0, le=1)
    """Null where the model does not say."""


class Segment(BaseModel):
    """A phrase as the model heard it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    start: float = Field(ge=0, allow_inf_nan=False)
    end: float = Field(ge=0, allow_inf_nan=False)
    text: str = Field(max_length=100_000)
    words: list[Word] = Field(default_factory=list, max_length=10_000)

    @model_validator(mode="after")
    def _forwards(self) -> Segment:
        if self.end < self.start:
            raise ValueError("a segment ends before it begins")
        return self


class Transcript(BaseModel):
    """The `transcript` output. `duration` is the recording's, in seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    language: str | None = Field(None, max_length=64)
    duration: float = Field(ge=0, allow_inf_nan=False)
    segments: list[Segment] = Field(max_length=100_000)


def read_answer(output: object) -> object:
    """A model's answer as `transcript` and `subtitles`. Raises ProviderBadResponse."""
    if isinstance(output, Mapping) and _is_address(output.get("transcript")):
        return output
    transcript = _understand(output)
    subtitles = write_srt(make_cues(_timed_texts(transcript)))
    return {
        "transcript": as_data_uri(transcript.model_dump_json().encode(), JSON),
        "subtitles": as_data_uri(subtitles.encode(), SRT),
    }


def check_transcript(content: bytes) -> bytes:
    """A transcript in the one spelling that is stored. Raises ProviderBadResponse."""
    try:
        return Transcript.model_validate_json(content).model_dump_json().encode()
    except ValidationError as exc:
        raise _unreadable(exc) from exc


def check_subtitles(content: bytes) -> bytes:
    """Subtitles as they came. Raises ProviderBadResponse for what is no SubRip text."""
    try:
        read_srt(content.decode("utf-8"))
    except ValueError as exc:
        raise ProviderBadResponse(f"the subtitles are no SubRip text: {exc}") from exc
    return content


def _timed_texts(transcript: Transcript) -> list[TimedText]:
    timed: list[TimedText] = []
    for segment in transcript.segments:
        if segment.words:
            timed += [TimedText(word.word, word.start, word.end) for word in segment.words]
        else:
            timed.append(TimedText(segment.text, segment.start, segment.end))
    return sorted(timed, key=lambda piece: piece.start)


def _understand(output: object) -> Transcript:
    found: object = output.get("transcript", output) if isinstance(output, Mapping) else output
    try:
        if isinstance(found, str):
            found = json.loads(found)
        if not isinstance(found, Mapping):
            raise ProviderBadResponse("the transcript is no object")
        return Transcript.model_validate(_in_our_words(found))
    except ValidationError as exc:
        raise _unreadable(exc) from exc
    except (ValueError, RecursionError) as exc:
        raise ProviderBadResponse("the transcript is not JSON") from exc


def _in_our_words(found: Mapping[str, Any]) -> dict[str, Any]:
    pieces = found.get("segments", found.get("chunks"))
    if not isinstance(pieces, list):
        raise ProviderBadResponse("the transcript has no segments")
    segments = [_segment(piece) for piece in pieces if isinstance(piece, Mapping)]
    language = found.get("language", found.get("detected_language"))
    ends = [segment["end"] for segment in segments if _is_number(segment["end"])]
    duration = found.get("duration", max(ends, default=0.0))
    return {"language": language, "duration": duration, "segments": segments}


def _segment(piece: Mapping[str, Any]) -> dict[str, Any]:
    start, end = piece.get("start"), piece.get("end")
    stamps = piece.get("timestamp")
    if isinstance(stamps, list) and len(stamps) == 2:
        # The last chunk of a pipeline may have no end.
        start, end = stamps[0], stamps[0] if stamps[1] is None else stamps[1]
    words = piece.get("words")
    return {
        "start": start,
        "end": end,
        "text": str(piece.get("text", "")).strip(),
        "words": _words(words, start) if isinstance(words, list) else [],
    }


def _words(words: list[object], start: object) -> list[dict[str, Any]]:
    """An aligner leaves words without times that it could not place, such as numbers: they follow at once."""
    placed: list[dict[str, Any]] = []
    for word in words:
        if not isinstance(word, Mapping):
            continue
        last = placed[-1]["end"] if placed else start
        begins = word["start"] if _is_number(word.get("start")) else last
        score = word.get("probability", word.get("score"))
        placed.append(
            {
                "word": str(word.get("word", "")).strip(),
                "start": begins,
                "end": word["end"] if _is_number(word.get("end")) else begins,
                "probability": score if _is_number(score) and 0 <= score <= 1 else None,
            }
        )
    return placed


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_address(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("https://", "http://", "data:"))


def _unreadable(exc: ValidationError) -> ProviderBadResponse:
    first = exc.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "it"
    return ProviderBadResponse(f"the transcript cannot be read: {place}: {first['msg']}"[:500])


def _ask_hosted(wanted: TranscriptionInput) -> dict[str, Any]:
    language = {} if wanted.language is None else {"language": wanted.language}
    return {"audio_file": wanted.audio, "align_output": True, **language}


def _ask_worker(wanted: TranscriptionInput) -> dict[str, Any]:
    language = {} if wanted.language is None else {"language": wanted.language}
    return {"audio": wanted.audio, **language}


TRANSCRIPTION = Kind(
    name="transcription",
    input_model=TranscriptionInput,
    hosted=HostedModel(
        "victor-upmeet/whisperx:84d2ad2d6194fe98a17d2b60bef1c7f910c46b2f6fd38996ca457afd9c8abfcb", _ask_hosted
    ),
    ask_worker=_ask_worker,
    files={"audio": LONGEST_S},
    read=read_answer,
    # Of its 64 pieces at once an eighth: what ran out of memory may pass.
    other_ways={"replicate": {"batch_size": 8}},
    outputs={
        "transcript": Text(JSON, ".json", check_transcript),
        "subtitles": Text(SRT, ".srt", check_subtitles),
    },
)
