"""A job's move with its event committed, beside the same where events get no place in a feed.

The anchor is the same database without the trigger and the index of the feed; the two take turns, in short
rounds, and the ratio is the median of the rounds' own: a disk that others use too is slow for both of a
pair. One process, eight tasks that move a job and append its event, each in a transaction of its own that is
synced to the disk; and the same with eight moves in each transaction, where the disk hides less.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from ground import Figure, Skipped, durable_postgres, median, migrate, run_bench, skipped
from sqlalchemy import text, update
from sqlmodel import col

from db.events import append_event, insert_first_events
from db.jobs import insert_jobs
from db.session import Database, Transaction
from db.tables import Job

TASKS = 8
AT = datetime(2026, 3, 1, tzinfo=UTC)


def measure(quick: bool) -> list[Figure]:
    seconds, rounds = (0.4, 10) if quick else (0.5, 40)
    figures: list[Figure] = []
    for name in ("SQLite FULL", "PostgreSQL"):
        try:
            with _databases(name) as urls:
                for moves in (1, 8):
                    ours, theirs = uvloop.run(_take_turns(urls, moves, seconds, rounds))
                    ratio = median([mine / other for mine, other in zip(ours, theirs, strict=True)])
                    figures.append(
                        Figure(11, f"events committed, {name}, {moves} a transaction", median(ours), "/s",
                               "no feed", median(theirs), ratio, 0.85, 0.95)
                    )  # fmt: skip
        except Skipped as exc:
            figures.append(skipped(11, f"events committed, {name}", str(exc)))
    return figures


async def _take_turns(
    urls: tuple[str, str], moves: int, seconds: float, rounds: int
) -> tuple[list[float], list[float]]:
    """Events a second, with the feed and without, round by round."""
    both = [Database(url) for url in urls]
    try:
        prefix = f"job_{moves}"
        for database in both:
            await _make_jobs(database, prefix, moves)
            await _rate(database, prefix, moves, 0.3)
        rates: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds):
            # Each goes first in turn: whoever goes second finds the other's dirty pages.
            for which in (0, 1) if number % 2 else (1, 0):
                rates[which].append(await _rate(both[which], prefix, moves, seconds))
        return rates
    finally:
        for database in both:
            await database.aclose()


async def _rate(database: Database, prefix: str, moves: int, seconds: float) -> float:
    until = time.perf_counter() + seconds
    counts = [0] * TASKS

    async def work(task: int) -> None:
        while time.perf_counter() < until:
            async with database.transaction() as tx:
                for number in range(moves):
                    await _move(tx, f"{prefix}_{task}_{number}")
            counts[task] += moves

    began = time.perf_counter()
    await asyncio.gather(*map(work, range(TASKS)))
    return sum(counts) / (time.perf_counter() - began)


async def _move(tx: Transaction, job_id: str) -> None:
    await tx.execute(update(Job).where(col(Job.id) == job_id).values(seq=col(Job.seq) + 1))
    await append_event(tx, job_id, "job.progress", at=AT, status="running", progress=0.5, stage="processing")


async def _make_jobs(database: Database, prefix: str, moves: int) -> None:
    jobs = [
        Job(id=f"{prefix}_{task}_{number}", kind="speech", state="running", input={}, caller_metadata={},
            provider="auto", turn_at=AT, created_at=AT, deadline_at=AT, run_after=AT, seq=1)
        for task in range(TASKS)
        for number in range(moves)
    ]  # fmt: skip
    async with database.transaction() as tx:
        await insert_jobs(tx, jobs)
        await insert_first_events(tx, jobs, "job.created", lambda _job: {"status": "queued"})


async def _without_feed(url: str) -> None:
    database = Database(url)
    async with database.transaction() as tx:
        await tx.execute(text(f"DROP TRIGGER events_feed{' ON events' if database.is_shared else ''}"))
        await tx.execute(text("DROP INDEX ix_events_feed"))
    await database.aclose()


@contextmanager
def _databases(name: str) -> Iterator[tuple[str, str]]:
    """One with the feed, one without."""
    if name.startswith("SQLite"):
        with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
            urls = tuple(f"sqlite+aiosqlite:///{Path(folder, each)}.db" for each in ("with", "without"))
            for url in urls:
                asyncio.run(migrate(url))
            asyncio.run(_without_feed(urls[1]))
            yield urls[0], urls[1]
        return
    with durable_postgres() as postgres:
        ours, theirs = postgres.make("with_feed"), postgres.make("without_feed")
        asyncio.run(_without_feed(theirs))
        yield ours, theirs


if __name__ == "__main__":
    run_bench(__doc__, measure)
