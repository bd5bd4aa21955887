"""Finding jobs at 1,000,000 of them: p99 and median of each question, on SQLite and PostgreSQL.

Through `Jobs.list_jobs` with all that a page holds (attempts, outputs), for the tenant that has two jobs in
three of a database of four; pages of 50. A question is asked 100 times, or for 3 s. "far down" begins nine
tenths of the way to the oldest. The last figure is a new job: stored with its words beside stored without,
64 in a transaction as the intake does it, in turns, on the same database of a million.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta

from fill import APART, fill
from ground import Figure, Skipped, cells, durable_postgres, median, migrate, p99, run_bench, skipped
from listing import _opened, _place_of, _word_of_one

from app.jobs import Jobs
from app.search.language import parse
from db.ids import make_id
from db.jobs import insert_jobs
from db.search.index import insert_words, read_words
from db.search.pages import JobFilter, Place
from db.session import Database
from db.states import JobState
from db.tables import Job

ROW = 10
PAGE = 50
TOGETHER = 64
TURNS = 60


def measure(quick: bool) -> list[Figure]:
    count = 50_000 if quick else 1_000_000
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
        url = f"sqlite+aiosqlite:///{folder}/finding.db"
        asyncio.run(migrate(url))
        figures += asyncio.run(_measure("SQLite", url, folder, count))
    try:
        with durable_postgres() as postgres, tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
            figures += asyncio.run(_measure("PostgreSQL", postgres.make("finding"), folder, count))
    except Skipped as exc:
        figures.append(skipped(ROW, "finding, PostgreSQL", str(exc)))
    return figures


async def _measure(engine: str, url: str, folder: str, count: int) -> list[Figure]:
    began = time.perf_counter()
    ids = await fill(url, count)
    took_s = time.perf_counter() - began
    figures: list[Figure] = []
    async with _opened(url, folder) as (jobs, database):
        far = await _place_of(database, ids[count // 10])
        for name, wanted in _questions(count, far, await _word_of_one(database, count // 20)).items():
            figures.append(await _ask(f"{name}, {engine}", jobs, wanted))
            # At once: an hour's work is not to be lost with whatever ends the run.
            print(" ".join(cells(figures[-1])), file=sys.stderr, flush=True)
        figures.append(await _store(engine, database))
    figures[0] = Figure(**{**_fields(figures[0]), "note": f"filled in {took_s:.0f} s"})
    return figures


def _fields(figure: Figure) -> dict[str, object]:
    return {name: getattr(figure, name) for name in Figure.__dataclass_fields__}


def _questions(count: int, far: Place, rare: str) -> dict[str, JobFilter]:
    now = datetime.now(UTC)
    middle = now - count / 2 * APART
    searches = {
        "a frequent word": "rain", "a rare word": rare, "a word of none": "zebra",
        "three frequent words": "rain tin piano", "either of two words": "rain OR tin",
        "words side by side": '"rain tin"', "a word without another": "rain -tin",
        "a word and a rare state": "rain state:queued", "a word long ago": f"rain until:{middle.isoformat()}",
        "the beginning of a word": "riv*", "without a word": "-rain", "a tag that none has": "tag.album:blue",
        "a rare and a frequent word": f"rain {rare}",
    }  # fmt: skip
    found = {
        "list": JobFilter(tenant="default"),
        "list by state": JobFilter(tenant="default", state=JobState.FAILED),
        "list by kind and state": JobFilter(tenant="default", kind="speech", state=JobState.QUEUED),
        "list of a window": JobFilter(tenant="default", since=middle - timedelta(hours=2), until=middle),
        "list, far down": JobFilter(tenant="default", before=far),
        "list by state, far down": JobFilter(tenant="default", state=JobState.FAILED, before=far),
    }
    for name, text in searches.items():
        found[name] = JobFilter(tenant="default", asked=parse(text, now=now))
    for name in ("a frequent word", "three frequent words", "either of two words"):
        asked = parse(searches[name], now=now)
        found[f"{name}, far down"] = JobFilter(tenant="default", asked=asked, before=far)
    return found


async def _ask(name: str, jobs: Jobs, wanted: JobFilter) -> Figure:
    views, more = await jobs.list_jobs(wanted, limit=PAGE)
    times: list[float] = []
    until = time.perf_counter() + 3.0
    while len(times) < 10 or (len(times) < 100 and time.perf_counter() < until):
        began = time.perf_counter()
        await jobs.list_jobs(wanted, limit=PAGE)
        times.append(1000 * (time.perf_counter() - began))
    middle = median(times)
    note = f"{len(views)} jobs" + (", and more" if more else "")
    return Figure(ROW, f"{name}, p99", p99(times), "ms", "median", middle, p99(times) / middle, note=note)


async def _store(engine: str, database: Database) -> Figure:
    """Seconds of a transaction of new jobs with their words, beside one without."""
    took: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * TURNS):
        with_words = turn % 2 == 0
        batch = [_job(turn * TOGETHER + number) for number in range(TOGETHER)]
        began = time.perf_counter()
        if with_words:
            read_words(batch)
        async with database.transaction() as tx:
            await insert_jobs(tx, batch)
            if with_words:
                await insert_words(tx, batch)
        took[with_words].append(1000 * (time.perf_counter() - began))
    ours, theirs = median(took[True]), median(took[False])
    return Figure(ROW, f"{TOGETHER} jobs stored with their words, {engine}", ours, "ms", "without", theirs,
                  ours / theirs, is_low_good=True)  # fmt: skip


def _job(number: int) -> Job:
    now = datetime.now(UTC)
    prompt = f"heavy rain on a tin roof at night with a distant train {number}"
    return Job(
        id=make_id("job"), kind="sound_effect", state="queued", input={"prompt": prompt, "duration_s": 5.0},
        caller_metadata={}, provider="auto", turn_at=now, created_at=now, deadline_at=now, run_after=now,
        seq=1,
    )  # fmt: skip


if __name__ == "__main__":
    run_bench(__doc__, measure)
