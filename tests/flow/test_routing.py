"""A job on its route: what it waits for, when it moves on, and what its attempts say about that."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from db.tables import Circuit
from tests.fakes.provider import Drop, bad_gateway, no_credit, problem, throttled
from tests.flow.conftest import TONE, OpenStage, Stage

BOTH = ("replicate", "cog")


def told(job: dict[str, object]) -> list[tuple[object, ...]]:
    """Each attempt's provider, status, trouble and what was done about it."""
    return [(each["provider"], each["status"], each["trouble"], each["action"]) for each in job["attempts"]]  # type: ignore[attr-defined]


async def provider_check(line: Stage, name: str = "replicate") -> dict[str, object]:
    found: dict[str, object] = {}
    # While the database takes its time there is no word of the circuit.
    while found.get("circuit") is None:
        # A provider's word is good for two seconds; asked about by another reader, it is asked again.
        line.runtime.figures.dependencies[name]._remembered._answered_at = -float("inf")
        found = (await line.client.get("/readyz")).json()["checks"]["providers"][name]
    return found


async def test_fault_56_without_access_jobs_wait_and_move_on_when_half_of_their_time_is_over(
    stage_on: OpenStage,
) -> None:
    async with stage_on(routes=BOTH) as line:
        line.fake.script("create", problem(401, "Unauthenticated", "bad token"))
        first, second = await line.ask(), await line.ask()
        await line.drain()
        for job_id in (first, second):
            job = await line.read(job_id)
            assert (job["state"], job["attempts"]) == ("queued", [])
            assert "bad token" in job["waiting_reason"]
        assert len(line.fake.seen) == 1, "the second is parked at the circuit: nobody was asked"
        await line.age(1900)
        await line.drain()
        assert told(await line.read(first)) == [("cog", "starting", None, None)]


async def test_fault_56_without_credit_all_jobs_go_to_the_next_provider_until_one_finds_it_mended(
    stage_on: OpenStage,
) -> None:
    async with stage_on(routes=BOTH) as line:
        line.fake.script("create", no_credit())
        first = await line.ask()
        await line.drain()
        assert told(await line.read(first)) == [
            ("replicate", "failed", "no_credit", "fall_back"),
            ("cog", "starting", None, None),
        ]
        await line.cog.finish(line.cog.asked[0], output=TONE)
        await line.drain()
        second = await line.ask()
        await line.drain()
        assert told(await line.read(second)) == [("cog", "starting", None, None)], "nobody asks to see"
        check = await provider_check(line)
        assert check["ok"] is False
        assert check["circuit"]["state"] == "open"  # type: ignore[index]
        assert "402" in check["circuit"]["reason"]  # type: ignore[index]
        assert 'reprise_circuit_open{provider="replicate"} 1.0' in (await line.client.get("/metrics")).text
        await line.hurry()
        third = await line.ask()
        await line.drain()
        assert told(await line.read(third)) == [("replicate", "starting", None, None)]
        assert (await provider_check(line))["circuit"]["state"] == "closed"  # type: ignore[index]


async def test_fault_56_a_whole_outage_parks_jobs_and_burns_no_attempts(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        line.fake.script("create", *[Drop(after=False) for _ in range(50)])
        line.fake.script("get", *[bad_gateway() for _ in range(50)])
        jobs = [await line.ask() for _ in range(12)]
        await line.drain()
        views = [await line.read(job_id) for job_id in jobs]
        asked = len([call for call in line.fake.seen if call.method == "POST"])
        assert asked <= 3, "three failures in a row open the circuit"
        parked = [job for job in views if not job["attempts"]]
        assert len(parked) >= 9
        assert all("circuit open until" in job["waiting_reason"] for job in parked)


async def test_one_job_tries_a_half_open_circuit_and_the_others_wait_for_it(
    stage_on_sqlite: OpenStage,
) -> None:
    async with stage_on_sqlite() as line:
        line.fake.script("create", throttled(30))
        jobs = [await line.ask() for _ in range(4)]
        await line.drain()
        assert len(line.fake.seen) == 1
        await line.hurry()
        line.fake.script("create", throttled(30))
        await line.drain()
        assert len(line.fake.seen) == 2, "one is let through, finds it shut, and shuts it for the others"
        await line.hurry()
        await line.drain()
        await line.hurry()
        await line.drain()
        assert {await line.state(job_id) for job_id in jobs} == {"running"}
        async with line.runtime.line.database.reading() as tx:
            row = (await tx.execute(select(Circuit.__table__))).mappings().one()  # type: ignore[attr-defined]
        assert (row["open_until"], row["failures"], row["opened"]) == (None, 0, 0)


async def test_fault_58_what_is_not_begun_in_time_is_canceled_there_and_begun_elsewhere(
    stage_on: OpenStage,
) -> None:
    async with stage_on(routes=BOTH, starting_limit_s=100) as line:
        job_id = await line.ask()
        await line.drain()
        job = await line.read(job_id)
        assert job["waiting_reason"].startswith("replicate starting since")
        (prediction_id,) = line.fake.predictions
        await line.age(101)
        await line.look()
        assert told(await line.read(job_id)) == [
            ("replicate", "lost", "cold", "fall_back"),
            ("cog", "starting", None, None),
        ]
        assert line.fake.predictions[prediction_id]["status"] == "canceled"


async def test_without_another_provider_a_cold_one_is_waited_for(line: Stage) -> None:
    job_id = await line.ask()
    await line.drain()
    await line.age(200)
    await line.look()
    assert told(await line.read(job_id)) == [("replicate", "starting", None, None)]


async def test_a_failed_prediction_is_asked_for_differently_once_and_then_elsewhere(
    stage_on: OpenStage,
) -> None:
    async with stage_on(routes=BOTH) as line:
        job_id = await line.ask()
        for _ in range(2):
            await line.drain()
            await line.fake.finish(line.fake.live()[0], error="CUDA out of memory")
            await line.drain()
            await line.hurry()
        await line.drain()
        job = await line.read(job_id)
        assert told(job) == [
            ("replicate", "failed", "failed", "retry_differently"),
            ("replicate", "failed", "failed", "fall_back"),
            ("cog", "starting", None, None),
        ]
        asked = [row["input"].get("steps") for row in line.fake.predictions.values()]
        assert asked == [None, 4]
        assert [each["differently"] for each in job["attempts"]] == [False, True, False]


async def test_a_caller_at_fault_is_told_so_and_nobody_else_is_asked(
    stage_on_sqlite: OpenStage,
) -> None:
    async with stage_on_sqlite(routes=BOTH) as line:
        line.fake.script("create", problem(422, "Input validation failed", "- input: prompt is too odd"))
        job_id = await line.ask()
        await line.drain()
        job = await line.read(job_id)
        assert (job["state"], job["error"]["code"]) == ("failed", "provider_rejected")
        assert told(job) == [("replicate", "failed", "bad_input", "abort")]
        assert line.cog.asked == []


async def test_an_attempt_leaves_half_of_the_jobs_time_to_the_next_provider(stage_on: OpenStage) -> None:
    async with stage_on(routes=BOTH, starting_limit_s=600) as line:
        job_id = await line.ask(deadline_s=100)
        await line.drain()
        await line.fake.begin(line.fake.live()[0])
        await line.age(51)
        await line.look()
        assert told(await line.read(job_id)) == [
            ("replicate", "lost", "lost", "fall_back"),
            ("cog", "starting", None, None),
        ]


async def test_a_route_of_the_operators_is_kept_to(stage_on_sqlite: OpenStage) -> None:
    routing = {"sound_effect": ["cog"], "*": ["replicate"]}
    async with stage_on_sqlite(routes=BOTH, routing=routing) as line:
        job_id = await line.ask()
        await line.drain()
        assert told(await line.read(job_id)) == [("cog", "starting", None, None)]


async def test_weights_share_jobs_out_and_a_retry_stays_where_it_was(stage_on_sqlite: OpenStage) -> None:
    routing = {"*": [{"provider": "replicate", "weight": 70}, {"provider": "cog", "weight": 30}]}
    async with stage_on_sqlite(routes=BOTH, routing=routing) as line:
        jobs = [await line.ask() for _ in range(40)]
        await line.drain()
        views = [await line.read(job_id) for job_id in jobs]
        hosted = [job for job in views if job["attempts"] and job["attempts"][0]["provider"] == "replicate"]
        waiting = [job for job in views if not job["attempts"]]
        assert 16 < len(hosted) < 40
        assert len(line.cog.asked) == 1, "it has one slot"
        assert len(hosted) + len(waiting) + 1 == 40
        assert all("at cog" in job["waiting_reason"] for job in waiting)


async def test_a_job_that_nobody_has_begun_says_what_it_waits_for(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite() as line:
        job_id = await line.ask()
        job = await line.read(job_id)
        assert job["waiting_reason"] == "in line to be sent to a provider"


async def test_a_dry_run_says_where_why_and_how_soon_and_stores_nothing(stage_on: OpenStage) -> None:
    async with stage_on(routes=BOTH) as line:
        wish = {"kind": "sound_effect", "input": {"prompt": "rain"}, "dry_run": True}
        told = await line.client.post("/v1/jobs", json=wish)
        found = told.json()
        assert (told.status_code, found["provider"], found["why"]) == (200, "replicate", "first on the route")
        assert (found["wait_s"], [each["provider"] for each in found["route"]]) == (0.0, list(BOTH))
        assert [(each["usd"], each["usd_basis"]) for each in found["route"]] == [
            (0.2, "units"),
            (0.0, "units"),
        ]
        line.fake.script("create", no_credit())
        job_id = await line.ask()
        await line.drain()
        found = (await line.client.post("/v1/jobs", json=wish)).json()
        assert found["provider"] == "cog"
        assert "circuit open until" in found["why"]
        assert found["wait_s"] is None, "nothing has ended there yet"
        await line.cog.finish(line.cog.asked[0], output=TONE)
        await line.drain()
        await line.ask(provider="cog")
        await line.drain()
        found = (await line.client.post("/v1/jobs", json=wish)).json()
        assert found["wait_s"] > 0
        assert found["wait_basis"].startswith("1 before it, 1 at a time")
        listed = (await line.client.get("/v1/jobs")).json()["items"]
        assert len(listed) == 2
        assert job_id in {job["id"] for job in listed}
        wrong = await line.client.post("/v1/jobs", json={**wish, "input": {"prompt": ""}})
        assert (wrong.status_code, wrong.json()["field"]) == (422, "input.prompt")


async def test_a_provider_with_too_long_a_line_comes_last(stage_on_sqlite: OpenStage) -> None:
    routing = {"*": [{"provider": "cog", "most_waiting": 2}, "replicate"]}
    async with stage_on_sqlite(routes=BOTH, routing=routing) as line:
        jobs = [await line.ask() for _ in range(6)]
        await line.drain()
        hosted = [each for each in jobs if (await line.read(each))["attempts"][:1]]
        assert len(line.cog.asked) == 1
        assert len(line.fake.predictions) == 3, "one is being made, two wait, the rest go on"
        assert len(hosted) == 4


async def test_a_provider_whose_quota_is_used_up_comes_last(stage_on: OpenStage) -> None:
    quota = {"unit": "usd", "per": "month", "most": 1.0, "reserve": 0.5}
    routing = {"*": [{"provider": "replicate", "quota": quota}, "cog"]}
    prices = {"replicate": {"stability-ai/stable-audio-2.5": {"file": 0.3}}}
    async with stage_on(routes=BOTH, routing=routing, prices=prices) as line:
        for _ in range(2):
            await line.ask()
            await line.drain()
            await line.fake.finish(line.fake.live()[0], output=TONE)
            await line.drain()
        line.runtime.line.router._quotas._seen.clear()
        job_id = await line.ask()
        await line.drain()
        assert told(await line.read(job_id)) == [("cog", "starting", None, None)], "0.6 of 1 dollar are used"
        # It is not barred: who may go nowhere else goes there.
        named = await line.ask(provider="replicate")
        await line.drain()
        assert told(await line.read(named)) == [("replicate", "starting", None, None)]


@pytest.mark.parametrize("provider", ["auto", "replicate"])
async def test_a_kind_that_nobody_here_has_a_model_for_is_refused_at_once(
    stage_on_sqlite: OpenStage, provider: str
) -> None:
    wish = {
        "kind": "translation",
        "input": {"text": "Good evening.", "source": "en", "target": "es"},
        "provider": provider,
    }
    async with stage_on_sqlite(routes=("replicate",)) as line:
        told = await line.client.post("/v1/jobs", json=wish)
        assert (told.status_code, told.json()["field"]) == (422, "provider")
        assert "no model for translation" in told.json()["detail"]
    async with stage_on_sqlite(routes=BOTH) as line:
        told = await line.client.post("/v1/jobs", json={**wish, "provider": "auto"})
        assert told.status_code == 202
