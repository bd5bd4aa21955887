"""Pages of jobs, newest first, by anything that may be asked: each looks at a bounded number of rows.

A page walks one index backwards in time, from where the last one ended: the index of a word, or of the
tenant's jobs by state and kind. What that index does not answer is checked on the rows that it leads to, of
which there are at most `LOOKED_THROUGH` a page: a page may hold fewer jobs than asked for, even none, and
there is more all the same. Of several indexes that would do, the one is taken whose share of rows reaches
furthest back, so that rare words, states and kinds are found at once.

A place is the time and the id of a job that need not be there any more: pages neither skip nor double a job
that stays, whatever comes and goes meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, select, union
from sqlmodel import col

from db.search.clauses import clause
from db.search.terms import Both, Edge, Either, Field, Has, Made, Node, Said
from db.session import Transaction
from db.states import JobState
from db.tables import Job, JobWord

LOOKED_THROUGH = 10_000
"""Rows that one page looks at: tens of milliseconds (`docs/reference/performance.md`)."""
MERGED_SHARE = 5
MOST_SHARES = 10
"""So many pages' rows are looked through for the ids of a bulk act."""
MOST_SOURCES = 6
"""Indexes that are weighed for one page; each costs a walk over its share."""
_JOBS = Job.__table__  # type: ignore[attr-defined]
_WORDS = JobWord.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Place:
    """Between two jobs: right after the one that is named, on the way back in time."""

    at: datetime
    job_id: str

    def __str__(self) -> str:
        return f"{self.at.isoformat()} {self.job_id}"

    @classmethod
    def read(cls, text: str) -> Place:
        """Raises ValueError for what is no place."""
        at, _, job_id = text.partition(" ")
        if not job_id:
            raise ValueError("no place")
        return cls(datetime.fromisoformat(at), job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """What a list shows: every field narrows it."""

    tenant: str | None
    """Whose jobs; None for all, which no caller may see."""
    state: JobState | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    asked: Node | None = None
    parent_id: str | None = None
    """The children of this job. None leaves children out, unless they are named by their ids."""
    with_children: bool = False
    """All jobs, whether a caller asked for them or they do a part of another's work."""
    before: Place | None = None


async def list_jobs(tx: Transaction, wanted: JobFilter, *, limit: int) -> tuple[list[Job], Place | None]:
    """A page, and the place to go on from; None when there is no more."""
    wanted, rest = _parted(wanted)
    source, end = await _best_source(tx, wanted, rest)
    clauses = [*(clause(part) for part in rest), *_kin(wanted, rest)]
    statement = source.rows(wanted, end).where(*clauses).limit(limit + 1)
    jobs = [Job(**row) for row in (await tx.execute(statement)).mappings()]
    if len(jobs) > limit:
        last = jobs[limit - 1]
        return jobs[:limit], Place(last.created_at, last.id)
    return jobs, end


async def list_ids(tx: Transaction, wanted: JobFilter, *, most: int) -> tuple[list[str], bool]:
    """The ids of up to `most` of the jobs, newest first, and whether these are all there are.

    Looks through `MOST_SHARES` shares of rows and no further: what is older than those is not found.
    """
    found: list[str] = []
    for _ in range(MOST_SHARES):
        narrowed, rest = _parted(wanted)
        source, end = await _best_source(tx, narrowed, rest)
        clauses = [*(clause(part) for part in rest), *_kin(narrowed, rest)]
        statement = source.rows(narrowed, end).where(*clauses)
        ids = statement.with_only_columns(_JOBS.c.id).limit(most - len(found) + 1)
        found += (await tx.execute(ids)).scalars()
        if len(found) > most:
            return found[:most], False
        if end is None:
            return found, True
        wanted = replace(wanted, before=end)
    return found, False


def _kin(wanted: JobFilter, rest: Sequence[Node]) -> list[ColumnElement[bool]]:
    """Whose children are shown. A child says no words of its own, so no index of words leads to one."""
    if wanted.parent_id is not None:
        return [col(Job.parent_id) == wanted.parent_id]
    if wanted.with_children or any(_names(part) for part in rest):
        return []
    return [col(Job.parent_id).is_(None)]


def _names(node: Node) -> bool:
    """Whether it leads to jobs by their ids alone."""
    match node:
        case Has(Field.ID, _):
            return True
        case Either(parts):
            return all(_names(part) for part in parts)
        case _:
            return False


def _parted(wanted: JobFilter) -> tuple[JobFilter, list[Node]]:
    """What indexes answer taken out of what is asked, and the rest."""
    parts = list(wanted.asked.parts) if isinstance(wanted.asked, Both) else [wanted.asked]
    rest: list[Node] = []
    for part in parts:
        match part:
            case None:
                continue
            case Made(Edge.SINCE, at):
                wanted = replace(wanted, since=max(at, wanted.since or at))
            case Made(Edge.UNTIL, at):
                wanted = replace(wanted, until=min(at, wanted.until or at))
            case Has(Field.STATE, value) if wanted.state in (None, value):
                wanted = replace(wanted, state=JobState(value))
            case Has(Field.KIND, value) if wanted.kind in (None, value):
                wanted = replace(wanted, kind=value)
            case _:
                rest.append(part)
    return wanted, rest


@dataclass(frozen=True, slots=True)
class _Source:
    """An index that leads to all that is asked for: that of these words, or without them of the jobs."""

    words: tuple[str, ...] = ()

    @property
    def share(self) -> int:
        """Rows that a page looks at. Fewer where indexes are merged: those rows are gathered whole."""
        return LOOKED_THROUGH if len(self.words) < 2 else max(1, LOOKED_THROUGH // MERGED_SHARE)

    def places(self, wanted: JobFilter) -> Select[Any]:
        """The time and id of each row, newest first."""
        if len(self.words) > 1:
            # No arm leads further than a page looks, so neither need the whole.
            arms = [
                select(_Source((word,)).places(wanted).limit(self.share).subquery()) for word in self.words
            ]
            found = union(*arms).subquery()
            return _newest_first(select(found.c.created_at, found.c.id), found)
        if self.words:
            row = _WORDS
            narrowed = [
                row.c.tenant == wanted.tenant,
                row.c.word == self.words[0],
                *_span(row, row.c.job_id, wanted),
            ]
            statement = select(row.c.created_at, row.c.job_id.label("id")).where(*narrowed)
            return statement.order_by(row.c.created_at.desc(), row.c.job_id.desc())
        statement = select(_JOBS.c.created_at, _JOBS.c.id).where(*_plain(wanted))
        return _newest_first(statement, _JOBS)

    def rows(self, wanted: JobFilter, end: Place | None) -> Select[Any]:
        """The jobs themselves, newest first, to the end and no further."""
        if end is not None:
            wanted = replace(wanted, since=None)
        if not self.words:
            bounds = [*_plain(wanted), *_not_before(_JOBS, _JOBS.c.id, end)]
            return _newest_first(select(_JOBS).where(*bounds), _JOBS)
        if len(self.words) == 1:
            row, row_id = _WORDS, _WORDS.c.job_id
            bounds = [row.c.tenant == wanted.tenant, row.c.word == self.words[0], *_span(row, row_id, wanted)]
            bounds += _not_before(row, row_id, end)
        else:
            row = self.places(wanted).limit(self.share).subquery()
            row_id, bounds = row.c.id, _not_before(row, row.c.id, end)
        joined = select(_JOBS).join_from(row, _JOBS, _JOBS.c.id == row_id)
        if wanted.state:
            bounds.append(_JOBS.c.state == wanted.state)
        if wanted.kind:
            bounds.append(_JOBS.c.kind == wanted.kind)
        return joined.where(*bounds).order_by(row.c.created_at.desc(), row_id.desc())


async def _best_source(
    tx: Transaction, wanted: JobFilter, rest: Sequence[Node]
) -> tuple[_Source, Place | None]:
    """The index to walk, and where this page ends on it; None for the very end."""
    plain = _Source()
    if not rest:
        return plain, None
    if any(isinstance(part, Has) and part.field is Field.ID for part in rest):
        # One row by its key, whatever else is asked: no database walks an index for it.
        return plain, None
    best: tuple[_Source, Place] | None = None
    for source in _sources(wanted, rest):
        last = source.places(wanted).offset(source.share - 1).limit(1)
        found = (await tx.execute(last)).first()
        if found is None:
            return source, None
        end = Place(found.created_at, found.id)
        if best is None or (end.at, end.job_id) < (best[1].at, best[1].job_id):
            best = source, end
    assert best is not None  # noqa: S101 - there is always the plain one
    return best


def _sources(wanted: JobFilter, rest: Sequence[Node]) -> Iterator[_Source]:
    """Those that lead to every job asked for, the most telling first: long words are rare."""
    found: set[tuple[str, ...]] = set()
    for part in rest if wanted.tenant is not None else ():
        words = _any_of(part)
        if words:
            found.add(tuple(sorted(words)))
    ordered = sorted(found, key=lambda words: (len(words), -len(words[0]), words))
    yield from (_Source(words) for words in ordered[: MOST_SOURCES - 1])
    if not ordered or wanted.state or wanted.kind or wanted.since:
        yield _Source()


def _any_of(node: Node) -> set[str]:
    """Words of which every job that is asked for has at least one; none where that cannot be said."""
    match node:
        case Said(words, is_open):
            whole = words[:-1] if is_open else words
            return {max(whole, key=len)} if whole else set()
        case Either(parts):
            each = [_any_of(part) for part in parts]
            return set().union(*each) if all(each) else set()
        case Both(parts):
            sets = [found for part in parts if (found := _any_of(part))]
            return min(sets, key=len) if sets else set()
        case _:
            return set()


def _plain(wanted: JobFilter) -> list[ColumnElement[bool]]:
    """What the indexes of jobs answer."""
    clauses: list[ColumnElement[bool]] = []
    if wanted.tenant is not None:
        clauses.append(col(Job.tenant) == wanted.tenant)
    if wanted.state:
        clauses.append(col(Job.state) == wanted.state)
    if wanted.kind:
        clauses.append(col(Job.kind) == wanted.kind)
    return clauses + _span(_JOBS, _JOBS.c.id, wanted)


def _span(row: FromClause, row_id: ColumnElement[str], wanted: JobFilter) -> list[ColumnElement[bool]]:
    """The span of time, with one upper bound: given two, SQLite begins at the further one."""
    at, before, until = row.c.created_at, wanted.before, wanted.until
    clauses: list[ColumnElement[bool]] = []
    if wanted.since:
        clauses.append(at >= wanted.since)
    if before is not None and (until is None or before.at < until):
        clauses.append((at <= before.at) & ((at < before.at) | (row_id < before.job_id)))
    elif until is not None:
        clauses.append(at < until)
    return clauses


def _not_before(row: FromClause, row_id: ColumnElement[str], end: Place | None) -> list[ColumnElement[bool]]:
    if end is None:
        return []
    at = row.c.created_at
    return [(at >= end.at) & ((at > end.at) | (row_id >= end.job_id))]


def _newest_first(statement: Select[Any], row: FromClause) -> Select[Any]:
    return statement.order_by(row.c.created_at.desc(), row.c.id.desc())
