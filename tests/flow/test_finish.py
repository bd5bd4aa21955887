"""Finishing: a job ends with a real, measured, stored clip or a word for why not; nothing is left over."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Route as Path_

from app.crash_points import CrashPoint
from app.families.joining import Joined
from db.tables import Asset, Job, Output
from tests.fakes.provider import served
from tests.flow.conftest import TONE, OpenStage, Stage, as_data_uri, tone

HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


def leftovers(line: Stage) -> list[Path]:
    return [path for path in line.runtime.bench.workspace.root.iterdir() if path.name != "lock"]


async def ended(line: Stage, output: Any) -> dict[str, Any]:
    """The job after a prediction that succeeded with this output."""
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=output)
    await line.drain()
    job = await line.read(job_id)
    if job["state"] == "queued":  # another attempt is due
        await line.runtime.jobs.cancel(job_id)
    assert leftovers(line) == []
    return job


@pytest.mark.parametrize(
    ("content", "media_type", "words"),
    [
        (tone(volume=0.0), "audio/wav", "silent"),
        (HTML, "audio/mpeg", "not audio"),
        (b'{"detail": "not found"}', "audio/wav", "not audio"),
        (PLAYLIST, "audio/mpeg", "not audio"),
        (tone()[:30], "audio/wav", ""),
        (tone()[:44], "audio/wav", ""),
        (b"", "audio/wav", ""),
        (b"\x89PNG\r\n\x1a\n" + b"0" * 500, "audio/wav", "not audio"),
    ],
    ids=["silent", "html", "json", "playlist", "half-header", "no-samples", "empty", "picture"],
)
async def test_a_clip_that_is_no_sound_is_a_typed_failure(
    sqlite_line: Stage, content: bytes, media_type: str, words: str
) -> None:
    """Fault 35."""
    job = await ended(sqlite_line, as_data_uri(content, media_type))
    assert job["state"] == "failed"
    assert job["error"]["code"] in ("audio_rejected", "output_rejected", "provider_bad_response")
    assert words in job["error"]["message"]
    assert job["outputs"] == {}
    assert await sqlite_line.count(Asset) == await sqlite_line.count(Output) == 0


async def test_a_truncated_clip_is_never_a_whole_one(sqlite_line: Stage) -> None:
    """Fault 41."""
    whole = tone(2.0)
    job = await ended(sqlite_line, as_data_uri(whole[: len(whole) // 2]))
    if job["state"] == "succeeded":  # what is there was measured, not what the header announced
        assert job["outputs"]["audio"]["duration_s"] < 1.2
    else:
        assert job["error"]["code"] == "audio_rejected"


async def test_a_file_past_the_limit_is_refused_and_leaves_nothing(stage_on_sqlite: OpenStage) -> None:
    """Fault 39."""
    async with stage_on_sqlite(serve=True, replicate_max_file_size=20_000) as line:
        for output in (as_data_uri(tone(4.0)), line.fake.keep_output("big.wav", tone(4.0))):
            job = await ended(line, output)
            assert (job["state"], job["error"]["code"]) == ("failed", "output_rejected")


@pytest.mark.parametrize(
    "output",
    [
        TONE,
        [TONE],
        {"audio": TONE},
        {"audio": [TONE]},
        {"file": TONE, "engine": "own"},
        [{"audio": TONE, "text": "rain"}],
        {"result": {"audio": TONE}},
        ["progress", TONE],
    ],
    ids=["string", "list", "object", "object-list", "other-name", "list-object", "nested", "mixed"],
)
async def test_fault_59_every_shape_of_an_output_is_read(sqlite_line: Stage, output: Any) -> None:
    job = await ended(sqlite_line, output)
    assert job["state"] == "succeeded", job["error"]


@pytest.mark.parametrize(
    "output",
    [
        None,
        "",
        [],
        {},
        "just words",
        5,
        True,
        [1, 2],
        {"audio": None},
        [TONE, as_data_uri(tone(hz=220))],
        {"a": {"b": {"c": {"d": {"e": TONE}}}}},
        "file:///etc/passwd",
        "ftp://example.com/a.wav",
        "data:",
        "data:audio/wav;base64,%%%",
        "data:audio/wav;base64," + base64.b64encode(b"x").decode()[:-1] + "!",
        "https://",
        "https://user:word@replicate.delivery/a.wav",
        "https://[::1",
        "http://replicate.delivery/a.wav",
    ],
    ids=repr,
)
async def test_fault_59_an_output_without_a_file_never_succeeds_and_its_body_is_kept(
    sqlite_line: Stage, output: Any
) -> None:
    job = await ended(sqlite_line, output)
    assert job["state"] in ("failed", "queued"), job["error"]
    said = job["error"]["code"] if job["error"] else job["waiting_reason"]
    assert said
    if job["error"]:
        assert job["error"]["code"] in ("provider_bad_response", "output_rejected", "audio_rejected")
    kept = (await sqlite_line.ledger())[0]
    shown = (await sqlite_line.client.get(f"/v1/deliveries/{kept['id']}")).json()
    assert base64.b64decode(shown["body_base64"]) == sqlite_line.fake.sent[0].body[: 64 * 1024]


@pytest.mark.parametrize(
    "place",
    [
        "https://127.0.0.1/a.wav",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/a.wav",
        "https://10.0.0.1/a.wav",
        "https://2852039166/a.wav",
        "http://127.0.0.1:1/a.wav",
        "https://example.com/a.wav",
        "https://replicate.delivery.example.com/a.wav",
    ],
)
async def test_fault_30_an_address_that_is_not_the_providers_is_refused(
    sqlite_line: Stage, place: str
) -> None:
    job = await ended(sqlite_line, place)
    assert (job["state"], job["error"]["code"]) == ("failed", "output_rejected")
    assert "meta-data" not in job["error"]["message"]


async def test_a_redirect_to_a_private_address_is_refused_and_never_asked(
    stage_on_sqlite: OpenStage,
) -> None:
    """Fault 31."""
    asked: list[str] = []

    async def inside(request: Any) -> RedirectResponse:
        asked.append(str(request.url))
        return RedirectResponse("/")

    private = Starlette(routes=[Path_("/{rest:path}", inside)])
    async with stage_on_sqlite(serve=True) as line, served(private) as private_url:
        away = line.fake.keep_output("away.wav", b"")

        async def redirect(request: Any) -> RedirectResponse:
            return RedirectResponse(f"{private_url}/secret.wav")

        line.fake._app.router.routes.insert(0, Path_("/outputs/away.wav", redirect))
        job = await ended(line, away)
        assert (job["state"], job["error"]["code"]) == ("failed", "output_rejected")
        assert asked == []


async def test_an_output_host_that_is_away_is_asked_again_until_the_deadline(
    stage_on_sqlite: OpenStage,
) -> None:
    async with stage_on_sqlite(serve=True) as line:
        failing = True

        async def flaky(request: Any) -> Any:
            return await line.fake._output(request) if not failing else _unavailable()

        url = line.fake.keep_output("out", tone())
        line.fake._app.router.routes.insert(0, Path_("/outputs/{name}", flaky))
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=url)
        await line.drain()
        job = await line.read(job_id)
        assert job["state"] == "finishing"
        assert job["waiting_reason"]
        row = (await line.rows(Job))[0]
        # A hint of a day does not carry the job past its own deadline.
        assert row.run_after <= row.deadline_at
        failing = False
        await line.hurry()
        await line.drain()
        assert await line.state(job_id) == "succeeded"
        failing = True
        second, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=url)
        await line.drain()
        await line.age(4000)
        await line.drain()
        job = await line.read(second)
        assert (job["state"], job["error"]["code"]) == ("failed", "provider_unavailable")
        assert leftovers(line) == []


def _unavailable() -> Any:
    from starlette.responses import Response

    return Response("busy", 503, {"retry-after": "86400"})


async def test_a_step_that_dies_again_and_again_poisons_its_job_and_no_other(line: Stage) -> None:
    """Fault 54."""
    poisoned, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.runtime.inbox.step((await line.ledger())[0]["id"])
    limit = line.runtime.settings.max_crashes
    for died in range(limit):
        # A worker that claims the job and is killed: its lease runs out, nothing else happens.
        await line.change(
            Job, poisoned, crashes=died + 1, lease="gone", lease_until=(await _row(line)).created_at
        )
    other, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    job = await line.read(poisoned)
    assert (job["state"], job["error"]["code"]) == ("failed", "poisoned")
    assert str(limit) in job["error"]["message"]
    assert await line.state(other) == "succeeded"


async def _row(line: Stage) -> Any:
    return (await line.rows(Job))[0]


async def test_a_finisher_that_was_frozen_past_its_lease_commits_nothing(stage_on: OpenStage) -> None:
    """Fault 62."""
    frozen: list[str] = []

    def freeze(point: CrashPoint) -> None:
        if point is CrashPoint.OUTPUT_STORED and not frozen:
            frozen.append("once")
            raise _Frozen

    async with stage_on(ports={"reach": freeze}) as line:
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=TONE)
        with pytest.raises(_Frozen):
            await line.drain()
        # Somebody else takes the lease over; the one that wakes up holds the old token.
        stale = (await _row(line)).lease
        assert stale
        await line.change(Job, job_id, lease="another")
        row = await _row(line)
        await line.runtime.finisher._fail(row, stale, "late", "from the frozen one")
        with pytest.raises(Exception, match="somebody else"):
            await line.runtime.finisher._succeed(row, stale, Joined({}, None), {})
        assert (await line.state(job_id), await line.count(Output)) == ("finishing", 0)
        await line.change(Job, job_id, lease=None, lease_until=None)
        await line.drain()
        assert await line.state(job_id) == "succeeded"
        assert await line.events(job_id) == [
            "job.created",
            "job.dispatched",
            "job.finishing",
            "job.succeeded",
        ]


class _Frozen(Exception):
    """The step stops here, its lease still held."""


async def test_two_finishers_at_once_make_one_end(line: Stage) -> None:
    """Fault 62."""
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.runtime.inbox.step((await line.ledger())[0]["id"])
    await asyncio.gather(*(line.runtime.finisher.step(job_id) for _ in range(5)))
    assert await line.state(job_id) == "succeeded"
    assert (await line.events(job_id)).count("job.succeeded") == 1
    assert await line.count(Output) == 1


async def test_a_clip_that_is_done_gives_no_connection_up(sqlite_line: Stage) -> None:
    """The commit of a job's end wakes who keeps its lease: a renewal begun then would be broken off, and the
    one writing connection be opened anew for each clip."""
    for _ in range(3):
        _, prediction_id = await sqlite_line.start()
        await sqlite_line.fake.finish(prediction_id, output=TONE)
        await sqlite_line.drain()
    assert [row.state for row in await sqlite_line.rows(Job)] == ["succeeded"] * 3
    assert sqlite_line.runtime.line.database.pool_figures()["recycled"] == 0
