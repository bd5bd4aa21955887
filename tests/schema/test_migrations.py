"""The schema on real SQLite and real PostgreSQL: the history makes the tables, up, down and up again."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

from db import schema
from db.session import Database
from db.tables import (
    AccessKey,
    Announcement,
    AnnouncementAttempt,
    Attempt,
    IdempotencyKey,
    Job,
    Lyrics,
    LyricsVersion,
    Performance,
    Table,
)


async def test_the_migrations_make_exactly_the_tables(database: Database) -> None:
    assert await schema.current_revision(database) == schema.head_revision()
    assert await schema.differences(database) == []


async def test_a_downgrade_leaves_nothing_and_an_upgrade_brings_it_back(database: Database) -> None:
    await schema.downgrade(database, "base")
    assert await _tables(database) <= {"alembic_version"}
    await schema.upgrade(database)
    assert await schema.differences(database) == []
    assert set(Table.metadata.tables) <= await _tables(database)


async def test_an_upgrade_of_a_current_database_changes_nothing(database: Database) -> None:
    await schema.upgrade(database)
    assert await schema.current_revision(database) == schema.head_revision()


async def test_the_books_come_and_go_with_rows_present(database: Database) -> None:
    """Jobs and attempts stay; what was booked is lost with the columns, and nothing takes its place."""
    costs = importlib.import_module("db.migrations.versions.0007_costs")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    job = Job(
        id="job_1", kind="speech", state="succeeded", input={}, caller_metadata={}, provider="auto",
        turn_at=at, created_at=at, deadline_at=at, run_after=at, reserved_micros=5,
    )  # fmt: skip
    attempt = Attempt(
        id="att_1", job_id="job_1", number=1, provider="replicate", model="m", status="succeeded",
        created_at=at, check_at=at, billed_at=at, cost_micros=2**40, cost_basis="metered", tenant="default",
    )  # fmt: skip
    async with database.transaction() as tx:
        await tx.execute(insert(Job), job.model_dump())
        await tx.execute(insert(Attempt), attempt.model_dump())
    await schema.downgrade(database, costs.down_revision)
    assert "past_costs" not in await _tables(database)
    await schema.upgrade(database)
    async with database.reading() as tx:
        kept = (await tx.execute(select(Attempt.__table__))).mappings().one()  # type: ignore[attr-defined]
    assert (kept["id"], kept["status"], kept["billed_at"], kept["cost_micros"]) == (
        "att_1", "succeeded", None, None,
    )  # fmt: skip


async def test_karaoke_comes_and_goes_with_rows_present(database: Database) -> None:
    """Jobs stay; lyrics and performances go with their tables, and the tables come back empty."""
    module = importlib.import_module("db.migrations.versions.0019_karaoke")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    job = Job(
        id="job_1", kind="speech", state="succeeded", input={}, caller_metadata={}, provider="auto",
        turn_at=at, created_at=at, deadline_at=at, run_after=at,
    )  # fmt: skip
    lyrics = Lyrics(
        id="lyr_1", tenant="t", title="歌", source="lrc", version=1, created_at=at, updated_at=at
    )  # fmt: skip
    version = LyricsVersion(
        lyrics_id="lyr_1", number=1, lines=[{"text": "🎤"}], figures={}, made_by="lrc", made_at=at
    )
    performance = Performance(
        id="prf_1", tenant="t", default_of="t", title="t", song={}, vocal_volume=0, instrumental_volume=1,
        lyrics_size="medium", lyrics_offset=0, is_playing=False, position_s=0, position_at=at, duration_s=0,
        version=1, moved_version=1, queue={}, queue_version=1, created_at=at, updated_at=at,
    )  # fmt: skip
    async with database.transaction() as tx:
        for row in (job, lyrics, version, performance):
            await tx.execute(insert(type(row)), row.model_dump())
    await schema.downgrade(database, module.down_revision)
    assert not {"lyrics", "lyrics_versions", "performances"} & await _tables(database)
    await schema.upgrade(database)
    async with database.reading() as tx:
        jobs, gone = select(Job.__table__), select(Performance.__table__)  # type: ignore[attr-defined]
        assert len((await tx.execute(jobs)).all()) == 1
        assert (await tx.execute(gone)).all() == []


async def test_announcements_come_and_go_with_rows_present(database: Database) -> None:
    """The job stays; and a release that knows no announcements may delete it with those it has."""
    module = importlib.import_module("db.migrations.versions.0011_announcements")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    job = Job(
        id="job_1", kind="speech", state="succeeded", input={}, caller_metadata={}, provider="auto",
        turn_at=at, created_at=at, deadline_at=at, run_after=at, callback_url="https://example.org/",
    )  # fmt: skip
    row = Announcement(
        id="ann_1", tenant="default", job_id="job_1", endpoint_id="ep_1", receiver="to_1", payload="{}",
        url="https://example.org/", type="job.succeeded", state="delivered", created_at=at, run_after=at,
    )  # fmt: skip
    attempt = AnnouncementAttempt(
        announcement_id="ann_1", number=1, at=at, outcome="delivered", latency_ms=1, request_headers={},
        response_headers={}, response_body=b"",
    )  # fmt: skip
    rows = ((Job, job), (Announcement, row), (AnnouncementAttempt, attempt))
    for deleting in (True, False):
        async with database.transaction() as tx:
            for table, each in rows:
                await tx.execute(insert(table), each.model_dump())
        if deleting:
            async with database.transaction() as tx:
                await tx.execute(delete(Job.__table__))  # type: ignore[attr-defined]
                assert (await tx.execute(select(AnnouncementAttempt.__table__))).all() == []  # type: ignore[attr-defined]
    await schema.downgrade(database, module.down_revision)
    assert "announcements" not in await _tables(database)
    await schema.upgrade(database)
    async with database.reading() as tx:
        kept = (await tx.execute(select(Job.__table__))).mappings().one()  # type: ignore[attr-defined]
    assert (kept["id"], kept["callback_url"]) == ("job_1", None)


async def test_families_come_and_go_with_rows_present(database: Database) -> None:
    """Down, a part is a job like any other, which a release that knows no families can delete."""
    module = importlib.import_module("db.migrations.versions.0018_families")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    parent, child = (
        Job(
            id=job_id, kind=kind, state="succeeded", input={}, caller_metadata={}, provider="auto",
            turn_at=at, created_at=at, deadline_at=at, run_after=at, parent_id=of, step=step,
            recipe="0" * 32, measured={"mix_gain_db": 0},
        )
        for job_id, kind, of, step in (
            ("job_1", "voice_conversion", None, None), ("job_2", "stem_separation", "job_1", "separation"),
        )
    )  # fmt: skip
    async with database.transaction() as tx:
        await tx.execute(insert(Job), [parent.model_dump(), child.model_dump()])
    with pytest.raises(IntegrityError):
        async with database.transaction() as tx:
            await tx.execute(insert(Job), child.model_dump() | {"id": "job_3"})
    await schema.downgrade(database, module.down_revision)
    async with database.transaction() as tx:
        await tx.execute(text("DELETE FROM jobs WHERE id = 'job_1'"))
    await schema.upgrade(database)
    assert await schema.differences(database) == []
    async with database.reading() as tx:
        [kept] = (await tx.execute(select(Job.__table__))).mappings()  # type: ignore[attr-defined]
    assert (kept["id"], kept["parent_id"], kept["step"], kept["measured"]) == ("job_2", None, None, None)


async def test_idempotency_keys_outlive_the_migration_that_gives_them_tenants(database: Database) -> None:
    """Fault 51: down, the keys that an older release can know stay; up, they are the default tenant's."""
    keys = importlib.import_module("db.migrations.versions.0010_keys")
    at = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
    rows = [
        IdempotencyKey(tenant=tenant, key="same", fingerprint=tenant, job_id=f"job_{tenant}", created_at=at)
        for tenant in ("default", "acme")
    ]
    claimed = IdempotencyKey(key="open", fingerprint="mark", job_id="", created_at=at, open_until=at)
    secret = AccessKey(
        id="key_1", prefix="rp_x", digest="d" * 64, name="n", tenant="acme", scopes=["admin"], created_at=at
    )
    async with database.transaction() as tx:
        await tx.execute(insert(IdempotencyKey), [row.model_dump() for row in (*rows, claimed)])
        await tx.execute(insert(AccessKey), secret.model_dump())
    await schema.downgrade(database, keys.down_revision)
    assert not {"access_keys", "audit"} & await _tables(database)
    async with database.transaction() as tx:
        # As the older release writes one, which knows of no tenants.
        columns = "fingerprint, job_id, created_at FROM idempotency_keys"
        await tx.execute(text(f"INSERT INTO idempotency_keys SELECT 'older', {columns}"))
    await schema.upgrade(database)
    async with database.reading() as tx:
        statement = select(IdempotencyKey.__table__).order_by("key")  # type: ignore[attr-defined]
        kept = [IdempotencyKey(**row) for row in (await tx.execute(statement)).mappings()]
    assert [(row.tenant, row.key, row.job_id, row.created_at) for row in kept] == [
        ("default", "older", "job_default", at),
        ("default", "same", "job_default", at),
    ]
    assert await schema.differences(database) == []


async def _tables(database: Database) -> set[str]:
    async with database.engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))
