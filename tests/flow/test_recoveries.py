"""The story "recoveries": very many asked about or sent again at once, foreseen, watched, ended, resumed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from starlette.types import Receive, Scope, Send

from app.crash_points import CrashPoint
from app.ledger.effects import earliest_expiry
from db.ledger.recoveries import release_recoveries
from db.states import RecoveryState
from db.tables import Attempt, Delivery, Job, RecoveryItem, RecoveryRun
from tests.fakes.provider import Drop, bad_gateway
from tests.flow.conftest import TONE, OpenStage, Stage, tone

SILENT = frozenset({"start", "logs", "completed"})


async def ask(line: Stage, path: str = "/v1/recoveries", **wanted: Any) -> Any:
    """The answer to a wish that is taken."""
    reply = await line.client.post(path, json=wanted)
    assert reply.status_code == (200 if wanted.get("dry_run") else 202), reply.text
    return reply.json()


async def work(line: Stage, recovery_id: str) -> Any:
    """Let it be worked on, and all that follows; the recovery."""
    await line.runtime.ledger.recoveries.work()
    await line.drain()
    return await read(line, recovery_id)


async def read(line: Stage, recovery_id: str) -> Any:
    reply = await line.client.get(f"/v1/recoveries/{recovery_id}")
    assert reply.status_code == 200, reply.text
    return reply.json()


async def items(line: Stage, recovery_id: str, **wanted: Any) -> list[Any]:
    reply = await line.client.get(f"/v1/recoveries/{recovery_id}/items", params=wanted)
    assert reply.status_code == 200, reply.text
    return list(reply.json()["items"])


async def make_every_case(line: Stage) -> dict[str, str]:
    """One silent prediction for everything that a provider may say; the jobs by the effect that it has."""
    line.fake.lose_hooks = SILENT
    made: dict[str, tuple[str, str]] = {}
    for effect in ("finishes", "removed", "expired", "fails", "tries_again", "alive", "lost", "unreadable"):
        made[effect] = await line.start(prompt=effect)
    fake = line.fake
    await fake.finish(made["finishes"][1], output=TONE)
    await fake.finish(made["removed"][1], output=TONE)
    fake.remove_data(made["removed"][1])
    await fake.finish(made["expired"][1], output=f"{fake.base_url}/outputs/gone.wav")
    hours_ago = datetime.now(UTC) - timedelta(hours=2)
    fake.predictions[made["expired"][1]]["completed_at"] = hours_ago.isoformat()
    await fake.finish(made["fails"][1], error="E005: flagged as sensitive")
    await fake.finish(made["tries_again"][1], status="aborted")
    del fake.predictions[made["lost"][1]]
    fake.predictions[made["unreadable"][1]]["status"] = "pondering"
    return {effect: job_id for effect, (job_id, _) in made.items()}


COUNTS = {"finishes": 1, "expired": 2, "fails": 1, "tries_again": 2, "alive": 1, "unreadable": 1}


async def test_a_dry_run_says_what_then_happens_and_changes_nothing(stage_on: OpenStage) -> None:
    """Fault 34, Fault 60: lost webhooks, expired outputs, and all else that a provider may say."""
    async with stage_on(serve=True) as line:
        jobs = await make_every_case(line)
        before = [await line.rows(table) for table in (Attempt, Job)]
        plan = await ask(line, dry_run=True)
        assert plan["counts"] == COUNTS
        assert [await line.rows(table) for table in (Attempt, Job)] == before
        assert (await line.count(Delivery), await line.count(RecoveryRun)) == (0, 0)
        assert not [seen for seen in line.fake.seen if seen.path.endswith("/cancel")]

        begun = await ask(line)
        assert (begun["state"], begun["total"], begun["done"]) == ("running", 8, 0)
        assert await line.count(Delivery) == 0, "it is another's to work on"
        ended = await work(line, begun["id"])
        assert (ended["state"], ended["done"], ended["counts"]) == ("done", 8, plan["counts"])
        assert ended["finished_at"]
        told = {each["job_id"]: each["effect"] for each in plan["found"]}
        assert {each["job_id"]: each["effect"] for each in await items(line, begun["id"])} == told
        # What the words promise, held against the rows.
        await line.hurry()
        await line.drain()
        assert await line.state(jobs["finishes"]) == "succeeded"
        assert await line.state(jobs["fails"]) == "failed"
        for effect in ("removed", "expired", "tries_again", "lost"):
            assert len((await line.read(jobs[effect]))["attempts"]) == 2, effect
        for effect in ("alive", "unreadable"):
            assert len((await line.read(jobs[effect]))["attempts"]) == 1, effect


async def test_what_has_expired_is_told_with_what_making_it_anew_costs(stage_on: OpenStage) -> None:
    """Fault 34: unrecoverable, and what a rerun is about."""
    async with stage_on(serve=True) as line:
        await make_every_case(line)
        plan = await ask(line, dry_run=True)
        gone = [each for each in plan["found"] if each["effect"] == "expired"]
        assert [each["rerun_usd"] for each in gone] == [0.2, 0.2]
        assert all("another attempt makes it anew, for about $0.2" in each["detail"] for each in gone)
        assert plan["rerun_usd"] == 0.4
        ended = await work(line, (await ask(line))["id"])
        assert ended["rerun_usd"] == 0.4


async def test_what_expires_soonest_is_asked_about_first_and_what_is_gone_last(sqlite_line: Stage) -> None:
    line = sqlite_line
    line.fake.lose_hooks = SILENT
    ages_s = {"new": 60, "gone": 7200, "soon": 3500, "half": 1800}
    now = datetime.now(UTC)
    attempts = {}
    for name, age_s in ages_s.items():
        job_id, _ = await line.start(prompt=name)
        attempt = (await line.attempts())[-1]
        made = now - timedelta(seconds=age_s)
        await line.change(Attempt, attempt.id, created_at=made, limit_at=made + timedelta(minutes=5))
        attempts[attempt.id] = name
        assert job_id
    begun = await ask(line)
    found = await items(line, begun["id"])
    assert [attempts[each["attempt_id"]] for each in found] == ["soon", "half", "new", "gone"]
    first = datetime.fromisoformat(found[0]["output_expires_at"])
    assert abs((first - now).total_seconds() - 100) < 1
    assert earliest_expiry((await line.attempts())[0], None) is None
    line.fake.seen.clear()
    await work(line, begun["id"])
    asked = [seen.path for seen in line.fake.seen if seen.method == "GET"]
    ids = {each.id: each.prediction_id for each in await line.attempts()}
    expected = [f"/v1/predictions/{ids[each['attempt_id']]}" for each in found]
    assert sorted(asked) == sorted(expected)


async def test_a_recovery_by_hand_takes_only_what_was_asked_for(sqlite_line: Stage) -> None:
    line = sqlite_line
    line.fake.lose_hooks = SILENT
    old, _ = await line.start()
    song, _ = await line.start(kind="background_music")
    for prediction_id in line.fake.live():
        await line.fake.finish(prediction_id, output=TONE)
    created_at = (await line.attempts())[1].created_at.isoformat()
    for wanted in ({"since": created_at}, {"kind": "background_music"}):
        plan = await ask(line, **wanted, dry_run=True)
        assert [each["job_id"] for each in plan["found"]] == [song]
    begun = await ask(line, until=created_at)
    assert [each["job_id"] for each in await items(line, begun["id"])] == [old]
    assert begun["until"].replace("Z", "+00:00") == created_at
    span = datetime.fromisoformat(begun["until"]) - datetime.fromisoformat(begun["since"])
    assert span == timedelta(days=7), "frozen when it was asked for"
    assert (await ask(line, limit=1))["total"] == 1


async def test_a_recovery_by_hand_leaves_what_is_being_created_alone(line: Stage) -> None:
    """The provider's list does not know it yet: taking that for "lost" would pay for it twice."""
    line.fake.script("create", Drop(after=False))
    job_id = await line.ask()
    await line.drain()
    assert (await ask(line, dry_run=True))["counts"] == {"unasked": 1}
    ended = await work(line, (await ask(line))["id"])
    assert ended["counts"] == {"unasked": 1}
    assert [each["status"] for each in (await line.read(job_id))["attempts"]] == ["pending"]


async def test_a_provider_that_does_not_answer_is_told_as_such(line: Stage) -> None:
    await line.start()
    line.fake.script("get", *[bad_gateway() for _ in range(6)])
    assert (await ask(line, dry_run=True))["counts"] == {"unreachable": 1}
    ended = await work(line, (await ask(line))["id"])
    assert (ended["state"], ended["counts"]) == ("done", {"unreachable": 1})


@pytest.mark.parametrize(
    "wanted",
    [
        {"since": "0001-01-01T00:00:00+14:00"},
        {"since": "yesterday"},
        {"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
        {"limit": 0},
        {"kind": 5},
        {"dry": True},
        [],
    ],
)
async def test_a_recovery_that_cannot_be_read_is_refused(sqlite_line: Stage, wanted: Any) -> None:
    for path in ("/v1/recoveries", "/v1/deliveries/replay"):
        assert (await sqlite_line.client.post(path, json=wanted)).status_code == 422
    assert await sqlite_line.count(RecoveryRun) == 0


def meet(line: Stage, hook: Callable[[], Awaitable[None]]) -> None:
    """Let this happen before each further request that reaches the provider is answered."""
    inner = line.fake._app

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hook()
        await inner(scope, receive, send)

    line.fake._app = app  # type: ignore[assignment]


async def many(line: Stage, count: int) -> list[str]:
    """Silent predictions that have all succeeded; their jobs."""
    line.fake.lose_hooks = SILENT
    jobs = [await line.ask(prompt=f"n{number}") for number in range(count)]
    await line.drain()
    for prediction_id in line.fake.live():
        await line.fake.finish(prediction_id, output=TONE)
    return jobs


async def test_an_abort_in_the_middle_keeps_what_is_done_and_takes_no_more(stage_on: OpenStage) -> None:
    async with stage_on(retries_per_s=1000) as line:
        await many(line, 20)
        begun = await ask(line)
        asked = 0

        async def abort_in_the_second_batch() -> None:
            nonlocal asked
            asked += 1
            if asked == 9:
                reply = await line.client.post(f"/v1/recoveries/{begun['id']}/abort")
                assert (reply.status_code, reply.json()["state"]) == (200, "aborted")

        meet(line, abort_in_the_second_batch)
        ended = await work(line, begun["id"])
        assert (ended["state"], ended["done"], ended["counts"]) == ("aborted", 16, {"finishes": 16})
        states = Counter([job.state for job in await line.rows(Job)])
        assert states == {"succeeded": 16, "running": 4}
        again = await line.client.post(f"/v1/recoveries/{begun['id']}/abort")
        assert again.json()["state"] == "aborted", "aborting twice is aborting once"
        rest = await work(line, (await ask(line))["id"])
        assert rest["counts"] == {"finishes": 4}
        late = await line.client.post(f"/v1/recoveries/{rest['id']}/abort")
        assert (late.status_code, late.json()["code"]) == (409, "conflict")


class Death(BaseException):
    """The process dies here: nothing catches it."""


async def test_a_recovery_that_dies_in_the_middle_is_gone_on_with_and_counts_each_item_once(
    stage_on: OpenStage,
) -> None:
    """Fault 52: the news of eight items is stored and applied, and nothing says so yet."""
    deaths = [CrashPoint.RECOVERY_ITEMS_DONE] * 2

    def reach(point: CrashPoint) -> None:
        if deaths and point is deaths[0]:
            deaths.pop()
            raise Death

    async with stage_on(retries_per_s=1000, ports={"reach": reach}) as line:
        await many(line, 20)
        begun = await ask(line)
        for _ in range(2):
            with pytest.raises(Death):
                await line.runtime.ledger.recoveries.work()
            told = await read(line, begun["id"])
            assert (told["state"], told["done"]) == ("running", 0)
            assert await line.runtime.ledger.recoveries.work() == 0, "its lease is the dead one's"
            async with line.runtime.line.database.transaction() as tx:
                assert await release_recoveries(tx) == 1
        ended = await work(line, begun["id"])
        assert (ended["state"], ended["counts"]) == ("done", {"finishes": 20})
        assert {job.state for job in await line.rows(Job)} == {"succeeded"}
        polls = [each for each in await line.rows(Delivery) if each.source == "poll"]
        assert len(polls) == 20, "nothing was stored twice"


async def test_an_item_that_ends_its_process_again_and_again_is_left_aside(stage_on: OpenStage) -> None:
    deaths = [True] * 3

    def reach(point: CrashPoint) -> None:
        if point is CrashPoint.POLL_ANSWERED and deaths:
            deaths.pop()
            raise Death

    async with stage_on(ports={"reach": reach}) as line:
        await many(line, 1)
        begun = await ask(line)
        for _ in range(3):
            with pytest.raises(Death):
                await line.runtime.ledger.recoveries.work()
            async with line.runtime.line.database.transaction() as tx:
                await release_recoveries(tx)
        ended = await work(line, begun["id"])
        assert (ended["state"], ended["counts"]) == ("done", {"broken": 1})


async def test_a_worker_that_lost_its_lease_writes_nothing(sqlite_line: Stage) -> None:
    line = sqlite_line
    await many(line, 2)
    begun = await ask(line)

    async def lose() -> None:
        async with line.runtime.line.database.transaction() as tx:
            await tx.execute(update(RecoveryRun).values(lease="another"))

    meet(line, lose)
    await line.runtime.ledger.recoveries.work()
    assert [each.effect for each in await rows_of(line, begun["id"])] == [None, None]
    assert (await read(line, begun["id"]))["state"] == "running"


async def rows_of(line: Stage, recovery_id: str) -> list[RecoveryItem]:
    return await line.runtime.ledger.recoveries.list_items(
        recovery_id, tenant="default", effect=None, after=0, limit=1000
    )


async def test_a_stopping_process_ends_what_is_begun_and_gives_the_rest_away_at_once(
    stage_on: OpenStage,
) -> None:
    async with stage_on(retries_per_s=1000) as line:
        await many(line, 12)
        begun = await ask(line)

        async def stop() -> None:
            line.runtime.ledger.recoveries.stop()

        meet(line, stop)
        assert await line.runtime.ledger.recoveries.work() == 8
        told = await read(line, begun["id"])
        assert (told["state"], told["done"]) == ("running", 8)
        assert [run.lease for run in await line.rows(RecoveryRun)] == [None]


async def test_the_worker_of_a_service_works_on_what_was_asked_for(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        await many(line, 3)
        running = asyncio.create_task(line.runtime.worker.run())
        begun = await ask(line)
        async with asyncio.timeout(60):
            while (told := await line.client.get(f"/v1/recoveries/{begun['id']}?wait=20")).json()[
                "state"
            ] == "running":
                pass
        assert told.json()["counts"] == {"finishes": 3}
        line.runtime.worker.stop()
        await asyncio.wait_for(running, 60)


async def test_recoveries_are_listed_and_paged_and_another_tenants_are_not_there(sqlite_line: Stage) -> None:
    """Fault 18, Fault 20."""
    line = sqlite_line
    ids = [(await ask(line))["id"] for _ in range(3)]
    first = (await line.client.get("/v1/recoveries", params={"limit": 2})).json()
    second = (
        await line.client.get("/v1/recoveries", params={"limit": 2, "cursor": first["next_cursor"]})
    ).json()
    assert [each["id"] for each in (*first["items"], *second["items"])] == ids[::-1]
    assert {each["state"] for each in first["items"]} == {"done"}, "there was nothing to do"
    assert second["next_cursor"] is None
    await line.change(RecoveryRun, ids[0], tenant="other", state=RecoveryState.RUNNING)
    for method, path in (("GET", ""), ("GET", "/items"), ("POST", "/abort")):
        reply = await line.client.request(method, f"/v1/recoveries/{ids[0]}{path}")
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found"), path
    assert len((await line.client.get("/v1/recoveries")).json()["items"]) == 2
    await line.start()
    await line.change(Job, (await line.rows(Job))[0].id, tenant="other")
    assert (await ask(line, dry_run=True))["total"] == 0
    assert (await ask(line, "/v1/deliveries/replay", dry_run=True))["total"] == 0


async def test_so_many_recoveries_at_once_are_enough(sqlite_line: Stage) -> None:
    await sqlite_line.start()
    for _ in range(5):
        await ask(sqlite_line)
    reply = await sqlite_line.client.post("/v1/recoveries", json={})
    assert (reply.status_code, reply.json()["code"]) == (409, "conflict")


async def quarantined(line: Stage, count: int) -> list[str]:
    """Successes that were not understood when they came; their jobs."""
    jobs = []
    for number in range(count):
        job_id, prediction_id = await line.start(prompt=f"n{number}")
        await line.fake.finish(prediction_id, output=TONE)
        jobs.append(job_id)
    # As if a release had come that understands them: they were settled in vain.
    await line.drain()
    return jobs


@pytest.mark.breaks("I3")
async def test_stored_news_is_sent_again_in_bulk_where_it_changes_something(line: Stage) -> None:
    """One is of use, one comes too late, one is not understood: what the dry run says is what happens."""
    finishes, useful = await line.start(prompt="useful")
    line.fake.lose_hooks = frozenset({"completed"})
    await line.fake.finish(useful, output=TONE)
    attempt_id = (await line.attempts())[0].id
    body = (await line.client.get("/v1/deliveries")).json()
    assert body["items"] == []
    headers = line.fake.signed("msg_odd", b'{"status": "pondering"}')
    assert (await line.post(attempt_id, b'{"status": "pondering"}', headers)).status_code == 200
    await line.fake.send_hook("completed", useful)
    line.fake.lose_hooks = frozenset()
    _, late = await line.start(prompt="late")
    await line.fake.finish(late, output=TONE)
    await line.drain()
    # The news of the first was lost on us, for a reason that is gone now.
    settled = [each for each in await line.rows(Delivery) if each.attempt_id == attempt_id][-1]
    await line.change(Delivery, settled.id, outcome="quarantined")
    await undo(line, attempt_id, finishes)

    wanted = {"outcome": "quarantined"}
    plan = await ask(line, "/v1/deliveries/replay", **wanted, dry_run=True)
    assert plan["counts"] == {"finishes": 1, "unreadable": 1}
    everything = await ask(line, "/v1/deliveries/replay", dry_run=True)
    assert everything["counts"] == {"finishes": 1, "unreadable": 1, "nothing": 1}
    before = await line.count(Delivery)
    ended = await work(line, (await ask(line, "/v1/deliveries/replay"))["id"])
    assert ended["counts"] == everything["counts"]
    assert await line.state(finishes) == "succeeded"
    assert await line.count(Delivery) == before + 1, "what changes nothing is not copied"
    (copy,) = [each for each in await line.rows(Delivery) if each.source == "replay"]
    assert (copy.outcome, copy.body) == ("applied", settled.body)
    again = await ask(line, "/v1/deliveries/replay", dry_run=True)
    assert again["counts"] == {"unreadable": 1, "nothing": 2}


async def undo(line: Stage, attempt_id: str, job_id: str) -> None:
    """Let the rows be as they were before the news of this attempt was applied."""
    still = {"status": "starting", "ended_at": None, "told_by": None, "result_delivery_id": None}
    await line.change(Attempt, attempt_id, **still)
    await line.change(Job, job_id, state="running", finished_at=None)


@pytest.mark.breaks("I3")
async def test_a_bulk_replay_that_dies_in_the_middle_sends_nothing_twice(stage_on: OpenStage) -> None:
    """Fault 52."""
    deaths = [True]

    def reach(point: CrashPoint) -> None:
        if point is CrashPoint.RECOVERY_ITEMS_DONE and deaths:
            deaths.pop()
            raise Death

    async with stage_on(ports={"reach": reach}) as line:
        jobs = await quarantined(line, 3)
        for attempt, job_id in zip(await line.attempts(), jobs, strict=True):
            await undo(line, attempt.id, job_id)
        begun = await ask(line, "/v1/deliveries/replay")
        assert begun["total"] == 3
        with pytest.raises(Death):
            await line.runtime.ledger.recoveries.work()
        async with line.runtime.line.database.transaction() as tx:
            await release_recoveries(tx)
        ended = await work(line, begun["id"])
        assert (ended["state"], ended["counts"]) == ("done", {"finishes": 3})
        assert len([each for each in await line.rows(Delivery) if each.source == "replay"]) == 3


@pytest.mark.breaks("I3")
async def test_of_two_ends_of_one_attempt_the_first_counts_in_a_dry_run_too(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.fake.send_hook("completed", prediction_id)
    await line.drain()
    (attempt,) = await line.attempts()
    await undo(line, attempt.id, job_id)
    plan = await ask(line, "/v1/deliveries/replay", dry_run=True)
    assert plan["counts"] == {"finishes": 1, "nothing": 1}
    ended = await work(line, (await ask(line, "/v1/deliveries/replay"))["id"])
    assert ended["counts"] == plan["counts"]


async def test_an_output_that_is_there_after_all_is_fetched_though_it_was_due_to_be_gone(
    stage_on: OpenStage,
) -> None:
    """The provider's hour is a rule of thumb: recovery asks all the same, and takes what it gets."""
    async with stage_on(serve=True) as line:
        line.fake.lose_hooks = SILENT
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=line.fake.keep_output("late.wav", tone()))
        hours_ago = datetime.now(UTC) - timedelta(hours=2)
        line.fake.predictions[prediction_id]["completed_at"] = hours_ago.isoformat()
        ended = await work(line, (await ask(line))["id"])
        assert ended["counts"] == {"expired": 1}
        assert await line.state(job_id) == "succeeded"
