"""Objects that nothing points at are found and deleted; one that a row points at or will never is."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from app.finish import Finisher
from app.housekeeping import OWNER_KEY, TOMBSTONE_LIFE, Housekeeper, Swept
from app.storage import Storage, StoredObject, content_key
from db.tables import Asset, Chore, Delivery, Output, Tombstone
from tests.conftest import drain
from tests.flow.conftest import TONE, OpenStage, Stage, as_data_uri, tone

HOURS_AGO = time.time() - 7200


class Gated(Storage):
    """A store that stops for a moment where a race is won or lost."""

    def __init__(self, url: str, *, after_put: bool = False, before_delete: bool = False) -> None:
        super().__init__(url)
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self._after_put, self._before_delete = after_put, before_delete

    async def put(self, source: Path, key: str, *, size_bytes: int) -> None:
        await super().put(source, key, size_bytes=size_bytes)
        await self._stop(self._after_put)

    async def delete(self, key: str) -> None:
        await self._stop(self._before_delete)
        await super().delete(key)

    async def _stop(self, here: bool) -> None:
        if here:
            self.reached.set()
            await self.go_on.wait()


def objects(line: Stage, *, age_s: float | None = None) -> list[Path]:
    """The files of the store; `age_s` makes them that old."""
    root = line.runtime.bench.storage.root
    assert root is not None
    found = sorted(path for path in root.rglob("*") if path.is_file() and path.name != OWNER_KEY)
    for path in found:
        if age_s is not None:
            os.utime(path, (time.time() - age_s,) * 2)
    return found


async def to_finishing(line: Stage, output: str = TONE) -> str:
    """A job whose output is there to be fetched."""
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=output)
    for delivery in await line.rows(Delivery):
        await line.runtime.inbox.step(delivery.id)
    assert await line.state(job_id) == "finishing"
    return job_id


async def leave_orphan(line: Stage) -> list[Path]:
    """What a finisher leaves that is killed between the store and the commit, hours ago."""
    await line.runtime.housekeeper.sweep()  # while it is empty, the store becomes this database's own
    job_id = await to_finishing(line)
    await line.runtime.finisher.step(job_id)
    [asset] = await line.rows(Asset)
    assert (await line.client.get(f"/v1/assets/{asset.id}/peaks")).status_code == 200
    async with line.runtime.line.database.transaction() as tx:
        await tx.execute(delete(Output))
        await tx.execute(delete(Asset))
    found = objects(line, age_s=7200)
    assert len(found) == 2, "the clip and its outline"
    return found


def finisher_with(line: Stage, storage: Storage) -> Finisher:
    runtime = line.runtime
    bench = replace(runtime.bench, storage=storage)
    return Finisher(line=runtime.line, providers=runtime.providers, bench=bench)


def housekeeper_with(line: Stage, storage: Storage) -> Housekeeper:
    return Housekeeper(settings=line.runtime.settings, database=line.runtime.line.database, storage=storage)


async def tombstones(line: Stage) -> list[Tombstone]:
    async with line.runtime.line.database.reading() as tx:
        rows = (await tx.execute(select(Tombstone.__table__))).mappings()  # type: ignore[attr-defined]
        return [Tombstone(**row) for row in rows]


async def assert_every_row_has_its_object(line: Stage) -> None:
    for asset in await line.rows(Asset):
        chunks = [chunk async for chunk in line.runtime.bench.storage.read(asset.storage_key)]
        assert hashlib.sha256(b"".join(chunks)).hexdigest() == asset.sha256
        assert await line.runtime.outlines.get(asset)


async def test_orphans_past_their_age_are_deleted_and_nothing_else_is(line: Stage) -> None:
    """Fault 45: stored and never committed; a put and a check that were killed."""
    job_id = await to_finishing(line, as_data_uri(tone(hz=300)))
    await drain(line.runtime)
    kept = set(objects(line, age_s=7200))
    orphans = await leave_orphan_beside(line, kept)
    root = line.runtime.bench.storage.root
    assert root is not None
    aside = root / "ab" / f"{'ab' * 32}.wav#1"
    check, foreign, young = root / "health" / "77", root / "notes.txt", root / "cd" / f"{'cd' * 32}.wav"
    for path in (aside, check, foreign, young):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    for path in (aside, check, foreign):
        os.utime(path, (HOURS_AGO, HOURS_AGO))

    told = await line.runtime.housekeeper.sweep(dry_run=True)
    assert (told.count, told.aside, told.strange) == (len(orphans) + 1, 1, 1)
    assert set(objects(line)) == kept | orphans | {aside, check, foreign, young}, "a dry run deletes nothing"
    assert await tombstones(line) == []

    done = await line.runtime.housekeeper.sweep()
    assert {each.key for each in done.orphans} == {each.key for each in told.orphans}
    assert set(objects(line)) == kept | {foreign, young}
    assert (await line.client.get((await line.read(job_id))["outputs"]["audio"]["url"])).status_code == 200
    assert (await line.runtime.housekeeper.sweep()).count == 0


async def leave_orphan_beside(line: Stage, kept: set[Path]) -> set[Path]:
    """Two objects of one digest that no row has."""
    digest = hashlib.sha256(b"never committed").hexdigest()
    storage = line.runtime.bench.storage
    for suffix in (".wav", ".peaks.json"):
        await storage.put_bytes(b"never committed", content_key(digest, suffix))
    found = set(objects(line)) - kept
    for path in found:
        os.utime(path, (HOURS_AGO, HOURS_AGO))
    return found


async def test_a_finisher_that_meets_the_sweep_stores_again_and_never_points_at_nothing(line: Stage) -> None:
    """Fault 45: it found the orphan's bytes there, and before its commit they were condemned and deleted."""
    orphan = await leave_orphan(line)
    job_id = await to_finishing(line)
    storage = Gated(line.runtime.settings.storage_url, after_put=True)
    finishing = asyncio.create_task(finisher_with(line, storage).step(job_id))
    await storage.reached.wait()
    assert (await line.runtime.housekeeper.sweep()).count == 2
    assert not any(path.exists() for path in orphan)
    storage.go_on.set()
    await finishing
    assert await line.count(Asset) == 0
    assert "deleted" in (await line.read(job_id))["waiting_reason"]
    await line.hurry()
    await line.drain()
    assert await line.state(job_id) == "succeeded"
    await assert_every_row_has_its_object(line)


async def test_a_delete_that_comes_late_hits_nothing_that_a_row_points_at(line: Stage) -> None:
    """Fault 45: the sweep is frozen before it deletes, and the same bytes are stored meanwhile."""
    await leave_orphan(line)
    storage = Gated(line.runtime.settings.storage_url, before_delete=True)
    sweeping = asyncio.create_task(housekeeper_with(line, storage).sweep())
    await storage.reached.wait()
    job_id = await to_finishing(line)
    await line.runtime.finisher.step(job_id)
    assert await line.state(job_id) == "succeeded"
    storage.go_on.set()
    await sweeping
    await assert_every_row_has_its_object(line)
    assert len(objects(line)) == 2


async def test_a_row_that_came_after_the_look_keeps_its_object(line: Stage) -> None:
    """Fault 45: what was judged an orphan is asked about again under the lock."""
    await leave_orphan(line)
    job_id = await to_finishing(line)

    class Late(Housekeeper):
        async def _doom(self, orphans: dict[str, list[StoredObject]], swept: Swept) -> None:
            assert len(orphans) == 1
            await line.runtime.finisher.step(job_id)
            await super()._doom(orphans, swept)

    runtime = line.runtime
    late = Late(settings=runtime.settings, database=runtime.line.database, storage=runtime.bench.storage)
    assert (await late.sweep()).count == 0
    assert await line.state(job_id) == "succeeded"
    await assert_every_row_has_its_object(line)


@pytest.mark.breaks("I1")
async def test_finishers_sweeps_and_retention_at_once_leave_no_row_without_its_object(
    stage_on: OpenStage,
) -> None:
    """Fault 45: the same bytes stored, expired and swept again and again, at no age at all."""
    async with stage_on(orphan_age_s=0, retention_s=0.001) as line:
        ended = asyncio.Event()

        async def keep_house() -> int:
            rounds = 0
            while not ended.is_set():
                await line.runtime.housekeeper.expire()
                rounds += (await line.runtime.housekeeper.sweep()).count
            return rounds

        houses = [asyncio.create_task(keep_house()) for _ in range(2)]
        clips = [as_data_uri(tone(hz=hz)) for hz in (300, 400)]
        try:
            await store_again_and_again(line, clips)
        finally:
            ended.set()
            swept = await asyncio.gather(*houses)
        assert sum(swept) > 0, "they never met"
        await assert_every_row_has_its_object(line)


async def store_again_and_again(line: Stage, clips: list[str]) -> None:
    for number in range(12):
        job_ids = [await to_finishing(line, clips[number % len(clips)]) for _ in range(2)]
        await asyncio.gather(*(line.runtime.finisher.step(job_id) for job_id in job_ids))
        for asset in await line.rows(Asset):
            there = await line.runtime.bench.storage.exists(asset.storage_key)
            assert there or not await is_there(line, asset.id), "a row points at nothing"
        await line.hurry()


async def is_there(line: Stage, asset_id: str) -> bool:
    async with line.runtime.line.database.reading() as tx:
        statement = select(Asset.__table__.c.id).where(Asset.__table__.c.id == asset_id)  # type: ignore[attr-defined]
        return (await tx.execute(statement)).first() is not None


async def test_rounds_are_one_process_at_a_time_and_at_their_times(line: Stage) -> None:
    await leave_orphan(line)
    others = [housekeeper_with(line, line.runtime.bench.storage) for _ in range(5)]
    assert sorted(await asyncio.gather(*(each.keep() for each in others))) == [0, 0, 0, 0, 2]
    await leave_orphan(line)
    assert await others[0].keep() == 0, "it is not due again"
    async with line.runtime.line.database.transaction() as tx:
        await tx.execute(Chore.__table__.update().values(due_at=datetime.now(UTC) - timedelta(1)))  # type: ignore[attr-defined]
    assert await others[1].keep() == 2


async def test_the_store_of_another_database_is_never_swept(line: Stage, tmp_path: Path) -> None:
    """To the wrong database every object is an orphan."""
    await leave_orphan(line)
    mark = tmp_path / "assets" / OWNER_KEY
    ours = mark.read_text()
    mark.write_text("another")
    assert "another database" in str((await line.runtime.housekeeper.sweep()).refused)
    mark.unlink()
    assert "knows none" in str((await line.runtime.housekeeper.sweep()).refused), "nor one that is not empty"
    assert (await line.runtime.housekeeper.sweep(dry_run=True)).count == 2
    assert len(objects(line)) == 2
    job_id = await to_finishing(line)
    await drain(line.runtime)
    assert await line.state(job_id) == "succeeded"
    done = await line.runtime.housekeeper.sweep()
    assert (done.refused, mark.read_text()) == (None, ours)


async def test_a_tombstone_is_kept_for_its_life_and_then_forgotten(line: Stage) -> None:
    await leave_orphan(line)
    await line.runtime.housekeeper.sweep()
    (stone,) = await tombstones(line)
    assert stone.removed_at is not None
    await line.runtime.housekeeper.remove_doomed()
    assert len(await tombstones(line)) == 1
    async with line.runtime.line.database.transaction() as tx:
        past = datetime.now(UTC) - TOMBSTONE_LIFE - timedelta(seconds=1)
        await tx.execute(Tombstone.__table__.update().values(removed_at=past))  # type: ignore[attr-defined]
    await line.runtime.housekeeper.remove_doomed()
    assert await tombstones(line) == []
