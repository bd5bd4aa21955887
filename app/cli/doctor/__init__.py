"""`reprise doctor`: look at everything the service stands on, and say what to do about it.

Promises: every check has a limit in time, runs beside the others and cannot stop them; the exit code is 1
when one fails. Leaves what is checked to `local` (this machine), `engines`
(what the embedded worker has), `running` (queues, clocks, the service that
runs), `outside` (addresses, providers), `sizes` (callbacks as large as
they come) and `sockets` (whether live clients get through).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict

from app.cli.doctor.engines import ENGINE_CHECKS
from app.cli.doctor.finding import Check, Finding, Level
from app.cli.doctor.local import LOCAL_CHECKS
from app.cli.doctor.outside import OUTSIDE_CHECKS
from app.cli.doctor.running import RUNNING_CHECKS
from app.cli.doctor.sizes import SIZE_CHECKS
from app.cli.doctor.sockets import SOCKET_CHECKS
from app.cli.request import AsJson
from app.cli.tools import show
from app.cli.tools.calls import Exit, run
from app.cli.tools.connection import read_settings
from app.errors import AppError
from app.settings import Settings

_MARKS = {Level.OK: "[green]✓ ok[/]", Level.WARN: "[yellow]! warn[/]", Level.FAIL: "[red]✗ fail[/]"}


def doctor(as_json: AsJson = False) -> None:
    """Check what the service stands on and how it goes: tools, database, disks, queues, clocks, providers."""
    findings = run(_examine(read_settings()))
    failed = any(finding.level is Level.FAIL for finding in findings)
    if as_json:
        show.print_json({"ok": not failed, "checks": [asdict(finding) for finding in findings]})
    else:
        _tell(findings)
    raise SystemExit(Exit.FAILED if failed else Exit.OK)


async def _examine(settings: Settings) -> list[Finding]:
    checks = (*LOCAL_CHECKS, *ENGINE_CHECKS, *RUNNING_CHECKS, *OUTSIDE_CHECKS, *SIZE_CHECKS, *SOCKET_CHECKS)
    groups = await asyncio.gather(*(_bounded(check, settings) for check in checks))
    return [finding for group in groups for finding in group]


async def _bounded(check: Check, settings: Settings) -> list[Finding]:
    began = time.monotonic()
    try:
        async with asyncio.timeout(check.limit_s):
            return await check.look(settings)
    except TimeoutError:
        if time.monotonic() - began >= check.limit_s:
            return [Finding.fail(check.name, f"no answer within {check.limit_s:g} s", check.hint)]
        return [Finding.fail(check.name, "it took too long", check.hint)]
    except AppError as exc:
        return [Finding.fail(check.name, exc.message, check.hint)]
    except Exception as exc:  # noqa: BLE001 - whatever is wrong with one check is a line of the report
        return [Finding.fail(check.name, f"{type(exc).__name__}: {exc}", check.hint)]


def _tell(findings: Sequence[Finding]) -> None:
    table = show.table("", "check", "what was found")
    table.columns[2].no_wrap = False
    for finding in findings:
        detail = show.plain(finding.detail)
        hint = f"\n[dim]→ {show.plain(finding.hint)}[/]" if finding.hint else ""
        table.add_row(_MARKS[finding.level], finding.name, detail + hint)
    show.out().print(table)
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    show.print_line(", ".join(f"{count} {level.value}" for level, count in counts.items() if count))
