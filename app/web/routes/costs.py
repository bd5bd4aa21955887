"""`/v1/costs`: what was spent, in groups, over any time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.costs.books import check_group
from app.costs.prices import to_usd
from app.web.paging import Page
from app.web.parts import Moment, Part, Reader, Responses
from app.web.schemas import Problem
from db.costs import Sums

USUAL_SPAN = timedelta(days=30)
EARLIEST = datetime.min.replace(tzinfo=UTC)

router = APIRouter(prefix="/v1", tags=["costs"])
REFUSED: Responses = {
    400: {"model": Problem, "description": "The cursor was not made by this list"},
    422: {"model": Problem, "description": "A value is wrong; `field` names it"},
}


class SumsOut(BaseModel):
    """What a number of attempts come to."""

    usd: float = Field(description="What is known; see `unpriced`")
    attempts: int
    jobs: int = Field(description="That had such an attempt; one with attempts in two groups is in both")
    seconds: float = Field(description="Running time")
    characters: int = Field(description="Of texts that were asked for")
    output_seconds: float = Field(description="Of audio that was asked for")
    estimated: int = Field(description="Attempts whose cost is by our own clock, or assumed")
    unpriced: int = Field(description="Attempts that ran and have no price: not in `usd`")

    @classmethod
    def of(cls, sums: Sums) -> SumsOut:
        return cls(**_shown(sums))


class CostGroupOut(SumsOut):
    """The same, of one group."""

    key: str | None = Field(description="The group's name; null for what has none")


class CostReport(BaseModel):
    """A page of groups in the order of their names, and the total of all pages."""

    group_by: str
    since: Moment
    until: Moment
    items: list[CostGroupOut]
    total: SumsOut
    next_cursor: str | None


@router.get("/costs", responses=REFUSED)
async def report_costs(
    runtime: Part,
    caller: Reader,
    group_by: Annotated[
        str, Query(max_length=80, description="`provider`, `kind`, `model`, `day`, `job` or `metadata.NAME`")
    ] = "provider",
    since: Annotated[Moment | None, Query(description="From then on; 30 days before `until`")] = None,
    until: Annotated[Moment | None, Query(description="Before then; now")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=2000)] = None,
) -> CostReport:
    """What attempts cost that ended in this time, added up by group.

    Jobs that were deleted count by whole days; they have no `job` and no `metadata` any more, and are in the
    group without a name.
    """
    check_group(group_by)
    page = Page(limit, cursor, runtime.cursors, ("costs", caller.tenant, group_by, since, until))
    until = until or runtime.line.clock.now()
    since = since or max(until, EARLIEST + USUAL_SPAN) - USUAL_SPAN
    report = await runtime.books.report(
        group_by, tenant=caller.tenant, since=since, until=until, after=page.after, limit=page.limit
    )
    return CostReport(
        group_by=group_by,
        since=since,
        until=until,
        items=[CostGroupOut(key=key or None, **_shown(sums)) for key, sums in report.groups],
        total=SumsOut.of(report.total),
        next_cursor=page.cursor_after(report.after),
    )


def _shown(sums: Sums) -> dict[str, float | int]:
    return {
        "usd": to_usd(sums.cost_micros),
        "attempts": sums.attempts,
        "jobs": sums.jobs,
        "seconds": sums.run_ms / 1000,
        "characters": sums.characters,
        "output_seconds": sums.output_ms / 1000,
        "estimated": sums.estimated,
        "unpriced": sums.unpriced,
    }
