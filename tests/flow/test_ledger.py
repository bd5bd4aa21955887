"""The story "ledger": for each prediction the proof of who told its end, or that nobody did."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.tables import Attempt, Delivery, Job
from tests.flow.conftest import TONE, OpenStage, Stage

SILENT = frozenset({"start", "logs", "completed"})


async def predictions(line: Stage, **wanted: Any) -> list[Any]:
    """Oldest first."""
    reply = await line.client.get("/v1/predictions", params=wanted)
    assert reply.status_code == 200, reply.text
    return list(reply.json()["items"][::-1])


async def one_of_each(line: Stage) -> dict[str, str]:
    """A prediction whose end was told by each postman, and one of which nobody has told; their jobs."""
    jobs = {}
    jobs["webhook"], prediction_id = await line.start(prompt="webhook")
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    line.fake.lose_hooks = SILENT
    jobs["poll"], prediction_id = await line.start(prompt="poll")
    await line.fake.finish(prediction_id, output=TONE)
    await line.look()
    jobs["deadline"], prediction_id = await line.start(prompt="deadline")
    del line.fake.predictions[prediction_id]
    await line.change(Job, jobs["deadline"], provider="replicate")
    await line.look()
    await line.runtime.jobs.cancel(jobs["deadline"])
    jobs["none"], _ = await line.start(prompt="none")
    return jobs


async def test_each_prediction_tells_who_told_its_end(line: Stage) -> None:
    """Fault 60: by webhook, by poll, by a deadline, or not at all."""
    jobs = await one_of_each(line)
    told = {each["job_id"]: each for each in await predictions(line)}
    by = {name: told[job_id]["told_by"] for name, job_id in jobs.items()}
    assert by == {"webhook": "webhook", "poll": "poll", "deadline": "deadline", "none": None}
    for name in ("webhook", "poll", "deadline"):
        each = told[jobs[name]]
        assert [source for source, end in each["ends"].items() if end] == [name]
        end = each["ends"][name]
        assert each["settled_by"] == end["delivery_id"]
        assert (end["outcome"], end["times"], each["silent_s"]) == ("applied", 1, None)
        delivery = (await line.client.get(f"/v1/deliveries/{end['delivery_id']}")).json()
        assert (delivery["source"], delivery["told"]) == (name, end["told"])
    nobody = told[jobs["none"]]
    assert set(nobody["ends"].values()) == {None}
    assert (nobody["settled_by"], nobody["output"]) == (None, "awaited")
    assert nobody["silent_s"] >= 0
    assert told[jobs["webhook"]]["output"] == "stored"
    for name, job_id in jobs.items():
        assert job_id in [each["job_id"] for each in await predictions(line, told_by=name)], name
        assert {each["told_by"] or "none" for each in await predictions(line, told_by=name)} == {name}


async def test_every_postman_that_came_is_shown_and_the_first_end_counts(line: Stage) -> None:
    """Fault 60: the webhook comes after the poll, an operator sends it again."""
    line.fake.lose_hooks = SILENT
    _, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.look()
    for _ in range(2):
        await line.fake.send_hook("completed", prediction_id)
    await line.drain()
    webhook = next(each for each in await line.ledger() if each["source"] == "webhook")
    assert (await line.client.post(f"/v1/deliveries/{webhook['id']}/replay")).status_code == 202
    await line.drain()
    (told,) = await predictions(line)
    assert told["told_by"] == "poll"
    ends = {source: end and (end["outcome"], end["times"]) for source, end in told["ends"].items()}
    assert ends == {
        "webhook": ("ignored", 2),
        "poll": ("applied", 1),
        "replay": ("ignored", 1),
        "deadline": None,
    }
    assert told["ends"]["webhook"]["delivery_id"] == webhook["id"]


async def test_interim_news_is_no_proof_of_an_end(line: Stage) -> None:
    _, prediction_id = await line.start()
    await line.fake.begin(prediction_id)
    await line.fake.log(prediction_id, " 50%|#####     | 5/10")
    await line.drain()
    (told,) = await predictions(line)
    assert (told["status"], told["told_by"], set(told["ends"].values())) == ("processing", None, {None})
    assert told["heard_at"]


async def test_an_output_that_waits_at_the_provider_has_a_countdown_and_a_lost_one_a_price(
    stage_on: OpenStage,
) -> None:
    """Fault 34."""
    async with stage_on(serve=True, max_attempts=1) as line:
        line.fake.outputs_down = True
        waiting, first = await line.start()
        await line.fake.finish(first, output=line.fake.keep_output("a.wav", b""))
        await line.drain()
        gone, second = await line.start()
        await line.fake.finish(second, output=f"{line.fake.base_url}/outputs/gone.wav")
        line.fake.outputs_down = False
        await line.drain()
        told = {each["job_id"]: each for each in await predictions(line)}
        assert (await line.read(gone))["error"]["code"] == "output_expired"
        lost, kept = told[gone], told[waiting]
        assert (lost["unrecoverable"], lost["output"], lost["rerun_usd"]) == (True, "expired", 0.2)
        assert (kept["unrecoverable"], kept["output"], kept["rerun_usd"]) == (False, "awaited", None)
        left = datetime.fromisoformat(kept["output_expires_at"]) - datetime.fromisoformat(
            kept["completed_at"]
        )
        assert left == timedelta(hours=1)


async def test_the_figures_say_what_is_at_risk(sqlite_line: Stage) -> None:
    line = sqlite_line
    line.fake.lose_hooks = SILENT
    for age_s in (60, 2000):
        await line.start()
        attempt = (await line.attempts())[-1]
        made = datetime.now(UTC) - timedelta(seconds=age_s)
        await line.change(Attempt, attempt.id, created_at=made)
    text = (await line.client.get("/metrics")).text
    figures = dict(row.rsplit(" ", 1) for row in text.splitlines() if row.startswith("reprise_output"))
    assert figures['reprise_outputs_at_risk{provider="replicate"}'] == "1.0"
    soonest = float(figures['reprise_output_expiry_soonest_seconds{provider="replicate"}'])
    assert 1500 < soonest <= 1600


async def test_the_ledger_is_narrowed_and_paged(sqlite_line: Stage) -> None:
    """Fault 20."""
    line = sqlite_line
    ids = [(await line.start())[0] for _ in range(3)]
    song, _ = await line.start(kind="background_music")
    assert [each["job_id"] for each in await predictions(line, kind="background_music")] == [song]
    assert await predictions(line, provider="cog") == []
    third = (await line.attempts())[2].created_at.isoformat()
    assert [each["job_id"] for each in await predictions(line, since=third)] == [ids[2], song]
    assert [each["job_id"] for each in await predictions(line, until=third)] == ids[:2]
    first = (await line.client.get("/v1/predictions", params={"limit": 3})).json()
    cursor = first["next_cursor"]
    second = (await line.client.get("/v1/predictions", params={"limit": 3, "cursor": cursor})).json()
    assert [each["job_id"] for each in (*first["items"], *second["items"])] == [song, *ids[::-1]]
    assert second["next_cursor"] is None
    for wanted in ({"told_by": "nobody"}, {"since": "yesterday"}, {"limit": 0}):
        assert (await line.client.get("/v1/predictions", params=wanted)).status_code == 422
    assert (await line.client.get("/v1/predictions", params={"cursor": "x"})).status_code == 400


async def test_another_tenants_predictions_and_bytes_are_not_there(sqlite_line: Stage) -> None:
    """Fault 18."""
    line = sqlite_line
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    (delivery,) = await line.rows(Delivery)
    await line.change(Job, job_id, tenant="other")
    assert await predictions(line) == []
    for known in (delivery.id, "dlv_nobody"):
        reply = await line.client.get(f"/v1/deliveries/{known}/body")
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


async def test_the_bytes_of_a_delivery_come_as_they_came(line: Stage) -> None:
    _, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    hook = line.fake.sent[-1]
    await line.drain()
    (delivery,) = await line.ledger()
    reply = await line.client.get(f"/v1/deliveries/{delivery['id']}/body")
    assert hashlib.sha256(reply.content).digest() == hashlib.sha256(hook.body).digest()
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == f'attachment; filename="{delivery["id"]}.bin"'
    assert reply.headers["x-content-type-options"] == "nosniff"


async def test_another_body_under_a_known_id_is_flagged_and_the_first_one_counts(line: Stage) -> None:
    """Fault 7: both signed, so that somebody has said two things."""
    job_id, prediction_id = await line.start()
    attempt_id = (await line.attempts())[0].id
    row = line.fake.predictions[prediction_id]
    bodies = [b'{"id": "x", "status": "processing"}', b'{"id": "x", "status": "failed"}']
    assert row["status"] == "starting"
    answers = [
        await line.post(attempt_id, body, line.fake.signed("msg_twice", body))
        for body in (*bodies, bodies[0])
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len({answer.json()["delivery_id"] for answer in answers}) == 1, "the one that is there is named"
    await line.drain()
    (delivery,) = await line.ledger()
    assert (delivery["told"], delivery["conflicts"]) == ("processing", 1)
    assert (await line.read(job_id))["attempts"][0]["status"] == "processing"
    text = (await line.client.get("/metrics")).text
    counted = 'reprise_deliveries_conflicting_total{provider="replicate",source="webhook"} 1.0'
    assert counted in text


@pytest.mark.parametrize("told", [None, "succeeded"])
async def test_news_settled_by_an_older_release_is_a_proof_too(line: Stage, told: str | None) -> None:
    _, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    (delivery,) = await line.rows(Delivery)
    await line.change(Delivery, delivery.id, told=told)
    (shown,) = await predictions(line)
    assert shown["settled_by"] == delivery.id
    assert shown["ends"]["webhook"]["told"] == told
