"""`--query` of `reprise jobs cancel` and `retry`: how many, then an act, followed to its end."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from app.cli.tools import show
from app.cli.tools.calls import CommandError, Exit, Json, call, run
from app.cli.tools.connection import Origin, read_settings, service_client
from app.settings import Settings

LOOK_EVERY_S = 0.5
_ENDED = frozenset({"done", "aborted"})


def act_on_many(action: str, query: str | None, *, named: bool, dry_run: bool, as_json: bool) -> None:
    """Ask for the act and follow it; with `dry_run` say what it would be. Exits with 1 if jobs failed."""
    if query is None or named:
        raise CommandError("give either a job's id or --query", Exit.USAGE)
    told = run(_act(read_settings(), {"action": action, "q": query, "dry_run": dry_run}, quiet=as_json))
    if as_json:
        show.print_json(told)
    elif dry_run:
        _print_preview(action, told)
    else:
        _print_end(told)
    if told.get("failed"):
        raise SystemExit(Exit.FAILED)


async def _act(settings: Settings, body: Json, *, quiet: bool) -> Json:
    async with service_client(settings, stations=not body["dry_run"]) as client:
        told = await call(client, "POST", "/v1/jobs/bulk", json=body)
        if body["dry_run"] or client.origin is Origin.IN_PROCESS:
            return told
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=show.err(), transient=True, disable=quiet) as progress:
            bar = progress.add_task(str(body["action"]), total=told["total"])
            while told["state"] not in _ENDED:
                await asyncio.sleep(LOOK_EVERY_S)
                told = await call(client, "GET", f"/v1/jobs/bulk/{told['id']}")
                progress.update(bar, completed=told["changed"] + told["skipped"] + told["failed"])
        return told


def _print_preview(action: str, told: dict[str, Any]) -> None:
    beyond = "" if told["is_whole"] else ", and more beyond the limit of one act"
    show.print_line(f"{action} would come to {told['total']} jobs{beyond}")
    for job in told["examples"]:
        show.print_line(f"{job['id']} {job['kind']} {job['state']}")


def _print_end(told: dict[str, Any]) -> None:
    show.print_line(
        f"{told['id']} {told['state']}: {told['changed']} changed, {told['skipped']} skipped, "
        f"{told['failed']} failed of {told['total']}"
    )
    for each in told["troubles"]:
        show.print_line(f"{each['job_id']} {each['outcome']}: {each['detail'] or ''}")
