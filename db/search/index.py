"""Writing the words of jobs: with the job, later for jobs that came without them, and away with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ARRAY, JSON, String, bindparam, delete, select, text, update
from sqlmodel import col

from db.search.words import said_in
from db.session import Transaction
from db.tables import Job, JobWord, UtcDateTime

_WORDS = JobWord.__table__  # type: ignore[attr-defined]
_JOBS = Job.__table__  # type: ignore[attr-defined]


def read_words(jobs: Sequence[Job]) -> None:
    """Note on new jobs what they say, before they are stored."""
    for job in jobs:
        job.said = said_in(job.input)


async def insert_words(tx: Transaction, jobs: Sequence[Job]) -> None:
    """Store the words of new jobs."""
    await _insert(tx, [{name: getattr(job, name) for name in _NAMED} for job in jobs])


async def write_missing_words(tx: Transaction, *, limit: int) -> int:
    """Read jobs for their words that were stored without: by an older release, or before there were words.

    How many. Two processes that do it at once do not hold each other up, and write nothing twice.
    """
    statement = (
        select(_JOBS.c.id, _JOBS.c.tenant, _JOBS.c.created_at, _JOBS.c.input)
        .where(_JOBS.c.said.is_(None))
        .order_by(_JOBS.c.id.desc())
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = [dict(row) for row in (await tx.execute(statement)).mappings()]
    if not found:
        return 0
    for row in found:
        row["said"] = said_in(row["input"])
    noted = update(_JOBS).where(_JOBS.c.id == bindparam("job_id")).values(said=bindparam("words"))
    await tx.execute(noted, [{"job_id": row["id"], "words": row["said"]} for row in found])
    await _insert(tx, found)
    return len(found)


async def delete_words(tx: Transaction, job_ids: Sequence[str]) -> None:
    """Take the words of these jobs out of the index, while their rows still tell which they are."""
    statement = select(_JOBS.c.id, _JOBS.c.tenant, _JOBS.c.created_at, _JOBS.c.said).where(
        _JOBS.c.id.in_(job_ids)
    )
    rows = [each for row in (await tx.execute(statement)).mappings() for each in _rows(dict(row))]
    if not rows:
        return
    gone = delete(_WORDS).where(
        _WORDS.c.tenant == bindparam("tenant"),
        _WORDS.c.word == bindparam("word"),
        _WORDS.c.created_at == bindparam("created_at"),
        _WORDS.c.job_id == bindparam("job_id"),
    )
    await tx.execute(gone, rows)


async def forget_said(tx: Transaction, job_id: str) -> None:
    """A job says nothing any more: its words go, and it is not read for them again."""
    await delete_words(tx, [job_id])
    await tx.execute(update(Job).where(col(Job.id) == job_id).values(said=""))


async def _insert(tx: Transaction, jobs: Sequence[dict[str, Any]]) -> None:
    """One statement a job where the database can take a list apart: that is half the time of one a word."""
    statement = _TAKEN_APART.get(tx.dialect)
    if statement is None:
        rows = [row for job in jobs for row in _rows(job)]
        statement = _WORDS.insert()
    else:
        rows = [
            {
                "tenant": job["tenant"],
                "words": sorted(set(job["said"].split())),
                "created_at": job["created_at"],
                "job_id": job["id"],
            }
            for job in jobs
            if job["said"]
        ]
    if rows:
        await tx.execute(statement, rows)


_INTO = "INSERT INTO job_words (tenant, word, created_at, job_id) SELECT "
_TAKEN_APART: dict[str, Any] = {
    "sqlite": text(_INTO + ":tenant, value, :created_at, :job_id FROM json_each(:words)").bindparams(
        bindparam("words", type_=JSON), bindparam("created_at", type_=UtcDateTime)
    ),
    "postgresql": text(_INTO + ":tenant, word, :created_at, :job_id FROM unnest(:words) AS word").bindparams(
        bindparam("tenant", type_=String),
        bindparam("words", type_=ARRAY(String)),
        bindparam("created_at", type_=UtcDateTime),
        bindparam("job_id", type_=String),
    ),
}
_NAMED = ("id", "tenant", "created_at", "said")


def _rows(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for word in dict.fromkeys((job["said"] or "").split()):
        yield {
            "tenant": job["tenant"],
            "word": word,
            "created_at": job["created_at"],
            "job_id": job["id"],
        }
