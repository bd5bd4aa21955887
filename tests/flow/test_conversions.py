"""Songs in another voice: a job whose work is other jobs, from the song that is sent to the mix.

The worker is a fake that gives known tones for stems; the mix is made by the real ffmpeg.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest
from sqlalchemy import update

from app.audio import default_binary
from app.outbound import Outbound
from db.retention.expiry import date_ended_jobs
from db.tables import Announcement, Attempt, Event, Job, JobInput, Output
from tests.conftest import becomes
from tests.flow.conftest import OpenStage
from tests.flow.songs import REST, SONG_S, SUNG, VOCALS, Studio, loudness_of
from tests.flow.test_tenants import key_for

NOBODY = "http://127.0.0.1:65535/"
"""Where an end is announced to, and nobody listens."""


def ports() -> dict[str, Outbound]:
    return {"outbound": Outbound(allow=("127.0.0.1",), idle_timeout_s=20, connect_timeout_s=20)}


@pytest.fixture
async def studio(stage_on: OpenStage) -> AsyncIterator[Studio]:
    async with stage_on(routes=("cog",), ports=ports()) as line:
        yield Studio(line)


@pytest.fixture
async def sqlite_studio(stage_on_sqlite: OpenStage) -> AsyncIterator[Studio]:
    """For promises about sound, which no database can break."""
    async with stage_on_sqlite(routes=("cog",), ports=ports()) as line:
        yield Studio(line)


async def test_a_song_is_separated_transferred_and_mixed(studio: Studio) -> None:
    line = studio.line
    job_id = await studio.convert(await studio.upload(), vocal_volume=0.5, return_stems=True)
    assert await line.state(job_id) == "queued"
    await line.drain()
    job = await line.read(job_id)
    assert (job["state"], job["stage"], job["progress"]) == ("running", "separation", 0.0)
    assert await studio.do() == "stem_separation"
    job = await line.read(job_id)
    assert (job["state"], job["stage"], job["progress"]) == ("running", "transfer", 0.25)
    assert await studio.do() == "voice_transfer"
    job = await line.read(job_id)
    assert (job["state"], job["progress"], set(job["outputs"])) == (
        "succeeded", 1.0, {"audio", "vocals", "instrumental"},
    )  # fmt: skip
    samples, rate = await studio.hear(job["outputs"]["audio"])
    assert (samples.shape, rate) == ((round(SONG_S * 22_050), 2), 22_050)
    assert loudness_of(samples, rate, SUNG) == pytest.approx(0.3 * 0.5, abs=0.005)
    assert loudness_of(samples, rate, REST) == pytest.approx(0.3 * 0.9, abs=0.005)
    assert loudness_of(samples, rate, VOCALS) < 0.01
    vocals, rate = await studio.hear(job["outputs"]["vocals"])
    assert loudness_of(vocals, rate, SUNG) == pytest.approx(0.3, abs=0.005)
    assert job["measured"]["mix_gain_db"] == 0
    assert job["measured"]["mix_true_peak_db"] == pytest.approx(-7.5, abs=0.3)
    assert [(child["step"], child["state"], child["reused"]) for child in job["children"]] == [
        ("separation", "succeeded", False), ("transfer", "succeeded", False),
    ]  # fmt: skip
    assert await line.events(job_id) == [
        "job.created", "job.planned", "job.planned", "job.finishing", "job.succeeded",
    ]  # fmt: skip


async def test_a_loud_mix_is_made_quieter_as_a_whole_and_never_clips(sqlite_studio: Studio) -> None:
    studio = sqlite_studio
    job_id = await studio.convert(await studio.upload(), vocal_volume=2, instrumental_volume=2)
    await studio.do_all()
    job = await studio.line.read(job_id)
    samples, rate = await studio.hear(job["outputs"]["audio"])
    measured = job["measured"]
    assert measured["mix_true_peak_db"] > 0
    assert measured["mix_gain_db"] == pytest.approx(-1.5 - measured["mix_true_peak_db"], abs=0.15)
    assert 20 * np.log10(np.abs(samples).max()) <= -1.5
    # Both by the same: what was twice as loud as the other stays so.
    assert loudness_of(samples, rate, SUNG) == pytest.approx(loudness_of(samples, rate, REST), rel=0.02)


@pytest.mark.parametrize(
    ("said", "before", "after"),
    [
        ('{"similarity_before": 0.387, "similarity_after": 0.689, "strength": 0.5}', 0.387, 0.689),
        ('{"similarity_before": 0.387}', 0.387, None),
        ('{"similarity_before": NaN, "similarity_after": 1.01}', None, None),
        ('{"similarity_before": "0.9", "similarity_after": true}', None, None),
        ("[" * 5000, None, None),
        (None, None, None),
    ],
)
async def test_the_likeness_to_the_voice_is_what_was_measured_or_null(
    sqlite_studio: Studio, said: str | None, before: float | None, after: float | None
) -> None:
    studio, told = sqlite_studio, {"similarity_before": before, "similarity_after": after}
    song = await studio.upload()
    job_id = await studio.convert(song)
    for _ in range(2):
        await studio.do(details=said)
    job, parts = await studio.line.read(job_id), await studio.children(job_id)
    assert parts["transfer"]["measured"] == told
    assert parts["separation"]["measured"] is None
    assert {name: job["measured"][name] for name in told} == told
    status = (await studio.line.client.get(f"/api/v1/convert/status/{job_id}")).json()
    assert status["quality_metrics"] == job["measured"]

    quieter = await studio.convert(song, vocal_volume=0.5)
    assert await studio.do_all() == [], "both parts were made before"
    again = (await studio.line.read(quieter))["measured"]
    assert {name: again[name] for name in told} == told


async def test_progress_is_what_the_parts_have_done_each_by_its_share(sqlite_studio: Studio) -> None:
    studio = sqlite_studio
    line = studio.line
    job_id = await studio.convert(await studio.upload())
    await line.drain()
    await studio.tell_progress(0.5)
    assert (await line.read(job_id))["progress"] == pytest.approx(0.25 * 0.9 * 0.5)
    await studio.do()
    await studio.tell_progress(1.0)
    assert (await line.read(job_id))["progress"] == pytest.approx(0.25 + 0.55 * 0.9)
    [child] = [each for each in (await line.read(job_id))["children"] if each["step"] == "transfer"]
    assert child["progress"] == pytest.approx(0.9)


async def test_a_cancel_ends_the_parts_too_and_the_model_is_told_to_stop(studio: Studio) -> None:
    line = studio.line
    job_id = await studio.convert(await studio.upload())
    await line.drain()
    await studio.do()
    reply = await line.client.post(f"/v1/jobs/{job_id}/cancel")
    assert (reply.status_code, reply.json()["state"]) == (200, "canceled")
    # No waiting: the cancel made the part's attempt due for recovery.
    await line.runtime.recovery.check()
    await line.drain()
    assert line.cog.running == {}
    assert len(line.cog.canceled) == 1
    children = await studio.children(job_id)
    assert {step: child["state"] for step, child in children.items()} == {
        "separation": "succeeded", "transfer": "canceled",
    }  # fmt: skip
    assert (await line.events(job_id))[-1] == "job.canceled"
    assert (await line.events(children["transfer"]["id"]))[-1] == "job.canceled"
    await line.hurry()
    await line.drain()
    assert (line.cog.running, len(await line.rows(Job))) == ({}, 3)


def is_mixing(processes: list[psutil.Process]) -> bool:
    """Whether one of them is what stands in for ffmpeg here, and hangs."""
    for process in processes:
        with suppress(psutil.Error):
            if process.name() == "sleep":
                return True
    return False


async def test_a_cancel_while_it_is_mixed_ends_ffmpeg_at_once(
    stage_on_sqlite: OpenStage, tmp_path: Path, children: Callable[[], list[psutil.Process]]
) -> None:
    """Fault 28: the process that mixes is gone, not only its result."""
    hanging, real = tmp_path / "ffmpeg", default_binary()
    hanging.write_text(f'#!/bin/sh\ncase "$*" in *filter_complex*) exec sleep 600;; esac\nexec {real} "$@"\n')
    hanging.chmod(0o755)
    settings = {"ffmpeg_binary": str(hanging), "replicate_ffmpeg_timeout": 600.0, "finish_limit_s": 600.0}
    async with stage_on_sqlite(routes=("cog",), **settings) as line:
        studio = Studio(line)
        job_id = await studio.convert(await studio.upload())
        await line.drain()
        await studio.do()
        last = asyncio.create_task(studio.do())
        await becomes(lambda: is_mixing(children()), within_s=60)
        assert (await line.client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200
        async with asyncio.timeout(60):
            await last
        assert await line.state(job_id) == "canceled"
        assert not is_mixing(children())
        assert {each.state for each in await line.rows(Job)} == {"succeeded", "canceled"}


async def test_a_part_that_fails_fails_the_whole_with_its_code(sqlite_studio: Studio) -> None:
    studio = sqlite_studio
    line = studio.line
    job_id = await studio.convert(await studio.upload())
    await line.drain()
    await studio.do()
    await studio.do(error="EngineError: audio: nobody is heard in it")
    job = await line.read(job_id)
    assert job["state"] == "failed"
    assert job["error"] == {
        "code": "prediction_failed", "message": "transfer: audio: nobody is heard in it",
    }  # fmt: skip
    assert (await line.events(job_id))[-1] == "job.failed"


async def test_a_retry_does_only_what_was_not_done(studio: Studio) -> None:
    line = studio.line
    job_id = await studio.convert(await studio.upload())
    await line.drain()
    await studio.do()
    await studio.do(error="EngineError: not today")
    again = (await line.client.post(f"/v1/jobs/{job_id}/retry")).json()["id"]
    assert await studio.do_all() == ["voice_transfer"]
    job = await line.read(again)
    assert (job["state"], job["retry_of"]) == ("succeeded", job_id)
    assert {child["step"]: child["reused"] for child in job["children"]} == {
        "separation": True, "transfer": False,
    }  # fmt: skip


async def test_asked_again_with_stems_or_other_volumes_nothing_is_made_twice(studio: Studio) -> None:
    line = studio.line
    first = await studio.convert(await studio.upload())
    assert await studio.do_all() == ["stem_separation", "voice_transfer"]
    # The same bytes, sent again.
    second = await studio.convert(await studio.upload(), return_stems=True)
    third = await studio.convert(await studio.upload(), instrumental_volume=0.2)
    other = await studio.convert(await studio.upload(), pitch_shift=2)
    assert await studio.do_all() == ["voice_transfer"]
    jobs = [await line.read(job_id) for job_id in (first, second, third, other)]
    assert [job["state"] for job in jobs] == ["succeeded"] * 4
    audio = [job["outputs"]["audio"]["asset_id"] for job in jobs]
    assert audio[0] == audio[1] != audio[2]
    assert set(jobs[1]["outputs"]) == {"audio", "vocals", "instrumental"}
    assert jobs[1]["measured"] == jobs[0]["measured"]
    assert jobs[1]["cost"]["items"] == []
    samples, rate = await studio.hear(jobs[2]["outputs"]["audio"])
    assert loudness_of(samples, rate, REST) == pytest.approx(0.3 * 0.2, abs=0.005)


async def test_two_who_ask_for_the_same_at_once_pay_once(studio: Studio) -> None:
    line, song = studio.line, await studio.upload()
    first = await studio.convert(song)
    second = await studio.convert(song, vocal_volume=0.7)
    await line.drain()
    waiting = await line.read(second)
    assert waiting["state"] == "queued"
    assert waiting["waiting_reason"] == "the same stem_separation is under way for another job"
    assert await studio.do_all() == ["stem_separation", "voice_transfer"]
    assert [await line.state(each) for each in (first, second)] == ["succeeded", "succeeded"]


async def test_who_waited_for_anothers_part_does_it_when_that_is_canceled(studio: Studio) -> None:
    line, song = studio.line, await studio.upload()
    first, second = await studio.convert(song), await studio.convert(song)
    await line.drain()
    await line.client.post(f"/v1/jobs/{first}/cancel")
    await line.look()
    assert await studio.do_all() == ["stem_separation", "voice_transfer"]
    assert await line.state(second) == "succeeded"


async def test_nothing_that_one_tenant_had_made_is_used_for_another(studio: Studio) -> None:
    line, made = studio.line, []
    for tenant in ("acme", "globex"):
        issued = await key_for(line, tenant)
        headers = {"authorization": f"Bearer {issued.text}"}
        job_id = await studio.convert(await studio.upload(headers=headers), headers, tenant=tenant)
        assert await studio.do_all() == ["stem_separation", "voice_transfer"]
        made.append((await line.client.get(f"/v1/jobs/{job_id}", headers=headers)).json())
        mine = await line.client.get("/v1/jobs", params={"parent_id": job_id}, headers=headers)
        assert len(mine.json()["items"]) == 2
    theirs = await line.client.get("/v1/jobs", params={"parent_id": made[0]["id"]}, headers=headers)
    assert theirs.json()["items"] == []


async def test_the_parts_are_in_no_list_but_their_parents_and_are_acted_on_through_it(studio: Studio) -> None:
    line = studio.line
    wanted = {"audio": await studio.upload(), "voice_id": await studio.voice()}
    asked = await line.client.post(
        "/v1/jobs",
        json={
            "kind": "voice_conversion", "input": wanted,
            "metadata": {"album": "blue"}, "callback_url": NOBODY,
        },
    )  # fmt: skip
    job_id = asked.json()["id"]
    await line.drain()
    part = (await studio.children(job_id))["separation"]
    assert (part["parent_id"], part["callback_url"], part["metadata"]) == (job_id, None, {"album": "blue"})
    assert part["deadline_at"] == asked.json()["deadline_at"]
    listed = (await line.client.get("/v1/jobs")).json()["items"]
    assert [job["id"] for job in listed] == [job_id]
    by_kind = (await line.client.get("/v1/jobs", params={"q": "kind:stem_separation"})).json()["items"]
    assert by_kind == []
    named = (await line.client.get("/v1/jobs", params={"q": f"id:{part['id']}"})).json()["items"]
    assert [job["id"] for job in named] == [part["id"]]
    for act in ("cancel", "retry", "expunge"):
        reply = await line.client.post(f"/v1/jobs/{part['id']}/{act}")
        assert (act, reply.status_code, job_id in reply.text or act == "expunge") == (act, 409, True)
    told = (await line.client.get("/v1/events")).json()["items"]
    assert {event["job_id"] for event in told} == {job_id}
    assert await line.events(part["id"]) == ["job.created", "job.dispatched"]
    await studio.do_all()
    assert [told.job_id for told in await line.rows(Announcement)] == [job_id]


@pytest.mark.breaks("I1")
async def test_the_parts_go_when_their_parent_goes(studio: Studio) -> None:
    """Fault 50: stems stay as long as the job that they were made for, and no longer."""
    line = studio.line
    job_id = await studio.convert(await studio.upload())
    await studio.do_all()
    assert all(each.expires_at is None for each in await line.rows(Job) if each.parent_id)
    stem = (await studio.children(job_id))["separation"]["outputs"]["vocals"]["asset_id"]
    soon = datetime.now(UTC) + timedelta(days=1)
    await line.change(Job, job_id, expires_at=soon)
    shown = (await line.client.get(f"/v1/assets/{stem}")).json()
    assert datetime.fromisoformat(shown["expires_at"]) == soon
    await line.change(Job, job_id, expires_at=datetime.now(UTC) - timedelta(seconds=1), retention_s=60.0)
    assert await line.runtime.housekeeper.expire() == 1
    assert [await line.count(table) for table in (Job, Output, JobInput, Event, Attempt)] == [0] * 5


async def test_a_part_whose_parent_an_older_release_deleted_goes_by_itself(studio: Studio) -> None:
    line = studio.line
    job_id = await studio.convert(await studio.upload())
    await studio.do_all()
    for part in (await studio.children(job_id)).values():
        await line.change(Job, part["id"], parent_id="job_" + "0" * 32)
    await line.change(Job, job_id, expires_at=None)
    old = datetime.now(UTC) - timedelta(days=1)
    async with line.runtime.line.database.transaction() as tx:
        await tx.execute(update(Job).values(finished_at=old))
        assert await date_ended_jobs(tx, age=timedelta(hours=1), limit=10) == 3
    assert all(each.expires_at is not None for each in await line.rows(Job))


async def test_what_is_expunged_is_gone_from_the_parts_and_is_not_used_again(studio: Studio) -> None:
    line = studio.line
    job_id = await studio.convert(await studio.upload(), return_stems=True)
    await studio.do_all()
    assert (await line.client.post(f"/v1/jobs/{job_id}/expunge")).status_code == 200
    assert await line.count(Output) == 0
    assert all(each.input == {} and each.expunged_at for each in await line.rows(Job))
    await studio.convert(await studio.upload())
    assert await studio.do_all() == ["stem_separation", "voice_transfer"]


async def test_the_deadline_of_the_whole_ends_the_parts(studio: Studio) -> None:
    line = studio.line
    job_id = await studio.convert(await studio.upload())
    await line.drain()
    await line.age(4000)
    await line.look()
    job = await line.read(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "deadline_exceeded")
    [part] = (await studio.children(job_id)).values()
    assert part["finished_at"]
    await line.look()
    assert line.cog.running == {}


async def test_what_the_parts_cost_is_what_the_whole_cost(stage_on_sqlite: OpenStage) -> None:
    prices = {"cog": {"*": {"second": 0.01}}}
    async with stage_on_sqlite(routes=("cog",), prices=prices, cog_urls="http://cog.test:5000") as line:
        studio = Studio(line)
        job_id = await studio.convert(await studio.upload())
        await studio.do_all()
        cost = (await line.read(job_id))["cost"]
        assert cost["usd"] == pytest.approx(2 * 0.005)
        parts = await studio.children(job_id)
        assert [item["job_id"] for item in cost["items"]] == [
            parts["separation"]["id"], parts["transfer"]["id"],
        ]  # fmt: skip


async def test_a_budget_that_one_part_would_fit_into_is_held_for_both(stage_on_sqlite: OpenStage) -> None:
    prices = {"cog": {"*": {"file": 0.3}}}
    budgets = {"default": {"month": "0.7"}}
    settings = {"prices": prices, "budgets": budgets, "cog_urls": "http://cog.test:5000"}
    async with stage_on_sqlite(routes=("cog",), **settings) as line:
        studio = Studio(line)
        wanted = {"audio": await studio.upload(), "voice_id": await studio.voice()}
        asked = {"kind": "voice_conversion", "input": wanted}
        first, second = [await line.client.post("/v1/jobs", json=asked) for _ in range(2)]
        assert (first.status_code, second.status_code) == (202, 402)
        assert second.json()["budget"]["reserved_usd"] == pytest.approx(0.6)
