"""Delete what is past its time: expired jobs, the objects they had, and objects that nothing points at; and
write the words of jobs that came without them, since nobody waits for that either.

Runs as rounds of the worker, one process at a time, and by hand (`reprise sweep`). Promises: never a live
job, never an object that a row points at or comes to point at while the round runs (`db.assets` has the law);
every transaction and every list is bounded; a kill at any moment leaves work for the next round and nothing
else, because an object is condemned in the database before it is deleted. What it finds in the store under a
name that is not ours it leaves alone.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from app.crash_points import CrashPoint, Reach, pass_by
from app.intake.resumable.pieces import Pieces, upload_of
from app.settings import Settings
from app.storage import Storage, StoredObject, digest_of
from db import assets as asset_rows
from db.access.audit import delete_audit
from db.keys import claim_secret
from db.retention import chores, expiry
from db.search.index import write_missing_words
from db.session import Database, Transaction
from db.tables import Tombstone

log = structlog.get_logger()

BATCH = 100
MOST_A_ROUND = 10_000
"""Jobs that one round deletes; the rest is the next one's."""
DELETED_AT_ONCE = 8
INDEXED_AT_ONCE = 500
"""Jobs whose words are written in one transaction: on SQLite, what every other writer waits for."""
MOST_NAMED = 1000
TOMBSTONE_LIFE = timedelta(days=7)
"""How long a deleted object's key is not used again: no delete of it can still be under way by then."""
KEY_SLACK_S = 3600.0
OWNER_KEY = "installation"
"""The object that names the database to which the store belongs."""
_HEALTH = re.compile(r"health/\d{1,10}")
"""What `Storage.check` writes, and leaves when it is killed."""


@dataclass(slots=True)
class Swept:
    """What a search for orphans found; with `dry_run` it only would have been deleted."""

    dry_run: bool
    seen: int = 0
    """Objects in the store."""
    orphans: list[StoredObject] = field(default_factory=list)
    """The first MOST_NAMED of them."""
    count: int = 0
    size_bytes: int = 0
    aside: int = 0
    """Unfinished files of killed writers."""
    strange: int = 0
    """Objects whose names are not ours: never touched."""
    refused: str | None = None
    """Why nothing may be deleted from this store."""

    def add(self, found: StoredObject) -> None:
        self.count += 1
        self.size_bytes += found.size_bytes
        if len(self.orphans) < MOST_NAMED:
            self.orphans.append(found)


class Housekeeper:
    """The rounds. One object a process."""

    def __init__(
        self, *, settings: Settings, database: Database, storage: Storage, reach: Reach = pass_by
    ) -> None:
        self._settings = settings
        self._database = database
        self._storage = storage
        self._reach = reach
        self._pieces = Pieces(database=database, storage=storage)

    async def keep(self) -> int:
        """Whatever is due and not another process's turn; how much was deleted. Raises StorageUnavailable."""
        deleted = 0
        if await self._is_our_turn("expiry", self._settings.housekeeping_interval_s):
            deleted += await self.expire() + await self.expire_uploads()
            deleted += await self.remove_doomed() + await self.forget_acts()
            deleted += await self._pieces.expire()
        if await self._is_our_turn("words", self._settings.housekeeping_interval_s):
            await self.index()
        if await self._is_our_turn("orphans", self._settings.orphan_interval_s):
            deleted += (await self.sweep()).count
        return deleted

    async def expire_uploads(self) -> int:
        """Delete stored uploads past their time, whatever RETENTION_S says; how many."""
        uploads, assets, gone = 0, 0, BATCH
        while gone == BATCH and uploads < MOST_A_ROUND:
            gone, unused = await self._database.transact(_expire_uploads)
            self._reach(CrashPoint.OBJECTS_DOOMED)
            uploads, assets = uploads + gone, assets + unused
        if uploads:
            log.info("uploads.deleted", uploads=uploads, assets=assets)
        return uploads

    async def forget_acts(self) -> int:
        """Forget what the audit log says of acts older than AUDIT_S; how many."""

        async def forget(tx: Transaction) -> int:
            before = await tx.now() - timedelta(seconds=self._settings.audit_s)
            return await delete_audit(tx, before=before, limit=BATCH)

        forgotten, gone = 0, BATCH
        while gone == BATCH and forgotten < MOST_A_ROUND:
            gone = await self._database.transact(forget)
            forgotten += gone
        return forgotten

    async def index(self) -> int:
        """Read jobs of older releases for their words, the newest first; how many of them."""
        indexed, batch = 0, INDEXED_AT_ONCE
        while batch == INDEXED_AT_ONCE and indexed < MOST_A_ROUND:
            batch = await self._database.transact(partial(write_missing_words, limit=INDEXED_AT_ONCE))
            indexed += batch
        if indexed:
            log.info("words.written", jobs=indexed)
        return indexed

    async def expire(self) -> int:
        """Delete jobs past their expiry; how many. With RETENTION_S empty, only those with their own."""
        retention_s, jobs, assets = self._settings.retention_s, 0, 0
        age = None if retention_s is None else timedelta(seconds=retention_s)
        while jobs < MOST_A_ROUND:
            dated, gone, strays = await self._database.transact(partial(self._expire_batch, age=age))
            self._reach(CrashPoint.OBJECTS_DOOMED)
            jobs, assets = jobs + gone[0], assets + gone[1]
            if max(dated, gone[0], strays) < BATCH:
                break
        if jobs:
            log.info("retention.deleted", jobs=jobs, assets=assets)
        return jobs

    async def _expire_batch(
        self, tx: Transaction, *, age: timedelta | None
    ) -> tuple[int, tuple[int, int], int]:
        """How many jobs were dated, how many went and with how many assets, how much stray news went."""
        now = await tx.now()
        keyed_since = now - timedelta(seconds=self._settings.idempotency_s + KEY_SLACK_S)
        if age is None:
            gone = await expiry.delete_expired_jobs(
                tx, now=now, limit=BATCH, keyed_since=keyed_since, only_of_their_own=True
            )
            return 0, gone, 0
        dated = await expiry.date_ended_jobs(tx, age=age, limit=BATCH)
        gone = await expiry.delete_expired_jobs(tx, now=now, limit=BATCH, keyed_since=keyed_since)
        return dated, gone, await expiry.delete_stray_deliveries(tx, before=now - age, limit=BATCH)

    async def remove_doomed(self) -> int:
        """Delete the objects that tombstones name; how many tombstones are done with."""
        removed = 0
        while True:
            async with self._database.reading() as tx:
                doomed = await asset_rows.list_doomed(tx, limit=BATCH)
            for at in range(0, len(doomed), DELETED_AT_ONCE):
                async with asyncio.TaskGroup() as deletes:
                    for each in doomed[at : at + DELETED_AT_ONCE]:
                        deletes.create_task(self._remove(each))
            removed += len(doomed)
            if len(doomed) < BATCH or removed >= MOST_A_ROUND:
                break
        async with self._database.transaction() as tx:
            await asset_rows.forget_tombstones(tx, before=await tx.now() - TOMBSTONE_LIFE)
        return removed

    async def sweep(self, *, dry_run: bool = False) -> Swept:
        """Find objects that nothing points at and that are older than ORPHAN_AGE_S, and delete them.

        Raises StorageUnavailable; what was condemned by then is deleted by the next round.
        """
        swept = Swept(dry_run, refused=await self._find_refusal(dry_run=dry_run))
        if swept.refused and not dry_run:
            log.error("orphans.refused", reason=swept.refused)
            return swept
        before = datetime.now(UTC) - timedelta(seconds=self._settings.orphan_age_s)
        async for page in self._storage.list_objects():
            swept.seen += len(page)
            old = [found for found in page if found.changed_at < before]
            for at in range(0, len(old), BATCH):
                await self._judge(old[at : at + BATCH], swept)
        for path in await self._storage.find_aside(before=before, limit=MOST_A_ROUND):
            swept.aside += 1
            if not dry_run:
                await asyncio.to_thread(path.unlink, missing_ok=True)
        if not dry_run:
            await self.remove_doomed()
        if swept.count or swept.aside:
            log.info("orphans.swept", dry_run=dry_run, objects=swept.count, bytes=swept.size_bytes)
        return swept

    async def _find_refusal(self, *, dry_run: bool) -> str | None:
        """Why this store is not ours to sweep: to the wrong database every object is an orphan."""
        async with self._database.transaction() as tx:
            ours = await claim_secret(tx, OWNER_KEY, secrets.token_hex(16), now=await tx.now())
            example = await asset_rows.find_any_asset(tx)
        if await self._storage.exists(OWNER_KEY):
            owner = b"".join([chunk async for chunk in self._storage.read(OWNER_KEY)])
            return None if owner == ours.encode() else "the store belongs to another database"
        if example is not None:
            known = await self._storage.exists(example.storage_key)
        else:
            known = not [each async for page in self._storage.list_objects() for each in page[:1]]
        if not known:
            return "the store is not empty, and this database knows none of its objects"
        if not dry_run:
            await self._storage.put_bytes(ours.encode(), OWNER_KEY)
        return None

    async def _judge(self, old: Sequence[StoredObject], swept: Swept) -> None:
        """Condemn those of some old objects that no row points at."""
        by_digest: dict[str, list[StoredObject]] = {}
        lost_pieces = await self._pieces.find_orphans([found.key for found in old])
        for found in old:
            digest = digest_of(found.key)
            if digest is not None:
                by_digest.setdefault(digest, []).append(found)
            elif _HEALTH.fullmatch(found.key) or found.key in lost_pieces:
                # No row comes to point at one of these again, so there is nothing to be condemned.
                swept.add(found)
                if not swept.dry_run:
                    await self._storage.delete(found.key)
            elif found.key != OWNER_KEY and upload_of(found.key) is None:
                swept.strange += 1
        async with self._database.reading() as tx:
            known = await asset_rows.find_assets_by_digest(tx, by_digest)
        used = {key for asset in known.values() for key in (asset.storage_key, asset.peaks_key)}
        orphans = {
            digest: lost
            for digest, objects in sorted(by_digest.items())
            if (lost := [each for each in objects if each.key not in used])
        }
        if orphans:
            await self._doom(orphans, swept)

    async def _doom(self, orphans: dict[str, list[StoredObject]], swept: Swept) -> None:
        """Ask again under the lock, because a finisher may have come to need one."""
        doomed = {each.key for lost in orphans.values() for each in lost}
        if not swept.dry_run:

            async def doom(tx: Transaction) -> set[str]:
                found: set[str] = set()
                now = await tx.now()
                for digest, lost in orphans.items():
                    keys = [each.key for each in lost]
                    found.update(await asset_rows.doom_objects(tx, digest, keys, now=now))
                return found

            # Again after a conflict: two that ask for one digest on MySQL may each hold what the other wants.
            doomed = await self._database.transact(doom)
            self._reach(CrashPoint.OBJECTS_DOOMED)
        for lost in orphans.values():
            for each in lost:
                if each.key in doomed:
                    swept.add(each)

    async def _remove(self, tombstone: Tombstone) -> None:
        for key in tombstone.keys:
            await self._storage.delete(key)
        self._reach(CrashPoint.OBJECTS_REMOVED)
        async with self._database.transaction() as tx:
            await asset_rows.note_removed(tx, tombstone, now=await tx.now())

    async def _is_our_turn(self, name: str, pause_s: float) -> bool:
        async def claim(tx: Transaction) -> bool:
            now = await tx.now()
            again = now + timedelta(seconds=pause_s)
            return await chores.claim_chore(tx, name, now=now, due_again=again)

        return await self._database.transact(claim)


async def _expire_uploads(tx: Transaction) -> tuple[int, int]:
    return await expiry.delete_expired_uploads(tx, now=await tx.now(), limit=BATCH)
