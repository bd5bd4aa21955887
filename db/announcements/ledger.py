"""Verbs for whoever looks at announcements: lists, the tries at one, and asking for some to be sent again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, update
from sqlmodel import col

from db.session import Transaction
from db.states import AnnouncementState
from db.tables import Announcement, AnnouncementAttempt, Endpoint

_ANNOUNCEMENTS = Announcement.__table__  # type: ignore[attr-defined]
_WITHOUT_BODY = [column for column in _ANNOUNCEMENTS.columns if column.name != "payload"]


@dataclass(frozen=True, slots=True)
class AnnouncementFilter:
    """Which of a tenant's announcements: every field narrows it; `before_id` is the cursor, newest first."""

    tenant: str
    job_id: str | None = None
    states: tuple[AnnouncementState, ...] = ()
    endpoint_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before_id: str | None = None


async def list_announcements(
    tx: Transaction, wanted: AnnouncementFilter, *, limit: int
) -> list[Announcement]:
    """Newest first, without bodies."""
    statement = select(*_WITHOUT_BODY).where(*_narrowed(wanted)).order_by(col(Announcement.id).desc())
    rows = (await tx.execute(statement.limit(limit))).mappings()
    return [Announcement(**row, payload="") for row in rows]


async def list_attempts_of(tx: Transaction, announcement_id: str) -> list[AnnouncementAttempt]:
    """The tries that are kept, the first one first."""
    statement = (
        select(AnnouncementAttempt.__table__)  # type: ignore[attr-defined]
        .where(col(AnnouncementAttempt.announcement_id) == announcement_id)
        .order_by(col(AnnouncementAttempt.number))
    )
    return [AnnouncementAttempt(**row) for row in (await tx.execute(statement)).mappings()]


async def count_announcements(tx: Transaction, wanted: AnnouncementFilter) -> int:
    statement = select(func.count()).select_from(_ANNOUNCEMENTS).where(*_narrowed(wanted))
    return int((await tx.execute(statement)).scalar_one())


async def count_of_disabled(tx: Transaction, wanted: AnnouncementFilter) -> int:
    """How many of these go to an endpoint that is disabled."""
    disabled = select(col(Endpoint.id)).where(
        col(Endpoint.tenant) == wanted.tenant, col(Endpoint.disabled_at).is_not(None)
    )
    statement = select(func.count()).select_from(_ANNOUNCEMENTS)
    statement = statement.where(*_narrowed(wanted), col(Announcement.endpoint_id).in_(disabled))
    return int((await tx.execute(statement)).scalar_one())


async def list_sendable(tx: Transaction, wanted: AnnouncementFilter, *, limit: int) -> Sequence[str]:
    """Ids of those that go to endpoints which are not disabled, newest first, locked."""
    disabled = select(col(Endpoint.id)).where(
        col(Endpoint.tenant) == wanted.tenant, col(Endpoint.disabled_at).is_not(None)
    )
    statement = (
        select(col(Announcement.id))
        .where(*_narrowed(wanted), col(Announcement.endpoint_id).not_in(disabled))
        .order_by(col(Announcement.id).desc())
        .limit(limit)
        .with_for_update()
    )
    return list((await tx.execute(statement)).scalars())


async def send_again(tx: Transaction, announcement_ids: Sequence[str], *, now: datetime) -> int:
    """Make these due now, at the beginning of their schedule. One that is on its way is left to be."""
    if not announcement_ids:
        return 0
    idle = col(Announcement.lease).is_(None) | (col(Announcement.lease_until) < now)
    again = update(Announcement).where(col(Announcement.id).in_(announcement_ids), idle)
    values = {
        "state": AnnouncementState.PENDING,
        "run_after": now,
        "tries": 0,
        "crashes": 0,
        "settled_at": None,
    }
    return (await tx.execute(again.values(values))).rowcount


def _narrowed(wanted: AnnouncementFilter) -> list[ColumnElement[bool]]:
    clauses: list[ColumnElement[bool]] = [col(Announcement.tenant) == wanted.tenant]
    if wanted.job_id:
        clauses.append(col(Announcement.job_id) == wanted.job_id)
    if wanted.states:
        clauses.append(col(Announcement.state).in_(wanted.states))
    if wanted.endpoint_id:
        clauses.append(col(Announcement.endpoint_id) == wanted.endpoint_id)
    if wanted.since:
        clauses.append(col(Announcement.created_at) >= wanted.since)
    if wanted.until:
        clauses.append(col(Announcement.created_at) < wanted.until)
    if wanted.before_id:
        clauses.append(col(Announcement.id) < wanted.before_id)
    return clauses
