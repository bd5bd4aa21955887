"""`reprise links`: the secret under which links to assets are signed.

Goes to the database itself, whether a service runs or not; a running one follows within half a minute.
"""

from __future__ import annotations

from typing import Annotated

import typer

from app.access.links import LOOK_EVERY_S, rotate_links
from app.cli.tools import show
from app.cli.tools.calls import run
from app.cli.tools.connection import read_settings
from app.settings import Settings
from app.wiring.openers import check_schema, open_database

links = typer.Typer(help="The secret under which links to assets are signed.", no_args_is_help=True)


@links.callback()
def _begin() -> None:
    """The secret under which links to assets are signed."""


@links.command()
def rotate(
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Refuse every link that was handed out until now.")
    ] = False,
) -> None:
    """Sign with a new secret. Links under the one until now stay good until the next rotation."""
    run(_rotate(read_settings(), at_once=at_once))
    ended = "All links from before are refused." if at_once else "Links under the secret until now stay good."
    show.print_line(f"{ended} Running services follow within {LOOK_EVERY_S:.0f} s.")


async def _rotate(settings: Settings, *, at_once: bool) -> None:
    database = open_database(settings)
    try:
        await check_schema(database)
        await rotate_links(database, at_once=at_once)
    finally:
        await database.aclose()
