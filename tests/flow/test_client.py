"""The Python client against the real service over real HTTP: every method, blocking and awaited."""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app import client as reprise
from app.access.callers import Caller, Scope
from app.client import webhooks
from app.outbound import Outbound
from db.tables import Job
from tests.flow.client_ground import Ground, ground_on
from tests.flow.conftest import OpenStage, tone
from tests.flow.receiver import Receiver, listening

RAIN = {"prompt": "rain", "duration_s": 1}
LONG_S = 60.0


@pytest.fixture(params=["blocking", "async"])
async def ground(request: pytest.FixtureRequest, stage_on_sqlite: OpenStage) -> AsyncIterator[Ground]:
    async with stage_on_sqlite(serve=True) as stage, ground_on(stage, request.param) as ground:
        yield ground


async def made(ground: Ground) -> Any:
    """A job that has succeeded."""
    job = await ground.client.jobs.create("sound_effect", RAIN)
    await ground.finish()
    return await ground.client.jobs.get(job.id)


async def test_a_job_is_asked_for_and_read_with_what_was_given(ground: Ground) -> None:
    job = await ground.client.jobs.create(
        "sound_effect",
        RAIN,
        metadata={"scene": 4},
        provider="replicate",
        deadline_s=600,
        priority=5,
        retention_s=3600,
        idempotency_key="scene-4",
    )
    again = await ground.client.jobs.create(
        "sound_effect", RAIN, metadata={"scene": 4}, provider="replicate", deadline_s=600, priority=5,
        retention_s=3600, idempotency_key="scene-4",
    )  # fmt: skip
    found = await ground.client.jobs.get(job.id)
    assert job.id == again.id == found.id == (await found.refresh()).id
    assert (found.state, found.is_ended, found.metadata) == ("queued", False, {"scene": 4})
    assert (found.retention_s, found.callback_url, found.expunged_at) == (3600, None, None)
    assert found.deadline_at - found.created_at == timedelta(seconds=600)
    other = await ground.client.jobs.create("sound_effect", RAIN)
    assert other.id != (await ground.client.jobs.create("sound_effect", RAIN)).id


async def test_a_wait_returns_when_the_job_has_ended(ground: Ground) -> None:
    job = await ground.client.jobs.create("sound_effect", RAIN)
    waits = [
        asyncio.create_task(ground.client.jobs.wait(job.id, LONG_S)),
        asyncio.create_task(job.wait(LONG_S)),
    ]
    await ground.finish()
    ended = [await wait for wait in waits]
    assert [each.state for each in ended] == ["succeeded"] * 2
    assert (await ended[0].wait()).id == job.id
    assert ended[0].attempts[0].provider == "replicate"


async def test_a_create_that_waits_is_answered_with_the_end(ground: Ground) -> None:
    asked = asyncio.create_task(ground.client.jobs.create("sound_effect", RAIN, wait_s=60))
    while not await ground.stage.count(Job):
        await asyncio.sleep(0.01)
    await ground.finish()
    assert (await asked).state == "succeeded"


async def test_a_kind_s_own_method_makes_the_sound_and_saves_it(ground: Ground, tmp_path: Path) -> None:
    asked = asyncio.create_task(ground.client.sound_effect("rain", duration_s=1, timeout_s=LONG_S))
    while not await ground.stage.count(Job):
        await asyncio.sleep(0.01)
    await ground.finish()
    job = await asked
    path = await job.save(tmp_path / "deep" / "rain.flac")
    output = job.outputs["audio"]
    content = path.read_bytes()
    assert content == await output.read()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (output.size_bytes, output.sha256)
    assert [each.name for each in path.parent.iterdir()] == ["rain.flac"]
    known = await ground.client.asset(output.asset_id)
    assert (known.sha256, known.channels) == (output.sha256, 1)


@pytest.mark.parametrize(
    ("kind", "args", "given"),
    [
        ("background_music", ("calm piano",), {"duration_s": 5.0, "seed": 7}),
        ("speech", ("Hello.",), {"language": "en", "speed": 1.5, "voice": "deep"}),
        ("translation", ("Hello.",), {"source": "en", "target": "es", "allow_poorer": True}),
        (
            "translation",
            (),
            {"segments": [{"text": "Hi", "start": 0.0, "end": 1.0}], "source": "en", "target": "es"},
        ),
    ],
)
async def test_the_other_kinds_are_asked_for_as_they_are_given(
    stage_on_sqlite: OpenStage, kind: str, args: tuple[str, ...], given: dict[str, Any]
) -> None:
    async with stage_on_sqlite(routes=("cog",)) as stage, ground_on(stage, "async") as ground:
        with pytest.raises(reprise.TimedOut) as timed_out:
            await getattr(ground.client, kind)(*args, **given, priority=3, timeout_s=0)
        job = timed_out.value.job
        assert job.kind == kind
        assert {name: job.input[name] for name in given} == given
        assert (await stage.rows(Job))[0].priority == 3


async def test_files_go_in_as_paths_open_files_uploads_and_outputs(ground: Ground, tmp_path: Path) -> None:
    path = tmp_path / 'a "song"\n.wav'
    path.write_bytes(tone(2.0))
    sent: list[tuple[int, int | None]] = []
    upload = await ground.client.uploads.create(path, progress=lambda *figures: sent.append(figures))
    assert sent[-1] == (path.stat().st_size, path.stat().st_size)
    assert upload.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    job = await made(ground)
    for sound in (path, str(path), path.open("rb"), upload, upload.upload_id, job.outputs["audio"]):
        for ask in (ground.client.transcription, ground.client.stem_separation):
            with pytest.raises(reprise.TimedOut) as timed_out:
                await ask(sound, timeout_s=0)
            assert timed_out.value.job.input["audio"].startswith("ast_")
            if isinstance(sound, io.BufferedReader):
                sound.seek(0)
        if isinstance(sound, io.BufferedReader):
            sound.close()


async def test_a_large_upload_is_read_in_pieces_and_tells_its_progress(ground: Ground) -> None:
    class Pipe(io.RawIOBase):
        """Can be read on, and not gone back in."""

        def __init__(self, content: bytes) -> None:
            self.inner, self.most_bytes = io.BytesIO(content), 0

        def read(self, size: int = -1) -> bytes:
            self.most_bytes = max(self.most_bytes, size if size >= 0 else 1 << 40)
            return self.inner.read(size)

    content = tone(60.0)
    sent: list[tuple[int, int | None]] = []
    for file, total in ((io.BytesIO(content), len(content)), (Pipe(content), None)):
        sent.clear()
        upload = await ground.client.uploads.create(file, progress=lambda *figures: sent.append(figures))
        assert upload.size_bytes == len(content)
        assert [figures[1] for figures in sent] == [total] * len(sent)
        steps = [figures[0] for figures in sent]
        assert len(steps) > 3
        assert steps == sorted(steps)
        assert steps[-1] == len(content)
    assert isinstance(file, Pipe)
    assert 0 < file.most_bytes <= 256 * 1024


async def test_events_are_a_stream_that_ends_with_the_job(ground: Ground) -> None:
    job = await ground.client.jobs.create("sound_effect", RAIN)

    async def follow() -> list[Any]:
        return [event async for event in ground.client.jobs.events(job.id)]

    following = asyncio.create_task(follow())
    await ground.finish()
    events = await following
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert (events[0].type, events[-1].type) == ("job.created", "job.succeeded")
    assert [event.seq async for event in job.events(after_seq=2)] == [each.seq for each in events[2:]]
    assert [event async for event in job.events(after_seq=len(events))] == []


async def test_a_stream_may_be_left_before_its_end(ground: Ground) -> None:
    job = await ground.client.jobs.create("sound_effect", RAIN)
    async with aclosing(ground.client.jobs.events(job.id)) as events:
        assert (await anext(events)).seq == 1
    assert (await job.refresh()).state == "queued"


async def test_lists_go_through_their_pages_without_gap_or_double(ground: Ground) -> None:
    ids = [(await ground.client.jobs.create("sound_effect", RAIN)).id for _ in range(5)]
    assert [job.id async for job in ground.client.jobs.list(limit=2)] == ids[::-1]
    now = datetime.now(UTC)
    wanted = {"kind": "sound_effect", "state": "queued", "q": "rain", "since": now - timedelta(hours=1)}
    assert len([job async for job in ground.client.jobs.list(**wanted)]) == 5
    assert [job async for job in ground.client.jobs.list(until=now - timedelta(hours=1))] == []
    page = await ground.client.jobs.page(limit=3)
    rest = await ground.client.jobs.page(limit=3, cursor=page.next_cursor)
    assert [job.id for job in (*page.items, *rest.items)] == ids[::-1]
    assert rest.next_cursor is None
    assert (await page.items[0].cancel()).state == "canceled"


async def test_jobs_are_canceled_and_asked_for_again(ground: Ground) -> None:
    job = await ground.client.jobs.create("sound_effect", RAIN)
    with pytest.raises(reprise.Conflict):
        await ground.client.jobs.retry(job.id)
    canceled = await ground.client.jobs.cancel(job.id)
    assert (canceled.state, (await job.cancel()).state) == ("canceled", "canceled")
    with pytest.raises(reprise.JobCanceled) as ended:
        await ground.client.jobs.wait(job.id)
    assert ended.value.job.id == job.id
    assert (await ground.client.jobs.wait(job.id, check=False)).state == "canceled"
    assert (await canceled.wait(check=False)).id == job.id
    again = await ground.client.jobs.retry(job.id)
    assert (again.retry_of, (await canceled.retry()).retry_of) == (job.id, job.id)


async def test_a_failed_job_is_an_error_that_says_why(ground: Ground) -> None:
    job = await ground.client.jobs.create("sound_effect", RAIN)
    await ground.fail()
    with pytest.raises(reprise.JobFailed, match="failed: ") as failed:
        await job.wait(LONG_S)
    assert failed.value.code == failed.value.job.error.code != ""
    with pytest.raises(reprise.InvalidInput, match="none"):
        await (await job.refresh()).save("nowhere.flac")


async def test_a_wait_that_is_over_leaves_the_job_going_on(ground: Ground) -> None:
    job = await ground.client.jobs.create("sound_effect", RAIN)
    with pytest.raises(reprise.TimedOut, match=r"queued after 0\.2 s") as timed_out:
        await ground.client.jobs.wait(job.id, 0.2)
    assert timed_out.value.job.id == job.id
    assert (await job.refresh()).state == "queued"


async def test_the_ledger_is_read_and_replayed(ground: Ground) -> None:
    job = await made(ground)
    await made(ground)
    assert len([delivery async for delivery in ground.client.deliveries.list(limit=1)]) == 2
    assert len([delivery async for delivery in ground.client.deliveries.list(job_id=job.id)]) == 1
    page = await ground.client.deliveries.page(outcome="applied")
    known = await ground.client.deliveries.get(page.items[0].id)
    assert "webhook-id" in known.headers
    receipt = await ground.client.deliveries.replay(known.id)
    assert receipt.delivery_id in [each.id async for each in ground.client.deliveries.list()]


async def test_a_recovery_is_foreseen_begun_and_waited_for(ground: Ground) -> None:
    ground.stage.fake.lose_hooks = frozenset({"start", "logs", "completed"})
    jobs = [await ground.client.jobs.create("sound_effect", RAIN) for _ in range(2)]
    await ground.finish()
    recoveries, now = ground.client.recoveries, datetime.now(UTC)
    plan = await recoveries.plan_recover(since=now - timedelta(days=1), until=now + timedelta(hours=1))
    assert (plan.dry_run, plan.total, plan.counts) == (True, 2, {"finishes": 2})
    assert {each.job_id for each in plan.found} == {job.id for job in jobs}
    begun = await recoveries.recover(kind="sound_effect")
    assert (begun.state, begun.total, begun.done, begun.is_ended) == ("running", 2, 0, False)
    with pytest.raises(reprise.RecoveryTimedOut, match="0 of 2 done") as timed_out:
        await recoveries.wait(begun.id, 0.2)
    assert timed_out.value.recovery.id == begun.id
    waiting = asyncio.create_task(recoveries.wait(begun.id, LONG_S))
    await ground.stage.runtime.ledger.recoveries.work()
    ended = await waiting
    assert (ended.state, ended.done, ended.counts) == ("done", 2, {"finishes": 2})
    await ground.stage.drain()
    assert [(await job.refresh()).state for job in jobs] == ["succeeded"] * 2
    assert {each.effect async for each in recoveries.items(begun.id, limit=1)} == {"finishes"}
    with pytest.raises(reprise.Conflict):
        await recoveries.abort(begun.id)


async def test_a_replay_is_foreseen_begun_and_ended_early(ground: Ground) -> None:
    await made(ground)
    recoveries = ground.client.recoveries
    plan = await recoveries.plan_replay(outcome="applied", source="webhook")
    assert (plan.task, plan.total) == ("replay", 1)
    begun = [await recoveries.replay(outcome="applied") for _ in range(2)]
    aborted = await recoveries.abort(begun[0].id)
    assert (aborted.state, (await recoveries.wait(begun[0].id)).state) == ("aborted", "aborted")
    assert [each.id async for each in recoveries.list(limit=1)] == [each.id for each in begun[::-1]]
    assert (await recoveries.get(begun[1].id)).wanted["outcome"] == "applied"
    with pytest.raises(reprise.NotFound):
        await recoveries.wait("rec_0")


async def test_costs_and_forecasts_are_told(ground: Ground) -> None:
    job = await made(ground)
    report = await ground.client.costs.report("kind", since=datetime.now(UTC) - timedelta(days=1))
    assert [(group.key, group.jobs) for group in report.items] == [("sound_effect", 1)]
    assert report.total.usd == job.cost.usd == 0.2
    await made(ground)
    by_job = [group async for group in ground.client.costs.groups("job", limit=1)]
    assert len(by_job) == 2
    forecast = await ground.client.forecast("sound_effect", RAIN, provider="auto", deadline_s=600, priority=1)
    assert (forecast.provider, forecast.route[0].usd) == ("replicate", 0.2)
    assert await ground.stage.count(Job) == 2


async def test_problems_are_typed_errors(ground: Ground) -> None:
    with pytest.raises(reprise.NotFound) as missing:
        await ground.client.jobs.get("job_0")
    assert (missing.value.code, missing.value.status) == ("not_found", 404)
    assert missing.value.request_id.startswith("req_")
    with pytest.raises(reprise.InvalidInput) as invalid:
        await ground.client.jobs.create("sound_effect", {"prompt": "rain", "duration_s": 99})
    assert (invalid.value.field, invalid.value.status) == ("input.duration_s", 422)
    for key in ("two words", "a\nb", "é", "x" * 256):
        with pytest.raises(reprise.InvalidInput, match="idempotency_key"):
            await ground.client.jobs.create("sound_effect", RAIN, idempotency_key=key)
    with pytest.raises(reprise.InvalidInput, match="not an id"):
        await ground.client.jobs.get("../../healthz")
    with pytest.raises(reprise.NotFound):
        await ground.client.asset("ast_0")
    with pytest.raises(reprise.NotFound):
        [event async for event in ground.client.jobs.events("job_0")]


async def test_a_spent_budget_says_until_when(stage_on_sqlite: OpenStage) -> None:
    budgets = {"default": {"month": "0.1"}}
    async with stage_on_sqlite(budgets=budgets) as stage, ground_on(stage, "async") as ground:
        with pytest.raises(reprise.BudgetExceeded) as spent:
            await ground.client.jobs.create("sound_effect", RAIN)
        assert spent.value.budget["usd"] == 0.1
        assert spent.value.retry_after_s > 0
        assert len(ground.front.asked("POST", "/v1/jobs")) == 1


async def test_a_search_is_understood_or_refused_with_its_column(ground: Ground) -> None:
    jobs = [
        await ground.client.jobs.create("sound_effect", {"prompt": prompt, "duration_s": 1})
        for prompt in ("rain", "snow")
    ]
    found = [job.id async for job in ground.client.jobs.list(q="state:queued -prompt:snow")]
    assert found == [jobs[0].id]
    with pytest.raises(reprise.InvalidQuery) as refused:
        await ground.client.jobs.page(q="rain (snow")
    assert (refused.value.code, refused.value.field, refused.value.status) == ("invalid_query", "q", 400)
    assert refused.value.column == 6
    assert refused.value.expected
    with pytest.raises(reprise.InvalidQuery):
        [job async for job in ground.client.jobs.list(q="state:")]


async def test_a_job_is_run_again_from_a_step_and_forgotten(ground: Ground) -> None:
    job = await made(ground)
    assert {step.name: step.can_rerun for step in await ground.client.jobs.steps(job.id)} == {
        "dispatch": True,
        "finish": True,
    }
    again = await ground.client.jobs.rerun(job.id, "finish", {"trim_silence": False})
    assert (again.rerun_of, again.input["trim_silence"]) == (job.id, False)
    await ground.stage.drain()
    assert (await again.wait(LONG_S)).outputs["audio"].duration_s
    assert (await ground.client.jobs.rerun(job.id, "dispatch")).input == job.input
    with pytest.raises(reprise.InvalidInput):
        await ground.client.jobs.rerun(job.id, "finish", {"prompt": "snow"})
    forgotten = await ground.client.jobs.expunge(job.id)
    assert forgotten.expunged_at is not None
    assert (forgotten.outputs, forgotten.state) == ({}, "succeeded")
    with pytest.raises(reprise.RepriseError):
        await job.outputs["audio"].read()


@pytest.mark.parametrize("flavour", ["blocking", "async"])
async def test_an_announcement_of_the_service_is_proven_by_its_receiver(
    stage_on_sqlite: OpenStage, flavour: str
) -> None:
    """Fault 2: what the service signs is what `webhooks.verify` takes, and nothing else is."""
    door = Outbound(allow=("127.0.0.1",), idle_timeout_s=60, connect_timeout_s=30)
    async with (
        listening(Receiver()) as receiver,
        stage_on_sqlite(serve=True, ports={"outbound": door}) as stage,
        ground_on(stage, flavour) as ground,
    ):
        url = receiver.url()
        job = await ground.client.jobs.create("sound_effect", RAIN, callback_url=url, metadata={"scene": 4})
        await ground.finish()
        (post,) = receiver.posts
        shown = (await stage.client.get("/v1/webhook-secrets")).json()["items"]
        told = webhooks.verify([shown[0]["secret"]], post.headers, post.body)
        assert (told.type, told.data["id"], job.callback_url) == ("job.succeeded", job.id, url)
        for headers, body in (
            (post.headers, post.body.replace(b"succeeded", b"succeedeD")),
            ({**post.headers, "webhook-id": "ann_0"}, post.body),
        ):
            with pytest.raises(webhooks.BadSignature):
                webhooks.verify([shown[0]["secret"]], headers, body)
        announcements = ground.client.announcements
        (known,) = [each async for each in announcements.list(job_id=job.id)]
        assert (known.id, known.state, known.attempts) == (told.id, "delivered", 1)
        await announcements.resend(known.id)
        await stage.drain()
        again = webhooks.verify([shown[0]["secret"]], receiver.posts[1].headers, receiver.posts[1].body)
        assert again.id == told.id
        detail = await announcements.get(known.id)
        assert [each.response.status for each in detail.tries] == [204, 204]
        assert detail.payload.encode() == post.body


async def test_the_feed_of_all_events_goes_on_from_where_it_was(ground: Ground) -> None:
    """Fault 63: each event once, over cut connections; what is gone is said to be."""
    jobs = [await made(ground) for _ in range(2)]
    seen: list[Any] = []
    async with aclosing(ground.client.events(since=jobs[0].created_at - timedelta(hours=1))) as events:
        async for event in events:
            seen.append(event)
            if event.is_last and event.job_id == jobs[1].id:
                ground.proxy.reset()
                jobs.append(await made(ground))
            if event.is_last and event.job_id == jobs[-1].id:
                break
    asked = ground.front.asked("GET", "/v1/events")
    assert len(asked) >= 2
    assert int(asked[-1].headers["last-event-id"]) >= seen[0].position
    for job in jobs:
        told = [event async for event in job.events()]
        assert [(each.seq, each.type) for each in seen if each.job_id == job.id] == [
            (each.seq, each.type) for each in told
        ]
    positions = [event.position for event in seen]
    assert positions == sorted(set(positions))
    async with aclosing(ground.client.events(after=seen[0].position, type="job.succeeded")) as events:
        assert [(await anext(events)).job_id for _ in range(3)] == [job.id for job in jobs]
    async with aclosing(ground.client.events(after=seen[-1].position + 1000)) as events:
        assert isinstance(await anext(events), reprise.FeedReset)


async def test_a_real_key_opens_what_its_scopes_say(ground: Ground) -> None:
    """Fault 17: none, a wrong one and one that may not are told apart."""
    keys: dict[str, str] = {}
    by = Caller("default", frozenset(Scope))
    for name, scopes in (("all", tuple(Scope)), ("read", (Scope.JOBS_READ,)), ("other", tuple(Scope))):
        tenant = "other" if name == "other" else "default"
        caller = Caller(tenant, frozenset(Scope)) if name == "other" else by
        issued = await ground.stage.runtime.key_desk.create(caller, name=name, scopes=scopes, expires_at=None)
        keys[name] = issued.text
    ground.stage.runtime.keyring.close_house()
    job = await ground.connect(ground.url, keys["all"]).jobs.create("sound_effect", RAIN)
    reader = ground.connect(ground.url, keys["read"])
    assert (await reader.jobs.get(job.id)).id == job.id
    with pytest.raises(reprise.Forbidden) as forbidden:
        await reader.jobs.create("sound_effect", RAIN)
    assert (forbidden.value.status, forbidden.value.code) == (403, "forbidden")
    for client in (ground.client, ground.connect(ground.url, "rk_" + "0" * 40)):
        with pytest.raises(reprise.Unauthenticated) as unknown:
            await client.jobs.get(job.id)
        assert (unknown.value.status, unknown.value.code) == (401, "unauthenticated")
    with pytest.raises(reprise.NotFound):
        await ground.connect(ground.url, keys["other"]).jobs.get(job.id)
    assert not any(text in repr(forbidden.value) + repr(unknown.value) for text in keys.values())


async def test_a_key_is_sent_and_shown_nowhere(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = ground.connect(ground.url + "/", "rk_very_secret", timeout_s=30)
    job = await client.jobs.create("sound_effect", RAIN)
    assert ground.front.seen[-1].headers["authorization"] == "Bearer rk_very_secret"
    ground.front.refuse("GET", job.id, 500)
    with pytest.raises(reprise.ServiceFailed) as failed:
        await client.jobs.get(job.id)
    inner = getattr(client, "_inner", client)
    shown = [repr(inner), repr(inner.jobs), repr(inner._transport), repr(vars(inner._transport)), caplog.text]
    shown += [repr(failed.value), str(failed.value), repr(vars(failed.value)), repr(job)]
    assert "rk_very_secret" not in "".join(shown)
    with pytest.raises(reprise.InvalidInput) as refused:
        ground.connect(ground.url, "rk_very\nsecret")
    with pytest.raises(reprise.InvalidInput) as hidden:
        ground.connect("http://user:rk_very_secret@reprise.test")
    assert "secret" not in f"{refused.value}{hidden.value}"


def test_where_and_who_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_URL", "https://reprise.test/audio/")
    monkeypatch.setenv("REPRISE_API_KEY", "rk_1")
    with reprise.Reprise() as client:
        assert repr(client) == "Reprise('https://reprise.test/audio')"
    monkeypatch.delenv("REPRISE_URL")
    with reprise.Reprise() as client:
        assert repr(client) == "Reprise('http://127.0.0.1:8000')"
    for wrong in ("reprise.test", "ftp://reprise.test", "http://", "http://host:99999999"):
        with pytest.raises(reprise.InvalidInput):
            reprise.Reprise(wrong)


async def test_a_blocking_client_is_shared_by_threads(ground: Ground) -> None:
    jobs = await asyncio.gather(*(ground.client.jobs.create("sound_effect", RAIN) for _ in range(20)))
    assert len({job.id for job in jobs}) == await ground.stage.count(Job) == 20
