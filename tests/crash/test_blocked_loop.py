"""A process whose event loop is blocked lives: five seconds long nobody takes anything from it.

Two whole services on one PostgreSQL and one store. The loop of the one that gets there first is blocked by a
callback that does not return; nothing else of it is touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from app.crash_points import CrashPoint
from app.finish import RENEWALS
from app.settings import Settings
from app.work.pulse import LOOK_S
from app.worker import BEAT_S, DEAD_AFTER
from db.session import Database
from db.tables import Job
from tests.crash.child import END_LIMIT_S, Child

BLOCK_S = 5.0
on_a_server = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
pytestmark = pytest.mark.real


class Pair:
    """Two services that are alike; only one of them will meet the armed point."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._folder, self._url = folder, database_url
        self.both: list[Child] = []

    async def start(self, **environment: str) -> None:
        shared = {"DATABASE_URL": self._url, "STORAGE_URL": f"file://{self._folder}/assets"}
        # What these tests set is not the silence after which a provider is asked.
        shared |= {"SILENCE_S": "30", **environment}
        for name in ("one", "two"):
            folder = self._folder / name
            folder.mkdir()
            child = Child(folder, **shared)
            child._armed = self._folder / "armed"
            self.both.append(child)
        await asyncio.gather(*(child.start() for child in self.both))

    async def leases_until_it_has_ended(self, job_id: str) -> list[str]:
        """Every token that held the job's lease, in order."""
        seen: list[str] = []
        database = Database(self._url)
        statement = select(Job.lease, Job.finished_at).where(Job.id == job_id)  # type: ignore[call-overload]
        try:
            async with asyncio.timeout(END_LIMIT_S):
                ended = None
                while ended is None:
                    async with database.reading() as tx:
                        lease, ended = (await tx.execute(statement)).one()
                    if lease and lease not in seen:
                        seen.append(lease)
        finally:
            await database.aclose()
        return seen

    async def blocked(self) -> tuple[Child, dict[str, float]]:
        """The one whose loop was blocked, and its metrics; the other one's never was."""
        found = []
        for child in self.both:
            shown = await _metrics(child)
            if shown["reprise_event_loop_blocked_total"]:
                found.append((child, shown))
        assert len(found) == 1
        return found[0]

    async def aclose(self) -> None:
        for child in self.both:
            await child.aclose()


@pytest.fixture
async def pair(tmp_path: Path, database_url: str) -> AsyncIterator[Pair]:
    pair = Pair(tmp_path, database_url)
    yield pair
    await pair.aclose()


@on_a_server
@pytest.mark.parametrize(
    "point", [CrashPoint.OUTPUT_FETCHED, CrashPoint.PREDICTION_STORED, CrashPoint.DELIVERY_PARSED]
)
async def test_a_loop_that_is_blocked_for_five_seconds_loses_nothing(pair: Pair, point: CrashPoint) -> None:
    """Fault 54: blocked with a lease in its hand, or with a prediction of its own worker under way."""
    await pair.start()
    pair.both[0].arm(point, block_s=BLOCK_S)
    job_id = await pair.both[0].submit()
    assert job_id is not None
    leases = await pair.leases_until_it_has_ended(job_id)
    blocked, shown = await pair.blocked()
    assert shown["reprise_event_loop_lag_worst_seconds"] >= BLOCK_S - 0.5
    assert "event_loop.blocked" in blocked.log
    assert "service.py" in blocked.log
    job = await blocked.ended(job_id)
    await blocked.assert_succeeded_once(job)
    assert len(job["attempts"]) == 1
    assert len(leases) == 1
    assert not any("finish.lost_race" in child.log for child in pair.both)


@on_a_server
async def test_a_loop_that_is_blocked_past_its_lease_loses_to_whoever_took_the_job(pair: Pair) -> None:
    """Fault 54: the fence. The late one commits nothing and leaves nothing."""
    await pair.start(LEASE_S="2")
    pair.both[0].arm(CrashPoint.OUTPUT_STORED, block_s=9.0)
    job_id = await pair.both[0].submit()
    assert job_id is not None
    leases = await pair.leases_until_it_has_ended(job_id)
    assert len(leases) == 2
    blocked, _ = await pair.blocked()
    async with asyncio.timeout(END_LIMIT_S):
        while "finish.lost_race" not in blocked.log:
            await asyncio.sleep(0.05)
    other = next(child for child in pair.both if child is not blocked)
    assert "job.succeeded" in other.log
    job = await other.ended(job_id)
    await other.assert_succeeded_once(job)
    assert len(job["attempts"]) == 1


def test_leases_and_heartbeats_outlast_a_blocked_loop_also_when_it_was_about_to_renew_them() -> None:
    """Fault 54: by the figures; what the processes above show once holds at the worst moment too."""
    lease_s = Settings.model_fields["lease_s"].default
    assert lease_s - lease_s / RENEWALS >= BLOCK_S + 1.0
    # A loop that is held up beats no more; before it is taken for dead its second heart must have begun.
    assert DEAD_AFTER.total_seconds() - (2 * BEAT_S + LOOK_S) >= 1.0


async def _metrics(child: Child) -> dict[str, float]:
    reply = await child.client.get("/metrics")
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
        if not sample.labels
    }
