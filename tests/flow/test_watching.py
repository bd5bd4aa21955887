"""What `/metrics` and `/readyz` say: the truth about the queues, in time, and nothing that names a job."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from app.watch.figures import QUEUES_FRESH_S
from db.figures.queues import _deliveries, _jobs
from db.session import Database
from db.tables import Job
from tests.fakes.provider import bad_gateway, invalid
from tests.flow.conftest import TONE, OpenStage, Stage
from tests.flow.test_waiting import counted_statements


async def metric(line: Stage, name: str, **labels: str) -> float | None:
    shown = (await line.client.get("/metrics")).text
    for family in text_string_to_metric_families(shown):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return None


async def ready(line: Stage) -> tuple[int, dict[str, Any]]:
    reply = await line.client.get("/readyz")
    return reply.status_code, reply.json()


async def test_a_job_is_seen_at_each_station_and_gone_when_it_has_ended(line: Stage) -> None:
    await line.ask()
    await line.ask()
    found = await fresh(line)
    assert found["jobs"] == {"queued": 2, "running": 0, "finishing": 0}
    assert (found["stations"]["dispatch"]["depth"], found["stations"]["dispatch"]["due"]) == (2, 2)
    await line.drain()
    for prediction_id in line.fake.live():
        await line.fake.finish(prediction_id, output=TONE)
    found = await fresh(line)
    assert found["jobs"] == {"queued": 0, "running": 2, "finishing": 0}
    assert (found["stations"]["apply"]["depth"], found["stations"]["apply"]["due"]) == (2, 2)
    for delivery in await line.ledger():
        await line.runtime.inbox.step(delivery["id"])
    found = await fresh(line)
    assert found["jobs"]["finishing"] == found["stations"]["finish"]["due"] == 2
    await line.drain()
    found = await fresh(line)
    assert set(found["jobs"].values()) == {0}
    assert all(station["depth"] == 0 for station in found["stations"].values())


async def fresh(line: Stage) -> dict[str, Any]:
    """The queues as they are now, not as they were kept."""
    line.runtime.figures._queues._answered_at = -float("inf")
    return dict((await ready(line))[1]["queues"])


async def test_the_age_of_a_queue_is_that_of_its_first_row_and_counts_what_is_due(line: Stage) -> None:
    old = await line.ask()
    await line.age(100)
    await line.change(Job, old, created_at=(await line.rows(Job))[0].created_at.replace(year=2020))
    await line.ask()
    assert await metric(line, "reprise_queue_depth", station="dispatch", kind="sound_effect") == 2
    assert await metric(line, "reprise_queue_due", station="dispatch", kind="sound_effect") == 2
    due_s = await metric(line, "reprise_queue_oldest_due_seconds", station="dispatch", kind="sound_effect")
    assert due_s == pytest.approx(100, abs=30)
    age_s = await metric(line, "reprise_queue_oldest_seconds", station="dispatch", kind="sound_effect")
    assert (age_s or 0) > 365 * 86_400
    assert await metric(line, "reprise_queue_depth", station="dispatch", kind="speech") == 0


async def test_every_station_and_outside_call_of_a_job_is_timed(line: Stage) -> None:
    job_id, prediction_id = await line.start()
    waiting = asyncio.create_task(line.client.get(f"/v1/jobs/{job_id}?wait=60"))
    while not line.runtime.line.notifier.count_subscriptions():
        await asyncio.sleep(0)
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    assert (await waiting).json()["state"] == "succeeded"
    for name, labels in (
        ("reprise_outside_seconds_count", {"dependency": "replicate", "call": "create", "outcome": "ok"}),
        ("reprise_ack_seconds_count", {"provider": "replicate"}),
        ("reprise_step_seconds_count", {"step": "fetch"}),
        ("reprise_step_seconds_count", {"step": "trim"}),
        ("reprise_step_seconds_count", {"step": "store"}),
        ("reprise_job_seconds_count", {"kind": "sound_effect", "state": "succeeded"}),
        ("reprise_wake_seconds_count", {}),
    ):
        assert await metric(line, name, **labels) == 1.0, name


async def test_a_call_that_nobody_answered_is_told_from_one_that_was_refused(sqlite_line: Stage) -> None:
    sqlite_line.fake.script("create", bad_gateway(), invalid("prompt", "is required"))
    await sqlite_line.ask()
    for _ in range(2):
        await sqlite_line.hurry()
        await sqlite_line.drain()
        await sqlite_line.look()
    calls = {"dependency": "replicate", "call": "create"}
    assert await metric(sqlite_line, "reprise_outside_seconds_count", outcome="unavailable", **calls)
    assert await metric(sqlite_line, "reprise_outside_seconds_count", outcome="refused", **calls)


async def test_the_ground_is_shown_disks_process_build_pool_and_dependencies(line: Stage) -> None:
    assert (await metric(line, "reprise_disk_free_bytes", place="var") or 0) > 0
    assert (await metric(line, "reprise_disk_free_bytes", place="storage") or 0) > 0
    assert (await metric(line, "process_resident_memory_bytes") or 0) > 1_000_000
    assert (await metric(line, "process_open_fds") or 0) > 3
    assert await metric(line, "reprise_build_info") == 1.0
    for figure in line.runtime.line.database.pool_figures():
        assert await metric(line, "reprise_db_pool_connections", figure=figure) is not None
    for name in ("database", "storage", "replicate"):
        assert await metric(line, "reprise_dependency_up", dependency=name) == 1.0
        assert (await metric(line, "reprise_dependency_last_success_seconds", dependency=name) or 0) < 60
    status, body = await ready(line)
    assert (status, body["ready"], body["intake"]) == (200, True, {"open": True, "reasons": []})
    assert body["checks"]["disk"]["free_bytes"]["var"] > 0
    assert body["checks"]["providers"]["replicate"]["state"] == "ready"


async def test_no_label_holds_an_id_or_a_callers_words(line: Stage) -> None:
    job_id, prediction_id = await line.start(prompt="zebra crossing")
    await line.fake.finish(prediction_id, output=TONE)
    await line.drain()
    # A kind and a provider that are not ours any more: rows of another release.
    other = await line.ask(prompt="zebra crossing")
    await line.change(Job, other, kind="zebra-kind")
    shown = (await line.client.get("/metrics")).text
    attempt_id = (await line.attempts())[0].id
    for secret in (job_id, prediction_id, attempt_id, "zebra", "whsec"):
        assert secret not in shown
    assert 'kind="other"' in shown
    assert not re.search(r'"(job|att|dlv|ast|lease|proc)_', shown)


async def test_a_storm_of_scrapers_is_one_look_at_the_rows(line: Stage) -> None:
    await line.ask()
    database = line.runtime.line.database
    began = time.monotonic()
    with counted_statements(database) as statements:
        replies = []
        for path in ("/metrics", "/readyz") * 5:
            replies += await asyncio.gather(*(line.client.get(path) for _ in range(12)))
    looks = 2 + (time.monotonic() - began) / QUEUES_FRESH_S
    assert {reply.status_code for reply in replies} == {200}
    assert len([each for each in statements if "FROM jobs" in each]) <= looks
    # Whether the database answers is asked for each batch of questions, not for each of the 120.
    assert len([each for each in statements if each == "SELECT 1"]) <= 20


async def test_a_store_that_is_gone_makes_it_unready_with_the_reason_and_it_heals(
    stage_on_sqlite: OpenStage, tmp_path: Path
) -> None:
    async with stage_on_sqlite() as line:
        assert (await ready(line))[0] == 200
        shutil.rmtree(tmp_path / "assets")
        (tmp_path / "assets").write_text("in the way")
        status, body = await ready(line)
        assert (status, body["ready"], body["intake"]["open"]) == (503, False, False)
        assert "storage" in body["intake"]["reasons"][0]
        assert await metric(line, "reprise_dependency_up", dependency="storage") == 0.0
        (tmp_path / "assets").unlink()
        assert (await ready(line))[0] == 200


async def test_a_database_that_hangs_is_answered_for_in_time(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(db_pool_size=1) as line:
        await line.ask()
        assert await metric(line, "reprise_jobs", state="queued") == 1.0
        # The only reading connection is taken: whoever reads hangs.
        async with held(line.runtime.line.database):
            line.runtime.figures._queues._answered_at = -float("inf")
            began = time.monotonic()
            status, body = await ready(line)
            shown = (await line.client.get("/metrics")).text
            took_s = time.monotonic() - began
            assert (await line.client.get("/healthz")).status_code == 200
        assert (status, body["queues"]) == (503, None)
        assert "no answer for" in body["checks"]["database"]["detail"]
        assert took_s < line.runtime.settings.db_pool_timeout / 2, "it waited for the connection"
        # A figure that nobody knows is absent: an old one would lie.
        assert 'reprise_jobs{state="queued"}' not in shown
        assert 'reprise_dependency_up{dependency="database"} 0.0' in shown
        assert (await ready(line))[0] == 200


@asynccontextmanager
async def held(database: Database) -> AsyncIterator[None]:
    async with database.reading() as tx:
        await tx.execute(text("SELECT 1"))
        yield


async def test_full_queues_close_the_intake_and_do_not_make_it_unready(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(max_queued_jobs=1) as line:
        await line.ask()
        status, body = await ready(line)
        assert (status, body["ready"], body["intake"]["open"]) == (200, True, False)
        assert "MAX_QUEUED_JOBS is 1" in body["intake"]["reasons"][0]


async def test_a_provider_that_is_away_is_told_of_and_does_not_make_it_unready(
    stage_on_sqlite: OpenStage,
) -> None:
    async with stage_on_sqlite(routes=("cog",)) as line:
        line.cog.health = "STARTING"
        status, body = await ready(line)
        assert (status, body["checks"]["providers"]["cog"]["ok"]) == (200, False)
        assert await metric(line, "reprise_dependency_up", dependency="cog") == 0.0


async def test_the_queues_are_read_by_their_indexes_alone(line: Stage) -> None:
    """The rows that have ended, a million of them, are not looked at."""
    database, now = line.runtime.line.database, line.runtime.line.clock.now()
    async with database.engine.begin() as connection:
        explain = "EXPLAIN QUERY PLAN "
        if not database.is_sqlite:
            explain = "EXPLAIN "
        if database.is_shared:
            # An empty table is read whole by any planner; what is asked is whether the index serves.
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, index in ((_jobs(now), "ix_jobs_"), (_deliveries(now), "ix_deliveries_due")):
            query = statement.compile(connection.sync_engine, compile_kwargs={"literal_binds": True})
            plan = str((await connection.exec_driver_sql(f"{explain}{query}")).all())
            assert index in plan, plan
            assert "SCAN jobs" not in plan
