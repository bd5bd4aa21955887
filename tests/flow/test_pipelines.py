"""The scripts that pipelines run: real processes on a folder of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import soundfile

from tests.flow.test_cli import LIMIT_S, ROOT, environment

SCENE = """\
[music: calm piano]
The old house had been empty for years.
[sfx: door creak]
Until tonight.
"""


def run(folder: Path, script: str, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *words],
        cwd=folder,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def report(folder: Path) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = json.loads((folder / "pipeline.json").read_text())["jobs"]
    return jobs


def test_a_scene_becomes_its_sounds_in_the_order_of_the_script(tmp_path: Path) -> None:
    (tmp_path / "scene.txt").write_text(SCENE)

    ended = run(tmp_path, "simple_e2e_pipeline", "scene.txt", "--out", "out")

    assert ended.returncode == 0, ended.stderr
    jobs = report(tmp_path / "out")
    assert [job["name"] for job in jobs] == [
        "01_music_calm_piano", "02_narration", "03_sfx_door_creak", "04_narration",
    ]  # fmt: skip
    for job in jobs:
        assert soundfile.info(tmp_path / job["file"]).duration > 0.3
        assert job["stations_s"]["total"] >= job["stations_s"]["generating"] > 0
    assert "4 of 4 sounds" in ended.stdout


def test_a_plain_text_gets_a_bed_effects_and_one_narration_and_failures_exit_with_4(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("A text\nwithout markers.")
    words = ("plain.txt", "--music", "slow strings", "--effects", "2", "--effect", "bell")

    ended = run(tmp_path, "simple_e2e_pipeline", *words, FFMPEG_BINARY="/nonexistent", LOG_LEVEL="error")

    assert ended.returncode == 4
    jobs = report(tmp_path / "out")
    assert [job["kind"] for job in jobs] == ["background_music", "sound_effect", "sound_effect", "speech"]
    assert jobs[3]["input"]["text"] == "A text without markers."
    assert jobs[2]["input"]["seed"] == 1
    assert {job["error"]["code"] for job in jobs} == {"engine_unavailable"}


def test_the_audio_of_a_content_id_is_made_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    effects = ("--effect", "thunder", "--effect", "glass breaking")
    words = ("c-17", "--music", "tense strings", "--duration", "3", *effects)

    first = run(tmp_path, "track2_audio_pipeline", *words, "--out", "first")
    second = run(tmp_path, "track2_audio_pipeline", *words, "--out", "second")

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "0 of 3 jobs were there already" in first.stdout
    assert "3 of 3 jobs were there already" in second.stdout
    ids = [job["job_id"] for job in report(tmp_path / "first")]
    assert [job["job_id"] for job in report(tmp_path / "second")] == ids
    assert (tmp_path / "second" / "effect_2.flac").read_bytes() == (
        tmp_path / "first" / "effect_2.flac"
    ).read_bytes()


def test_one_piece_of_music_and_a_recovery_are_one_command_each(tmp_path: Path) -> None:
    made = run(tmp_path, "background_music_standalone", "happy ukulele", "--duration", "3", "-o", "u.flac")
    assert made.returncode == 0, made.stderr
    assert soundfile.info(tmp_path / "u.flac").duration == 3

    asked = run(tmp_path, "recover_webhooks", "--since", "2h", "--dry-run")
    assert (asked.returncode, asked.stdout) == (
        0,
        "0 live attempts. Nothing was changed: this was a dry run.\n",
    )
