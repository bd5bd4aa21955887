"""Writing the words of jobs: with the job, later for jobs that came without them, and away with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, select, update
from sqlmodel import col

from db.search.words import said_in
from db.session import Transaction
from db.tables import Job, JobWord

_WORDS = JobWord.__table__  # type: ignore[attr-defined]
_JOBS = Job.__table__  # type: ignore[attr-defined]


def read_words(jobs: Sequence[Job]) -> None:
    """Note on new jobs what they say, before they are stored."""
    for job in jobs:
        job.said = said_in(job.input)


async def insert_words(tx: Transaction, jobs: Sequence[Job]) -> None:
    """Store the words of new jobs in one statement, in the order of the index."""
    rows = [row for job in jobs for row in _rows(job.model_dump(include=_NAMED))]
    if rows:
        await tx.execute(_WORDS.insert(), sorted(rows, key=lambda row: (row["tenant"], row["word"])))


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
    rows = [each for row in found for each in _rows(row)]
    if rows:
        await tx.execute(_WORDS.insert(), rows)
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


_NAMED = {"id", "tenant", "created_at", "said"}


def _rows(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for word in dict.fromkeys((job["said"] or "").split()):
        yield {
            "tenant": job["tenant"],
            "word": word,
            "created_at": job["created_at"],
            "job_id": job["id"],
        }
