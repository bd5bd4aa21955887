"""One transcript from every model's shape, and its limits."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import ProviderBadResponse
from app.kinds import get_kind
from app.kinds.subtitles import read_srt
from app.kinds.transcription import TRANSCRIPTION, TranscriptionInput, check_subtitles, check_transcript

UPLOAD = "upl_" + "0" * 32
WORDS = [
    {"word": "Three", "start": 0.1, "end": 0.4, "score": 0.9},
    {"word": "3"},
    {"word": "apples.", "start": 0.6, "end": 1.0, "score": 0.8},
]


def read(output: object) -> tuple[dict[str, Any], str]:
    """The transcript and the subtitles that are made of a model's answer."""
    places = TRANSCRIPTION.find_outputs(output)
    contents = [base64.b64decode(place.partition(",")[2]) for place in places.values()]
    assert list(places) == ["transcript", "subtitles"]
    return json.loads(check_transcript(contents[0])), check_subtitles(contents[1]).decode()


def test_our_workers_words_keep_their_times_and_probabilities() -> None:
    words = [{"word": "Hello", "start": 0.5, "end": 0.9, "probability": 0.75}]
    segment = {"start": 0.5, "end": 0.9, "text": "Hello", "words": words}
    ours = {"language": "en", "duration": 2.0, "segments": [segment]}
    transcript, subtitles = read({"transcript": json.dumps(ours), "engine": "faster-whisper/1"})
    assert transcript == ours
    assert read_srt(subtitles)[0].text == "Hello"


def test_whisperx_loses_no_word_that_it_could_not_place() -> None:
    hosted = {
        "detected_language": "en",
        "segments": [{"start": 0.1, "end": 1.0, "text": " x", "words": WORDS}],
    }
    transcript, subtitles = read(hosted)
    assert transcript["language"] == "en"
    assert transcript["duration"] == 1.0
    assert [word["word"] for word in transcript["segments"][0]["words"]] == ["Three", "3", "apples."]
    assert transcript["segments"][0]["words"][1]["start"] == 0.4
    assert read_srt(subtitles)[0].text == "Three 3 apples."


def test_chunks_of_a_pipeline_are_segments_also_the_last_one_without_an_end() -> None:
    chunks = [{"timestamp": [0.0, 2.5], "text": " One."}, {"timestamp": [2.5, None], "text": " Two."}]
    transcript, subtitles = read({"text": "One. Two.", "chunks": chunks})
    assert [segment["text"] for segment in transcript["segments"]] == ["One.", "Two."]
    assert [cue.text for cue in read_srt(subtitles)] == ["One.", "Two."]


def test_silence_is_an_empty_transcript() -> None:
    transcript, subtitles = read({"transcript": json.dumps({"duration": 3.0, "segments": []})})
    assert transcript == {"language": None, "duration": 3.0, "segments": []}
    assert read_srt(subtitles) == []


@pytest.mark.parametrize(
    "output",
    [
        {"transcript": "{not json"},
        {"transcript": "[" * 100_000},
        {"transcript": "7"},
        {"segments": "many"},
        {"segments": [{"start": 2, "end": 1, "text": "backwards"}]},
        {"segments": [{"start": -1, "end": 1, "text": "before"}]},
        {"segments": [{"start": 0, "end": float("nan"), "text": "never"}]},
        "a plain text",
        None,
        [],
    ],
)
def test_nonsense_is_a_bad_response_and_never_an_empty_success(output: object) -> None:
    with pytest.raises(ProviderBadResponse):
        TRANSCRIPTION.find_outputs(output)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"duration": 1, "segments": [{}]}', b"[]"])
def test_a_stored_transcript_is_one(content: bytes) -> None:
    with pytest.raises(ProviderBadResponse):
        check_transcript(content)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"audio": "https://elsewhere.example/talk.mp3"},
        {"audio": "upl_1"},
        {"audio": UPLOAD, "language": "English"},
        {"audio": UPLOAD, "translate": True},
    ],
)
def test_an_input_outside_its_bounds_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TranscriptionInput.model_validate(given)


def test_each_provider_is_asked_in_its_own_words() -> None:
    kind = get_kind("transcription")
    wanted = TranscriptionInput.model_validate({"audio": UPLOAD, "language": "es"})
    assert kind.hosted is not None
    assert kind.hosted.ask(wanted) == {"audio_file": UPLOAD, "align_output": True, "language": "es"}
    assert kind.ask_worker(wanted) == {"audio": UPLOAD, "language": "es"}
