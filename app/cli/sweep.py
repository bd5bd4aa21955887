"""`reprise sweep`: look for objects in the store that nothing points at, and delete them.

Goes to the database and the store itself, whether a service runs or not: a sweep may run beside any number
of others and beside every station.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.tools import show
from app.cli.tools.calls import CommandError, run
from app.cli.tools.connection import read_settings
from app.housekeeping import MOST_NAMED, Housekeeper, Swept
from app.settings import Settings
from app.wiring.openers import check_schema, open_database, open_storage


def sweep(
    dry_run: Annotated[bool, typer.Option(help="Delete nothing; say what would be.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Delete objects past ORPHAN_AGE_S that no row points at, and finish deletions that were cut off."""
    swept = run(_sweep(read_settings(), dry_run=dry_run))
    if as_json:
        orphans = [{**asdict(each), "changed_at": each.changed_at.isoformat()} for each in swept.orphans]
        show.print_json({**asdict(swept), "orphans": orphans})
    else:
        _show(swept)
    if swept.refused:
        raise CommandError(f"nothing was deleted: {swept.refused}")


def _show(swept: Swept) -> None:
    if swept.orphans:
        table = show.table("object", "size", "last written", right=("size",), flexible=("object",))
        for each in swept.orphans:
            table.add_row(
                show.cut(each.key), show.size(each.size_bytes), f"{each.changed_at:%Y-%m-%d %H:%M:%S}"
            )
        show.out().print(table)
    if swept.count > MOST_NAMED:
        show.print_line(f"… and {swept.count - MOST_NAMED} more.")
    done = "would be deleted" if swept.dry_run or swept.refused else "deleted"
    show.print_line(
        f"{swept.count} of {swept.seen} objects ({show.size(swept.size_bytes)}) and {swept.aside} unfinished "
        f"files {done}; {swept.strange} with names that are not ours were left alone."
    )


async def _sweep(settings: Settings, *, dry_run: bool) -> Swept:
    storage, database = open_storage(settings), open_database(settings)
    try:
        await check_schema(database)
        housekeeper = Housekeeper(settings=settings, database=database, storage=storage)
        return await housekeeper.sweep(dry_run=dry_run)
    finally:
        await database.aclose()
