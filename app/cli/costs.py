"""`reprise costs`: what was spent, in groups. Needs no running service."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.jobs import Cursor, Since, Until, given, moment
from app.cli.request import AsJson
from app.cli.tools import show
from app.cli.tools.calls import Json, run
from app.cli.tools.connection import ask, read_settings


def costs(
    group_by: Annotated[
        str, typer.Option("--by", help="provider, kind, model, day, job or metadata.NAME.")
    ] = "provider",
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many groups.")] = 100,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """What attempts cost that ended in this time (30 days), in dollars, by group and in all."""
    wanted = {
        "group_by": group_by, "since": moment("--since", since), "until": moment("--until", until),
        "limit": limit, "cursor": cursor,
    }  # fmt: skip
    report = run(ask(read_settings(), "GET", "/v1/costs", params=given(wanted)))
    if as_json:
        show.print_json(report)
        return
    figures = ("usd", "attempts", "jobs", "seconds", "estimated", "unpriced")
    table = show.table(group_by, *figures, right=figures, flexible=(group_by,))
    for group in report["items"]:
        table.add_row(show.cut(group["key"] or "–"), *_cells(group))
    if report["items"]:
        table.add_section()
        table.add_row(show.cut("in all"), *_cells(report["total"]))
    show.print_page(table, report, "Nothing was spent in this time.")


def _cells(sums: Json) -> list[str]:
    return [
        f"{sums['usd']:.6f}", str(sums["attempts"]), str(sums["jobs"]), f"{sums['seconds']:.1f}",
        str(sums["estimated"]), str(sums["unpriced"]),
    ]  # fmt: skip
