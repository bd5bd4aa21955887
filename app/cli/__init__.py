"""The command line: `reprise …`, also `python -m app …`.

Every command is an edge: it parses, says one thing to the service over HTTP, and renders the answer. Exit
codes are the same for all: 0 ok, 1 failed, 2 usage, 3 not found, 4 job failed, 5 timed out. Results go to
stdout, everything else to stderr; `--json` is for machines.

Read `connection` first (where the service is), then `calls` (what is said to it).
"""

from __future__ import annotations

from typing import Annotated

import typer

from app import __version__
from app.cli.access import audit, keys
from app.cli.announcements import announcements, endpoints, webhooks
from app.cli.bench import bench
from app.cli.costs import costs
from app.cli.demo import demo
from app.cli.doctor import doctor
from app.cli.jobs import jobs
from app.cli.ledger import deliveries
from app.cli.links import links
from app.cli.live import listen, tail, trigger
from app.cli.recoveries import recover
from app.cli.request import request
from app.cli.serving import gpu_worker, migrate, serve, worker
from app.cli.sweep import sweep
from app.cli.tools.calls import Exit, ending
from app.cli.voices import voices

EXIT_CODES = "Exit codes: 0 ok · 1 failed · 2 usage · 3 not found · 4 job failed · 5 timed out"

cli = typer.Typer(
    name="reprise",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
COMMANDS = (
    *(serve, worker, gpu_worker, request, recover, tail, listen, trigger),
    *(costs, audit, sweep, doctor, demo, migrate, bench),
)
for _command in COMMANDS:
    cli.command(epilog=EXIT_CODES)(_command)
cli.add_typer(jobs, name="jobs", epilog=EXIT_CODES)
cli.add_typer(deliveries, name="deliveries", epilog=EXIT_CODES)
cli.add_typer(voices, name="voices", epilog=EXIT_CODES)
cli.add_typer(keys, name="keys", epilog=EXIT_CODES)
cli.add_typer(announcements, name="announcements", epilog=EXIT_CODES)
cli.add_typer(endpoints, name="endpoints", epilog=EXIT_CODES)
cli.add_typer(webhooks, name="webhooks", epilog=EXIT_CODES)
cli.add_typer(links, name="links", epilog=EXIT_CODES)


def main() -> None:
    """The console script."""
    with ending("reprise"):
        cli(prog_name="reprise")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reprise {__version__}")
        raise typer.Exit(Exit.OK)


@cli.callback()
def _begin(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Reprise, an audio job service: ask for sound, get it once, lose nothing."""
