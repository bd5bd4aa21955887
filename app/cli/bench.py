"""`reprise bench`: run the benches of the checkout that this is. They are developers' tools, not packaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli.tools.calls import CommandError, Exit

BENCHES = Path(__file__).resolve().parents[2] / "scripts" / "bench"


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Which; all of them by default.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Shorter trials: a look, not a measurement.")] = False,
    keep: Annotated[Path | None, typer.Option("--json", help="Keep the figures in this file.")] = None,
    page: Annotated[bool, typer.Option(help="Write docs/reference/performance.md.")] = False,
) -> None:
    """Measure this checkout on this machine, beside its anchors. Wants a quiet machine and two cores."""
    if not (BENCHES / "__main__.py").is_file():
        raise CommandError("the benches are not packaged: run this in a checkout of the project")
    argv = [sys.executable, str(BENCHES), *(names or ())]
    argv += ["--quick"] * quick + ["--page"] * page + (["--json", str(keep)] if keep else [])
    # In this process's group, so that Ctrl-C reaches the benches too.
    code = subprocess.run(argv, check=False).returncode
    if code:
        raise SystemExit(Exit.USAGE if code == Exit.USAGE else Exit.FAILED)
