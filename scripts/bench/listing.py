"""Lists, searches and next pages at 1,000,000 jobs beside 10,000, on SQLite and PostgreSQL.

What `GET /v1/jobs` asks of the database, for every combination of the filters that it takes: state (common,
rare), kind, since and until (recent, long ago, a window), a search (a frequent word, two of them, one or
another, one without another, a word of one old job, of none).
The first page, and the next one far down. Filling is not measured. The two sizes take turns. Of each family
the table has the median of all ratios, the worst ratio among the questions with as many jobs in the answer
at both sizes, and the slowest question at the larger one.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fill import APART, fill
from ground import Figure, Skipped, durable_postgres, median, migrate, run_bench, skipped

from app.jobs import Jobs
from app.search.language import parse
from app.settings import load_settings
from app.wiring import open_runtime
from db.jobs import count_crowds, find_job
from db.search.pages import JobFilter, Place, list_jobs
from db.session import Database
from db.states import JobState

PAGE = 50
SMALL = "at 1/100 of the size"
Question = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Took:
    """What one question took at both sizes, and whether the answers had as many jobs."""

    few_ms: float
    many_ms: float
    are_alike: bool

    @property
    def ratio(self) -> float:
        return self.many_ms / self.few_ms


def measure(quick: bool) -> list[Figure]:
    few, many = (2_000, 100_000) if quick else (10_000, 1_000_000)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
        urls = [f"sqlite+aiosqlite:///{folder}/{count}.db" for count in (few, many)]
        for url in urls:
            asyncio.run(migrate(url))
        figures += asyncio.run(_compare("SQLite", folder, urls, (few, many)))
    try:
        with durable_postgres() as postgres, tempfile.TemporaryDirectory(prefix="reprise-bench-") as folder:
            urls = [postgres.make(f"bench_{count}") for count in (few, many)]
            figures += asyncio.run(_compare("PostgreSQL", folder, urls, (few, many)))
    except Skipped as exc:
        figures.append(skipped(10, "lists, PostgreSQL", str(exc)))
    return figures


def _filters(count: int, deep: Place | None, old_word: str) -> Iterator[tuple[str, JobFilter]]:
    """Every combination, named; `deep` is the place to go on from."""
    now = datetime.now(UTC)
    middle = now - count / 2 * APART
    times = {
        "": (None, None),
        "since": (now - 1000 * APART, None),
        "until": (None, middle),
        "window": (middle - 200 * APART, middle),
    }
    states = {"": None, "common state": JobState.SUCCEEDED, "rare state": JobState.QUEUED,
              "some state": JobState.FAILED}  # fmt: skip
    texts = {
        "": None, "common word": "rain", "two common words": "rain tin",
        "either of two words": "rain OR tin", "a word without another": "rain -tin",
        "one job's word": old_word, "no job's word": "zebra",
    }  # fmt: skip
    for state, kind, span, text in itertools.product(states, ("", "kind"), times, texts):
        name = ", ".join(filter(None, (state, kind, span, text, "next page" if deep else "")))
        since, until = times[span]
        yield name or "all", JobFilter(
            tenant="default", state=states[state], kind="speech" if kind else None, since=since, until=until,
            asked=parse(texts[text], now=now) if texts[text] else None, before=deep,
        )  # fmt: skip


async def _compare(engine: str, folder: str, urls: list[str], counts: tuple[int, int]) -> list[Figure]:
    asked: list[dict[str, Question]] = []
    async with _opened(urls[0], folder) as few, _opened(urls[1], folder) as many:
        for url, count, (jobs, database) in zip(urls, counts, (few, many), strict=True):
            ids = await fill(url, count)
            # A tenth of the way up from the oldest; a number that only one old prompt ends with.
            questions: dict[str, Question] = {}
            far = await _place_of(database, ids[count // 10])
            old_word = await _word_of_one(database, count // 20)
            for deep in (None, far):
                for name, wanted in _filters(count, deep, old_word):
                    questions[name] = _page(jobs, wanted)
            questions["count of live jobs"] = _reading(database, count_crowds)
            asked.append(questions)
        took = {name: await _take_turns(asked[0][name], asked[1][name]) for name in asked[0]}
    return _families(engine, took)


async def _place_of(database: Database, job_id: str) -> Place:
    async with database.reading() as tx:
        job = await find_job(tx, job_id)
    assert job is not None
    return Place(job.created_at, job.id)


async def _word_of_one(database: Database, number: int) -> str:
    """A number that only one prompt ends with, of a job that the tenant has."""
    async with database.reading() as tx:
        while True:
            wanted = JobFilter(tenant="default", asked=parse(str(number), now=datetime.now(UTC)))
            jobs, _ = await list_jobs(tx, wanted, limit=1)
            if jobs:
                return str(number)
            number += 1


def _opened(url: str, folder: str) -> _Opened:
    return _Opened(url, folder)


class _Opened:
    """The reading side of a service on this database."""

    def __init__(self, url: str, folder: str) -> None:
        settings = load_settings(
            _env_file=None, database_url=url, storage_url=f"file://{folder}/assets", var_dir=Path(folder),
            cog_urls="http://127.0.0.1:9",
        )  # fmt: skip
        self._runtime = open_runtime(settings)

    async def __aenter__(self) -> tuple[Jobs, Database]:
        runtime = await self._runtime.__aenter__()
        return runtime.jobs, runtime.line.database

    async def __aexit__(self, *failure: object) -> None:
        await self._runtime.__aexit__(*failure)  # type: ignore[arg-type]


def _page(jobs: Jobs, wanted: JobFilter) -> Question:
    return lambda: jobs.list_jobs(wanted, limit=PAGE)


def _reading(database: Database, count: Callable[..., Awaitable[object]]) -> Question:
    async def ask() -> object:
        async with database.reading() as tx:
            return await count(tx)

    return ask


async def _take_turns(few: Question, many: Question) -> Took:
    """Medians of up to 15 turns, or of those that fit into half a second."""
    times: tuple[list[float], list[float]] = ([], [])
    sizes = [_size(await ask()) for ask in (few, many)]
    until = time.perf_counter() + 0.5
    while len(times[0]) < 3 or (len(times[0]) < 15 and time.perf_counter() < until):
        for ask, kept in zip((few, many), times, strict=True):
            began = time.perf_counter()
            await ask()
            kept.append(1000 * (time.perf_counter() - began))
    return Took(median(times[0]), median(times[1]), sizes[0] == sizes[1])


def _size(answer: object) -> int:
    """How many jobs a page has; a count has none."""
    return len(answer[0]) if isinstance(answer, tuple) else 0


def _families(engine: str, took: dict[str, Took]) -> list[Figure]:
    families: dict[str, list[str]] = {}
    for name in took:
        family = "count" if name.startswith("count") else "search" if "word" in name else "list"
        family += ", next page" if name.endswith("next page") else ""
        families.setdefault(family, []).append(name)
    figures = []
    for family, names in families.items():
        alike = [name for name in names if took[name].are_alike]
        worst = max(alike, key=lambda name: took[name].ratio)
        slowest = max(names, key=lambda name: took[name].many_ms)
        bounds = (None, None) if family == "count" else (2.0, 1.2)
        few_ms, many_ms = (
            median([getattr(took[name], at) for name in names]) for at in ("few_ms", "many_ms")
        )
        figures += [
            Figure(10, f"{family}, {engine}, median of {len(names)}", many_ms, "ms", SMALL, few_ms,
                   median([took[name].ratio for name in names]), *bounds, is_low_good=True,
                   note=f"worst {took[worst].ratio:.2f}: {worst}"),
            Figure(10, f"{family}, {engine}, slowest", took[slowest].many_ms, "ms", SMALL,
                   took[slowest].few_ms, note=slowest),
        ]  # fmt: skip
    return figures


if __name__ == "__main__":
    run_bench(__doc__, measure)
