"""`reprise recover`, and the replay of many: foreseen, begun, watched to the end.

`recover` opens a service where none runs, so that what it learns is carried out before the command ends. The
recovery itself is a row: a command that is ended leaves it to the service that runs, or to the next one.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from app.cli.jobs import KindOption, Since, Until, given, moment
from app.cli.request import AsJson
from app.cli.tools import show
from app.cli.tools.calls import ENDS, Json, call, follow, run
from app.cli.tools.connection import Origin, ServiceClient, ask, read_settings, service_client
from app.settings import Settings

MOVE_ON_S = 120.0
"""How long the command waits for what was found to be carried out."""
_PAGE = 1000
_LOOK_S = 1
_MOVES = ("finishes", "expired", "tries_again")
"""After these a job goes on to another station."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")]
MostItems = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")]


def recover(
    since: Since = None,
    until: Until = None,
    kind: KindOption = None,
    dry_run: DryRun = False,
    limit: MostItems = 1000,
    abort: Annotated[
        str | None, typer.Option(metavar="ID", help="End the recovery with this id early instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the providers about every live attempt of the last week, and carry out what they say."""
    if abort is not None:
        ended = run(ask(read_settings(), "POST", f"/v1/recoveries/{abort}/abort"))
        show.print_json(ended) if as_json else show.print_line(_summary(ended))
        return
    wanted = {
        "since": moment("--since", since), "until": moment("--until", until),
        "kind": kind, "dry_run": dry_run, "limit": limit,
    }  # fmt: skip
    run_many("/v1/recoveries", given(wanted), dry_run=dry_run, as_json=as_json)


def run_many(path: str, wanted: Json, *, dry_run: bool, as_json: bool) -> None:
    """Foresee a recovery, or begin one and wait for its end; print what became of its items."""
    report, late = run(_run_many(read_settings(), path, wanted, dry_run=dry_run))
    if as_json:
        show.print_json({**report, "not_moved_on": late})
        return
    table = show.table("job", "provider", "effect", "expires", "detail", flexible=("detail",))
    for found in report["found"]:
        table.add_row(
            found["job_id"] or "–", found["provider"], found["effect"] or "–",
            _countdown(found), show.cut(found["detail"]),
        )  # fmt: skip
    if report["found"]:
        show.out().print(table)
    show.print_line(_summary(report))
    for job_id in late:
        show.err().print(f"[yellow]{job_id} has not moved on within {MOVE_ON_S:g} s[/]")


async def _run_many(settings: Settings, path: str, wanted: Json, *, dry_run: bool) -> tuple[Json, list[str]]:
    """The report, and the jobs that should have moved on and have not."""
    async with service_client(settings, stations=not dry_run) as client:
        report = await call(client, "POST", path, json=wanted, timeout=None)
        if dry_run:
            return report, []
        try:
            report = await _watch(client, report)
        except asyncio.CancelledError:
            _say_how_to_abort(client, report["id"])
            raise
        report["found"] = await _items(client, report["id"])
        moving = {each["job_id"]: each["attempt_id"] for each in report["found"] if each["effect"] in _MOVES}
        moved = await asyncio.gather(*(_moved_on(client, *each) for each in moving.items()))
    return report, [job_id for job_id, has_moved in zip(moving, moved, strict=True) if not has_moved]


async def _watch(client: ServiceClient, report: Json) -> Json:
    """Follow it to its end, with a bar on a terminal."""
    with show.bar(report["task"], report["total"]) as note:
        while report["state"] == "running":
            note(report["done"])
            path = f"/v1/recoveries/{report['id']}"
            report = await call(client, "GET", path, params={"wait": _LOOK_S}, timeout=None)
    return report


async def _items(client: ServiceClient, recovery_id: str) -> list[Json]:
    found: list[Json] = []
    after: int | None = 0
    while after is not None:
        params = {"after": after, "limit": _PAGE}
        page = await call(client, "GET", f"/v1/recoveries/{recovery_id}/items", params=params)
        found += page["items"]
        after = page["next_after"]
    return found


def _say_how_to_abort(client: ServiceClient, recovery_id: str) -> None:
    goes_on = "waits for the next `reprise serve`" if client.origin is Origin.OURS else "goes on"
    sys.stderr.write(f"{recovery_id} {goes_on}; to end it: reprise recover --abort {recovery_id}\n")


def _countdown(found: Json) -> str:
    """How long the output is sure to be there, as far as is known."""
    moment = found["output_expires_at"]
    if moment is None:
        return "–"
    left_s = show.seconds_until(moment)
    return f"in {left_s / 60:.0f} min" if left_s > 0 else "may be gone"


def _summary(report: Json) -> str:
    counts = ", ".join(f"{count} {effect}" for effect, count in sorted(report["counts"].items()))
    what = "live attempts" if report["task"] == "recover" else "deliveries"
    parts = [f"{report['total']} {what}{': ' if counts else ''}{counts}."]
    if report["rerun_usd"]:
        parts.append(f"What has expired costs about ${report['rerun_usd']:.4g} to make anew.")
    if report["dry_run"]:
        parts.append("Nothing was changed: this was a dry run.")
    elif report["state"] == "aborted":
        parts.append(f"Aborted after {report['done']}.")
    return " ".join(parts)


async def _moved_on(client: ServiceClient, job_id: str, attempt_id: str) -> bool:
    """Wait until the job has ended, or has left this attempt for another."""
    job = await call(client, "GET", f"/v1/jobs/{job_id}")
    number = next((each["number"] for each in job["attempts"] if each["id"] == attempt_id), 0)
    current = 0

    def note(event: Json) -> None:
        nonlocal current
        current = event["data"].get("attempt", current)
        if current >= number and event["type"] in {"job.requeued", *ENDS}:
            raise _MovedOn

    try:
        async with asyncio.timeout(MOVE_ON_S):
            await follow(client, job_id, note)
    except _MovedOn:
        return True
    except TimeoutError:
        return False
    return True


class _MovedOn(Exception):
    """Ends the following of a job that need not be followed to its end."""
